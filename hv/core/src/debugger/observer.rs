//! The debugger on one CPU: stops the guest there, has it step, and tells gdb's exceptions from the guest's own.

use super::breakpoints::Int3;
use super::cpus::{Reason, Run};
use super::debug_registers::{Access, DETECTED, GuestDebugRegisters};
use super::debuggable::{DebugExit, Debuggable, GuestException};
use super::desk::Desk;
use super::exceptions::{Expected, SINGLE_STEP, Shares};
use super::memory;
use super::step::{self, ByFlag, Step, TRAP};
use crate::mem::addr::Gpa;
use crate::policy::control::CR4_DE;
use crate::vmm::cpu_state::SegmentRegister;
use crate::vmm::exit::Exit;
use crate::vmm::fetch::is_64_bit;
use crate::vmm::observer::Observer;
use crate::vmm::outcome::{Exception, Outcome, REFUSE, Stop};
use crate::x86::registers::Register;

/// RFLAGS.RF.
const RESUME: u64 = 1 << 16;

/// The debugger on one CPU.
pub struct Debugger {
    desk: &'static Desk,
    /// The number of the CPU.
    index: usize,
    /// The debug registers as the guest sees them, from the first entry on.
    own: Option<GuestDebugRegisters>,
    /// True if the CPU is to stop before its first entry.
    stops_first: bool,
    /// The stop of [`Desk::stops`] after which the CPU's debug registers were loaded. It is `None` if they may not hold
    /// what they are to hold. A CPU that gdb could not stop has missed one, and loads them when it next exits.
    armed: Option<u32>,
    step: Option<Step>,
    /// The memory of gdb's INT3 that is lifted for this step.
    lifted: Option<Gpa>,
    /// True if the step is not for gdb, but to execute what an INT3 hides.
    passes: bool,
    /// How many times RFLAGS.TF may be on a stack of the guest's, each from a step that did not end as one: gdb may
    /// step in a handler, and another handler come before that step has ended.
    owed: u32,
}

impl Debugger {
    /// Returns the debugger of the CPU `index`. With `stops_first` the CPU stops before its first entry.
    pub const fn new(desk: &'static Desk, index: usize, stops_first: bool) -> Self {
        Self {
            desk,
            index,
            own: None,
            stops_first,
            armed: None,
            step: None,
            lifted: None,
            passes: false,
            owed: 0,
        }
    }

    /// Stops this CPU until gdb has it go on.
    #[cold]
    fn stop<V: Debuggable>(&mut self, vcpu: &mut V, reason: Option<Reason>) {
        self.end_step(vcpu, reason == Some(Reason::Step));
        self.take_back(vcpu);
        vcpu.take_call();
        let before = vcpu.register_file();
        let resumed = self.desk.stop(self.index, before, reason, &|number| vcpu.field(number));
        vcpu.take_ring();
        if resumed.registers != before {
            vcpu.set_register_file(&resumed.registers);
        }
        self.arm(vcpu);
        if resumed.steps {
            self.begin_step(vcpu);
        }
    }

    /// Loads the debug registers with what gdb watches, or else with what the guest watches.
    fn arm<V: Debuggable>(&mut self, vcpu: &mut V) {
        let own = self.own.unwrap_or(GuestDebugRegisters::RESET);
        // This comes first: if gdb stops the guest meanwhile, they are loaded once more.
        let stops = self.desk.stops();
        let (registers, has_int3) = self.desk.armed();
        vcpu.load_debug_registers(&registers.unwrap_or(own.loaded()));
        vcpu.watch_int3(has_int3);
        self.armed = Some(stops);
    }

    /// Takes RFLAGS.TF out of the guest if a handler has returned and loaded one that a step had left on its stack. The
    /// debug exception that follows from it, after the next instruction, has not come yet.
    fn take_back<V: Debuggable>(&mut self, vcpu: &mut V) {
        if self.owed > 0 && vcpu.register_file().state.rflags & TRAP != 0 {
            self.owed -= 1;
            vcpu.drop_single_step();
            vcpu.set_flags(TRAP, 0);
        }
    }

    fn begin_step<V: Debuggable>(&mut self, vcpu: &mut V) {
        self.take_back(vcpu);
        let (code, controls) = (vcpu.code(), vcpu.controls());
        let by_flag = vcpu.steps_by_trap_flag().then(|| {
            let bytes = code.bytes(&controls, |address| self.desk.memory.word(address));
            let own = vcpu.register_file().state.rflags & TRAP != 0;
            ByFlag { flags: step::flags(bytes, is_64_bit(&controls)), own }
        });
        if by_flag.is_some() {
            vcpu.set_flags(TRAP, TRAP);
        }
        vcpu.set_step(true);
        self.step = Some(Step { start: code.rip, by_flag });
    }

    /// Ends a step, and takes RFLAGS.TF out of the guest again. `executed` is true if the instruction is known to have
    /// been executed. It has been as well if the CPU is elsewhere with RFLAGS.TF set, since no handler begins so.
    fn end_step<V: Debuggable>(&mut self, vcpu: &mut V, executed: bool) {
        let Some(step) = self.step.take() else { return };
        vcpu.set_step(false);
        self.put_back();
        let Some(by_flag) = step.by_flag else { return };
        let registers = vcpu.register_file();
        let state = &registers.state;
        let is_elsewhere = state.rip != step.start && state.rflags & TRAP != 0;
        let after = by_flag.after(executed || is_elsewhere, state.rflags);
        self.owed += u32::from(after.owes);
        if step.owns_trap() {
            vcpu.drop_single_step();
        }
        vcpu.set_flags(TRAP, after.trap);
        if after.corrects_r11 {
            let r11 = state.registers.get(Register::R11);
            vcpu.registers().set(Register::R11, r11 & !TRAP);
        }
        if after.corrects_stack {
            let base = if is_64_bit(&state.controls) { 0 } else { state[SegmentRegister::Ss].base };
            let at = base.wrapping_add(state.registers.get(Register::Rsp)).wrapping_add(1);
            let mut high = [0];
            // Bit 8 of the flags is bit 0 of their second byte.
            if memory::read(&state.controls, self.desk.memory, at, &mut high) == 1 {
                memory::write(&state.controls, self.desk.memory, at, &[high[0] & !1]);
            }
        }
    }

    /// Puts gdb's INT3 back that is lifted.
    fn put_back(&mut self) {
        self.passes = false;
        self.desk.lift(&mut self.lifted, None);
    }

    /// Ends a step whose instruction has been executed. It was for gdb, or to pass an INT3.
    fn has_stepped<V: Debuggable>(&mut self, vcpu: &mut V) {
        match self.passes {
            true => self.end_step(vcpu, true),
            false => self.stop(vcpu, Some(Reason::Step)),
        }
    }

    /// Returns true if Vidar has executed the instruction that was to be stepped, since it exits. A step by RFLAGS.TF
    /// may be in the handler of an interrupt meanwhile, where the flag is clear.
    fn has_stepped_outside<V: Debuggable>(&self, vcpu: &V) -> bool {
        let Some(step) = self.step else { return false };
        step.start != vcpu.code().rip
            && (step.by_flag.is_none() || vcpu.register_file().state.rflags & TRAP != 0)
    }

    #[cold]
    fn debug_exception<V: Debuggable>(&mut self, vcpu: &mut V, dr6: u64) -> Outcome {
        let control = self.own.unwrap_or(GuestDebugRegisters::RESET).control;
        let Shares { gdb, guest } =
            self.desk.whose(dr6, Expected { step: self.step, owes: self.owed > 0, control });
        match gdb {
            Some(Reason::Step) => self.has_stepped(vcpu),
            Some(reason) => {
                if dr6 & SINGLE_STEP != 0 {
                    self.end_step(vcpu, true);
                }
                self.stop(vcpu, Some(reason));
            }
            None => {}
        }
        if let Some(conditions) = guest {
            self.raise(conditions);
            vcpu.deliver(GuestException::Debug);
        }
        if (gdb, guest) == (None, None) {
            self.owed = self.owed.saturating_sub(1);
            vcpu.set_flags(TRAP, 0);
        }
        Outcome::Resume
    }

    /// Notes in the guest's debug registers that it gets a #DB for these conditions.
    fn raise(&mut self, conditions: u64) {
        self.own.get_or_insert(GuestDebugRegisters::RESET).raise(conditions);
        self.armed = None;
    }

    /// Has the guest get the exception of its INT1 or INT3. Like any instruction that has been executed, it has cleared
    /// RF.
    fn pass<V: Debuggable>(&mut self, vcpu: &mut V, exception: GuestException) -> Outcome {
        vcpu.set_flags(RESUME, 0);
        vcpu.deliver(exception);
        Outcome::Resume
    }

    #[cold]
    fn breakpoint<V: Debuggable>(&mut self, vcpu: &mut V, length: u8) -> Outcome {
        let code = vcpu.code();
        let controls = vcpu.controls();
        let base = if is_64_bit(&controls) { 0 } else { code.base };
        match self.desk.whose_int3(base.wrapping_add(code.rip), &controls) {
            Int3::Gdb => self.stop(vcpu, Some(Reason::Software)),
            Int3::Shared(physical) => {
                self.desk.lift(&mut self.lifted, Some(physical));
                if self.step.is_none() {
                    self.begin_step(vcpu);
                    self.passes = true;
                }
            }
            Int3::Guest => return self.pass(vcpu, GuestException::Breakpoint(length)),
        }
        Outcome::Resume
    }

    /// Executes a MOV to or from a debug register, which the guest has for itself.
    #[cold]
    fn access<V: Debuggable>(&mut self, vcpu: &mut V, access: Access) -> Outcome {
        if matches!(access.number, 4 | 5) && vcpu.cr4() & CR4_DE != 0 {
            return Outcome::Inject(Exception::InvalidOpcode);
        }
        // On VT-x this exit comes before the check of the privilege level: Intel SDM Vol. 3C, 26.1.1 "Relative Priority
        // of Faults and VM Exits".
        if vcpu.cpl() != 0 {
            return REFUSE;
        }
        let general = vcpu.register_file().state.registers.get(access.register);
        let own = self.own.get_or_insert(GuestDebugRegisters::RESET);
        if own.detects_moves() {
            // A fault: Intel SDM Vol. 3B, 18.3.1.3 "General-Detect Exception Condition".
            self.raise(DETECTED);
            vcpu.set_flags(RESUME, RESUME);
            vcpu.deliver(GuestException::Debug);
            return Outcome::Resume;
        }
        match own.execute(access, general) {
            Ok(value) => {
                vcpu.set_register(access.register, value);
                if access.writes {
                    self.armed = None;
                }
                Outcome::Skip(access.length)
            }
            Err(_) => REFUSE,
        }
    }
}

impl<V: Debuggable> Observer<V> for Debugger {
    fn before_entry(&mut self, vcpu: &mut V) {
        if self.own.is_none() {
            self.own = Some(vcpu.debug_registers());
            vcpu.watch_debug_exits();
            // An NMI that called this CPU before it waited for its start-up IPI does not come any more.
            vcpu.percpu().take_call();
            self.desk.note(self.index, if vcpu.waits() { Run::Absent } else { Run::Running });
        }
        if core::mem::take(&mut self.stops_first) {
            self.stop(vcpu, Some(Reason::Start));
        }
        if self.has_stepped_outside(vcpu) {
            self.has_stepped(vcpu);
        }
        // A CPU that no time makes exit may never exit again, so each of them looks.
        let listens = self.index == 0 || V::CALLED_BY_NMI;
        loop {
            if self.desk.halts() || listens && self.desk.is_called() {
                self.stop(vcpu, None);
            }
            // By an NMI gdb reaches a guest that takes no interrupts, too.
            if !V::CALLED_BY_NMI || self.index != 0 || self.desk.listen() {
                break;
            }
        }
        if vcpu.injects_single_step() {
            self.raise(SINGLE_STEP);
        }
        if self.armed != Some(self.desk.stops()) {
            self.arm(vcpu);
        }
        vcpu.limit_time(listens);
        vcpu.settle();
    }

    fn after_exit(&mut self, vcpu: &mut V, exit: &Exit) -> Option<Outcome> {
        match *exit {
            Exit::Unknown { code, qualification } => match vcpu.debug_exit(code, qualification)? {
                DebugExit::Debug(dr6) => Some(self.debug_exception(vcpu, dr6)),
                DebugExit::Int1(length) => Some(self.pass(vcpu, GuestException::Int1(length))),
                DebugExit::Breakpoint(length) => Some(self.breakpoint(vcpu, length)),
                DebugExit::Step => {
                    self.has_stepped(vcpu);
                    Some(Outcome::Resume)
                }
                DebugExit::Access(access) => Some(self.access(vcpu, access)),
                DebugExit::Port(access) => Some(access.answer(vcpu.registers())),
                DebugExit::Nmi => {
                    if self.index == 0 && self.desk.rings() {
                        vcpu.percpu().ring();
                        vcpu.take_ring();
                    } else {
                        vcpu.pass_nmi();
                    }
                    Some(Outcome::Resume)
                }
                DebugExit::Answered => Some(Outcome::Resume),
            },
            Exit::Init => {
                // INIT ends a step and resets the debug registers, and a CPU that waits for its start-up IPI does not
                // stop for gdb.
                if self.step.take().is_some() {
                    vcpu.set_step(false);
                    self.put_back();
                }
                self.owed = 0;
                self.own = Some(GuestDebugRegisters::RESET);
                self.armed = None;
                if self.index != 0 {
                    self.desk.note(self.index, Run::Absent);
                }
                None
            }
            Exit::Sipi(_) => {
                self.desk.note(self.index, Run::Running);
                None
            }
            _ => None,
        }
    }

    fn before_stop(&mut self, vcpu: &mut V, stop: Stop, _: &Exit) -> Option<Outcome> {
        match stop {
            Stop::Init | Stop::Elsewhere => self.desk.note(self.index, Run::Absent),
            _ if self.desk.is_attached() => self.stop(vcpu, Some(Reason::Crash)),
            _ => {}
        }
        None
    }
}
