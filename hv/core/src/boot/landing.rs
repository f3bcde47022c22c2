//! Landing: every start-up IPI that the guest sends leads a CPU to Vidar, whichever page it names.
//!
//! AMD-V has no guest state in which a CPU waits for a start-up IPI. An INIT that is not intercepted resets the CPU,
//! which then waits in hardware, outside of the guest. At the start-up IPI it executes the machine's page, not the
//! guest's. So the guest's RAM below 640 KiB lies elsewhere ([`MovedPages`](crate::mem::moved::MovedPages)), and each
//! page of the machine there begins with a stub that leads to Vidar's trampoline. Vidar need not look at any message
//! between CPUs. The trampoline itself is in one of these pages, so the guest loses none. The trampoline sends a CPU
//! that Vidar does not manage back to waiting.
//!
//! Memory of UEFI boot services is moved like other RAM, since a start-up IPI may name it as well. Linux avoids this
//! memory until it has called SetVirtualAddressMap(). But if all memory below 1 MiB is of this type, Linux puts its own
//! trampoline there all the same (arch/x86/platform/efi/quirks.c, efi_free_boot_services()), and a kernel that is
//! started by kexec does not distinguish it from other RAM.
//!
//! Some firmware still uses such memory in its runtime services. These run in the guest, where the memory holds what
//! the firmware has left in it. SMM and devices see the machine's pages instead, which hold the same but for the stub.
//! Neither has a reason to use these pages: the buffers that SMM is given are in runtime services memory.

use core::ops::Range;

use crate::mem::addr::{Hpa, PAGE_SIZE};

/// The pages that an operating system may name in a start-up IPI, if they are RAM: all below 640 KiB but the first,
/// which holds the BIOS's interrupt vectors and data. The vectors A0H to BFH are reserved: Intel SDM Vol. 3A, 9.4.4 "MP
/// Initialization Example".
pub const WINDOW: Range<Hpa> = Hpa(PAGE_SIZE)..Hpa(0xa_0000);

/// Number of frames that hold the guest's pages instead.
pub const FRAMES: usize = ((WINDOW.end.0 - WINDOW.start.0) / PAGE_SIZE) as usize;

/// The first Linux that uses memory below 1 MiB only to start CPUs: commit f1d4d47c5851, "x86/setup: Always reserve the
/// first 1M of RAM". With an older one a device may write there, and DMA does not follow moved pages.
const FIRST_LINUX: (u32, u32) = (5, 13);

/// Returns true if a kernel of this release lets no device write to memory below 1 MiB; false if the release is
/// unknown.
pub fn leaves_low_memory(release: Option<&str>) -> bool {
    let version = |text: &str| {
        let (major, rest) = number(text.as_bytes())?;
        let (minor, _) = number(rest.strip_prefix(b".")?)?;
        Some((major, minor))
    };
    release.and_then(version).is_some_and(|version| version >= FIRST_LINUX)
}

/// Returns the decimal number at the start of `text` and what follows it, or `None` if there is none of up to nine
/// digits.
fn number(text: &[u8]) -> Option<(u32, &[u8])> {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at_checked(length)?;
    let value = digits
        .iter()
        .fold(0, |value: u32, digit| value.wrapping_mul(10).wrapping_add(u32::from(digit - b'0')));
    matches!(length, 1..=9).then_some((value, rest))
}

/// Returns the code that each page begins with. In real mode it copies its CS, which holds the vector, to BP and jumps
/// to the trampoline, whose page has the number `trampoline`.
pub const fn stub(trampoline: u8) -> [u8; 7] {
    // mov bp, cs; jmp far trampoline * 100H : 0
    [0x8c, 0xcd, 0xea, 0, 0, 0, trampoline]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn landing_needs_linux_5_13() {
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

    /// The segment of the far jump is that of the page which the vector names.
    #[test]
    fn stub_jumps_to_the_trampoline() {
        let [mov, cs_to_bp, jump, offset @ .., _] = stub(0x9e);
        assert_eq!((mov, cs_to_bp, jump, &offset[..2]), (0x8c, 0o315, 0xea, &[0, 0][..]));
        assert_eq!(u32::from(u16::from_le_bytes([stub(0x9e)[5], stub(0x9e)[6]])) << 4, 0x9_e000);
    }

    #[test]
    fn there_is_a_page_for_each_vector_below_640_kib() {
        assert_eq!(FRAMES, 159);
    }
}
