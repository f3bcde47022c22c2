//! The outcome of an exit: how the guest goes on.
//!
//! Handlers change the guest's registers, MSRs and translations themselves, and return an outcome. RIP, exceptions,
//! INIT and start-up are different: `run::apply` alone moves RIP, injects an exception, and resets or starts the CPU.

/// An exception that is injected into the guest, as if the CPU had raised it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exception {
    /// #UD.
    InvalidOpcode,
    /// #GP(0).
    GeneralProtection,
    /// #GP that is raised by the delivery of another exception or of an interrupt, and by no instruction. Its error
    /// code has EXT: Intel SDM Vol. 3A, 6.13 "Error Code"; AMD APM Vol. 2, 8.4.1 "Selector-Error Code".
    GeneralProtectionOfEvent,
    /// #DF.
    DoubleFault,
    /// #MC. It waits if the next entry injects another event.
    MachineCheck,
}

/// An event whose delivery an exit has interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupted {
    /// The exception with this vector. INT3 and INTO are not among them.
    Exception(u8),
    /// An interrupt or an NMI.
    Interrupt,
    /// INT n, INT3 or INTO.
    Instruction,
}

impl Interrupted {
    /// Returns true if the event comes from the instruction at RIP. Interrupts, machine checks and the #DB after an
    /// instruction come in between two instructions, whichever they are.
    pub const fn is_of_instruction(self) -> bool {
        !matches!(self, Self::Interrupt | Self::Exception(1 | 18))
    }
}

/// Why the guest stops for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// A triple fault (VT-x) or a shutdown (AMD-V) in the guest, which resets a bare machine.
    TripleFault,
    /// The guest attempted a hardware task switch, which Vidar does not emulate.
    TaskSwitch,
    /// A machine check came while CR4.MCE is 0. A bare CPU shuts down, which resets the machine.
    MachineCheck,
    /// Vidar does not handle this exit.
    Unanswered,
    /// VM entry failed, because the guest's state is not valid.
    EntryFailed,
    /// The CPU has got an INIT, and is to wait for its start-up IPI: [`waiting`](super::waiting).
    Init,
    /// An INIT that no CPU of the guest has sent by its local APIC has come, and Vidar cannot take it off the CPU.
    InitPending,
    /// The guest has asked for its end by a hypercall.
    Requested,
    /// Another CPU has stopped for good and asks all others to stop as well.
    Elsewhere,
}

/// The outcome of an instruction that Vidar refuses: #GP(0).
pub const REFUSE: Outcome = Outcome::Inject(Exception::GeneralProtection);

/// How the guest goes on after an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The instruction has been emulated: go on after it.
    Advance,
    /// Go on at the same RIP: the instruction is executed again, or the exit was not caused by an instruction.
    Resume,
    /// The instruction raises this exception.
    Inject(Exception),
    /// The CPU is put into the state after INIT.
    Init,
    /// The CPU starts at the page that this vector of a start-up IPI names.
    Startup(u8),
    /// The instruction, which has this length in bytes, has been emulated: go on after it.
    Skip(u8),
    /// The guest cannot go on.
    Stop(Stop),
}

impl Outcome {
    /// Returns the outcome of an access to memory that Vidar refuses. `interrupted` is the event whose delivery has
    /// made the access, if no instruction has.
    pub const fn refused_access(interrupted: Option<Interrupted>) -> Self {
        match interrupted {
            // A fault while a #DF is delivered shuts the CPU down.
            Some(Interrupted::Exception(8)) => Self::Stop(Stop::TripleFault),
            Some(Interrupted::Exception(vector)) if makes_double_fault(vector) => {
                Self::Inject(Exception::DoubleFault)
            }
            Some(Interrupted::Exception(_) | Interrupted::Interrupt) => {
                Self::Inject(Exception::GeneralProtectionOfEvent)
            }
            Some(Interrupted::Instruction) | None => REFUSE,
        }
    }
}

/// Returns true if a #GP while this exception is delivered becomes a #DF. Intel SDM Vol. 3A, 6.15 "Exception and
/// Interrupt Reference", table "Conditions for Generating a Double Fault".
const fn makes_double_fault(vector: u8) -> bool {
    matches!(vector, 0 | 10..=14 | 20 | 21)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_in_the_delivery_of_a_fault_is_a_double_fault() {
        let vectors: Vec<_> = (0..32).filter(|vector| makes_double_fault(*vector)).collect();
        assert_eq!(vectors, [0, 10, 11, 12, 13, 14, 20, 21]);
    }
}
