//! Where a start-up IPI of the guest's leads: to Vidar, at every page that the guest may name in one.
//!
//! A CPU of AMD-V has no state of the guest in which it waits for a start-up IPI. An INIT that is not intercepted takes it
//! out of the guest, and it waits as after a real INIT, since it is one. The start-up IPI then has it execute the
//! machine's page, not the guest's. So the guest's RAM below 640 KiB lies elsewhere ([`Moved`](crate::mem::moved::Moved)), and each of its pages
//! begins with a stub that leads to Vidar's trampoline. No message between CPUs has to be looked at. The trampoline itself
//! is in one of these pages, so the guest loses none. It sends a CPU that is none of Vidar's back to waiting.
//!
//! Memory of UEFI's boot services is moved like other RAM, since a start-up IPI may name it as well. Linux keeps away from it
//! until the firmware has its virtual addresses, but where all memory below 1 MiB is of that kind its own trampoline gets into it
//! all the same (arch/x86/platform/efi/quirks.c, efi_free_boot_services()), and a kernel that it starts by kexec does not tell it from
//! other RAM. Some firmware goes on to use such memory, in its runtime services: these run in the guest, where the memory
//! holds what the firmware has left in it. SMM and devices find the machine's pages instead. They have no business there
//! any more, as SMM is given buffers in memory of runtime services alone; and but for the stub these pages still hold what
//! they did.

use core::ops::Range;

use crate::mem::addr::{Hpa, PAGE_SIZE};

/// The pages that a system may use for it, if they are RAM: all but the first, which has the BIOS's vectors and data. The
/// vectors A0H to BFH are reserved: Intel SDM Vol. 3A, 9.4.4 "MP Initialization Example".
pub const WINDOW: Range<Hpa> = Hpa(PAGE_SIZE)..Hpa(0xa_0000);

/// Frames that the guest's pages take elsewhere.
pub const FRAMES: usize = ((WINDOW.end.0 - WINDOW.start.0) / PAGE_SIZE) as usize;

/// The first Linux that uses memory below 1 MiB for nothing but to start CPUs from: commit f1d4d47c5851, "x86/setup: Always
/// reserve the first 1M of RAM". Older ones may have a device write there, which knows nothing of pages that are moved.
const FIRST_LINUX: (u32, u32) = (5, 13);

/// Returns true if a kernel of this release has no device write to memory below 1 MiB.
pub fn leaves_low_memory(release: Option<&str>) -> bool {
    let version = |text: &str| {
        let (major, rest) = text.split_once('.')?;
        let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    };
    release.and_then(version).is_some_and(|version| version >= FIRST_LINUX)
}

/// What a page begins with: code for real mode that leaves its own CS in BP, for the vector, and goes on at the trampoline.
pub const fn stub(trampoline: u8) -> [u8; 7] {
    // mov bp, cs; jmp far trampoline * 100H : 0
    [0x8c, 0xcd, 0xea, 0, 0, 0, trampoline]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_and_unknown_ones_keep_their_memory() {
        for release in
            ["5.13.0", "6.1.0-37-cloud-amd64 (debian-kernel@lists.debian.org) #1 SMP", "5.13-rc1", "10.0"]
        {
            assert!(leaves_low_memory(Some(release)), "{release}");
        }
        for release in ["5.12.19", "4.18.0-553.el8.x86_64", "5", "5.", "v6.1", "", "Vidar probe", "6.x"] {
            assert!(!leaves_low_memory(Some(release)), "{release}");
        }
        assert!(!leaves_low_memory(None));
    }

    /// The far jump's segment is that of the page which the vector names.
    #[test]
    fn the_stub_leads_to_the_trampoline() {
        let [mov, cs_to_bp, jump, offset @ .., _] = stub(0x9e);
        assert_eq!((mov, cs_to_bp, jump, &offset[..2]), (0x8c, 0o315, 0xea, &[0, 0][..]));
        assert_eq!(u32::from(u16::from_le_bytes([stub(0x9e)[5], stub(0x9e)[6]])) << 4, 0x9_e000);
    }

    #[test]
    fn a_page_for_each_vector_below_the_screen() {
        assert_eq!(FRAMES, 159);
    }
}
