//! Whose a debug exception is: gdb's, the guest's, or both.

use super::breakpoints::Breakpoints;
use super::cpus::Reason;
use super::debug_registers::CONDITIONS;
use super::step::Step;

/// DR6.BS: a single step.
pub const SINGLE_STEP: u64 = 1 << 14;
/// The bits of DR6 that name the debug registers whose conditions are met.
const BREAKPOINTS: u64 = 0xf;

/// What gdb and the guest each have of a debug exception. If neither has any, it is what remains of a step that gdb no
/// longer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Why gdb stops the CPU.
    pub gdb: Option<Reason>,
    /// The bits of DR6 with which the guest gets the exception. It gets it when gdb has the CPU go on.
    pub guest: Option<u64>,
}

/// What a CPU does when a debug exception comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expected {
    /// The step that the CPU makes for gdb.
    pub step: Option<Step>,
    /// The CPU may have RFLAGS.TF set somewhere on a stack, from a step that has ended otherwise.
    pub owes: bool,
    /// DR7 as the guest sees it.
    pub control: u64,
}

/// Decides whose the #DB with the bits `dr6` is.
pub fn whose(dr6: u64, breakpoints: &Breakpoints, expected: Expected) -> Shares {
    let conditions = dr6 & CONDITIONS;
    let is_single_step = conditions & SINGLE_STEP != 0;
    let by_flag = expected.step.and_then(|step| step.by_flag);
    let gdb = match breakpoints.hit(dr6) {
        Some(watch) => Some(Reason::Hardware(watch)),
        None if is_single_step && by_flag.is_some() => Some(Reason::Step),
        None => None,
    };
    // A step that is not by RFLAGS.TF leaves the flag to the guest.
    let single_step = is_single_step && by_flag.map_or(!expected.owes, |step| step.own);
    // With other conditions, the bits also name addresses that match without being watched.
    let watched = match breakpoints.registers() {
        Some(_) => 0,
        None => {
            (0..4).filter(|index| expected.control >> (2 * index) & 0b11 != 0).map(|index| 1 << index).sum()
        }
    };
    let others = conditions & !SINGLE_STEP;
    let others = if is_single_step || gdb.is_some() { others & (watched | !BREAKPOINTS) } else { others };
    let guest = others | if single_step { SINGLE_STEP } else { 0 };
    let is_alone = gdb.is_none() && !is_single_step;
    Shares { gdb, guest: (guest != 0 || is_alone).then_some(guest) }
}

#[cfg(test)]
mod tests {
    use gdbstub::target::ext::breakpoints::WatchKind;

    use super::*;
    use crate::debugger::step::{ByFlag, Flags};
    use crate::debugger::watch::Watch;

    const IDLE: Expected = Expected { step: None, owes: false, control: 0x400 };
    const WATCH: Watch = Watch { address: 0x1000, size: 4, kind: Some(WatchKind::Write) };

    /// Returns what is expected in a step by RFLAGS.TF, which the guest has set itself if `own` is true.
    fn by_flag(own: bool) -> Expected {
        let by_flag = Some(ByFlag { flags: Flags::Kept, own });
        Expected { step: Some(Step { start: 0, by_flag }), ..IDLE }
    }

    fn gdbs(reason: Reason) -> Shares {
        Shares { gdb: Some(reason), guest: None }
    }

    fn guests(conditions: u64) -> Shares {
        Shares { gdb: None, guest: Some(conditions) }
    }

    #[test]
    fn a_debug_exception_is_gdbs_only_if_gdb_waits_for_it() {
        let mut gdb = Breakpoints::new();
        assert_eq!(whose(0xffff_0ff1, &gdb, IDLE), guests(1));
        assert_eq!(whose(0xffff_0ff0, &gdb, IDLE), guests(0));
        assert_eq!(whose(SINGLE_STEP, &gdb, IDLE), guests(SINGLE_STEP), "the guest steps itself");
        assert_eq!(whose(SINGLE_STEP, &gdb, by_flag(false)), gdbs(Reason::Step));
        let owes = Expected { owes: true, ..IDLE };
        assert_eq!(whose(SINGLE_STEP, &gdb, owes), Shares { gdb: None, guest: None });
        gdb.watch(0x1000, 4, Some(WatchKind::Write));
        assert_eq!(whose(1, &gdb, by_flag(false)), gdbs(Reason::Hardware(WATCH)));
        assert_eq!(
            whose(2 | SINGLE_STEP, &gdb, by_flag(false)),
            gdbs(Reason::Step),
            "DR1 matches and is not in use"
        );
    }

    #[test]
    fn a_guest_that_steps_itself_gets_its_exception_after_gdb_has_had_its_own() {
        let mut gdb = Breakpoints::new();
        let both = |reason, guest| Shares { gdb: Some(reason), guest: Some(guest) };
        assert_eq!(whose(SINGLE_STEP, &gdb, by_flag(true)), both(Reason::Step, SINGLE_STEP));
        let otherwise = Expected { step: Some(Step { start: 0, by_flag: None }), ..IDLE };
        assert_eq!(whose(SINGLE_STEP, &gdb, otherwise), guests(SINGLE_STEP), "gdb's step is not by the flag");
        let watches = Expected { control: 0x404, ..by_flag(false) };
        assert_eq!(
            whose(SINGLE_STEP | 0b11, &gdb, watches),
            both(Reason::Step, 0b10),
            "it watches DR1 alone"
        );
        gdb.watch(0x1000, 4, Some(WatchKind::Write));
        assert_eq!(whose(SINGLE_STEP | 1, &gdb, IDLE), both(Reason::Hardware(WATCH), SINGLE_STEP));
        assert_eq!(whose(SINGLE_STEP | 0b10, &gdb, watches), gdbs(Reason::Step), "DR1 is gdb's meanwhile");
    }
}
