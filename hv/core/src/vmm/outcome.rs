//! What is to be done about an exit. Handlers return it; `run::apply` alone does it.

/// An exception that the guest gets, as if the CPU had raised it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exception {
    /// #UD.
    InvalidOpcode,
    /// #GP(0).
    GeneralProtection,
    /// #MC, which waits for its turn where another event is due.
    MachineCheck,
}

/// Why the guest stops for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The guest's own doing: triple fault or shutdown. What the CPU would have done is a reset.
    TripleFault,
    /// The guest switched tasks by hardware, which Vidar does not do for it.
    TaskSwitch,
    /// A machine check while CR4.MCE is 0. What the CPU would have done is a shutdown, which resets the machine.
    MachineCheck,
    /// An exit that Vidar has no answer for.
    Unanswered,
    /// The extension refused the guest's state.
    EntryFailed,
    /// An INIT has reached a CPU that waits for its start-up IPI outside of the guest.
    Init,
    /// Another CPU has stopped, and all others with it.
    Elsewhere,
}

/// What a refused instruction gets.
pub const REFUSE: Outcome = Outcome::Inject(Exception::GeneralProtection);

/// The answer to an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The instruction is done: go on behind it.
    Advance,
    /// Go on where the guest was: the instruction is to be tried again, or was none.
    Resume,
    /// The instruction faults.
    Inject(Exception),
    /// The CPU takes an INIT: its state is that after INIT.
    Init {
        /// It then waits for a start-up IPI.
        waits: bool,
    },
    /// The CPU starts at this vector.
    Startup(u8),
    /// An instruction of so many bytes has been done for the guest: go on behind it.
    Skip(u8),
    /// The guest cannot go on.
    Stop(Stop),
}
