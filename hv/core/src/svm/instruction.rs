//! The lengths of intercepted instructions, for CPUs without nrip_save. Also decides what to do if the bytes in memory
//! are not the instruction that exited.

use crate::vmm::doubt::{Doubt, Site};

/// The longest instruction in bytes.
pub const MAX_LENGTH: u8 = 15;

/// The LOCK prefix.
const LOCK: u8 = 0xf0;

/// An intercepted instruction that Vidar emulates, so that the guest goes on after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instruction {
    /// CPUID.
    Cpuid,
    /// RDMSR.
    Rdmsr,
    /// WRMSR.
    Wrmsr,
    /// XSETBV.
    Xsetbv,
    /// INVD.
    Invd,
    /// VMMCALL, also as VMGEXIT: VMMCALL with a prefix, which is the same in a guest that is not encrypted.
    Vmmcall,
}

impl Instruction {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Cpuid, Self::Rdmsr, Self::Wrmsr, Self::Xsetbv, Self::Invd, Self::Vmmcall];

    /// Returns the bytes of the opcode, after the prefixes, with the first byte in bits 7:0. None of them is 0, so that
    /// 0 means that no byte is left.
    const fn opcode(self) -> u32 {
        match self {
            Self::Cpuid => 0xa2_0f,
            Self::Rdmsr => 0x32_0f,
            Self::Wrmsr => 0x30_0f,
            Self::Xsetbv => 0xd1_01_0f,
            Self::Invd => 0x08_0f,
            Self::Vmmcall => 0xd9_01_0f,
        }
    }

    /// Returns the length in bytes of the instruction without prefixes.
    pub const fn shortest(self) -> u8 {
        (u32::BITS - self.opcode().leading_zeros()).div_ceil(8) as u8
    }

    /// Returns the length of the instruction in bytes, including its prefixes, if `bytes` begin with it; otherwise
    /// `None`. AMD APM Vol. 3, 1.2 "Instruction Prefixes".
    pub fn length(self, bytes: impl IntoIterator<Item = u8>, long_mode_64: bool) -> Option<u8> {
        self.length_with(bytes, |byte| is_prefix(byte, long_mode_64))
    }

    /// Decides about an exit at `site`, where [`Instruction::length`] did not find the instruction. `bytes` have been
    /// read again since. After so many exits in a row that [`doubt`](crate::vmm::doubt) gives up, the instruction is
    /// assumed to have its shortest form.
    ///
    /// Each of these instructions raises #UD with a LOCK prefix. A CPU does not exit then, but QEMU does. AMD APM Vol.
    /// 3, 1.2.5 "Lock Prefix".
    #[cold]
    pub fn decide(
        self,
        doubt: &mut Doubt,
        site: Site,
        bytes: impl IntoIterator<Item = u8>,
        long_mode_64: bool,
    ) -> Verdict {
        let mut buffer = [0; MAX_LENGTH as usize];
        let mut count = 0;
        for (place, byte) in buffer.iter_mut().zip(bytes) {
            *place = byte;
            count += 1;
        }
        let bytes = buffer.into_iter().take(count);
        if let Some(length) = self.length(bytes.clone(), long_mode_64) {
            return Verdict::Length(length);
        }
        let with_lock = |byte| byte == LOCK || is_prefix(byte, long_mode_64);
        if self.length_with(bytes, with_lock).is_some() {
            return Verdict::Undefined;
        }
        if doubt.tries_again(site) { Verdict::Again } else { Verdict::Length(self.shortest()) }
    }

    #[inline(always)] // a part of each exit's time on a CPU without nrip_save
    fn length_with(self, bytes: impl IntoIterator<Item = u8>, is_prefix: impl Fn(u8) -> bool) -> Option<u8> {
        let mut left = self.opcode();
        let mut length = 0;
        for byte in bytes {
            length += 1;
            if length > MAX_LENGTH {
                return None;
            }
            if left as u8 == byte {
                left >>= 8;
                if left == 0 {
                    return Some(length);
                }
            } else if left != self.opcode() || !is_prefix(byte) {
                return None;
            }
        }
        None
    }
}

/// Returns true if `byte` is a prefix that is allowed before these instructions.
fn is_prefix(byte: u8, long_mode_64: bool) -> bool {
    match byte {
        // Operand size, address size, segment overrides, REPNE and REP.
        0x66 | 0x67 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0xf2 | 0xf3 => true,
        // REX. The CPU ignores it if another prefix follows it.
        0x40..=0x4f => long_mode_64,
        _ => false,
    }
}

/// What to do about an exit at an instruction that was not found in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The instruction has this length in bytes.
    Length(u8),
    /// The instruction has a LOCK prefix, so it raises #UD.
    Undefined,
    /// The CPU's cached translations are flushed, and the guest goes on at the same RIP.
    Again,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vidar_abi::ExitKind;

    use super::*;
    use crate::vmm::doubt::PATIENCE;

    const SITE: Site = Site { kind: ExitKind::Cpuid, rip: 0x1000, answered: 7 };

    #[test]
    fn the_length_includes_prefixes() {
        assert_eq!(Instruction::Cpuid.length([0x0f, 0xa2, 0x90], true), Some(2));
        assert_eq!(Instruction::Vmmcall.length([0xf3, 0x66, 0x48, 0x0f, 0x01, 0xd9], true), Some(6));
        assert_eq!(Instruction::Rdmsr.length([0x48, 0x0f, 0x32], false), None, "DEC EAX");
        assert_eq!(Instruction::Cpuid.length([0x0f, 0x32], true), None);
        assert_eq!(
            Instruction::Cpuid.length([0x0f, 0x66, 0xa2], true),
            None,
            "a prefix inside of the opcode"
        );
        assert_eq!(Instruction::Cpuid.length([0x2e, 0x0f], true), None);
        let mut long = [0x66; 16];
        (long[13], long[14]) = (0x0f, 0xa2);
        assert_eq!(Instruction::Cpuid.length(long, false), Some(15));
        (long[13], long[14], long[15]) = (0x66, 0x0f, 0xa2);
        assert_eq!(Instruction::Cpuid.length(long, false), None, "too long");
    }

    #[test]
    fn the_shortest_form_is_the_opcode() {
        assert_eq!(Instruction::ALL.map(Instruction::shortest), [2, 2, 2, 3, 2, 3]);
    }

    #[test]
    fn a_lock_prefix_is_undefined() {
        let decide = |bytes: &[u8]| {
            Instruction::Cpuid.decide(&mut Doubt::default(), SITE, bytes.iter().copied(), true)
        };
        assert_eq!(decide(&[0xf0, 0x0f, 0xa2]), Verdict::Undefined);
        assert_eq!(decide(&[0x66, 0xf0, 0x48, 0x0f, 0xa2]), Verdict::Undefined);
        assert_eq!(decide(&[0xf0, 0x0f, 0x32]), Verdict::Again, "LOCK before another instruction");
        assert_eq!(decide(&[0x2e, 0x0f, 0xa2]), Verdict::Length(3), "the instruction is in memory again");
    }

    #[test]
    fn an_instruction_that_is_never_found_is_retried_a_bounded_number_of_times() {
        for bytes in [&[][..], &[0x0f], &[0x90; 15]] {
            let mut doubt = Doubt::default();
            let mut decide = || Instruction::Cpuid.decide(&mut doubt, SITE, bytes.iter().copied(), true);
            for _ in 1..PATIENCE {
                assert_eq!(decide(), Verdict::Again);
            }
            assert_eq!(decide(), Verdict::Length(2));
            assert_eq!(decide(), Verdict::Again, "a new count");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_retried_for_ever(
            bytes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..18), PATIENCE as usize),
            instruction in prop::sample::select(&Instruction::ALL[..]),
            rip in any::<u64>(),
            answered in any::<u64>(),
            long in any::<bool>(),
        ) {
            let (mut doubt, site) = (Doubt::default(), Site { rip, answered, ..SITE });
            let mut verdicts = bytes.into_iter().map(|bytes| instruction.decide(&mut doubt, site, bytes, long));
            prop_assert!(verdicts.any(|verdict| verdict != Verdict::Again));
        }
    }
}
