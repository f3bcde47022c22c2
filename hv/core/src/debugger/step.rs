//! A step by RFLAGS.TF, on a CPU that has no other way. The guest must not see the flag: what the instruction has saved of
//! it is taken out again after the step.
//!
//! An exception or interrupt in between saves the flag on a stack and clears it. The step then ends when its handler has
//! returned and the instruction has been executed. If gdb stops the guest before that, the flag stays on the stack, and
//! the debug exception that follows from it is dropped.

/// RFLAGS.TF.
pub const TRAP: u64 = 1 << 8;

/// What an instruction does with RFLAGS besides executing with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flags {
    /// Nothing that has to be corrected.
    Kept,
    /// It pushes them: PUSHF.
    Pushed,
    /// It copies them to R11: SYSCALL.
    Copied,
    /// It loads them: POPF, IRET, SYSRET.
    Loaded,
}

/// Returns what the instruction that begins with `bytes` does with RFLAGS. `is_64_bit` is true in 64-bit mode.
pub fn flags(bytes: impl Iterator<Item = u8>, is_64_bit: bool) -> Flags {
    const PREFIXES: [u8; 11] = [0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65];
    let is_prefix = |byte: &u8| PREFIXES.contains(byte) || is_64_bit && byte & 0xf0 == 0x40;
    // No instruction has more than 15 bytes.
    let mut rest = bytes.take(15).skip_while(is_prefix);
    match rest.next() {
        Some(0x9c) => Flags::Pushed,
        Some(0x9d | 0xcf) => Flags::Loaded,
        Some(0x0f) => match rest.next() {
            Some(0x05) => Flags::Copied,
            Some(0x07) => Flags::Loaded,
            _ => Flags::Kept,
        },
        _ => Flags::Kept,
    }
}

/// A step that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// RIP of the instruction.
    pub start: u64,
    /// What is to be corrected if the step is by RFLAGS.TF, and `None` if it is not.
    pub by_flag: Option<ByFlag>,
}

impl Step {
    /// Returns true if a single-step exception in this step is gdb's alone: gdb has set RFLAGS.TF, and the guest has not.
    pub fn owns_trap(&self) -> bool {
        self.by_flag.is_some_and(|by_flag| !by_flag.own)
    }
}

/// A step by RFLAGS.TF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByFlag {
    /// What the instruction does with RFLAGS.
    pub flags: Flags,
    /// True if the guest has set RFLAGS.TF itself.
    pub own: bool,
}

impl ByFlag {
    /// Returns what RFLAGS.TF is to be after the step, where it is `now`.
    pub const fn trap_after(self, now: u64) -> u64 {
        match self.flags {
            Flags::Loaded => now & TRAP,
            _ if self.own => TRAP,
            _ => 0,
        }
    }

    /// Returns true if RFLAGS.TF is to be taken out of the word that the instruction has pushed.
    pub fn corrects_stack(self) -> bool {
        self.flags == Flags::Pushed && !self.own
    }

    /// Returns true if RFLAGS.TF is to be taken out of R11.
    pub fn corrects_r11(self) -> bool {
        self.flags == Flags::Copied && !self.own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_that_save_or_load_flags_are_known() {
        let of = |bytes: &[u8]| flags(bytes.iter().copied(), true);
        assert_eq!(of(&[0x9c]), Flags::Pushed);
        assert_eq!(of(&[0x66, 0x9c]), Flags::Pushed);
        assert_eq!(of(&[0x0f, 0x05]), Flags::Copied);
        for bytes in [&[0x9d][..], &[0x48, 0xcf], &[0x48, 0x0f, 0x07]] {
            assert_eq!(of(bytes), Flags::Loaded);
        }
        for bytes in [&[][..], &[0x90], &[0x0f, 0xa2], &[0xfa], &[0x0f]] {
            assert_eq!(of(bytes), Flags::Kept);
        }
        assert_eq!(flags([0x48, 0xcf].into_iter(), false), Flags::Kept, "DEC outside of 64-bit mode");
    }

    #[test]
    fn the_flag_is_the_guests_own_again_after_the_step() {
        let by = |flags, own| ByFlag { flags, own };
        assert_eq!(by(Flags::Kept, false).trap_after(TRAP), 0);
        assert_eq!(by(Flags::Kept, true).trap_after(TRAP), TRAP);
        assert_eq!(by(Flags::Loaded, false).trap_after(0), 0);
        assert_eq!(by(Flags::Loaded, false).trap_after(TRAP), TRAP, "the guest has loaded it");
        assert!(by(Flags::Pushed, false).corrects_stack() && !by(Flags::Pushed, true).corrects_stack());
        assert!(by(Flags::Copied, false).corrects_r11() && !by(Flags::Kept, false).corrects_r11());
    }
}
