//! A virtual CPU on VT-x.
// tidy: long because all methods of the virtual CPU are in one place.

#![expect(unsafe_code, reason = "the entry assembly is called, and instructions are executed for the guest")]

use core::sync::atomic::Ordering;

use vidar_core::mem::addr::{Hpa, PAGE_SIZE};
use vidar_core::policy::control::{CR0_PE, ControlWrite, Controls};
use vidar_core::policy::guard::Pins;
use vidar_core::vmm::controls;
use vidar_core::vmm::cpu_state::CpuState;
use vidar_core::vmm::crash::Snapshot;
use vidar_core::vmm::doubt::Doubt;
use vidar_core::vmm::entry::Begin;
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::fetch::Code;
use vidar_core::vmm::outcome::{Exception, Interrupted};
use vidar_core::vmm::percpu::{PerCpu, pending};
use vidar_core::vmm::processor::RunsOn;
use vidar_core::vmm::rules::{Broken, Moment};
use vidar_core::vmm::vcpu::Vcpu;
use vidar_core::vmx::capabilities::{Capabilities, WaitForSipi};
use vidar_core::vmx::controls::secondary;
use vidar_core::vmx::ept::Ept;
use vidar_core::vmx::event::{self, Injection, PENDING_SINGLE_STEP, interruptibility};
use vidar_core::vmx::field::Fields;
use vidar_core::vmx::field::*;
use vidar_core::vmx::guest_state::{self, CR4_SHADOWED};
use vidar_core::vmx::pending::PendingEvents;
use vidar_core::vmx::rules::beyond;
use vidar_core::vmx::setup::{self, GUEST_VPID};
use vidar_core::vmx::{exit, snapshot};
use vidar_core::x86::registers::{Register, Registers};
use x86_64::registers::control::Cr2;

use super::enable::{self, write_revision};
use super::entry::{self, EntryBlock, enter, status};
use super::vmcs::{self, SetupError, Vmcs};
use super::{physical, rules, switched_msrs};
use crate::arch::msr::{self, EFER_LMA, Fault};
use crate::arch::processor::Hardware;
use crate::arch::{apic_init, cpuid, instructions};
use crate::host::exceptions::set_entry_window;
use crate::host::vcpu::{Common, Own};

/// RFLAGS.TF.
const TRAP: u64 = 1 << 8;
/// RFLAGS.RF.
const RESUME: u64 = 1 << 16;
/// IA32_DEBUGCTL.BTF: with TF set, the CPU stops after branches, not after instructions.
const BRANCH_STEP: u64 = 1 << 1;

/// The frames of a virtual CPU: the VMXON region and the VMCS.
pub type Frames = [Hpa; 2];

/// A virtual CPU, bound to the physical CPU on which it was created.
pub struct VmxCpu {
    pub(super) block: EntryBlock,
    pub(super) vmcs: Vmcs,
    pub(super) capabilities: Capabilities,
    /// The MSR bitmaps, which all CPUs share: the usual one, and the one with which writes of EFER exit.
    msr_bitmaps: [Hpa; 2],
    pub(super) percpu: &'static PerCpu,
    /// The events that were taken from `percpu` and could not be injected yet.
    pub(super) pending: PendingEvents,
    doubt: Doubt,
    pins: Pins,
    /// True if the CPU waits in the guest for a start-up IPI after an INIT, in the activity state for that.
    waits: bool,
    /// True while the CPU waits in the guest for a start-up IPI at HLT.
    pub(super) in_room: bool,
}

impl VmxCpu {
    /// Enters VMX operation and sets up a VMCS for a guest that begins as `begin` says.
    ///
    /// # Errors
    /// [`SetupError`] if the CPU does not work as its capabilities say.
    ///
    /// # Safety
    /// [`enable::probe`] has returned `capabilities` on this CPU. No other CPU uses the frames of `own`. `common` has
    /// filled maps, and a second stage that does not map Vidar's memory.
    pub unsafe fn new(
        capabilities: Capabilities,
        common: &Common,
        own: &Own<'_, Frames>,
        begin: Begin<WaitForSipi>,
    ) -> Result<Self, SetupError> {
        let Own { frames: [vmxon, region], cpu } = *own;
        let percpu = cpu.percpu();
        let msr_bitmaps = [common.maps.msrs, common.maps.msrs + PAGE_SIZE];
        // SAFETY: the caller promises that `probe` has found VT-x usable on this CPU and that the frames are for this
        // CPU alone. VMXON comes before VMPTRLD, and the revision identifier is written before either needs it.
        let mut vmcs = unsafe {
            enable::enable(&capabilities, vmxon)
                .map_err(|failure| SetupError::Instruction("VMXON", failure))?;
            write_revision(region, capabilities.revision);
            Vmcs::load(region).map_err(|failure| SetupError::Instruction("VMPTRLD", failure))?
        };
        if let Some(name) = vmcs.lacks() {
            return Err(SetupError::NoField(name));
        }
        // SAFETY: the caller promises that the capabilities are those of this CPU, that the frames are for this use,
        // and that the second stage does not map Vidar's memory.
        let mut root = unsafe { vmcs.root() };
        setup::controls(&mut root, &capabilities, msr_bitmaps[0], common.second_stage, common.guard);
        if common.calls {
            setup::watch_nmis(&mut root, &capabilities);
        }
        if let Some(map) = common.maps.ports {
            setup::watch_ports(&mut root, &capabilities, map);
        }
        setup::host_state(&mut root, &capabilities, &physical::host(cpu));
        setup::initial_msrs(&mut vmcs, &capabilities, &physical::initial_msrs(percpu));
        switched_msrs::take_over(&mut vmcs, &capabilities);
        set_entry_window(entry::window());
        vmcs::invept_all();
        if capabilities.has(secondary::VPID) {
            vmcs::invvpid(GUEST_VPID);
        }
        let block = EntryBlock::default();
        let (pending, doubt, pins) = (PendingEvents::default(), Doubt::default(), Pins::default());
        let waits = matches!(begin, Begin::Waiting(_));
        let mut cpu = Self {
            block,
            vmcs,
            capabilities,
            msr_bitmaps,
            percpu,
            pending,
            doubt,
            pins,
            waits,
            in_room: false,
        };
        cpu.watch_efer(percpu.xd_disabled.load(Ordering::Relaxed));
        match begin {
            Begin::Kernel(state) => {
                cpu.load(&CpuState::at_kernel(&state));
            }
            Begin::Waiting(_) => cpu.init(),
            Begin::Startup(vector) | Begin::Landing(vector) => {
                cpu.init();
                setup::startup(&mut cpu.vmcs, vector);
            }
        }
        percpu.set_takes_machine_checks(true);
        #[cfg(feature = "trial")]
        super::trial::run(&mut cpu.vmcs, &mut cpu.block, region);
        #[cfg(not(feature = "trial"))]
        Ok(cpu)
    }

    /// Loads `state` into the guest's registers.
    #[cold]
    fn load(&mut self, state: &CpuState) {
        guest_state::load(&mut self.vmcs, &self.capabilities, state);
        self.block.registers = state.registers;
    }

    /// Copies the guest's RSP from the VMCS to the guest's registers.
    #[cold]
    fn fetch_rsp(&mut self) {
        let rsp = self.vmcs.read(GUEST_RSP).0;
        self.block.registers.set(Register::Rsp, rsp);
    }

    /// Completes RFLAGS after an instruction: clears RF, and makes a debug exception pending if TF is set and BTF is
    /// not.
    #[cold]
    fn finish_flags(&mut self, flags: u64) {
        self.vmcs.write(GUEST_RFLAGS, Natural(flags & !RESUME));
        if flags & TRAP != 0 && self.vmcs.read(GUEST_DEBUGCTL) & BRANCH_STEP == 0 {
            let pending = self.vmcs.read(GUEST_PENDING_DEBUG).0;
            self.vmcs.write(GUEST_PENDING_DEBUG, Natural(pending | PENDING_SINGLE_STEP));
        }
    }

    /// Returns the instruction pointer `next` after it has crossed a multiple of 4 GiB: outside of 64-bit mode only its
    /// lower 32 bits count.
    #[cold]
    fn wrapped(&self, next: u64) -> u64 {
        let is_64_bit = self.vmcs.read(GUEST_EFER) & EFER_LMA != 0 && self.cs_l();
        if is_64_bit { next } else { next & 0xffff_ffff }
    }

    /// Returns CR0 as the guest sees it.
    fn cr0(&self) -> u64 {
        let mask = guest_state::cr0_mask(&self.capabilities);
        self.vmcs.read(GUEST_CR0).0 & !mask | self.vmcs.read(CR0_READ_SHADOW).0 & mask
    }

    /// Returns the L bit of the guest's CS, which selects 64-bit code.
    fn cs_l(&self) -> bool {
        self.vmcs.read(GUEST_CS_RIGHTS) & 1 << 13 != 0
    }
}

impl RunsOn for VmxCpu {
    type Processor = Hardware;

    fn processor(&self) -> Hardware {
        Hardware
    }
}

impl Vcpu for VmxCpu {
    type Format = Ept;
    type WaitForSipi = WaitForSipi;

    #[inline(always)]
    fn run(&mut self) -> Exit {
        if self.pending.waits()
            && let Some(exit) = self.retry_pending()
        {
            return exit;
        }
        loop {
            // SAFETY: `new` has set up the current VMCS, with a second stage that does not map Vidar's memory, and the
            // block belongs to it.
            match unsafe { enter(&mut self.block) } {
                status::LEFT => break,
                status::EVENT_KEPT => {
                    if let Some(exit) = self.deliver_kept() {
                        return exit;
                    }
                }
                status if self.was_not_launched(status) => {}
                status => return self.entry_failed(status),
            }
        }
        let reason = self.vmcs.exit_reason();
        let exit = exit::decode(reason, &self.vmcs);
        match exit {
            Exit::SecondStage(_) => self.redeliver(),
            Exit::Nmi => return self.nmi_exit(),
            // The source of the write may be RSP, which the CPU keeps in the VMCS.
            Exit::ControlWrite(_) | Exit::WrmsrImmediate(_) => self.fetch_rsp(),
            _ => {}
        }
        exit
    }

    fn registers(&mut self) -> &mut Registers {
        &mut self.block.registers
    }

    #[cold]
    fn set_register(&mut self, register: Register, value: u64) {
        if register == Register::Rsp {
            self.vmcs.write(GUEST_RSP, Natural(value));
        }
        self.block.registers.set(register, value);
    }

    fn percpu(&self) -> &'static PerCpu {
        self.percpu
    }

    fn controls(&self) -> Controls {
        Controls {
            cr0: self.cr0(),
            cr3: self.vmcs.read(GUEST_CR3).0,
            cr4: self.cr4(),
            efer: self.vmcs.read(GUEST_EFER),
            cs_l: self.cs_l(),
        }
    }

    fn cr4(&self) -> u64 {
        self.vmcs.read(GUEST_CR4).0 & !CR4_SHADOWED | self.vmcs.read(CR4_READ_SHADOW).0 & CR4_SHADOWED
    }

    fn cpl(&self) -> u8 {
        // The descriptor privilege level of SS is the CPL: Intel SDM Vol. 3C, 25.4.1 "Guest Register State".
        (self.vmcs.read(GUEST_SS_RIGHTS) >> 5 & 3) as u8
    }

    #[cold]
    fn set_controls(&mut self, controls: &Controls) {
        // VM entry leaves CD and NW as they are in the CPU.
        instructions::set_cache_bits(controls.cr0);
        guest_state::load_controls(&mut self.vmcs, &self.capabilities, controls);
        // The guest's instruction would have flushed the translations that the change makes stale. Without VPID, VM
        // entry flushes them.
        if self.capabilities.has(secondary::VPID) {
            vmcs::invvpid(GUEST_VPID);
        }
    }

    #[cold]
    fn write_control(
        &mut self,
        write: ControlWrite,
        pdptes: impl FnOnce(u64) -> Result<[u64; 4], Fault>,
        guard: impl FnOnce(&mut Self, &Controls) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        controls::write(self, write, pdptes, guard)
    }

    /// Exits and entries switch the MSRs of SYSENTER.
    #[cold]
    fn keep_msr(&mut self, index: u32, value: u64) {
        match index {
            msr::SYSENTER_CS => self.vmcs.write(GUEST_SYSENTER_CS, value as u32),
            msr::SYSENTER_ESP => self.vmcs.write(GUEST_SYSENTER_ESP, Natural(value)),
            msr::SYSENTER_EIP => self.vmcs.write(GUEST_SYSENTER_EIP, Natural(value)),
            _ => {}
        }
    }

    #[cold]
    fn watch_efer(&mut self, watch: bool) {
        // SAFETY: the caller of `new` has promised that these frames hold the MSR bitmaps.
        unsafe { self.vmcs.root() }.write_root(MSR_BITMAP, self.msr_bitmaps[usize::from(watch)].0);
    }

    fn pins(&mut self) -> &mut Pins {
        &mut self.pins
    }

    #[inline(always)]
    fn advance(&mut self) {
        // No instruction has more than 15 bytes.
        self.skip(self.vmcs.read(EXIT_INSTRUCTION_LENGTH) as u8);
    }

    #[inline(always)] // into `advance`, which runs at nearly every exit
    fn skip(&mut self, length: u8) {
        let rip = self.vmcs.read(GUEST_RIP).0;
        let mut next = rip.wrapping_add(length.into());
        if (rip ^ next) >> 32 != 0 {
            next = self.wrapped(next);
        }
        self.vmcs.write(GUEST_RIP, Natural(next));
        let flags = self.vmcs.read(GUEST_RFLAGS).0;
        let blocking = self.vmcs.read(GUEST_INTERRUPTIBILITY);
        const SHADOW: u32 = interruptibility::STI | interruptibility::MOV_SS;
        if blocking & SHADOW != 0 {
            self.vmcs.write(GUEST_INTERRUPTIBILITY, blocking & !SHADOW);
        }
        if flags & (RESUME | TRAP) != 0 {
            self.finish_flags(flags);
        }
    }

    #[cold]
    fn interrupted(&self) -> Option<Interrupted> {
        event::kind_of_interrupted(self.vmcs.read(IDT_VECTORING_INFO))
    }

    #[cold]
    fn inject(&mut self, exception: Exception) {
        if exception == Exception::MachineCheck {
            self.percpu.add_pending(pending::MACHINE_CHECK);
            return;
        }
        // #UD and #GP are faults: the saved RFLAGS have RF set, and a shadow of STI or MOV SS ends. Blocking by NMI
        // stays as it is. Where the exception takes the place of an NMI whose delivery the exit has interrupted,
        // `redeliver_event` has ended the blocking, which a bare CPU would keep until the handler's IRET.
        let flags = self.vmcs.read(GUEST_RFLAGS).0;
        self.vmcs.write(GUEST_RFLAGS, Natural(flags | RESUME));
        let blocking = self.vmcs.read(GUEST_INTERRUPTIBILITY);
        self.vmcs
            .write(GUEST_INTERRUPTIBILITY, blocking & !(interruptibility::STI | interruptibility::MOV_SS));
        let protected_mode = self.vmcs.read(GUEST_CR0).0 & CR0_PE != 0;
        self.set_injection(&Injection::of(exception, protected_mode));
    }

    #[cold]
    fn set_flags(&mut self, mask: u64, flags: u64) {
        let old = self.vmcs.read(GUEST_RFLAGS).0;
        self.vmcs.write(GUEST_RFLAGS, Natural(old & !mask | flags & mask));
    }

    fn rip(&self) -> u64 {
        self.vmcs.read(GUEST_RIP).0
    }

    fn code(&self) -> Code {
        Code {
            rip: self.vmcs.read(GUEST_RIP).0,
            base: self.vmcs.read(GUEST_CS_BASE).0,
            default_32: self.vmcs.read(GUEST_CS_RIGHTS) & 1 << 14 != 0,
        }
    }

    #[cold]
    fn init(&mut self) {
        self.percpu.drop_pending();
        self.pending.forget();
        self.in_room = false;
        self.vmcs.use_timer(false);
        self.load(&CpuState::after_init(cpuid::cpuid(1, 0).eax));
        self.pins = Pins::default();
        self.percpu.pinned.store(0, Ordering::Relaxed);
        setup::init(&mut self.vmcs, &self.capabilities, self.waits);
        physical::init(&self.capabilities, self.waits);
        instructions::reset_debug_registers();
        if self.capabilities.has(secondary::VPID) {
            vmcs::invvpid(GUEST_VPID);
        }
        // INIT flushes a bare CPU's TLB, and INVVPID leaves what is cached of the second stage alone.
        vmcs::invept_all();
    }

    #[cold]
    fn startup(&mut self, vector: u8) {
        setup::startup(&mut self.vmcs, vector);
        if self.waits {
            apic_init::reset();
            self.drop_blocked_init();
        }
    }

    #[cold]
    fn wait_at(&mut self, room: u8) {
        setup::startup(&mut self.vmcs, room);
        self.in_room = true;
    }

    fn takes_init(&self) -> bool {
        true
    }

    fn flush_second_stage(&mut self) {
        vmcs::invept_all();
    }

    fn doubt(&mut self) -> &mut Doubt {
        &mut self.doubt
    }

    #[cold]
    fn snapshot(&self) -> Snapshot {
        snapshot::take(&self.vmcs, &self.block.registers, self.controls(), Cr2::read_raw())
    }

    #[cold]
    fn broken_rules(&self, _: Moment, found: &mut dyn FnMut(&Broken<'_>)) {
        rules::broken(&self.vmcs, found);
    }

    fn beyond_rules(code: u32) -> Option<&'static str> {
        beyond(code)
    }
}
