//! Records each exit of a CPU in the trace, from the exit to the next entry.

use vidar_abi::{Call, ExitKind};

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
    /// Ends the record of the last exit. The first call on a CPU ends the time before the first entry, of which there
    /// is no record.
    #[inline(always)]
    fn before_entry(&mut self, vcpu: &mut V) {
        self.0.end(vcpu.tsc()[0]);
    }

    /// Begins the record of an exit. CPUID is by far the most frequent one.
    #[inline(always)]
    fn after_exit(&mut self, vcpu: &mut V, exit: &Exit) -> Option<Outcome> {
        match exit {
            Exit::Cpuid => {
                self.0.begin(vcpu.tsc(), vcpu.rip());
                self.0.exited(ExitKind::Cpuid, vcpu.registers().low(Register::Rax).into());
            }
            exit => self.begin_rare(vcpu, exit),
        }
        None
    }

    #[inline(always)]
    fn is_answered_apart(exit: &Exit) -> bool {
        !matches!(exit, Exit::Cpuid)
    }
}

impl Tracer {
    /// Begins the record of an exit that is not by CPUID.
    #[cold]
    #[inline(never)] // the loop of `run` is short
    fn begin_rare<V: Vcpu>(&mut self, vcpu: &mut V, exit: &Exit) {
        self.0.begin(vcpu.tsc(), vcpu.rip());
        self.0.exited(exit.kind(), detail(vcpu, exit));
        // The call by which the trace is read would push out what its caller wants to read.
        if matches!(exit, Exit::Hypercall) && vcpu.registers().get(Register::Rax) == Call::Trace as u64 {
            self.0.leave_out();
        }
    }
}

/// Returns what exited, as the number of [`Record::detail`](vidar_abi::Record::detail).
fn detail<V: Vcpu>(vcpu: &mut V, exit: &Exit) -> u64 {
    let registers = vcpu.registers();
    match exit {
        Exit::Cpuid | Exit::Hypercall => registers.low(Register::Rax).into(),
        Exit::Rdmsr | Exit::Wrmsr | Exit::Xsetbv => registers.low(Register::Rcx).into(),
        Exit::RdmsrImmediate(operands) | Exit::WrmsrImmediate(operands) => operands.index.into(),
        Exit::SecondStage(violation) => violation.address.0,
        Exit::Sipi(vector) => (*vector).into(),
        Exit::EntryFailed { code, .. } | Exit::Unknown { code, .. } => (*code).into(),
        _ => 0,
    }
}
