//! The physical CPU as a [`Processor`], which executes instructions on behalf of the guest.

#![expect(unsafe_code, reason = "WRMSR is executed for the guest")]

use vidar_core::policy::msr::AllowedMsrWrite;
use vidar_core::vmm::processor::Processor;
use vidar_core::x86::cpuid::Leaf;
use vidar_core::x86::icr::{Destination, Message, Mode};
use vidar_core::x86::msr::Fault;

use super::{apic, cpuid, instructions, msr, stop};

/// The physical CPU on which this code runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hardware;

impl Processor for Hardware {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> Leaf {
        cpuid::cpuid(leaf, subleaf)
    }

    #[inline]
    fn tsc(&self) -> [u32; 2] {
        instructions::tsc_halves()
    }

    fn rdmsr(&mut self, index: u32) -> Result<u64, Fault> {
        msr::read_checked(index)
    }

    fn wrmsr(&mut self, write: AllowedMsrWrite) -> Result<(), Fault> {
        // SAFETY: only the policy makes an `AllowedMsrWrite`, from a write of the guest. Whatever its tables say, it
        // makes none for the MSRs whose values Vidar runs on (`VIDARS_OWN`). Its tables have rows for those that say
        // what is memory. `boot::machine` takes all tables of the extension, and derives from the same tables which
        // accesses exit. So a write that no row checks would reach the CPU without an exit as well.
        unsafe { msr::write_checked(write.index(), write.value()) }
    }

    fn xsetbv(&mut self, register: u32, value: u64) -> Result<(), Fault> {
        instructions::xsetbv(register, value)
    }

    fn wbinvd(&mut self) {
        instructions::wbinvd();
    }

    fn apic_mode(&self) -> Option<Mode> {
        apic::mode()
    }

    fn read_apic(&self, offset: u16) -> u32 {
        apic::read(offset)
    }

    fn write_apic(&mut self, offset: u16, value: u32) {
        apic::write(offset, value);
    }

    fn send(&mut self, message: Message, destination: Destination) {
        apic::send(message, destination);
    }

    fn stop_is_wanted(&self) -> bool {
        stop::is_wanted()
    }
}
