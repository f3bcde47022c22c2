//! A fake CPU, which exits as a script says and records what is done to it.

use std::collections::{BTreeMap, VecDeque};

use vidar_core::mem::mtrr::{IA32_MTRR_DEF_TYPE, IA32_MTRRCAP};
use vidar_core::policy::control::{CR0_ET, CR0_NE, CR0_PE, ControlWrite, Controls};
use vidar_core::policy::guard::Pins;
use vidar_core::policy::msr::AllowedMsrWrite;
use vidar_core::svm;
use vidar_core::svm::rules::state::{Facts, State};
use vidar_core::svm::vmcb::Page;
use vidar_core::vmm::controls::{self, OwnsControls};
use vidar_core::vmm::cpu_state::{CpuState, TableRegister};
use vidar_core::vmm::crash::Snapshot;
use vidar_core::vmm::doubt::Doubt;
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::fetch::Code;
use vidar_core::vmm::outcome::{Exception, Interrupted};
use vidar_core::vmm::percpu::PerCpu;
use vidar_core::vmm::processor::Processor;
use vidar_core::vmm::rules::{Broken, Moment};
use vidar_core::vmm::vcpu::Vcpu;
use vidar_core::vmx;
use vidar_core::vmx::ept::Ept;
use vidar_core::x86::cpuid::Leaf;
use vidar_core::x86::icr::{Destination, Message, Mode};
use vidar_core::x86::msr::{self, Fault};
use vidar_core::x86::registers::Registers;

use crate::bench::{CODE, CR4_ALLOWED, XCR0_SUPPORTED};

/// An event with a type that does not exist, which the last entry was to inject.
pub const FAILED_EVENT: u64 = 0x8000_0100;

/// Something that was done to the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Run,
    Advance,
    Inject(Exception),
    Init,
    Startup(u8),
    WaitAt(u8),
    Skip(u8),
    WriteApic(u16, u32),
    SetFlags(u64, u64),
    Send(Message, Destination),
    Wrmsr(u32, u64),
    KeepMsr(u32, u64),
    Xsetbv(u32, u64),
    Wbinvd,
    Flush,
    SetControls(Controls),
    WatchEfer(bool),
    SetPdptes([u64; 4]),
}

/// A CPU that follows a script. Its MSRs hold what is written to them; MSRs that it lacks raise #GP.
pub struct FakeCpu {
    pub script: VecDeque<Exit>,
    pub did: Vec<Action>,
    pub registers: Registers,
    pub controls: Controls,
    pub cpl: u8,
    pub rflags: u64,
    pub idtr: TableRegister,
    pub task_is_16_bit: bool,
    pub msrs: BTreeMap<u32, u64>,
    /// The value that most CPUID leaves return in EDX.
    pub cpuid_edx: u32,
    /// True if every access to an MSR or XCR0 raises #GP.
    pub faults: bool,
    /// The bits that an MSR keeps of what is written to it.
    pub kept_bits: u64,
    pub percpu: &'static PerCpu,
    pub apic_mode: Option<Mode>,
    /// The contents of the registers in the APIC's page.
    pub apic: BTreeMap<u16, u32>,
    /// True if an INIT that has exited is taken off the CPU.
    pub takes_init: bool,
    /// True if another CPU has stopped for good.
    pub stop_is_wanted: bool,
    pub doubt: Doubt,
    /// The event whose delivery the exit interrupts.
    pub interrupted: Option<Interrupted>,
    pub pins: Pins,
    /// The VMCB about which the rules are asked, if there is one.
    pub vmcb: Option<Box<Page>>,
}

impl FakeCpu {
    pub fn new() -> Self {
        let msrs = BTreeMap::from([
            (0x10, 0x1234_5678_9abc_def0),
            (msr::APIC_BASE, 0xfee0_0900),
            (msr::FEATURE_CONTROL, 0x10_0005),
            (msr::BIOS_UPDT_TRIG, 0),
            (msr::SMM_MONITOR_CTL, 0),
            (msr::MISC_ENABLE, 0),
            (msr::PEBS_ENABLE, 0),
            (msr::PAT, 0x0007_0406_0007_0406),
            (msr::VMX_BASIC, 0x00da_0400_0000_0001),
            (msr::VMX_EXIT_CTLS2, 0),
            (msr::VM_CR, 0),
            (msr::VM_HSAVE_PA, 0),
            (msr::PATCH_LOADER, 0),
            (msr::TSC_RATIO, 1 << 33),
            (msr::SYSCFG, 1 << 23 | 1 << 18),
            (msr::TOP_MEM, 0x8000_0000),
            (msr::MMIO_CFG_BASE, 0),
            (msr::SMM_MASK, 0),
            // All of RAM WB, as the default type has it; 3 GiB to 4 GiB UC.
            (IA32_MTRRCAP, 0x508),
            (IA32_MTRR_DEF_TYPE, 0xc06),
            (0x200, 0xc000_0000),
            (0x201, 0xff_c000_0800),
            (0x259, 0),
        ]);
        let unused_pairs = (0x202..0x210).map(|index| (index, 0));
        let fixed = [0x250, 0x258].into_iter().chain(0x268..=0x26f);
        let write_back = fixed.map(|index| (index, 0x0606_0606_0606_0606));
        Self {
            script: VecDeque::new(),
            did: Vec::new(),
            registers: Registers::default(),
            controls: Controls { cr0: CR0_PE | CR0_ET | CR0_NE, ..Controls::default() },
            cpl: 0,
            rflags: 2,
            idtr: TableRegister::default(),
            task_is_16_bit: false,
            msrs: msrs.into_iter().chain(unused_pairs).chain(write_back).collect(),
            cpuid_edx: CPUID_EDX,
            faults: false,
            kept_bits: !0,
            percpu: Box::leak(Box::new(PerCpu::new(0, 0))),
            apic_mode: Some(Mode::XApic),
            apic: BTreeMap::new(),
            takes_init: true,
            stop_is_wanted: false,
            doubt: Doubt::default(),
            interrupted: None,
            pins: Pins::default(),
            vmcb: None,
        }
    }
}

/// What most leaves of CPUID have in EDX.
const CPUID_EDX: u32 = 0x8745_4321;

/// Returns the CPU's own CPUID, whose outputs depend on the inputs.
pub fn native_cpuid(leaf: u32, subleaf: u32) -> Leaf {
    match (leaf, subleaf) {
        (0xd, 0) => Leaf { eax: XCR0_SUPPORTED, ..Leaf::default() },
        _ => Leaf { eax: !leaf, ebx: !subleaf, ecx: !0, edx: CPUID_EDX },
    }
}

impl Vcpu for FakeCpu {
    type Format = Ept;
    type WaitForSipi = ();

    fn run(&mut self) -> Exit {
        self.did.push(Action::Run);
        self.script.pop_front().expect("the script has no further exit")
    }

    fn registers(&mut self) -> &mut Registers {
        &mut self.registers
    }

    fn percpu(&self) -> &'static PerCpu {
        self.percpu
    }

    fn controls(&self) -> Controls {
        self.controls
    }

    fn cr4(&self) -> u64 {
        self.controls.cr4
    }

    fn cpl(&self) -> u8 {
        self.cpl
    }

    fn set_controls(&mut self, controls: &Controls) {
        self.controls = *controls;
        self.did.push(Action::SetControls(*controls));
    }

    fn write_control(
        &mut self,
        write: ControlWrite,
        pdptes: impl FnOnce(u64) -> Result<[u64; 4], Fault>,
        guard: impl FnOnce(&mut Self, &Controls) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        controls::write(self, write, pdptes, guard)
    }

    fn keep_msr(&mut self, index: u32, value: u64) {
        self.did.push(Action::KeepMsr(index, value));
    }

    fn watch_efer(&mut self, watch: bool) {
        self.did.push(Action::WatchEfer(watch));
    }

    fn pins(&mut self) -> &mut Pins {
        &mut self.pins
    }

    fn advance(&mut self) {
        self.did.push(Action::Advance);
    }

    fn skip(&mut self, length: u8) {
        self.did.push(Action::Skip(length));
    }

    fn set_flags(&mut self, mask: u64, flags: u64) {
        self.did.push(Action::SetFlags(mask, flags));
    }

    fn rip(&self) -> u64 {
        CODE
    }

    fn code(&self) -> Code {
        Code { rip: CODE, base: 0, default_32: true }
    }

    fn interrupted(&self) -> Option<Interrupted> {
        self.interrupted
    }

    fn inject(&mut self, exception: Exception) {
        self.did.push(Action::Inject(exception));
    }

    fn init(&mut self) {
        self.did.push(Action::Init);
    }

    fn startup(&mut self, vector: u8) {
        self.did.push(Action::Startup(vector));
    }

    fn wait_at(&mut self, room: u8) {
        self.did.push(Action::WaitAt(room));
    }

    fn takes_init(&self) -> bool {
        self.takes_init
    }

    fn flush_second_stage(&mut self) {
        self.did.push(Action::Flush);
    }

    fn doubt(&mut self) -> &mut Doubt {
        &mut self.doubt
    }

    fn broken_rules(&self, moment: Moment, found: &mut dyn FnMut(&Broken<'_>)) {
        let facts = Facts { address_bits: 40, cr4: 0x7ff, efer: 0x1d01 };
        let Some(vmcb) = &self.vmcb else { return };
        let event = if moment == Moment::AfterFailure { FAILED_EVENT } else { 0 };
        svm::rules::broken(&State::new(vmcb, &facts).with_event(event), found);
    }

    fn beyond_rules(code: u32) -> Option<&'static str> {
        vmx::rules::beyond(code)
    }

    fn snapshot(&self) -> Snapshot {
        let (registers, controls, idtr, rflags) = (self.registers, self.controls, self.idtr, self.rflags);
        let state = CpuState { registers, controls, idtr, rflags, rip: CODE, ..CpuState::default() };
        Snapshot { state, ..Snapshot::default() }
    }
}

impl OwnsControls for FakeCpu {
    const LOADS_PDPTES: bool = true;

    fn cr4_allowed(&self) -> u64 {
        CR4_ALLOWED
    }

    fn task_is_16_bit(&self) -> bool {
        self.task_is_16_bit
    }

    fn set_pdptes(&mut self, entries: [u64; 4]) {
        self.did.push(Action::SetPdptes(entries));
    }
}

impl Processor for FakeCpu {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> Leaf {
        let native = native_cpuid(leaf, subleaf);
        if native.edx == CPUID_EDX { Leaf { edx: self.cpuid_edx, ..native } } else { native }
    }

    /// Returns how much has been done so far.
    fn tsc(&self) -> [u32; 2] {
        [self.did.len() as u32, 1]
    }

    fn rdmsr(&mut self, index: u32) -> Result<u64, Fault> {
        self.msrs.get(&index).copied().filter(|_| !self.faults).ok_or(Fault)
    }

    fn wrmsr(&mut self, write: AllowedMsrWrite) -> Result<(), Fault> {
        let (index, value) = (write.index(), write.value());
        self.did.push(Action::Wrmsr(index, value));
        *self.msrs.get_mut(&index).filter(|_| !self.faults).ok_or(Fault)? = value & self.kept_bits;
        Ok(())
    }

    fn xsetbv(&mut self, register: u32, value: u64) -> Result<(), Fault> {
        self.did.push(Action::Xsetbv(register, value));
        if self.faults { Err(Fault) } else { Ok(()) }
    }

    fn wbinvd(&mut self) {
        self.did.push(Action::Wbinvd);
    }

    fn apic_mode(&self) -> Option<Mode> {
        self.apic_mode
    }

    fn read_apic(&self, offset: u16) -> u32 {
        self.apic.get(&offset).copied().unwrap_or(0)
    }

    fn write_apic(&mut self, offset: u16, value: u32) {
        self.did.push(Action::WriteApic(offset, value));
        self.apic.insert(offset, value);
    }

    fn send(&mut self, message: Message, destination: Destination) {
        self.did.push(Action::Send(message, destination));
    }

    fn stop_is_wanted(&self) -> bool {
        self.stop_is_wanted
    }
}
