//! Whose a debug exception is: gdb's or the guest's.

use super::breakpoints::Breakpoints;
use super::cpus::Reason;
use super::debug_registers::CONDITIONS;

/// DR6.BS: a single step.
pub const SINGLE_STEP: u64 = 1 << 14;
/// Whose a debug exception is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// gdb's, for this reason.
    Gdb(Reason),
    /// The guest's, with these bits of DR6.
    Guest(u64),
    /// It is what remains of a step that gdb no longer waits for.
    Nobody,
}

/// What a CPU does for gdb when a debug exception comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expected {
    /// The CPU executes one instruction.
    pub steps: bool,
    /// The CPU may have RFLAGS.TF set somewhere on a stack, from a step that has ended otherwise.
    pub owes: bool,
}

/// Decides whose the #DB with the bits `dr6` is.
pub fn whose(dr6: u64, breakpoints: &Breakpoints, expected: Expected) -> Whose {
    if let Some(watch) = breakpoints.hit(dr6) {
        return Whose::Gdb(Reason::Hardware(watch));
    }
    let conditions = dr6 & CONDITIONS;
    match (conditions == SINGLE_STEP, expected) {
        (true, Expected { steps: true, .. }) => Whose::Gdb(Reason::Step),
        (true, Expected { owes: true, .. }) => Whose::Nobody,
        // The other bits name addresses that match without being watched, unless the guest watches them.
        _ if expected.steps && dr6 & SINGLE_STEP != 0 => Whose::Gdb(Reason::Step),
        _ => Whose::Guest(conditions),
    }
}

#[cfg(test)]
mod tests {
    use gdbstub::target::ext::breakpoints::WatchKind;

    use super::*;
    use crate::debugger::breakpoints::Watch;

    #[test]
    fn a_debug_exception_is_gdbs_only_if_gdb_waits_for_it() {
        let mut gdb = Breakpoints::new();
        let (idle, steps) = (Expected::default(), Expected { steps: true, owes: false });
        assert_eq!(whose(0xffff_0ff1, &gdb, idle), Whose::Guest(1));
        assert_eq!(whose(SINGLE_STEP, &gdb, idle), Whose::Guest(SINGLE_STEP), "the guest steps itself");
        assert_eq!(whose(SINGLE_STEP, &gdb, steps), Whose::Gdb(Reason::Step));
        assert_eq!(whose(SINGLE_STEP, &gdb, Expected { steps: false, owes: true }), Whose::Nobody);
        gdb.watch(0x1000, 4, Some(WatchKind::Write));
        let watch = Watch { address: 0x1000, size: 4, kind: Some(WatchKind::Write) };
        assert_eq!(whose(1, &gdb, steps), Whose::Gdb(Reason::Hardware(watch)));
        assert_eq!(
            whose(2 | SINGLE_STEP, &gdb, steps),
            Whose::Gdb(Reason::Step),
            "DR1 matches and is not in use"
        );
        assert_eq!(whose(2, &gdb, idle), Whose::Guest(2));
    }
}
