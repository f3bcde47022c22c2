//! What the guest is given of the physical CPU when it asks through Vidar: the very instructions that exited.

use crate::x86::cpuid::Leaf;
use crate::x86::icr::{Destination, Message, Mode};
use crate::x86::msr::Fault;

/// The CPU that runs this code, as far as the guest has a say in it.
pub trait Processor {
    /// CPUID.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> Leaf;

    /// RDMSR.
    ///
    /// # Errors
    /// [`Fault`] where the CPU gives #GP.
    fn rdmsr(&mut self, index: u32) -> Result<u64, Fault>;

    /// WRMSR, of an MSR that the policy lets through.
    ///
    /// # Errors
    /// [`Fault`] where the CPU gives #GP.
    fn wrmsr(&mut self, index: u32, value: u64) -> Result<(), Fault>;

    /// XSETBV.
    ///
    /// # Errors
    /// [`Fault`] where the CPU gives #GP.
    fn xsetbv(&mut self, register: u32, value: u64) -> Result<(), Fault>;

    /// WBINVD.
    fn wbinvd(&mut self);

    /// How its local APIC is reached; `None` while that is switched off.
    fn apic_mode(&self) -> Option<Mode>;

    /// Reads the register at `offset` of the local APIC's page.
    fn read_apic(&self, offset: u16) -> u32;

    /// Writes it.
    fn write_apic(&mut self, offset: u16, value: u32);

    /// Sends INIT or a start-up IPI of Vidar's.
    fn send(&mut self, message: Message, destination: Destination);

    /// Returns true if another CPU has last words to say and wants this one to stop.
    fn stop_is_wanted(&self) -> bool;
}

/// A virtual CPU that leaves all of this to the CPU on which it runs. The virtual CPUs of tests answer by themselves.
pub trait RunsOn {
    /// The CPU on which it runs.
    type Processor: Processor;

    /// Returns that CPU, which has no state of its own.
    fn processor(&self) -> Self::Processor;
}

impl<T: RunsOn> Processor for T {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> Leaf {
        self.processor().cpuid(leaf, subleaf)
    }

    fn rdmsr(&mut self, index: u32) -> Result<u64, Fault> {
        self.processor().rdmsr(index)
    }

    fn wrmsr(&mut self, index: u32, value: u64) -> Result<(), Fault> {
        self.processor().wrmsr(index, value)
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
