//! A CPU that steps by RFLAGS.TF. A test says what has happened on it, and asks what the debugger has made of that.

use vidar_core::debugger::breakpoints::DebugRegisters;
use vidar_core::debugger::debug_registers::GuestDebugRegisters;
use vidar_core::debugger::debuggable::{DebugExit, Debuggable, GuestException};
use vidar_core::debugger::registers::RegisterFile;
use vidar_core::debugger::structure::Layout;
use vidar_core::policy::control::{ControlWrite, Controls};
use vidar_core::policy::guard::Pins;
use vidar_core::policy::msr::AllowedMsrWrite;
use vidar_core::vmm::crash::Snapshot;
use vidar_core::vmm::doubt::Doubt;
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::fetch::Code;
use vidar_core::vmm::outcome::{Exception, Interrupted};
use vidar_core::vmm::percpu::PerCpu;
use vidar_core::vmm::processor::Processor;
use vidar_core::vmm::rules::{Broken, Moment};
use vidar_core::vmm::vcpu::Vcpu;
use vidar_core::vmx::ept::Ept;
use vidar_core::x86::cpuid::Leaf;
use vidar_core::x86::icr::{Destination, Message, Mode};
use vidar_core::x86::msr::Fault;
use vidar_core::x86::registers::Registers;

/// RFLAGS.TF.
pub const TRAP: u64 = 1 << 8;
/// The code of an exit by an NMI.
pub const NMI: u32 = 2;
/// DR6.BS.
pub const SINGLE_STEP: u64 = 1 << 14;

pub struct SteppingCpu {
    pub file: RegisterFile,
    /// What the guest has got of its own debug exceptions.
    pub delivered: Vec<GuestException>,
    /// DR7 as it was loaded, the last time last.
    pub controls_loaded: Vec<u64>,
    /// The number of NMIs that the guest has got.
    pub nmis: u32,
    percpu: &'static PerCpu,
}

impl SteppingCpu {
    pub fn at(rip: u64) -> Self {
        let mut file = RegisterFile::default();
        (file.state.rip, file.state.rflags) = (rip, 2);
        Self {
            file,
            delivered: Vec::new(),
            controls_loaded: Vec::new(),
            nmis: 0,
            percpu: Box::leak(Box::new(PerCpu::new(0, 0))),
        }
    }

    /// Goes on at `rip`, with RFLAGS.TF or without.
    pub fn is_at(&mut self, rip: u64, trap: bool) {
        self.file.state.rip = rip;
        self.set_flags(TRAP, if trap { TRAP } else { 0 });
    }

    /// Returns true if RFLAGS.TF is set.
    pub fn traps(&self) -> bool {
        self.file.state.rflags & TRAP != 0
    }
}

impl Debuggable for SteppingCpu {
    const CALLED_BY_NMI: bool = false;
    const LAYOUT: Layout = Layout { name: "VMCS", field: |_| None };

    fn watch_debug_exits(&mut self) {}

    fn field(&self, _: usize) -> Option<u64> {
        None
    }

    fn register_file(&self) -> RegisterFile {
        self.file
    }

    fn set_register_file(&mut self, new: &RegisterFile) {
        self.file = *new;
    }

    fn debug_registers(&self) -> GuestDebugRegisters {
        GuestDebugRegisters::RESET
    }

    fn load_debug_registers(&mut self, registers: &DebugRegisters) {
        self.controls_loaded.push(registers.control);
    }

    /// An exit with the code [`NMI`] is an NMI. Every other one is a #DB, whose bits of DR6 are the qualification.
    fn debug_exit(&mut self, code: u32, qualification: u64) -> Option<DebugExit> {
        Some(if code == NMI { DebugExit::Nmi } else { DebugExit::Debug(qualification) })
    }

    fn pass_nmi(&mut self) {
        self.nmis += 1;
    }

    fn take_ring(&mut self) {
        self.percpu.take_ring();
    }

    fn deliver(&mut self, exception: GuestException) {
        self.delivered.push(exception);
    }

    fn steps_by_trap_flag(&self) -> bool {
        true
    }

    fn set_step(&mut self, _: bool) {}

    fn drop_single_step(&mut self) {}

    fn limit_time(&mut self, _: bool) {}
}

impl Vcpu for SteppingCpu {
    type Format = Ept;
    type WaitForSipi = ();

    fn registers(&mut self) -> &mut Registers {
        &mut self.file.state.registers
    }

    fn percpu(&self) -> &'static PerCpu {
        self.percpu
    }

    fn controls(&self) -> Controls {
        self.file.state.controls
    }

    fn cr4(&self) -> u64 {
        self.controls().cr4
    }

    fn cpl(&self) -> u8 {
        0
    }

    fn set_flags(&mut self, mask: u64, flags: u64) {
        let old = self.file.state.rflags;
        self.file.state.rflags = old & !mask | flags & mask;
    }

    fn rip(&self) -> u64 {
        self.file.state.rip
    }

    fn code(&self) -> Code {
        Code { rip: self.rip(), base: 0, default_32: true }
    }

    fn run(&mut self) -> Exit {
        unimplemented!("the tests stand in for the guest")
    }

    fn set_controls(&mut self, _: &Controls) {
        unimplemented!()
    }

    fn write_control(
        &mut self,
        _: ControlWrite,
        _: impl FnOnce(u64) -> Result<[u64; 4], Fault>,
        _: impl FnOnce(&mut Self, &Controls) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        unimplemented!()
    }

    fn keep_msr(&mut self, _: u32, _: u64) {
        unimplemented!()
    }

    fn watch_efer(&mut self, _: bool) {
        unimplemented!()
    }

    fn pins(&mut self) -> &mut Pins {
        unimplemented!()
    }

    fn advance(&mut self) {
        unimplemented!()
    }

    fn skip(&mut self, _: u8) {
        unimplemented!()
    }

    fn interrupted(&self) -> Option<Interrupted> {
        unimplemented!()
    }

    fn inject(&mut self, _: Exception) {
        unimplemented!()
    }

    fn init(&mut self) {
        unimplemented!()
    }

    fn startup(&mut self, _: u8) {
        unimplemented!()
    }

    fn flush_second_stage(&mut self) {
        unimplemented!()
    }

    fn doubt(&mut self) -> &mut Doubt {
        unimplemented!()
    }

    fn broken_rules(&self, _: Moment, _: &mut dyn FnMut(&Broken<'_>)) {
        unimplemented!()
    }

    fn snapshot(&self) -> Snapshot {
        unimplemented!()
    }

    fn wait_at(&mut self, _: u8) {
        unimplemented!()
    }

    fn takes_init(&self) -> bool {
        unimplemented!()
    }
}

impl Processor for SteppingCpu {
    fn cpuid(&self, _: u32, _: u32) -> Leaf {
        unimplemented!()
    }

    fn tsc(&self) -> [u32; 2] {
        unimplemented!()
    }

    fn rdmsr(&mut self, _: u32) -> Result<u64, Fault> {
        unimplemented!()
    }

    fn wrmsr(&mut self, _: AllowedMsrWrite) -> Result<(), Fault> {
        unimplemented!()
    }

    fn xsetbv(&mut self, _: u32, _: u64) -> Result<(), Fault> {
        unimplemented!()
    }

    fn wbinvd(&mut self) {
        unimplemented!()
    }

    fn apic_mode(&self) -> Option<Mode> {
        unimplemented!()
    }

    fn read_apic(&self, _: u16) -> u32 {
        unimplemented!()
    }

    fn write_apic(&mut self, _: u16, _: u32) {
        unimplemented!()
    }

    fn send(&mut self, _: Message, _: Destination) {
        unimplemented!()
    }

    fn stop_is_wanted(&self) -> bool {
        unimplemented!()
    }
}
