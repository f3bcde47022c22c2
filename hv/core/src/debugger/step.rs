//! A step by RFLAGS.TF, on a CPU that has no other way. The guest must not see the flag: what the instruction has saved
//! of it is taken out again after the step.
//!
//! An exception or interrupt in between saves the flag on a stack and clears it. The step then ends when its handler
//! has returned and the instruction has been executed. If gdb stops the guest before that, the flag stays on the stack,
//! and the debug exception that follows from it is dropped.

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
    /// Returns true if a single-step exception in this step is gdb's alone: gdb has set RFLAGS.TF, and the guest has
    /// not.
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

/// What is to be done when a step by RFLAGS.TF ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct After {
    /// The value that RFLAGS.TF gets.
    pub trap: u64,
    /// True if RFLAGS.TF is on a stack of the guest's now, from where the guest loads it some time.
    pub owes: bool,
    /// True if RFLAGS.TF is to be taken out of the word that the instruction has pushed.
    pub corrects_stack: bool,
    /// True if RFLAGS.TF is to be taken out of R11.
    pub corrects_r11: bool,
}

impl ByFlag {
    /// Decides what is to be done when the step ends, where RFLAGS are `now`. `executed` is true if the instruction has
    /// been executed. If it has not, the CPU is still before it, or in the handler of an exception or interrupt that
    /// came first, with which the CPU has saved RFLAGS.TF and cleared it.
    pub const fn after(self, executed: bool, now: u64) -> After {
        let Self { flags, own } = self;
        let keeps = own || executed && matches!(flags, Flags::Loaded);
        After {
            trap: if keeps { now & TRAP } else { 0 },
            owes: !executed && !own && now & TRAP == 0,
            corrects_stack: executed && !own && matches!(flags, Flags::Pushed),
            corrects_r11: executed && !own && matches!(flags, Flags::Copied),
        }
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
        let after = |flags, own, now| ByFlag { flags, own }.after(true, now);
        let nothing = After { trap: 0, owes: false, corrects_stack: false, corrects_r11: false };
        assert_eq!(after(Flags::Kept, false, TRAP), nothing);
        assert_eq!(after(Flags::Loaded, false, 0), nothing);
        assert_eq!(
            after(Flags::Loaded, false, TRAP),
            After { trap: TRAP, ..nothing },
            "the guest has loaded it"
        );
        assert_eq!(after(Flags::Pushed, false, TRAP), After { corrects_stack: true, ..nothing });
        assert_eq!(after(Flags::Copied, false, TRAP), After { corrects_r11: true, ..nothing });
        for flags in [Flags::Kept, Flags::Pushed, Flags::Copied, Flags::Loaded] {
            assert_eq!(after(flags, true, TRAP), After { trap: TRAP, ..nothing });
            assert_eq!(after(flags, true, 0), nothing, "the instruction has cleared the guest's own flag");
        }
    }

    #[test]
    fn a_step_that_ends_in_a_handler_changes_nothing_there_and_leaves_the_flag_on_the_stack() {
        for flags in [Flags::Kept, Flags::Pushed, Flags::Copied, Flags::Loaded] {
            let after = |own, now| ByFlag { flags, own }.after(false, now);
            let nothing = After { trap: 0, owes: false, corrects_stack: false, corrects_r11: false };
            assert_eq!(after(false, 0), After { owes: true, ..nothing });
            assert_eq!(after(false, TRAP), nothing, "the CPU is still before the instruction");
            assert_eq!(
                after(true, 0),
                nothing,
                "the guest's own flag is on the stack, and the handler has none"
            );
            assert_eq!(after(true, TRAP), After { trap: TRAP, ..nothing });
        }
    }
}
