//! What becomes of an NMI that exits, and of the IRET after it.

use super::debug::code;

/// Who acts on an NMI by which no other CPU calls this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nmis {
    /// The guest. NMIs do not exit.
    Guest,
    /// The guest, after an exit.
    Exit,
    /// The debugger, which knows those that are not the guest's.
    Debugger,
}

/// An exit by an NMI, or by the IRET that ends the handler of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NmiExit {
    /// Another CPU calls this one.
    Call,
    /// The CPU waits for a start-up IPI, and keeps no NMI.
    Dropped,
    /// The NMI is the guest's, which takes it itself: the CPU masks further ones only if it has delivered one.
    Taken,
    /// The guest's handler returns, so that the next NMI can exit.
    Returned,
}

/// Decodes an exit with this code. With `is_called` another CPU has called this one, which `waits` if it waits for a
/// start-up IPI. Returns `None` if the exit is the debugger's, or another one.
pub fn decode(code: u32, nmis: Nmis, is_called: bool, waits: bool) -> Option<NmiExit> {
    match code {
        // After an NMI of the guest's own the call waits until its handler returns, or it was one with that.
        code::NMI | code::IRET if is_called => Some(NmiExit::Call),
        code::NMI if waits => Some(NmiExit::Dropped),
        code::NMI if nmis == Nmis::Exit => Some(NmiExit::Taken),
        code::IRET if nmis == Nmis::Exit => Some(NmiExit::Returned),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_comes_before_what_the_debugger_or_the_guest_wants() {
        for nmis in [Nmis::Guest, Nmis::Exit, Nmis::Debugger] {
            for waits in [false, true] {
                assert_eq!(decode(code::NMI, nmis, true, waits), Some(NmiExit::Call));
                assert_eq!(decode(code::IRET, nmis, true, waits), Some(NmiExit::Call));
            }
            assert_eq!(decode(code::NMI, nmis, false, true), Some(NmiExit::Dropped));
            assert_eq!(decode(code::INTERRUPT, nmis, true, true), None);
        }
    }

    #[test]
    fn without_a_debugger_the_guest_takes_its_nmis_until_their_iret() {
        assert_eq!(decode(code::NMI, Nmis::Exit, false, false), Some(NmiExit::Taken));
        assert_eq!(decode(code::IRET, Nmis::Exit, false, false), Some(NmiExit::Returned));
        assert_eq!(decode(code::NMI, Nmis::Debugger, false, false), None);
        assert_eq!(decode(code::IRET, Nmis::Debugger, false, false), None);
    }
}
