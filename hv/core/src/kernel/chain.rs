//! The call chain of a CPU: the address at which it is, the return addresses of its callers, and where exceptions and
//! interrupts have come in between.
//!
//! Only ORC says where a return address is. Nothing is guessed: a word on the stack that looks like an address of code
//! is not shown, and where ORC says nothing, the chain ends. Linux 6.1, arch/x86/kernel/unwind_orc.c,
//! `unwind_next_frame`.

use core::fmt;

use super::orc::{Base, Kind, Rule};
use super::view::View;
use crate::mem::addr::PAGE_SIZE;
use crate::vmm::cpu_state::{CpuState, SegmentRegister};
use crate::x86::msr::EFER_LMA;
use crate::x86::registers::Register;

/// The most frames of a chain.
pub const MAX_FRAMES: usize = 64;

/// The words of `struct pt_regs` after the general-purpose registers and the number of the system call. Linux 6.1,
/// arch/x86/include/asm/ptrace.h.
const RIP: u64 = 16;
const CS: u64 = 17;
const RSP: u64 = 19;
/// The general-purpose registers in the order of that structure.
const SAVED: [Register; 15] = [
    Register::R15,
    Register::R14,
    Register::R13,
    Register::R12,
    Register::Rbp,
    Register::Rbx,
    Register::R11,
    Register::R10,
    Register::R9,
    Register::R8,
    Register::Rax,
    Register::Rcx,
    Register::Rdx,
    Register::Rsi,
    Register::Rdi,
];
/// The number of the word that has RBP.
const RBP: u8 = 4;

/// A step of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// The address of code.
    pub address: u64,
    /// How the CPU came from there to the step before.
    pub left: Left,
}

/// How a CPU has left a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It has not: this is the next instruction.
    Not,
    /// By a call, so that the address is the one after the call.
    Call,
    /// By an interrupt, an exception or a system call, so that the address is that of the next instruction.
    Interrupted,
}

impl Frame {
    /// Returns an address in the instruction that the frame is about. A return address may be that of another function,
    /// if the call never returns.
    pub const fn within(&self) -> u64 {
        match self.left {
            Left::Call => self.address.wrapping_sub(1),
            _ => self.address,
        }
    }
}

/// Why a chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The next function is in user mode.
    User,
    /// This function has no caller.
    Bottom,
    /// The CPU is not in 64-bit mode.
    Mode,
    /// The tables of the kernel and its modules say nothing about this code: it was generated, or it is no code at all.
    Unknown(u64),
    /// A register that the tables name has not been saved.
    Register,
    /// The stack cannot be read at this address.
    Stack(u64),
    /// The stack pointer goes back.
    Backwards,
    /// The chain has [`MAX_FRAMES`] frames, and goes on.
    Long,
    /// The kernel has no table, or it cannot be read.
    NoTable,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("user mode"),
            Self::Bottom => f.write_str("the end of the stack"),
            Self::Mode => f.write_str("the CPU is not in 64-bit mode"),
            Self::Unknown(address) => write!(f, "nothing is known of the code at {address:#x}"),
            Self::Register => f.write_str("a register that leads on has not been saved"),
            Self::Stack(address) => write!(f, "the stack cannot be read at {address:#x}"),
            Self::Backwards => f.write_str("the stack pointer goes back"),
            Self::Long => write!(f, "more than {MAX_FRAMES} functions"),
            Self::NoTable => f.write_str("the kernel has no table of call frames that can be read"),
        }
    }
}

/// Calls `frame` for each step of the chain, the innermost first, and returns why it ends. `rules` has the rule for the
/// instruction at an address.
pub fn chain(
    view: View<'_>,
    rules: Option<&dyn Fn(u64) -> Option<Rule>>,
    cpu: &CpuState,
    frame: &mut dyn FnMut(Frame),
) -> End {
    let mut place = Place {
        ip: cpu.rip,
        sp: cpu.registers.get(Register::Rsp),
        bp: cpu.registers.get(Register::Rbp),
        left: Left::Not,
        saved: Some(Saved::Cpu),
        earlier: None,
        user: cpu[SegmentRegister::Cs].selector & 3 != 0,
    };
    for _ in 0..MAX_FRAMES {
        frame(Frame { address: place.ip, left: place.left });
        let next = match rules {
            _ if cpu.controls.efer & EFER_LMA == 0 => Err(End::Mode),
            _ if place.user => Err(End::User),
            _ if !cpu.controls.cs_l => Err(End::Mode),
            None => Err(End::NoTable),
            Some(rules) => place.caller(view, rules, cpu),
        };
        match next {
            Err(end) => return end,
            // The kernel's half is left only by an exception frame that says so.
            Ok(next) if next.user => {
                frame(Frame { address: next.ip, left: next.left });
                return End::User;
            }
            Ok(next) => place = next,
        }
    }
    End::Long
}

/// Where registers have been saved.
#[derive(Debug, Clone, Copy)]
enum Saved {
    /// In the CPU.
    Cpu,
    /// In memory, as `struct pt_regs` at this address has them.
    All(u64),
    /// In memory, but only from RIP on.
    Interrupt,
}

impl Saved {
    /// Returns the register that is the word `number` of `struct pt_regs`.
    fn get(self, view: View<'_>, cpu: &CpuState, number: u8) -> Option<u64> {
        match self {
            Self::Cpu => Some(cpu.registers.get(*SAVED.get(usize::from(number))?)),
            Self::All(at) => view.u64(at.checked_add(u64::from(number) * 8)?),
            Self::Interrupt => None,
        }
    }
}

/// Where the chain is.
#[derive(Debug, Clone, Copy)]
struct Place {
    ip: u64,
    sp: u64,
    bp: u64,
    left: Left,
    /// The registers that were saved where this function was left.
    saved: Option<Saved>,
    /// The registers that were saved one exception before, if nothing but an interrupt's frame lies between.
    earlier: Option<Saved>,
    user: bool,
}

impl Place {
    /// Returns the register that is the word `number` of `struct pt_regs`.
    fn register(&self, view: View<'_>, cpu: &CpuState, number: u8) -> Option<u64> {
        let at = match self.saved? {
            Saved::Interrupt => self.earlier?,
            saved => saved,
        };
        at.get(view, cpu, number)
    }

    /// Returns the caller.
    fn caller(
        &self,
        view: View<'_>,
        rules: &dyn Fn(u64) -> Option<Rule>,
        cpu: &CpuState,
    ) -> Result<Self, End> {
        let read = |at: u64| view.u64(at).ok_or(End::Stack(at));
        let within = Frame { address: self.ip, left: self.left }.within();
        let rule = if self.ip == 0 { Some(Rule::null_call()) } else { rules(within) };
        let rule = rule.ok_or(End::Unknown(self.ip))?;
        let offset = |base: u64, offset: i16| base.wrapping_add_signed(offset.into());
        let sp = match rule.sp {
            _ if rule.kind == Kind::Undefined => return Err(End::Unknown(self.ip)),
            _ if rule.kind == Kind::End => return Err(End::Bottom),
            Base::Sp => offset(self.sp, rule.sp_offset),
            Base::Bp => offset(self.bp, rule.sp_offset),
            Base::SpIndirect => offset(read(self.sp)?, rule.sp_offset),
            Base::BpIndirect => read(offset(self.bp, rule.sp_offset))?,
            Base::Saved(number) => self.register(view, cpu, number).ok_or(End::Register)?,
            Base::Undefined | Base::PreviousSp => return Err(End::Unknown(self.ip)),
        };
        let word = |number: u64| sp.wrapping_add(number * 8);
        let mut next = match rule.kind {
            Kind::Registers => Self {
                ip: read(word(RIP))?,
                sp: read(word(RSP))?,
                saved: Some(Saved::All(sp)),
                earlier: None,
                user: read(word(CS))? & 3 != 0,
                ..*self
            },
            Kind::Interrupt => Self {
                ip: read(word(0))?,
                sp: read(word(RSP - RIP))?,
                saved: Some(Saved::Interrupt),
                earlier: match self.saved {
                    Some(Saved::Interrupt) => self.earlier,
                    saved => saved,
                },
                user: read(word(CS - RIP))? & 3 != 0,
                ..*self
            },
            _ => Self { ip: read(sp.wrapping_sub(8))?, sp, saved: None, earlier: None, ..*self },
        };
        next.left = if rule.signal { Left::Interrupted } else { Left::Call };
        next.bp = match rule.bp {
            Base::Undefined => next.register(view, cpu, RBP).unwrap_or(self.bp),
            Base::PreviousSp => read(offset(sp, rule.bp_offset))?,
            Base::Bp => read(offset(self.bp, rule.bp_offset))?,
            _ => return Err(End::Unknown(self.ip)),
        };
        // A change of stacks may lead to a lower address, but not within a page.
        if !next.user && next.sp <= self.sp && next.sp / PAGE_SIZE == self.sp / PAGE_SIZE {
            return Err(End::Backwards);
        }
        Ok(next)
    }
}
