//! What the guest is given of the physical CPU when it asks through Vidar: the very instructions that exited.

#![cfg_attr(target_os = "none", expect(unsafe_code, reason = "MSRs are written for the guest"))]

use super::cpuid::Leaf;
use super::icr::{Destination, Message, Mode};
use super::msr::Fault;

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

/// A virtual CPU of a real one, whose instructions are the real ones. Those of tests answer by themselves.
#[cfg(target_os = "none")]
pub trait OnHardware {}

#[cfg(target_os = "none")]
impl<T: OnHardware> Processor for T {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> Leaf {
        super::cpuid::cpuid(leaf, subleaf)
    }

    fn rdmsr(&mut self, index: u32) -> Result<u64, Fault> {
        super::msr::read_checked(index)
    }

    fn wrmsr(&mut self, index: u32, value: u64) -> Result<(), Fault> {
        // SAFETY: MSRs that Vidar's own state depends on are switched with the guest or kept from it by the policy's
        // tables; the others are the guest's, as they would be without the exit.
        unsafe { super::msr::write_checked(index, value) }
    }

    fn xsetbv(&mut self, register: u32, value: u64) -> Result<(), Fault> {
        super::instructions::xsetbv(register, value)
    }

    fn wbinvd(&mut self) {
        super::instructions::wbinvd();
    }

    fn apic_mode(&self) -> Option<Mode> {
        super::apic::mode()
    }

    fn read_apic(&self, offset: u16) -> u32 {
        super::apic::read(offset)
    }

    fn write_apic(&mut self, offset: u16, value: u32) {
        super::apic::write(offset, value);
    }

    fn send(&mut self, message: Message, destination: Destination) {
        super::apic::send(message, destination);
    }

    fn stop_is_wanted(&self) -> bool {
        super::stop::is_wanted()
    }
}
