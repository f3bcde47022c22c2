//! A virtual CPU on AMD-V.

#![expect(unsafe_code, reason = "the entry assembly is called")]

use vidar_core::mem::addr::Hpa;
use vidar_core::mem::layout::direct;
use vidar_core::mem::walk::ReadGuest;
use vidar_core::policy::control::{CR0_PE, Controls};
use vidar_core::svm::capabilities::Capabilities;
use vidar_core::svm::instruction::{Instruction, Verdict};
use vidar_core::svm::vmcb::{Clean, DEFAULT_32, LONG_CODE, tlb_control};
use vidar_core::svm::{event, exit, guest_state, setup, snapshot};
use vidar_core::vmm::cpu_state::CpuState;
use vidar_core::vmm::crash::Snapshot;
use vidar_core::vmm::doubt::{Doubt, Site};
use vidar_core::vmm::entry::Begin;
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::fetch::{self, Code};
use vidar_core::vmm::outcome::Exception;
use vidar_core::vmm::percpu::{PerCpu, kept};
use vidar_core::vmm::processor::RunsOn;
use vidar_core::vmm::vcpu::Vcpu;
use vidar_core::x86::registers::Registers;

use super::enable;
use super::entry::{EntryBlock, enter};
use super::instructions::{clgi, stgi, vmsave};
use super::vmcb::Vmcb;
use crate::arch::msr::{self, EFER_SVME};
use crate::arch::processor::Hardware;
use crate::arch::{cpuid, instructions, pat};

/// Bits of RFLAGS.
const TRAP: u64 = 1 << 8;
const RESUME: u64 = 1 << 16;
/// DR6.BS: the debug exception is a single step.
const DR6_SINGLE_STEP: u64 = 1 << 14;
/// DebugCtl.BTF: TF steps over branches, not instructions.
const BRANCH_STEP: u64 = 1 << 1;

/// Frames that a virtual CPU needs beside the second stage.
#[derive(Debug, Clone, Copy)]
pub struct CpuFrames {
    /// VMCB.
    pub vmcb: Hpa,
    /// VMCB of Vidar's own state.
    pub host: Hpa,
    /// Host state-save area of the CPU.
    pub host_save: Hpa,
    /// MSR permissions map, filled: two frames.
    pub permissions_map: Hpa,
}

/// A virtual CPU, bound to the physical CPU that it was made on.
pub struct SvmCpu<R> {
    block: EntryBlock,
    vmcb: Vmcb,
    capabilities: Capabilities,
    percpu: &'static PerCpu,
    memory: R,
    /// Where the guest goes on behind the instruction that exited.
    next_rip: u64,
    doubt: Doubt,
}

impl<R: ReadGuest> SvmCpu<R> {
    /// Turns AMD-V on and makes a VMCB for a guest that begins as `begin` says. `memory` is asked where the CPU does not give
    /// the length of an instruction.
    ///
    /// # Safety
    /// [`enable::probe`] found `capabilities` on this CPU; the frames are this CPU's alone but for the map, and zeroed or
    /// those that it had before an INIT; `root` is a nested page table that does not map Vidar; `percpu` and the segments
    /// are loaded.
    pub unsafe fn new(
        capabilities: Capabilities,
        frames: CpuFrames,
        root: Hpa,
        percpu: &'static PerCpu,
        begin: &Begin,
        memory: R,
    ) -> Self {
        // SAFETY: the caller's promise; SVME is set when VMSAVE is executed.
        let vmcb = unsafe {
            let mut vmcb = Vmcb::at(direct(frames.vmcb));
            enable::enable(&capabilities, frames.host_save, frames.host, percpu.is_boot_cpu());
            // INIT leaves the MSRs. One that exited has found Vidar's in the CPU, and the guest's are in the VMCB. One that did not
            // exit has found the guest's in the CPU, where it may have written them since its last exit. The PAT alone is not
            // there any more: AMD APM Vol. 2, 15.25.2 "Replicated State".
            let first = vmcb.control.guest_asid == 0;
            if first || matches!(begin, Begin::Landed(_)) {
                vmsave(frames.vmcb);
            }
            if first {
                vmcb.save_mut(Clean::ALL).g_pat = percpu.guest_pat();
            }
            vmcb
        };
        if cpuid::has_hypervisor() {
            // KVM's nested AMD-V does not look at G_PAT. The nested tables are write-back throughout, so they do not mind.
            pat::lend(percpu.guest_pat());
        }
        let block = EntryBlock::new(frames.vmcb, frames.host);
        let mut cpu =
            Self { block, vmcb, capabilities, percpu, memory, next_rip: 0, doubt: Doubt::default() };
        let init_exits = !matches!(begin, Begin::Landed(_));
        setup::controls(&mut cpu.vmcb, frames.permissions_map, root, init_exits);
        match begin {
            Begin::Kernel(state) => {
                let state = CpuState::at_kernel(state);
                guest_state::load(&mut cpu.vmcb, &state);
                cpu.block.registers = state.registers;
            }
            Begin::Startup(vector) | Begin::Landed(vector) => {
                cpu.reset();
                cpu.startup(*vector);
            }
            Begin::Waiting => panic!("AMD-V has no guest that waits for a start-up IPI"),
        }
        cpu.deliver_nmi();
        cpu
    }

    /// Puts the CPU into the state after INIT.
    fn reset(&mut self) {
        let state = CpuState::after_init(cpuid::cpuid(1, 0).eax);
        setup::init(&mut self.vmcb, &state);
        instructions::reset_debug_registers();
        self.block.registers = state.registers;
        self.flush();
    }

    /// Injects an NMI that came before GIF was 0. Those after wait in the CPU.
    #[cold]
    fn deliver_nmi(&mut self) {
        if self.percpu.take_kept() & kept::NMI != 0 {
            self.vmcb.control_mut(Clean::empty()).eventinj = event::NMI;
        }
    }

    /// The address behind the intercepted instruction, or `None` where neither the CPU nor the guest's memory has it.
    fn behind(&self, instruction: Instruction) -> Option<u64> {
        if self.capabilities.nrip_save {
            return Some(self.vmcb.control.nrip);
        }
        let (controls, code) = (self.controls(), self.code());
        let bytes = code.bytes(&controls, |address| self.memory.word(address));
        let length = instruction.length(bytes, fetch::is_64_bit(&controls))?;
        Some(code.after(&controls, length))
    }

    /// What becomes of an exit at an `instruction` that [`SvmCpu::behind`] did not find. AMD APM Vol. 2, 15.16.1 "TLB Flush".
    #[cold]
    fn not_found(&mut self, instruction: Instruction) -> Exit {
        let exit = exit::decode(&self.vmcb.control);
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

    /// What VMRUN flushes before the next entry: the guest's translations.
    fn flush(&mut self) {
        let flush = if self.capabilities.flush_by_asid { tlb_control::THIS_ASID } else { tlb_control::ALL };
        self.vmcb.control_mut(Clean::empty()).tlb_control = flush;
    }

    /// RF and TF behind an instruction: RF ends, and TF raises a debug exception.
    #[cold]
    fn finish_flags(&mut self) {
        let save = self.vmcb.save_mut(Clean::empty());
        let flags = save.rflags;
        save.rflags = flags & !RESUME;
        // The guest's DebugCtl is the CPU's, since LBR virtualization is off.
        let steps_over_branches =
            || msr::read_checked(msr::DEBUGCTL).is_ok_and(|value| value & BRANCH_STEP != 0);
        if flags & TRAP != 0 && !steps_over_branches() {
            self.vmcb.save_mut(Clean::DEBUG).dr6 |= DR6_SINGLE_STEP;
            self.vmcb.control_mut(Clean::empty()).eventinj = event::SINGLE_STEP;
        }
    }
}

/// The instruction behind which an exit of this kind goes on.
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

impl<R> RunsOn for SvmCpu<R> {
    type Processor = Hardware;

    fn processor(&self) -> Hardware {
        Hardware
    }
}

impl<R: ReadGuest> Vcpu for SvmCpu<R> {
    fn run(&mut self) -> Exit {
        // SAFETY: `new` turned AMD-V on and set the VMCB up, with a second stage that leaves out Vidar's memory.
        unsafe { enter(&mut self.block) };
        self.vmcb.left(setup::clean(&self.capabilities));
        let exit = exit::decode(&self.vmcb.control);
        if let Some(instruction) = instruction(&exit) {
            match self.behind(instruction) {
                Some(next) => self.next_rip = next,
                None => return self.not_found(instruction),
            }
        } else if let Exit::SecondStage(_) = exit
            && let Some(event) = event::interrupted(self.vmcb.control.exitintinfo)
        {
            self.vmcb.control_mut(Clean::empty()).eventinj = event;
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
        let save = &self.vmcb.save;
        Controls {
            cr0: save.cr0,
            cr3: save.cr3,
            cr4: save.cr4,
            efer: save.efer & !EFER_SVME,
            cs_l: save.cs.attributes & LONG_CODE != 0,
        }
    }

    fn cr4(&self) -> u64 {
        self.vmcb.save.cr4
    }

    fn cpl(&self) -> u8 {
        self.vmcb.save.cpl
    }

    fn task_is_16_bit(&self) -> bool {
        false // the CPU has looked: writes of CR0 do not exit
    }

    #[cold]
    fn set_controls(&mut self, controls: &Controls) {
        let save = self.vmcb.save_mut(Clean::CONTROLS);
        (save.cr0, save.cr4, save.efer) = (controls.cr0, controls.cr4, controls.efer | EFER_SVME);
        // The instruction would have flushed what the change makes stale.
        self.flush();
    }

    fn set_pdptes(&mut self, _: [u64; 4]) {
        // The CPU reads them from memory when it needs them: AMD APM Vol. 2, 15.25.10 "Legacy PAE Mode".
    }

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
    fn inject(&mut self, exception: Exception) {
        // Both are faults: the saved RFLAGS have RF set, and a shadow ends.
        let save = self.vmcb.save_mut(Clean::empty());
        save.rflags |= RESUME;
        let protected_mode = save.cr0 & CR0_PE != 0;
        let control = self.vmcb.control_mut(Clean::empty());
        control.interrupt_shadow = 0;
        control.eventinj = event::inject(exception, protected_mode);
    }

    #[cold]
    fn set_flags(&mut self, mask: u64, flags: u64) {
        let save = self.vmcb.save_mut(Clean::empty());
        save.rflags = save.rflags & !mask | flags & mask;
    }

    fn code(&self) -> Code {
        let save = &self.vmcb.save;
        Code { rip: save.rip, base: save.cs.base, default_32: save.cs.attributes & DEFAULT_32 != 0 }
    }

    #[cold]
    fn init(&mut self, _: bool) {
        // The INIT that was intercepted is still pending: it comes as an exception, and NMIs may come with it.
        // SAFETY: SVME is set and Vidar's exceptions are loaded.
        unsafe {
            stgi();
            clgi();
        }
        self.reset();
        self.deliver_nmi();
    }

    #[cold]
    fn startup(&mut self, vector: u8) {
        setup::startup(&mut self.vmcb, vector);
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

    fn leave(&mut self) {
        // SAFETY: SVME is set. An INIT that waits, or the one that resets the machine, may come from here on.
        unsafe { stgi() };
    }
}
