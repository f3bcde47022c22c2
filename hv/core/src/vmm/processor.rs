//! The seam to the physical CPU: the instructions that Vidar executes for the guest, and the CPU's local APIC.

use crate::policy::msr::AllowedMsrWrite;
use crate::x86::cpuid::Leaf;
use crate::x86::icr::{Destination, Message, Mode};
use crate::x86::msr::Fault;

/// The physical CPU that runs this code, as far as Vidar uses it for the guest.
pub trait Processor {
    /// Executes CPUID.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> Leaf;

    /// Executes RDTSC, and returns EAX and EDX: the low and the high half of the counter.
    fn tsc(&self) -> [u32; 2];

    /// Executes RDMSR.
    ///
    /// # Errors
    /// Returns [`Fault`] if the CPU raises #GP.
    fn rdmsr(&mut self, index: u32) -> Result<u64, Fault>;

    /// Executes WRMSR as the policy has allowed it.
    ///
    /// # Errors
    /// Returns [`Fault`] if the CPU raises #GP.
    fn wrmsr(&mut self, write: AllowedMsrWrite) -> Result<(), Fault>;

    /// Executes XSETBV.
    ///
    /// # Errors
    /// Returns [`Fault`] if the CPU raises #GP.
    fn xsetbv(&mut self, register: u32, value: u64) -> Result<(), Fault>;

    /// Executes WBINVD.
    fn wbinvd(&mut self);

    /// Returns the mode of the local APIC, or `None` while it is disabled.
    fn apic_mode(&self) -> Option<Mode>;

    /// Reads the register at `offset` of the local APIC's page.
    fn read_apic(&self, offset: u16) -> u32;

    /// Writes `value` to the register at `offset` of the local APIC's page.
    fn write_apic(&mut self, offset: u16, value: u32);

    /// Sends an INIT, a start-up IPI or an NMI.
    fn send(&mut self, message: Message, destination: Destination);

    /// Returns true if another CPU writes a crash report and wants this one to stop.
    fn stop_is_wanted(&self) -> bool;
}

/// A virtual CPU that implements [`Processor`] by the physical CPU on which it runs. The virtual CPUs of tests
/// implement [`Processor`] themselves.
pub trait RunsOn {
    /// The type of the physical CPU.
    type Processor: Processor;

    /// Returns the physical CPU. The value has no state.
    fn processor(&self) -> Self::Processor;
}

impl<T: RunsOn> Processor for T {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> Leaf {
        self.processor().cpuid(leaf, subleaf)
    }

    #[inline]
    fn tsc(&self) -> [u32; 2] {
        self.processor().tsc()
    }

    fn rdmsr(&mut self, index: u32) -> Result<u64, Fault> {
        self.processor().rdmsr(index)
    }

    fn wrmsr(&mut self, write: AllowedMsrWrite) -> Result<(), Fault> {
        self.processor().wrmsr(write)
    }

    fn xsetbv(&mut self, register: u32, value: u64) -> Result<(), Fault> {
        self.processor().xsetbv(register, value)
    }

    fn wbinvd(&mut self) {
        self.processor().wbinvd();
    }

    fn apic_mode(&self) -> Option<Mode> {
        self.processor().apic_mode()
    }

    fn read_apic(&self, offset: u16) -> u32 {
        self.processor().read_apic(offset)
    }

    fn write_apic(&mut self, offset: u16, value: u32) {
        self.processor().write_apic(offset, value);
    }

    fn send(&mut self, message: Message, destination: Destination) {
        self.processor().send(message, destination);
    }

    fn stop_is_wanted(&self) -> bool {
        self.processor().stop_is_wanted()
    }
}
