//! Records each exit of a CPU in the trace, from the exit to the next entry.

use vidar_abi::Call;

use super::exit::Exit;
use super::observer::Observer;
use super::outcome::Outcome;
use super::vcpu::Vcpu;
use crate::trace::ring::Ring;
use crate::trace::writer::Writer;
use crate::x86::registers::Register;

/// The tracer of one CPU.
#[derive(Debug)]
pub struct Tracer(Writer);

impl Tracer {
    /// Returns the tracer that writes to this ring, which is that of the CPU that uses the tracer.
    pub fn new(ring: &'static Ring) -> Self {
        Self(Writer::new(ring))
    }
}

impl<V: Vcpu> Observer<V> for Tracer {
    /// Ends the record of the last exit. The first call on a CPU ends the time before the first entry, of which there is
    /// no record.
    #[inline]
    fn before_entry(&mut self, vcpu: &mut V) {
        self.0.end(vcpu.tsc()[0]);
    }

    /// Begins the record of an exit.
    #[inline]
    fn after_exit(&mut self, vcpu: &mut V, exit: &Exit) -> Option<Outcome> {
        self.0.begin_at(vcpu.tsc(), vcpu.rip(), exit.kind());
        let detail = match exit {
            Exit::Cpuid | Exit::Hypercall => vcpu.registers().low(Register::Rax).into(),
            exit => detail(vcpu, exit),
        };
        self.0.detail(detail);
        // The call by which the trace is read would push out what its caller wants to read.
        if matches!(exit, Exit::Hypercall) && vcpu.registers().get(Register::Rax) == Call::Trace as u64 {
            self.0.leave_out();
        }
        None
    }
}

/// Returns what exited, as the number of [`Record::detail`](vidar_abi::Record::detail), for the exits that are rare.
#[cold]
fn detail<V: Vcpu>(vcpu: &mut V, exit: &Exit) -> u64 {
    let registers = vcpu.registers();
    match exit {
        Exit::Rdmsr | Exit::Wrmsr | Exit::Xsetbv => registers.low(Register::Rcx).into(),
        Exit::RdmsrImmediate(operands) | Exit::WrmsrImmediate(operands) => operands.index.into(),
        Exit::SecondStage(violation) => violation.address.0,
        Exit::Sipi(vector) => (*vector).into(),
        Exit::EntryFailed { code, .. } | Exit::Unknown { code, .. } => (*code).into(),
        _ => 0,
    }
}
