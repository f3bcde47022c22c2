//! A virtual CPU on AMD-V.
// tidy: long because all methods of the virtual CPU are in one place.

#![expect(unsafe_code, reason = "the entry assembly is called")]

use core::convert::Infallible;
use core::sync::atomic::Ordering;

use vidar_core::mem::addr::Hpa;
use vidar_core::mem::layout::direct;
use vidar_core::mem::walk::ReadGuest;
use vidar_core::policy::control::{CR0_PE, ControlWrite, Controls};
use vidar_core::policy::guard::{Guard, Pins};
use vidar_core::svm::capabilities::Capabilities;
use vidar_core::svm::event::LastInjected;
use vidar_core::svm::instruction::{Instruction, Verdict};
use vidar_core::svm::nmi::Nmis;
use vidar_core::svm::npt::Npt;
use vidar_core::svm::rules::state::{Facts, State};
use vidar_core::svm::vmcb::{Clean, DEFAULT_32, LONG_CODE, tlb_control};
use vidar_core::svm::{event, exit, guest_state, rules, setup, snapshot};
use vidar_core::vmm::controls;
use vidar_core::vmm::cpu_state::CpuState;
use vidar_core::vmm::crash::Snapshot;
use vidar_core::vmm::doubt::{Doubt, Site};
use vidar_core::vmm::entry::Begin;
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::fetch::{self, Code};
use vidar_core::vmm::outcome::{Exception, Interrupted};
use vidar_core::vmm::percpu::{PerCpu, pending};
use vidar_core::vmm::processor::RunsOn;
use vidar_core::vmm::rules::{Broken, Moment};
use vidar_core::vmm::vcpu::Vcpu;
use vidar_core::x86::registers::Registers;

use super::enable;
use super::entry::{EntryBlock, enter};
use super::instructions::vmsave;
use super::vmcb::Vmcb;
use crate::arch::msr::{self, EFER_SVME, Fault};
use crate::arch::processor::Hardware;
use crate::arch::{apic_init, cpuid, instructions, pat};
use crate::host::physical::GuestReader;
use crate::host::vcpu::{Common, Own};

/// RFLAGS.TF.
const TRAP: u64 = 1 << 8;
/// RFLAGS.RF.
const RESUME: u64 = 1 << 16;
/// DR6.BS: the debug exception is a single step.
const DR6_SINGLE_STEP: u64 = 1 << 14;
/// DebugCtl.BTF: with TF set, the CPU stops after branches, not after instructions.
const BRANCH_STEP: u64 = 1 << 1;

/// The frames of a virtual CPU: the VMCB of the guest, a VMCB for the state of Vidar that VMRUN does not switch, and
/// the host state-save area of the CPU.
pub type Frames = [Hpa; 3];

/// A virtual CPU, bound to the physical CPU on which it was created.
pub struct SvmCpu {
    pub(super) block: EntryBlock,
    pub(super) vmcb: Vmcb,
    pub(super) capabilities: Capabilities,
    pub(super) percpu: &'static PerCpu,
    /// Reads the guest's instructions if the CPU does not report their length.
    pub(super) memory: GuestReader,
    /// The address of the instruction after the one that exited.
    pub(super) next_rip: u64,
    injected: LastInjected,
    pub(super) doubt: Doubt,
    pins: Pins,
    /// What Vidar guards.
    pub(super) guard: Guard,
    /// The bits of CR4 that the guest may set. Only writes that exit are checked against it.
    pub(super) cr4_allowed: u64,
    /// Who acts on NMIs.
    pub(super) nmis: Nmis,
    /// True while the CPU waits in the guest for a start-up IPI.
    pub(super) waits: bool,
}

impl SvmCpu {
    /// Switches AMD-V on and sets up a VMCB for a guest that begins as `begin` says.
    ///
    /// # Safety
    /// The CPU has `capabilities`, as [`enable::probe`] returns them. No other CPU uses the frames of `own`; they are
    /// zeroed, or have been this CPU's since before an INIT. `common` has filled maps, and a second stage that does not
    /// map Vidar's memory.
    pub unsafe fn new(
        capabilities: Capabilities,
        common: &Common,
        own: &Own<'_, Frames>,
        begin: Begin<Infallible>,
    ) -> Self {
        let Own { frames: [guest, host, host_save], cpu } = *own;
        let percpu = cpu.percpu();
        let init_exits = !matches!(begin, Begin::Landing(_));
        // SAFETY: the caller promises that the CPU has AMD-V and that the frames are for this CPU alone, and `cpu` says
        // that its segments and block are loaded. `enable` sets SVME before VMSAVE is executed.
        let vmcb = unsafe {
            let mut vmcb = Vmcb::at(direct(guest));
            enable::enable(&capabilities, host_save, host, init_exits);
            // VMSAVE takes over the values with which the guest begins: those that firmware has left, or those that the
            // guest had at an INIT that did not exit, which does not change them. The guest's PAT is not in the CPU but
            // in the VMCB: AMD APM Vol. 2, 15.25.2 "Replicated State".
            let first = vmcb.control().guest_asid == 0;
            if first || matches!(begin, Begin::Landing(_)) {
                vmsave(guest);
            }
            if first {
                vmcb.save_mut(Clean::ALL).g_pat = percpu.guest_pat();
            }
            vmcb
        };
        if cpuid::has_hypervisor() {
            // KVM's nested AMD-V ignores G_PAT. The nested tables are write-back throughout, so any PAT suits them.
            pat::lend(percpu.guest_pat());
        }
        let block = EntryBlock::new(guest, host);
        let (memory, doubt) = (common.reader, Doubt::default());
        let mut cpu = Self {
            block,
            vmcb,
            capabilities,
            percpu,
            memory,
            next_rip: 0,
            injected: LastInjected::default(),
            doubt,
            pins: Pins::default(),
            guard: common.guard,
            cr4_allowed: enable::cr4_allowed(),
            nmis: if common.calls { Nmis::Exit } else { Nmis::Guest },
            waits: false,
        };
        setup::controls(&mut cpu.vmcb, common.maps.msrs, common.second_stage, init_exits);
        if let Some(map) = common.maps.ports {
            setup::watch_ports(&mut cpu.vmcb, map);
        }
        cpu.watch_nmis();
        match begin {
            Begin::Kernel(state) => {
                let state = CpuState::at_kernel(&state);
                guest_state::load(&mut cpu.vmcb, &state);
                cpu.block.registers = state.registers;
            }
            Begin::Startup(vector) | Begin::Landing(vector) => {
                cpu.reset();
                cpu.startup(vector);
            }
        }
        cpu.deliver_nmi();
        #[cfg(feature = "trial")]
        super::trial::run(&mut cpu.vmcb, &mut cpu.block);
        #[cfg(not(feature = "trial"))]
        cpu
    }

    /// Puts the virtual CPU into the state after INIT.
    #[cold]
    fn reset(&mut self) {
        let state = CpuState::after_init(cpuid::cpuid(1, 0).eax);
        setup::init(&mut self.vmcb, &state);
        instructions::reset_debug_registers();
        self.block.registers = state.registers;
        self.pins = Pins::default();
        self.percpu.pinned.store(0, Ordering::Relaxed);
        self.watch_controls();
        self.watch_nmis();
        self.waits = false;
        self.flush();
    }

    /// Injects an NMI that arrived before GIF was cleared. Any later NMI waits in the CPU.
    #[cold]
    pub(super) fn deliver_nmi(&mut self) {
        if self.percpu.take_pending() & pending::NMI != 0 {
            self.set_injection(event::NMI, 0);
        }
    }

    /// Has the next VMRUN inject `event`, after `uncounted` exits that the counters do not have yet.
    #[cold]
    #[inline(never)] // counting exits is long, and `run` is short
    pub(super) fn set_injection(&mut self, event: u64, uncounted: u64) {
        self.vmcb.control_mut(Clean::empty()).eventinj = event;
        self.injected = LastInjected::new(event, self.percpu.counters.total() + uncounted);
    }

    /// Injects the event whose delivery the last exit has interrupted. `uncounted` is as in [`SvmCpu::set_injection`].
    #[cold]
    pub(super) fn redeliver(&mut self, uncounted: u64) {
        let interrupted = self.vmcb.control().exitintinfo;
        if !event::is_valid(interrupted) {
            return;
        }
        let injected = self.injected.by_entry_to(self.percpu.counters.total() + uncounted);
        let Some(event) = event::interrupted(interrupted, injected) else { return };
        if event::is_of_instruction(event) {
            self.return_to_rip();
        }
        self.set_injection(event, uncounted);
    }

    /// Has the handler of an INT n or INT3 that is injected return to RIP: a CPU with nrip_save takes the address from
    /// nRIP.
    pub(super) fn return_to_rip(&mut self) {
        let rip = self.vmcb.save().rip;
        self.vmcb.control_mut(Clean::empty()).nrip = rip;
    }

    /// Returns the address after the intercepted instruction, or `None` if the CPU does not report it and the
    /// instruction is not found in the guest's memory.
    #[inline(always)]
    fn after(&self, instruction: Instruction) -> Option<u64> {
        if self.capabilities.nrip_save {
            return Some(self.vmcb.control().nrip);
        }
        self.find_end(instruction)
    }

    /// Returns the address after the intercepted instruction, as it is found in the guest's memory.
    #[inline(never)] // it has many variables
    fn find_end(&self, instruction: Instruction) -> Option<u64> {
        let (controls, code) = (self.controls(), self.code());
        let bytes = code.bytes(&controls, |address| self.memory.word(address));
        let length = instruction.length(bytes, fetch::is_64_bit(&controls))?;
        Some(code.after(&controls, length))
    }

    /// Returns the exit to handle instead, if [`SvmCpu::after`] has not found the `instruction` that exited. AMD APM
    /// Vol. 2, 15.16.1 "TLB Flush".
    #[cold]
    fn not_found(&mut self, instruction: Instruction) -> Exit {
        let exit = exit::decode(self.vmcb.control());
        let (controls, code) = (self.controls(), self.code());
        let kind = exit.kind();
        let site = Site { kind, rip: code.rip, answered: self.percpu.counters.get(kind) };
        let bytes = code.bytes(&controls, |address| self.memory.word(address));
        match instruction.decide(&mut self.doubt, site, bytes, fetch::is_64_bit(&controls)) {
            Verdict::Length(length) => {
                self.next_rip = code.after(&controls, length);
                exit
            }
            Verdict::Undefined => Exit::Undefined,
            Verdict::Again => {
                self.flush();
                Exit::Changed
            }
        }
    }

    /// Has the next VMRUN flush the guest's translations.
    pub(super) fn flush(&mut self) {
        let flush = if self.capabilities.flush_by_asid { tlb_control::THIS_ASID } else { tlb_control::ALL };
        self.vmcb.control_mut(Clean::empty()).tlb_control = flush;
    }

    /// Completes RFLAGS after an instruction: clears RF, and injects a debug exception if TF is set and BTF is not.
    #[cold]
    fn finish_flags(&mut self) {
        let save = self.vmcb.save_mut(Clean::empty());
        let flags = save.rflags;
        save.rflags = flags & !RESUME;
        // The guest's DebugCtl is in the CPU, since LBR virtualization is off.
        let steps_over_branches =
            || msr::read_checked(msr::DEBUGCTL).is_ok_and(|value| value & BRANCH_STEP != 0);
        if flags & TRAP != 0 && !steps_over_branches() {
            self.vmcb.save_mut(Clean::DEBUG).dr6 |= DR6_SINGLE_STEP;
            self.set_injection(event::SINGLE_STEP, 0);
        }
    }
}

/// Returns the instruction that causes an exit of this kind, if the guest continues after it.
const fn instruction(exit: &Exit) -> Option<Instruction> {
    match exit {
        Exit::Cpuid => Some(Instruction::Cpuid),
        Exit::Rdmsr => Some(Instruction::Rdmsr),
        Exit::Wrmsr => Some(Instruction::Wrmsr),
        Exit::Xsetbv => Some(Instruction::Xsetbv),
        Exit::Invd => Some(Instruction::Invd),
        Exit::Hypercall => Some(Instruction::Vmmcall),
        _ => None,
    }
}

impl RunsOn for SvmCpu {
    type Processor = Hardware;

    fn processor(&self) -> Hardware {
        Hardware
    }
}

impl Vcpu for SvmCpu {
    type Format = Npt;
    type WaitForSipi = Infallible;

    #[inline(always)]
    fn run(&mut self) -> Exit {
        // SAFETY: `new` has switched AMD-V on and set up the VMCB, with a second stage that does not map Vidar's
        // memory.
        unsafe { enter(&mut self.block) };
        self.vmcb.left(setup::clean(&self.capabilities));
        let exit = exit::decode(self.vmcb.control());
        if let Some(instruction) = instruction(&exit) {
            match self.after(instruction) {
                Some(next) => self.next_rip = next,
                None => return self.not_found(instruction),
            }
        } else if let Exit::ControlWrite(write) = exit {
            return self.control_write(write);
        } else if let Exit::SecondStage(_) = exit {
            self.redeliver(1); // this exit is not counted yet
        } else if let Exit::Unknown { code, .. } = exit
            && let Some(exit) = self.nmi_exit(code)
        {
            return exit;
        }
        exit
    }

    fn registers(&mut self) -> &mut Registers {
        &mut self.block.registers
    }

    fn percpu(&self) -> &'static PerCpu {
        self.percpu
    }

    fn controls(&self) -> Controls {
        let save = self.vmcb.save();
        Controls {
            cr0: save.cr0,
            cr3: save.cr3,
            cr4: save.cr4,
            efer: save.efer & !EFER_SVME,
            cs_l: save.cs.attributes & LONG_CODE != 0,
        }
    }

    fn cr4(&self) -> u64 {
        self.vmcb.save().cr4
    }

    fn cpl(&self) -> u8 {
        self.vmcb.save().cpl
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

    /// VMLOAD and VMSAVE switch these MSRs.
    #[cold]
    fn keep_msr(&mut self, index: u32, value: u64) {
        let save = self.vmcb.save_mut(Clean::empty());
        match index {
            msr::STAR => save.star = value,
            msr::LSTAR => save.lstar = value,
            msr::CSTAR => save.cstar = value,
            msr::SFMASK => save.sfmask = value,
            msr::SYSENTER_CS => save.sysenter_cs = value,
            msr::SYSENTER_ESP => save.sysenter_esp = value,
            msr::SYSENTER_EIP => save.sysenter_eip = value,
            _ => {}
        }
    }

    #[cold]
    fn set_controls(&mut self, controls: &Controls) {
        let save = self.vmcb.save_mut(Clean::CONTROLS);
        (save.cr0, save.cr4, save.efer) = (controls.cr0, controls.cr4, controls.efer | EFER_SVME);
        // The guest's instruction would have flushed the translations that the change makes stale.
        self.flush();
        self.watch_controls();
    }

    fn watch_efer(&mut self, _: bool) {
        // Writes of EFER always exit, since the permissions map must hide SVME.
    }

    fn pins(&mut self) -> &mut Pins {
        &mut self.pins
    }

    #[inline(always)]
    fn advance(&mut self) {
        let next = self.next_rip;
        let save = self.vmcb.save_mut(Clean::empty());
        save.rip = next;
        let flags = save.rflags;
        self.vmcb.control_mut(Clean::empty()).interrupt_shadow = 0;
        if flags & (RESUME | TRAP) != 0 {
            self.finish_flags();
        }
    }

    fn skip(&mut self, length: u8) {
        self.next_rip = self.code().after(&self.controls(), length);
        self.advance();
    }

    #[cold]
    fn interrupted(&self) -> Option<Interrupted> {
        event::kind_of_interrupted(self.vmcb.control().exitintinfo)
    }

    #[cold]
    fn inject(&mut self, exception: Exception) {
        // #UD and #GP are faults: the saved RFLAGS have RF set, and a shadow of STI or MOV SS ends.
        let save = self.vmcb.save_mut(Clean::empty());
        save.rflags |= RESUME;
        let protected_mode = save.cr0 & CR0_PE != 0;
        self.vmcb.control_mut(Clean::empty()).interrupt_shadow = 0;
        self.set_injection(event::inject(exception, protected_mode), 0);
    }

    #[cold]
    fn set_flags(&mut self, mask: u64, flags: u64) {
        let save = self.vmcb.save_mut(Clean::empty());
        save.rflags = save.rflags & !mask | flags & mask;
    }

    fn rip(&self) -> u64 {
        self.vmcb.save().rip
    }

    fn code(&self) -> Code {
        let save = self.vmcb.save();
        Code { rip: save.rip, base: save.cs.base, default_32: save.cs.attributes & DEFAULT_32 != 0 }
    }

    #[cold]
    fn init(&mut self) {
        // INIT ends the blocking of NMIs, which wait in the CPU all the same while GIF is 0.
        instructions::unblock_nmis();
        if let Exit::Init = exit::decode(self.vmcb.control()) {
            // The intercepted INIT is still pending. It is delivered here, as an exception.
            self.let_nmi_in();
        }
        self.percpu.drop_pending();
        apic_init::reset();
        self.reset();
    }

    #[cold]
    fn startup(&mut self, vector: u8) {
        setup::startup(&mut self.vmcb, vector);
    }

    #[cold]
    fn wait_at(&mut self, room: u8) {
        setup::startup(&mut self.vmcb, room);
        self.waits = true;
    }

    fn takes_init(&self) -> bool {
        enable::redirects_init()
    }

    fn flush_second_stage(&mut self) {
        self.flush();
    }

    fn doubt(&mut self) -> &mut Doubt {
        &mut self.doubt
    }

    #[cold]
    fn snapshot(&self) -> Snapshot {
        snapshot::take(&self.vmcb, &self.block.registers, self.controls())
    }

    #[cold]
    fn broken_rules(&self, moment: Moment, found: &mut dyn FnMut(&Broken<'_>)) {
        let facts = Facts::new(cpuid::physical_address_bits(), cpuid::cpuid);
        let state = State::new(&self.vmcb, &facts);
        let state = match moment {
            Moment::BeforeEntry => state,
            Moment::AfterFailure => state.with_event(self.injected.by_entry_to(self.percpu.counters.total())),
        };
        rules::broken(&state, found);
    }
}
