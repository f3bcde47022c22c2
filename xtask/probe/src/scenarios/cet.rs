//! Control-flow enforcement at CPL 0: shadow stacks and indirect-branch tracking, whose state must outlive a visit to a
//! hypervisor, and what it raises in the guest.
//!
//! Intel SDM Vol. 1, 17 "Control-Flow Enforcement Technology (CET)".

#![expect(unsafe_code, reason = "the instructions under test exist only as assembly")]

use core::arch::{asm, naked_asm};
use core::hint::black_box;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::apic::Apic;
use crate::attempt::{Hex, Shown, attempt, keeping_cr4, rdmsr, set_cr0, set_cr4, wrmsr};
use crate::cpu::{self, cpuid};
use crate::frame::Frame;
use crate::handlers::handling;
use crate::image::physical;
use crate::line::Line;
use crate::window::{self, Table};

/// U_CET, S_CET, the stack pointers of CPL 0 to 3, the table of interrupts' stack pointers.
pub const U_CET: u32 = 0x6a0;
/// S_CET.
pub const S_CET: u32 = 0x6a2;
/// PL0_SSP, which the others follow.
pub const PL0_SSP: u32 = 0x6a4;
/// INTERRUPT_SSP_TABLE.
pub const INTERRUPT_SSP_TABLE: u32 = 0x6a8;
const IA32_APIC_BASE: u32 = 0x1b;
/// An MSR that no CPU has, and that no MSR bitmap covers.
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

/// A physical address where no machine here has anything, and which no other scenario touches.
const NOTHING: u64 = 0xa000_0000;

/// Returns true if CPUID shows shadow stacks.
pub fn has_shadow_stacks() -> bool {
    cpuid(7, 0)[2] >> 7 & 1 == 1
}

fn has_branch_tracking() -> bool {
    cpuid(7, 0)[3] >> 20 & 1 == 1
}

/// The MSRs: good values and bad ones. Then what CR4.CET and CR0.WP have to do with each other; a write that changes NE as well
/// is the hypervisor's to judge.
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
            format_args!("{}/{}/{}/{}", Shown(wrote), Hex(rdmsr(msr)), Shown(wrmsr(msr, bad)), Shown(wrmsr(msr, 1 << 63))),
        );
        // They are 0 after a reset, so they may be 0 again.
        let _ = wrmsr(msr, 0);
    }
    let before = cpu::cr0();
    keeping_cr4(|| {
        let _ = set_cr0(before & !CR0_WP);
        line.item("without-wp", Shown(set_cr4(cpu::cr4() | CR4_CET)));
        let _ = set_cr0(before | CR0_WP);
        line.item("with-wp", Shown(set_cr4(cpu::cr4() | CR4_CET)));
        line.item("wp-off", Shown(set_cr0(before & !CR0_WP)));
        line.item("wp-off-and-ne", Shown(set_cr0((before & !CR0_WP) ^ CR0_NE)));
        line.item("ne", Shown(set_cr0((before | CR0_WP) ^ CR0_NE)));
        let _ = set_cr4(cpu::cr4() & !CR4_CET);
        let _ = set_cr0(before);
    });
}

/// The shadow stack's page.
static mut STACK: Table = Table([0; 512]);
static SEEN: AtomicU32 = AtomicU32::new(0);
/// What a return address was before it was spoilt.
static RETURN: AtomicU64 = AtomicU64::new(0);
static ERROR: AtomicU64 = AtomicU64::new(0);

/// The MSR does not exist: another one does. The instruction is executed again, as the address of the next may not be changed.
fn on_general_protection(frame: &mut Frame) {
    SEEN.fetch_add(1, Relaxed);
    frame.rcx = u64::from(IA32_APIC_BASE);
}

/// A return to another address than the shadow stack has: put right, and executed again.
fn on_control_protection(frame: &mut Frame) {
    SEEN.fetch_add(1, Relaxed);
    ERROR.store(frame.error, Relaxed);
    // SAFETY: `spoilt` alone raises it, with the address of its return on top of the stack.
    unsafe { (frame.rsp as *mut u64).write_volatile(RETURN.load(Relaxed)) };
}

fn on_nmi(_: &mut Frame) {
    SEEN.fetch_add(1, Relaxed);
}

fn on_interrupt(_: &mut Frame) {
    SEEN.fetch_add(1, Relaxed);
    Apic::find().end_of_interrupt();
}

/// Returns to an address that is one too high, at first.
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

/// CPUID between a call and its return, so deep that the shadow stack would show a word that is missing.
#[inline(never)]
fn deep(depth: u32) -> u32 {
    let here = cpuid(0x8000_0000, 0)[0];
    if depth == 0 { here } else { black_box(deep(depth - 1)).wrapping_add(here | 1) }
}

macro_rules! ssp {
    () => {{
        let pointer: u64;
        // SAFETY: reads a register.
        unsafe { asm!("rdsspq {}", inout(reg) 0_u64 => pointer, options(nomem, nostack)) };
        pointer
    }};
}

/// How many events `body` came to see.
fn events(body: impl FnOnce()) -> u32 {
    SEEN.store(0, Relaxed);
    body();
    SEEN.load(Relaxed)
}

/// A kernel on a shadow stack: calls across exits, exceptions that a hypervisor raises, interrupts, NMIs, and a return that the
/// shadow stack refuses.
pub fn shadow_stack(line: &mut Line) {
    if !has_shadow_stacks() {
        return line.item("lacks", "shadow-stacks");
    }
    let (cr0, cr4) = (cpu::cr0(), cpu::cr4());
    let stack = &raw mut STACK;
    let page = window::show_shadow_stack(physical(stack));
    // The token of a stack that nobody uses: its own address. It is the topmost word.
    let top = page + 4088;
    // SAFETY: the page is reached only here.
    unsafe { (&raw mut (*stack).0[511]).write_volatile(top) };
    let apic = Apic::find();
    apic.enable();
    let set = set_cr0(cr0 | CR0_WP).and_then(|()| set_cr4(cr4 | CR4_CET)).and_then(|()| wrmsr(PL0_SSP, top));
    line.item("set", Shown(set));
    if set.is_err() {
        return;
    }
    let apic_base = rdmsr(IA32_APIC_BASE).unwrap_or(0);
    // SAFETY: from here to where it is switched off, calls and returns are in pairs.
    unsafe {
        asm!("wrmsr", "setssbsy", in("ecx") S_CET, in("eax") SHADOW_STACK as u32, in("edx") 0, options(nostack));
    }
    let begin = ssp!();
    let called = deep(20);
    let after_calls = ssp!();
    let general = handling(13, on_general_protection, || {
        events(|| {
            // SAFETY: reads a register; the handler makes it one that exists.
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
            // SAFETY: the handler returns, and interrupts are off again after it.
            unsafe { asm!("sti", "nop", "nop", "cli") };
        })
    });
    let end = ssp!();
    let control_bits = rdmsr(S_CET);
    // SAFETY: switches it off.
    unsafe { asm!("wrmsr", in("ecx") S_CET, in("eax") 0, in("edx") 0, options(nostack)) };
    let _ = set_cr4(cr4);
    let _ = set_cr0(cr0);
    let _ = wrmsr(PL0_SSP, 0);
    window::show(0);
    line.item("begin", format_args!("{:#x}", begin.wrapping_sub(page)));
    line.item("called", format_args!("{called:#x}"));
    line.item("after-calls", format_args!("{:#x}", after_calls.wrapping_sub(page)));
    line.item("gp", general);
    line.item("wrmsr", Shown(wrote));
    line.item("cp", format_args!("{control}/{:#x}", ERROR.load(Relaxed)));
    line.item("nmi", nmis);
    line.item("interrupt", interrupts);
    line.item("end", format_args!("{:#x}", end.wrapping_sub(page)));
    line.item("s-cet", Hex(control_bits));
    // SAFETY: as above.
    let token = unsafe { (&raw const (*stack).0[511]).read_volatile() };
    line.item("token", format_args!("{:#x}", token.wrapping_sub(page)));
}

/// Jumps, with the tracking on: by the instructions given, which have RAX for their use. After the jump there is CPUID.
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

/// Indirect-branch tracking: jumps to ENDBR64 and to others. The last goes to an address that is not mapped in the
/// second stage, so a hypervisor makes tables between the jump and the fetch of its target.
pub fn branches(line: &mut Line) {
    if !has_branch_tracking() {
        return line.item("lacks", "indirect-branch-tracking");
    }
    let (cr0, cr4) = (cpu::cr0(), cpu::cr4());
    let set = set_cr0(cr0 | CR0_WP).and_then(|()| set_cr4(cr4 | CR4_CET));
    line.item("set", Shown(set));
    if set.is_ok() {
        branch_cases(line);
    }
    let _ = set_cr4(cr4);
    let _ = set_cr0(cr0);
}

#[inline(never)]
fn branch_cases(line: &mut Line) {
    line.item("endbr64", Shown(jump!("lea rax, [rip + 3f]", "jmp rax", "3:", "endbr64"; 0_u64)));
    line.item("exit-and-endbr64", Shown(jump!("lea rax, [rip + 3f]", "cpuid", "lea rax, [rip + 3f]", "jmp rax", "3:", "endbr64"; 0_u64)));
    line.item("cpuid", Shown(jump!("lea rax, [rip + 3f]", "jmp rax", "3:"; 0_u64)));
    line.item("nothing", Shown(jump!("jmp rsi"; window::show(NOTHING))));
    window::show(0);
    let after = jump!("lea rax, [rip + 3f]", "jmp rax", "3:", "endbr64", "mov ecx, 0x2000", "rdmsr"; 0_u64);
    line.item("gp-after", Shown(after));
    line.item("s-cet", Hex(rdmsr(S_CET)));
}
