//! Who may make the hypercalls that do more than count: code that could reset the machine without Vidar.
//!
//! A call that ends or changes something is taken from CPL 0, and from a program that may write the reset control
//! register of the chip set, at port CF9h. Linux gives a program that right by `ioperm` or `iopl`, and gives it to root
//! alone. So it is also the sign of a program that may know addresses of the kernel, which the log, the trace and the
//! guard's counts have.

use super::cpu_state::{CpuState, Segment, SegmentRegister};
use super::fetch::paging;
use crate::mem::walk::{Bytes, ReadGuest};

/// The I/O port of the reset control register.
pub const RESET_PORT: u16 = 0xcf9;

/// RFLAGS.VM: virtual-8086 mode.
const VIRTUAL_8086: u64 = 1 << 17;
/// The offset in a TSS of the field that holds the offset of the I/O permission bitmap.
const MAP_BASE: u32 = 102;
/// The types of a TSS with an I/O permission bitmap: available and busy. A 16-bit TSS has none.
const TYPES: [u32; 2] = [0x9, 0xb];

/// Returns true if the program that the CPU executes in the state `state`, at the privilege level `cpl`, may write to
/// port [`RESET_PORT`]. `read` returns the two bytes from a linear address on, or `None` if they cannot be read.
///
/// Intel SDM Vol. 1, 20.5 "Protected-Mode I/O": a program may if its CPL is at most IOPL, and otherwise if the bit of
/// the port is clear in the I/O permission bitmap of the TSS. In virtual-8086 mode the bitmap alone decides. The CPU
/// reads two bytes of the bitmap for every access, and refuses it if they are not both within the limit of the TSS.
pub fn may_reset(cpl: u8, state: &CpuState, read: impl Fn(u64) -> Option<u16>) -> bool {
    let level = state.rflags >> 12 & 3;
    if cpl == 0 || state.rflags & VIRTUAL_8086 == 0 && u64::from(cpl) <= level {
        return true;
    }
    let Segment { base, limit, rights, .. } = state[SegmentRegister::Tr];
    if !TYPES.contains(&(rights & 0x1f)) {
        return false;
    }
    let word = |offset: u32| if offset < limit { read(base.wrapping_add(offset.into())) } else { None };
    let bits = word(MAP_BASE).and_then(|map| word(u32::from(map) + u32::from(RESET_PORT / 8)));
    bits.is_some_and(|bits| bits >> (RESET_PORT % 8) & 1 == 0)
}

/// Returns what [`may_reset`] returns for a CPU whose guest memory is `memory`.
pub fn may_reset_with(cpl: u8, state: &CpuState, memory: &(impl ReadGuest + ?Sized)) -> bool {
    let (paging, cr3) = (paging(&state.controls), state.controls.cr3);
    may_reset(cpl, state, |linear| {
        let mut bytes = Bytes::new(paging, cr3, linear, u64::MAX, |address| memory.word(address));
        Some(u16::from_le_bytes([bytes.next()?, bytes.next()?]))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: u64 = 0xffff_fe00_0000_3000;
    /// The offset of the bitmap in the tests' TSS.
    const MAP: u16 = 104;
    /// The offset in the TSS of the byte with the port's bit.
    const BYTE: u32 = MAP as u32 + 0xcf9 / 8;

    /// A TSS with a bitmap that has a clear bit for `port` only.
    fn tss(port: u16) -> Vec<u8> {
        let mut tss = vec![0xff; usize::from(MAP) + 0x2001];
        tss[102..104].copy_from_slice(&MAP.to_le_bytes());
        tss[usize::from(MAP + port / 8)] &= !(1 << (port % 8));
        tss
    }

    fn state(limit: u32, rights: u32) -> CpuState {
        let mut state = CpuState { rflags: 2, ..CpuState::default() };
        state[SegmentRegister::Tr] = Segment { selector: 0x40, base: BASE, limit, rights };
        state
    }

    fn judge(cpl: u8, state: &CpuState, tss: &[u8]) -> bool {
        may_reset(cpl, state, |linear| {
            let at = usize::try_from(linear.checked_sub(BASE)?).ok()?;
            Some(u16::from_le_bytes(tss.get(at..at + 2)?.try_into().ok()?))
        })
    }

    #[test]
    fn the_kernel_may_and_a_program_without_the_port_may_not() {
        let (usual, closed) = (state(0x206f, 0x8b), tss(0x80));
        assert!(judge(0, &usual, &closed));
        assert!(!judge(3, &usual, &closed));
        assert!(!judge(1, &usual, &closed));
    }

    #[test]
    fn a_program_may_if_the_bit_of_the_port_is_clear() {
        let open = tss(RESET_PORT);
        for rights in [0x8b, 0x89] {
            assert!(judge(3, &state(0x206f, rights), &open));
        }
        for port in [0xcf8, 0xcfa, 0xcf1, 0xd01] {
            assert!(!judge(3, &state(0x206f, 0x8b), &tss(port)), "{port:#x}");
        }
    }

    #[test]
    fn a_program_may_if_its_level_is_at_most_iopl() {
        let closed = tss(0x80);
        for (cpl, iopl, may) in [(3, 3, true), (3, 2, false), (2, 2, true), (1, 3, true)] {
            let mut state = state(0x206f, 0x8b);
            state.rflags |= iopl << 12;
            assert_eq!(judge(cpl, &state, &closed), may, "{cpl} {iopl}");
        }
    }

    #[test]
    fn iopl_opens_no_port_in_virtual_8086_mode() {
        let mut state = state(0x206f, 0x8b);
        state.rflags |= 3 << 12 | VIRTUAL_8086;
        assert!(!judge(3, &state, &tss(0x80)));
        assert!(judge(3, &state, &tss(RESET_PORT)));
    }

    #[test]
    fn a_bitmap_must_lie_within_the_limit_with_the_byte_after_the_ports() {
        let open = tss(RESET_PORT);
        assert!(judge(3, &state(BYTE + 1, 0x8b), &open));
        assert!(!judge(3, &state(BYTE, 0x8b), &open));
        assert!(!judge(3, &state(103, 0x8b), &open), "no bitmap");
        assert!(!judge(3, &state(102, 0x8b), &open), "no field");
        assert!(!judge(3, &state(0, 0x8b), &open));
    }

    #[test]
    fn a_16_bit_tss_and_no_tss_have_no_bitmap() {
        for rights in [0x83, 0x81, 0x1_0000, 0x93] {
            assert!(!judge(3, &state(0x206f, rights), &tss(RESET_PORT)), "{rights:#x}");
        }
    }

    #[test]
    fn a_tss_that_cannot_be_read_opens_no_port() {
        assert!(!judge(3, &state(u32::MAX, 0x8b), &[]));
        assert!(!judge(3, &state(u32::MAX, 0x8b), &tss(RESET_PORT)[..BYTE as usize]));
    }

    proptest! {
        #[test]
        fn any_tss_is_judged(cpl in 0u8..4, limit in any::<u32>(), base in any::<u64>(), word in any::<u16>()) {
            let mut state = state(limit, 0x8b);
            state[SegmentRegister::Tr].base = base;
            may_reset(cpl, &state, |_| Some(word));
        }
    }
}
