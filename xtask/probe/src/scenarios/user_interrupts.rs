//! User interrupts. Either CPUID, CR4 and the MSRs all show them, or none of them does. A user interrupt that is posted
//! must be delivered at CPL 3, even if the CPU exits before. No VMCS field holds the user-interrupt flag (UIF).
//!
//! Intel SDM Vol. 3A, 8 "User Interrupts".

#![expect(unsafe_code, reason = "the CPU reads and writes descriptors in memory, and the instructions exist only as assembly")]

use core::arch::{asm, naked_asm};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::apic::Apic;
use crate::attempt::{Hex, Outcome, Verdict, attempt, keeping_cr4, rdmsr, set_cr4, wrmsr};
use crate::cpu::{cpuid, cr4};
use crate::frame::Frame;
use crate::handlers::handling;
use crate::line::Line;
use crate::user;

const CR4_UINTR: u64 = 1 << 25;

const RR: u32 = 0x985;
const HANDLER: u32 = 0x986;
const STACK_ADJUST: u32 = 0x987;
const MISC: u32 = 0x988;
const PD: u32 = 0x989;
const TT: u32 = 0x98a;

/// The MSRs. Each has its name, its index, a valid value, and an invalid value if there is one.
const MSRS: [(&str, u32, u64, Option<u64>); 6] = [
    ("rr", RR, 1 << 63 | 1, None),
    ("handler", HANDLER, 0xffff_8000_1234_5678, Some(1 << 60)),
    ("stack-adjust", STACK_ADJUST, 0x1235, Some(1 << 60)),
    ("misc", MISC, 0x41_0000_0007, Some(1 << 40)),
    ("pd", PD, 0x1240, Some(0x1241)),
    ("tt", TT, 0x1251, Some(0x1253)),
];

/// The vector of the ordinary interrupt that notifies the CPU of a posted user interrupt.
const NOTIFICATION: u8 = 0x46;
/// The user interrupt's own vector.
const VECTOR: u64 = 5;

/// The status bit of a descriptor whose notification has been sent.
const OUTSTANDING: u64 = 1;

/// A user posted-interrupt descriptor. The first word has status, notification vector and destination, and the second
/// word has the requests.
#[repr(C, align(64))]
struct Posted([u64; 2]);

#[repr(C, align(16))]
struct Stack([u64; 64]);

static mut POSTED: Posted = Posted([0; 2]);
static mut STACK: Stack = Stack([0; 64]);

/// The number of notifications that came as ordinary interrupts.
static ORDINARY: AtomicU32 = AtomicU32::new(0);

fn on_notification(_: &mut Frame) {
    ORDINARY.fetch_add(1, Relaxed);
    Apic::find().end_of_interrupt();
}

/// Executes CLUI, CPUID and TESTUI, and returns UIF.
#[unsafe(naked)]
extern "C" fn hold_off() {
    naked_asm!(
        "clui",
        "mov eax, 0x80000000",
        "cpuid",
        "testui",
        "setc al",
        "movzx eax, al",
        "int 0x80"
    )
}

/// Executes STUI, CPUID and TESTUI while no user interrupt is posted, and returns UIF.
#[unsafe(naked)]
extern "C" fn let_in() {
    naked_asm!("stui", "mov eax, 0x80000000", "cpuid", "testui", "setc al", "movzx eax, al", "int 0x80")
}

/// Executes CLUI, CPUID and STUI, after which the user interrupt is delivered. Returns all ones if there is none.
#[unsafe(naked)]
extern "C" fn receive() {
    naked_asm!("clui", "mov eax, 0x80000000", "cpuid", "stui", "nop", "mov rax, -1", "int 0x80")
}

/// Handles a user interrupt: ends the visit and returns UIF, as it is after CPUID, and the interrupt's vector from bit
/// 8 on. It does not execute UIRET, since Bochs 3.0 then takes the return address from the wrong place on the stack.
#[unsafe(naked)]
extern "C" fn handler() {
    naked_asm!(
        "mov eax, 0x80000000",
        "cpuid",
        "testui",
        "setc al",
        "movzx eax, al",
        "pop rcx",
        "shl rcx, 8",
        "or rax, rcx",
        "int 0x80",
    )
}

fn at_cpl3(code: extern "C" fn()) -> Outcome<u64> {
    // SAFETY: the function uses no stack, writes only registers that it may change, and ends with INT 0x80. A user
    // interrupt uses the stack that IA32_UINTR_STACKADJUST names.
    unsafe { user::visit(code as *const () as u64, 0) }
}

/// Writes the MSRs and CR4.UINTR, and then sends a user interrupt from CPL 3 to CPL 3.
pub fn user_interrupts(line: &mut Line) {
    let set = keeping_cr4(|| set_cr4(cr4() | CR4_UINTR));
    if cpuid(7, 0)[3] >> 5 & 1 == 0 && set.is_err() && MSRS.iter().all(|(_, msr, ..)| rdmsr(*msr).is_err()) {
        return line.item("lacks", "user-interrupts");
    }
    line.item("cpuid", cpuid(7, 0)[3] >> 5 & 1);
    line.item("off", Verdict(attempt!("stui")));
    for (name, msr, good, bad) in MSRS {
        let wrote = wrmsr(msr, good);
        cpuid(0x8000_0000, 0);
        let kept = rdmsr(msr);
        let refused = bad.map_or(Ok(()), |bad| wrmsr(msr, bad));
        line.item(name, format_args!("{}/{}/{}", Verdict(wrote), Hex(kept), Verdict(refused)));
        // The MSRs are 0 after a reset, so 0 is valid.
        let _ = wrmsr(msr, 0);
    }
    keeping_cr4(|| {
        let set = set_cr4(cr4() | CR4_UINTR);
        line.item("set", format_args!("{}/{:x}", Verdict(set), cr4() >> 25 & 1));
        if set.is_ok() {
            delivery(line);
        }
    });
    for (_, msr, ..) in MSRS {
        let _ = wrmsr(msr, 0);
    }
}

/// Posts a user interrupt: sets a bit in the descriptor and sends the notification, as SENDUIPI does. SENDUIPI itself
/// takes its operand from the wrong register in Bochs 3.0. The CPU moves the bit into its own register, and delivers
/// the interrupt at CPL 3.
fn delivery(line: &mut Line) {
    let apic = Apic::find();
    apic.enable();
    let posted = &raw mut POSTED;
    let stack = (&raw const STACK as u64) + size_of::<Stack>() as u64;
    let all = [
        (HANDLER, handler as *const () as u64),
        (STACK_ADJUST, stack | 1),
        (MISC, u64::from(NOTIFICATION) << 32),
        (PD, posted as u64),
    ];
    line.item("ready", Verdict(all.into_iter().try_for_each(|(msr, value)| wrmsr(msr, value))));
    line.item("let-in", Hex(at_cpl3(let_in)));
    line.item("held-off", Hex(at_cpl3(hold_off)));
    // SAFETY: only the CPU and this function use the descriptor.
    unsafe { (&raw mut (*posted).0).write_volatile([u64::from(NOTIFICATION) << 16 | OUTSTANDING, 1 << VECTOR]) };
    ORDINARY.store(0, Relaxed);
    handling(NOTIFICATION, on_notification, || {
        apic.interrupt_self(NOTIFICATION);
        for _ in 0..1000 {
            // SAFETY: the handler returns, and then interrupts are turned off again.
            unsafe { asm!("sti", "nop", "nop", "cli") };
            if rdmsr(RR) != Ok(0) {
                break;
            }
        }
    });
    line.item("ordinary", ORDINARY.load(Relaxed));
    // SAFETY: only the CPU and this function use the descriptor.
    let [status, requests] = unsafe { (&raw const (*posted).0).read_volatile() };
    line.item("noted", format_args!("{}/{requests:#x}/{}", status & OUTSTANDING, Hex(rdmsr(RR))));
    line.item("received", Hex(at_cpl3(receive)));
    line.item("then", Hex(rdmsr(RR)));
}
