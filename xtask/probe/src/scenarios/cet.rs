//! Control-flow enforcement at CPL 0: shadow stacks and indirect-branch tracking. Their state must be the same after an
//! exit to a hypervisor, and after an exception that the hypervisor injects.
//!
//! Intel SDM Vol. 1, 17 "Control-Flow Enforcement Technology (CET)".

#![expect(unsafe_code, reason = "the instructions under test exist only as assembly")]

use core::arch::{asm, naked_asm};
use core::hint::black_box;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::apic::Apic;
use crate::attempt::{Hex, Verdict, attempt, keeping_cr4, rdmsr, set_cr0, set_cr4, wrmsr};
use crate::cpu::{self, cpuid};
use crate::frame::Frame;
use crate::handlers::handling;
use crate::image::physical;
use crate::line::Line;
use crate::window::{self, Table};

/// The index of U_CET.
pub const U_CET: u32 = 0x6a0;
/// The index of S_CET.
pub const S_CET: u32 = 0x6a2;
/// The index of PL0_SSP. Those of PL1_SSP, PL2_SSP and PL3_SSP follow it.
pub const PL0_SSP: u32 = 0x6a4;
/// The index of INTERRUPT_SSP_TABLE_ADDR.
pub const INTERRUPT_SSP_TABLE: u32 = 0x6a8;
const IA32_APIC_BASE: u32 = 0x1b;
/// An index that no CPU has an MSR for, and that is outside of the ranges of the MSR bitmaps.
const NO_MSR: u32 = 0x2000;

/// CR4.CET.
pub const CR4_CET: u64 = 1 << 23;
/// CR0.WP, without which CR4.CET cannot be set.
pub const CR0_WP: u64 = 1 << 16;
const CR0_NE: u64 = 1 << 5;

/// SH_STK_EN of U_CET and S_CET.
const SHADOW_STACK: u64 = 1 << 0;
/// ENDBR_EN.
const BRANCHES: u64 = 1 << 2;

const INTERRUPT: u8 = 0x42;

/// A physical address at which no emulated machine has memory or a device, and which no other scenario accesses.
const NOTHING: u64 = 0xa000_0000;

/// Returns true if CPUID shows shadow stacks.
pub fn has_shadow_stacks() -> bool {
    cpuid(7, 0)[2] >> 7 & 1 == 1
}

fn has_branch_tracking() -> bool {
    cpuid(7, 0)[3] >> 20 & 1 == 1
}

/// Writes good and bad values to the MSRs. Then tries which of CR4.CET and CR0.WP may be set without the other. On VT-x
/// a write to CR0 that changes NE as well exits, so that the hypervisor has to check it.
pub fn registers(line: &mut Line) {
    if !has_shadow_stacks() {
        return line.item("lacks", "shadow-stacks");
    }
    let stacks = (PL0_SSP..=PL0_SSP + 3).map(|msr| (msr, 0x1234_5678, 0x1234_5679));
    let others = [(U_CET, 3, 1 << 6), (S_CET, 3, 1 << 6), (INTERRUPT_SSP_TABLE, 0x1234_5678, 1 << 63)];
    for (msr, good, bad) in others.into_iter().chain(stacks) {
        let wrote = wrmsr(msr, good);
        line.item(
            format_args!("{msr:x}"),
            format_args!("{}/{}/{}/{}", Verdict(wrote), Hex(rdmsr(msr)), Verdict(wrmsr(msr, bad)), Verdict(wrmsr(msr, 1 << 63))),
        );
        // This cannot fault: the MSR is 0 after a reset.
        let _ = wrmsr(msr, 0);
    }
    let before = cpu::cr0();
    keeping_cr4(|| {
        let _ = set_cr0(before & !CR0_WP);
        line.item("without-wp", Verdict(set_cr4(cpu::cr4() | CR4_CET)));
        let _ = set_cr0(before | CR0_WP);
        line.item("with-wp", Verdict(set_cr4(cpu::cr4() | CR4_CET)));
        line.item("wp-off", Verdict(set_cr0(before & !CR0_WP)));
        line.item("wp-off-and-ne", Verdict(set_cr0((before & !CR0_WP) ^ CR0_NE)));
        line.item("ne", Verdict(set_cr0((before | CR0_WP) ^ CR0_NE)));
        let _ = set_cr4(cpu::cr4() & !CR4_CET);
        let _ = set_cr0(before);
    });
}

/// The page of the shadow stack.
static mut STACK: Table = Table([0; 512]);
/// The number of events that the handlers have seen.
static SEEN: AtomicU32 = AtomicU32::new(0);
/// The return address before `spoilt` changed it.
static RETURN: AtomicU64 = AtomicU64::new(0);
static ERROR: AtomicU64 = AtomicU64::new(0);

/// Handles #GP of RDMSR for an MSR that does not exist: puts the index of one that exists into RCX, so that the
/// instruction succeeds when it is executed again. The handler cannot skip the instruction, since the shadow stack
/// holds its address, too.
fn on_general_protection(frame: &mut Frame) {
    SEEN.fetch_add(1, Relaxed);
    frame.rcx = u64::from(IA32_APIC_BASE);
}

/// Handles #CP of a return to an address that differs from the one on the shadow stack: corrects the address, so that
/// the return succeeds when it is executed again.
fn on_control_protection(frame: &mut Frame) {
    SEEN.fetch_add(1, Relaxed);
    ERROR.store(frame.error, Relaxed);
    // SAFETY: only `spoilt` raises the exception, with its return address on top of the stack.
    unsafe { (frame.rsp as *mut u64).write_volatile(RETURN.load(Relaxed)) };
}

fn on_nmi(_: &mut Frame) {
    SEEN.fetch_add(1, Relaxed);
}

fn on_interrupt(_: &mut Frame) {
    SEEN.fetch_add(1, Relaxed);
    Apic::find().end_of_interrupt();
}

/// Adds one to its return address and returns. The handler of #CP corrects the address.
#[unsafe(naked)]
extern "C" fn spoilt() {
    naked_asm!(
        "mov rax, [rsp]",
        "mov [rip + {keep}], rax",
        "inc qword ptr [rsp]",
        "ret",
        keep = sym RETURN,
    )
}

/// Executes CPUID between calls and their returns. The calls are nested, so that a word that is lost from the shadow
/// stack is noticed.
#[inline(never)]
fn deep(depth: u32) -> u32 {
    let here = cpuid(0x8000_0000, 0)[0];
    if depth == 0 { here } else { black_box(deep(depth - 1)).wrapping_add(here | 1) }
}

macro_rules! ssp {
    () => {{
        let pointer: u64;
        // SAFETY: the instruction reads a register.
        unsafe { asm!("rdsspq {}", inout(reg) 0_u64 => pointer, options(nomem, nostack)) };
        pointer
    }};
}

/// Returns how many events the handlers saw while `body` ran.
fn events(body: impl FnOnce()) -> u32 {
    SEEN.store(0, Relaxed);
    body();
    SEEN.load(Relaxed)
}

/// Runs on a shadow stack: calls functions that exit, takes an exception that a hypervisor injects, interrupts and
/// NMIs, and returns to an address that is not on the shadow stack.
pub fn shadow_stack(line: &mut Line) {
    if !has_shadow_stacks() {
        return line.item("lacks", "shadow-stacks");
    }
    let (cr0, cr4) = (cpu::cr0(), cpu::cr4());
    let stack = &raw mut STACK;
    let page = window::show_shadow_stack(physical(stack));
    // The topmost word is the token. It holds its own address, which says that the stack is free.
    let top = page + 4088;
    // SAFETY: only this function accesses the page.
    unsafe { (&raw mut (*stack).0[511]).write_volatile(top) };
    let apic = Apic::find();
    apic.enable();
    let set = set_cr0(cr0 | CR0_WP).and_then(|()| set_cr4(cr4 | CR4_CET)).and_then(|()| wrmsr(PL0_SSP, top));
    line.item("set", Verdict(set));
    if set.is_err() {
        return;
    }
    let apic_base = rdmsr(IA32_APIC_BASE).unwrap_or(0);
    // SAFETY: until the shadow stack is turned off, each call is followed by its return.
    unsafe {
        asm!("wrmsr", "setssbsy", in("ecx") S_CET, in("eax") SHADOW_STACK as u32, in("edx") 0, options(nostack));
    }
    let begin = ssp!();
    let called = deep(20);
    let after_calls = ssp!();
    let general = handling(13, on_general_protection, || {
        events(|| {
            // SAFETY: the instruction reads a register. The handler of #GP makes it one that exists.
            unsafe { asm!("rdmsr", inout("ecx") NO_MSR => _, out("eax") _, out("edx") _) };
        })
    });
    let wrote = wrmsr(IA32_APIC_BASE, apic_base);
    let control = handling(21, on_control_protection, || events(|| spoilt()));
    let nmis = handling(2, on_nmi, || {
        events(|| {
            apic.nmi_self();
            cpuid(0x8000_0000, 0);
        })
    });
    let interrupts = handling(INTERRUPT, on_interrupt, || {
        events(|| {
            apic.interrupt_self(INTERRUPT);
            // SAFETY: the handler returns, and then interrupts are turned off again.
            unsafe { asm!("sti", "nop", "nop", "cli") };
        })
    });
    let end = ssp!();
    let control_bits = rdmsr(S_CET);
    // SAFETY: this turns the shadow stack off, after which returns need none.
    unsafe { asm!("wrmsr", in("ecx") S_CET, in("eax") 0, in("edx") 0, options(nostack)) };
    let _ = set_cr4(cr4);
    let _ = set_cr0(cr0);
    let _ = wrmsr(PL0_SSP, 0);
    window::show(0);
    line.item("begin", format_args!("{:#x}", begin.wrapping_sub(page)));
    line.item("called", format_args!("{called:#x}"));
    line.item("after-calls", format_args!("{:#x}", after_calls.wrapping_sub(page)));
    line.item("gp", general);
    line.item("wrmsr", Verdict(wrote));
    line.item("cp", format_args!("{control}/{:#x}", ERROR.load(Relaxed)));
    line.item("nmi", nmis);
    line.item("interrupt", interrupts);
    line.item("end", format_args!("{:#x}", end.wrapping_sub(page)));
    line.item("s-cet", Hex(control_bits));
    // SAFETY: only this function accesses the page.
    let token = unsafe { (&raw const (*stack).0[511]).read_volatile() };
    line.item("token", format_args!("{:#x}", token.wrapping_sub(page)));
}

/// Turns indirect-branch tracking on, executes the instructions, which may use RAX, and then CPUID.
macro_rules! jump {
    ($($instruction:literal),+; $target:expr) => {
        attempt!(
            "mov {rbx}, rbx",
            "mov ecx, {s_cet}", "xor edx, edx", "mov eax, {on}", "wrmsr",
            $($instruction,)+
            "cpuid",
            "99:",
            "mov ecx, {s_cet}", "xor edx, edx", "xor eax, eax", "wrmsr",
            "mov rbx, {rbx}";
            s_cet = const S_CET, on = const BRANCHES,
            rbx = out(reg) _, out("rax") _, out("rcx") _, out("rdx") _, in("rsi") $target
        )
    };
}

/// Jumps with indirect-branch tracking on, to ENDBR64 and to other instructions. One jump goes to an address that the
/// second stage does not map yet, so a hypervisor maps it between the jump and the fetch of its target.
pub fn branches(line: &mut Line) {
    if !has_branch_tracking() {
        return line.item("lacks", "indirect-branch-tracking");
    }
    let (cr0, cr4) = (cpu::cr0(), cpu::cr4());
    let set = set_cr0(cr0 | CR0_WP).and_then(|()| set_cr4(cr4 | CR4_CET));
    line.item("set", Verdict(set));
    if set.is_ok() {
        branch_cases(line);
    }
    let _ = set_cr4(cr4);
    let _ = set_cr0(cr0);
}

#[inline(never)]
fn branch_cases(line: &mut Line) {
    line.item("endbr64", Verdict(jump!("lea rax, [rip + 3f]", "jmp rax", "3:", "endbr64"; 0_u64)));
    line.item("exit-and-endbr64", Verdict(jump!("lea rax, [rip + 3f]", "cpuid", "lea rax, [rip + 3f]", "jmp rax", "3:", "endbr64"; 0_u64)));
    line.item("cpuid", Verdict(jump!("lea rax, [rip + 3f]", "jmp rax", "3:"; 0_u64)));
    line.item("nothing", Verdict(jump!("jmp rsi"; window::show(NOTHING))));
    window::show(0);
    let after = jump!("lea rax, [rip + 3f]", "jmp rax", "3:", "endbr64", "mov ecx, 0x2000", "rdmsr"; 0_u64);
    line.item("gp-after", Verdict(after));
    line.item("s-cet", Hex(rdmsr(S_CET)));
}
