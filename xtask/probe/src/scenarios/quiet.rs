//! Instructions and interrupts that a thin hypervisor does not intercept: they must work as on a bare machine, without
//! an exit.

#![expect(unsafe_code, reason = "the instructions under test exist only as assembly")]

use core::fmt::{self, Display};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::apic::{Apic, timer_once};
use crate::attempt::{Outcome, Verdict, attempt, keeping_cr4, set_cr4};
use crate::cpu::{self, cpuid};
use crate::frame::Frame;
use crate::handlers::handling;
use crate::line::Line;
use crate::vidar;

const CR4_OSXSAVE: u64 = 1 << 18;

/// The number of times that each instruction is executed.
const ROUNDS: u64 = 100;

/// A number of exits, which is unknown on a bare machine.
pub struct Exits(Option<u64>);

impl Exits {
    /// Counts the exits while `body` runs. The hypercall that reads the count after it is an exit, too, and is
    /// subtracted.
    pub fn of(body: impl FnOnce()) -> Self {
        let before = vidar::exits();
        body();
        let after = vidar::exits();
        Self(before.zip(after).map(|(before, after)| (after - before).saturating_sub(1)))
    }

    /// Returns true if there were `number` exits or more.
    pub fn are_at_least(&self, number: u64) -> bool {
        self.0.is_some_and(|exits| exits >= number)
    }
}

impl Display for Exits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.unwrap_or(0))
    }
}

fn show(line: &mut Line, name: &str, instruction: impl Fn() -> Outcome) {
    let mut outcome = Ok(());
    let exits = Exits::of(|| {
        for _ in 0..ROUNDS {
            outcome = instruction();
        }
    });
    line.item(name, format_args!("{}/{exits}", Verdict(outcome)));
}

/// Executes instructions that a hypervisor could intercept. Each item has the outcome and the number of exits of a
/// hundred executions.
pub fn quiet(line: &mut Line) {
    static WORDS: [u64; 2] = [0; 2];
    let operand = &raw const WORDS;
    macro_rules! all {
        ($($name:literal ($($attempt:tt)*))*) => {
            $(show(line, $name, || attempt!($($attempt)*));)*
        };
    }
    all! {
        "rdtsc" ("rdtsc"; out("rax") _, out("rdx") _)
        "rdtscp" ("rdtscp"; out("rax") _, out("rcx") _, out("rdx") _)
        "rdpmc" ("rdpmc"; out("rax") _, in("rcx") 0, out("rdx") _)
        "rdrand" ("rdrand rax"; out("rax") _)
        "rdseed" ("rdseed rax"; out("rax") _)
        "pause" ("pause")
        "invlpg" ("invlpg [rax]"; in("rax") operand)
        "invpcid" ("invpcid rax, [rcx]"; in("rax") 2_u64, in("rcx") operand)
        "monitor" ("monitor"; in("rax") operand, in("rcx") 0, in("rdx") 0)
        "wbinvd" ("wbinvd")
        "clts" ("clts")
        "lmsw" ("smsw eax", "lmsw ax"; out("rax") _)
        "mov-cr0" ("mov rax, cr0", "mov cr0, rax"; out("rax") _)
        "mov-cr3" ("mov rax, cr3", "mov cr3, rax"; out("rax") _)
        "mov-cr4" ("mov rax, cr4", "mov cr4, rax"; out("rax") _)
        "mov-cr8" ("mov rax, cr8", "mov cr8, rax"; out("rax") _)
        "mov-dr7" ("mov rax, dr7", "mov dr7, rax"; out("rax") _)
        "sgdt" ("sub rsp, 16", "sgdt [rsp]", "lgdt [rsp]", "add rsp, 16")
        "sidt" ("sub rsp, 16", "sidt [rsp]", "lidt [rsp]", "add rsp, 16")
        "sldt" ("sldt ax", "lldt ax"; out("rax") _)
        "str" ("str ax"; out("rax") _)
        "in" ("in al, dx"; out("al") _, in("dx") 0x80_u16)
        "out" ("out dx, al"; in("al") 0_u8, in("dx") 0x80_u16)
        "ud2" ("ud2")
        "int3" ("int3")
        "page-fault" ("mov rax, [rax]"; inout("rax") 0x7000_0000_0000_u64 => _)
        "rdmsr-efer" ("rdmsr"; in("ecx") 0xc000_0080_u32, out("eax") _, out("edx") _)
        "wrmsr-gs" ("rdmsr", "wrmsr"; in("ecx") 0xc000_0101_u32, out("eax") _, out("edx") _)
        "rdmsr-tsc" ("rdmsr"; in("ecx") 0x10_u32, out("eax") _, out("edx") _)
        "swapgs" ("swapgs", "swapgs")
    }
    if cpuid(1, 0)[2] >> 26 & 1 == 1 {
        keeping_cr4(|| {
            let _ = set_cr4(cpu::cr4() | CR4_OSXSAVE);
            show(line, "xgetbv", || attempt!("xgetbv"; in("rcx") 0, out("rax") _, out("rdx") _));
            #[repr(C, align(64))]
            struct Area([u8; 4096]);
            static mut AREA: Area = Area([0; 4096]);
            let area = &raw mut AREA;
            macro_rules! save {
                ($name:literal) => {
                    show(line, $name, || {
                        attempt!(concat!($name, " [rdi]"); in("rdi") area, in("rax") 1, in("rdx") 0)
                    });
                };
            }
            save!("xsave64");
            save!("xsaveopt64");
            save!("xsavec64");
            save!("xsaves64");
        });
    }
}

/// The vector of the interrupts in this scenario.
const VECTOR: u8 = 0x42;

static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

fn on_interrupt(_: &mut Frame) {
    INTERRUPTS.fetch_add(1, Relaxed);
    Apic::find().end_of_interrupt();
}

/// Raises this number of interrupts with [`VECTOR`], one after the other, and waits for each. Returns the number of
/// interrupts that came, and the number of exits.
fn take(rounds: u16, wait: fn() -> Outcome, raise: impl Fn(u16)) -> (u32, Exits) {
    INTERRUPTS.store(0, Relaxed);
    let exits = Exits::of(|| {
        handling(VECTOR, on_interrupt, || {
            for round in 0..rounds {
                raise(round);
                for _ in 0..100_000 {
                    if wait().is_err() || INTERRUPTS.load(Relaxed) > u32::from(round) {
                        break;
                    }
                }
            }
        });
    });
    (INTERRUPTS.load(Relaxed), exits)
}

fn while_running() -> Outcome {
    attempt!("sti", "nop", "nop", "cli")
}

fn in_halt() -> Outcome {
    attempt!("sti", "hlt", "cli")
}

/// Starts the timer. Each round has a different time, so that the interrupt comes at a different instruction.
fn set_timer(round: u16) {
    timer_once(200 + 7 * (round % 64));
}

/// Lets the timer send this number of interrupts while the CPU runs. Returns the number of interrupts that came, and
/// the number of exits.
pub fn timer(rounds: u16) -> (u32, Exits) {
    let apic = Apic::find();
    apic.enable();
    apic.timer_as(Some(u32::from(VECTOR)));
    let taken = take(rounds, while_running, set_timer);
    apic.timer_as(None);
    taken
}

/// Takes interrupts that the CPU sends to itself and interrupts of the timer. Some of them end a HLT.
pub fn interrupts(line: &mut Line) {
    const ROUNDS: u16 = 50;
    let apic = Apic::find();
    let mut show = |name, (taken, exits): (u32, Exits)| {
        line.item(name, format_args!("{taken}/{ROUNDS}/{exits}"));
    };
    apic.enable();
    show("self", take(ROUNDS, while_running, |_| apic.interrupt_self(VECTOR)));
    show("timer", timer(ROUNDS));
    apic.timer_as(Some(u32::from(VECTOR)));
    show("timer-in-hlt", take(ROUNDS, in_halt, set_timer));
    apic.timer_as(None);
}
