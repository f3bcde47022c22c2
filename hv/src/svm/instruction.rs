//! Lengths of the intercepted instructions, for CPUs that do not save the address of the next one.

/// The most bytes that an instruction has.
pub const MAX_LENGTH: u8 = 15;

/// An instruction behind which the guest goes on after its exit.
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
    /// VMMCALL, or VMGEXIT, which is the same where no guest is encrypted.
    Vmmcall,
}

impl Instruction {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Cpuid, Self::Rdmsr, Self::Wrmsr, Self::Xsetbv, Self::Invd, Self::Vmmcall];

    /// Its bytes behind the prefixes, the first one lowest. None of them is 0, so nothing is left behind the last.
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

    /// Its length with all prefixes, where `bytes` begin at it; `None` where they are not it. AMD APM Vol. 3, 1.2
    /// "Instruction Prefixes".
    pub fn length(self, bytes: impl IntoIterator<Item = u8>, long_mode_64: bool) -> Option<u8> {
        let is_prefix = |byte: u8| match byte {
            // Operand and address size, segments, repetition. LOCK never gets here: the CPU refuses it.
            0x66 | 0x67 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0xf2 | 0xf3 => true,
            // REX; one that another prefix follows is ignored.
            0x40..=0x4f => long_mode_64,
            _ => false,
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_count() {
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
}
