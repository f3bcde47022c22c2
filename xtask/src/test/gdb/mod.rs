//! Debugs a stock kernel by gdb over the second serial port, from its first instruction on.

mod core_file;
mod debugged;
mod dump;
mod port;
mod probe;
mod rounds;

use anyhow::Result;

use self::debugged::Debugged;
pub use self::debugged::Test;
pub use self::rounds::ROUNDS;
use super::Tools;
use super::lane::Lane;
use crate::console::{BOOT, PROMPT};

/// The table of tests.
pub const TESTS: &[Test] = &[
    Test { name: "gdb/start", lanes: &Lane::ALL, cpus: 1, check: start },
    Test { name: "gdb/attach", lanes: &[Lane::Svm], cpus: 1, check: attach },
    Test { name: "gdb/attach-2-cpus", lanes: &Lane::ALL, cpus: 2, check: attach },
    Test { name: "gdb/port", lanes: &Lane::ALL, cpus: probe::CPUS, check: port::hidden },
];

/// The test that dumps a kernel. Bochs is too slow for it.
pub const DUMP: Test = Test { name: "gdb/dump", lanes: &[Lane::Svm], cpus: 1, check: dump::dump };

/// What gdb does with a kernel that runs and idles. `@SYMBOLS@` stands for the file with the kernel's symbols. KASLR
/// has moved the kernel, and gdb has to find its functions all the same.
const ATTACH_SCRIPT: &str = r#"
file @SYMBOLS@
target remote 127.0.0.1:@PORT@
monitor kernel
hbreak hrtimer_interrupt
continue
printf "hardware %d\n", $rip == (unsigned long)&hrtimer_interrupt
monitor bt
monitor trace 3
delete
break update_process_times
continue
printf "software %d\n", $rip == (unsigned long)&update_process_times
delete
set $before = $rip
stepi
printf "step %d\n", $rip != $before && $rip - $before < 16
watch *(unsigned long *)&jiffies_64
continue
delete
shell (sleep 3; kill -INT $PPID) &
continue
monitor bt
shell (sleep 3; kill -INT $PPID) &
continue
"#;

/// What gdb says then, in this order.
const ATTACH_SAYS: &[&str] = &[
    "Linux 6.",
    "hardware 1",
    "hrtimer_interrupt+0x0",
    "end: ",
    "the last exits of CPU 0, the newest last:",
    " at ",
    "software 1",
    "step 1",
    "Old value = ",
    "received signal SIGINT",
    "end: ",
    "received signal SIGINT",
];

/// What gdb then looks at with two CPUs.
const THREADS_SCRIPT: &str = r#"
info threads
thread 2
printf "second %d\n", $cs & 3
monitor bt
"#;

/// What gdb says then, in this order.
const THREADS_SAYS: &[&str] = &["Thread 1.1", "Thread 1.2", "second ", "end: "];

/// What gdb then does with each CPU `@CPU@`: it has it hang with interrupts off, in an instruction that jumps to
/// itself.
const HANG_SCRIPT: &str = r#"
thread @CPU@
set $place@CPU@ = $rip
set $code@CPU@ = *(unsigned short *)$rip
set $flags@CPU@ = (unsigned int)$eflags
set *(unsigned short *)$rip = 0xfeeb
set $eflags = $flags@CPU@ & ~0x200
"#;

/// How it looks at each CPU after Ctrl-C.
const HUNG_SCRIPT: &str = r#"
thread @CPU@
printf "CPU @CPU@ hangs %d, interrupts %#x\n", $rip == $place@CPU@, (unsigned int)$eflags & 0x200
"#;

/// How it has each CPU go on where it was.
const UNHANG_SCRIPT: &str = r#"
thread @CPU@
set *(unsigned short *)$place@CPU@ = $code@CPU@
set $eflags = $flags@CPU@
"#;

/// Has gdb wait, and press Ctrl-C after three seconds.
const INTERRUPT_SCRIPT: &str = "shell (sleep 3; kill -INT $PPID) &\ncontinue\n";

/// What gdb does in each test at the end, and what it says then.
const DETACH: (&str, &str) = ("detach\n", "detached");

/// What gdb does while the kernel starts. `@PORT@` and `@KERNEL@` stand for gdb's port and for the kernel's address.
///
/// The 64-bit entry of a kernel is 200H after its 32-bit entry: Linux, Documentation/arch/x86/boot.rst, "64-bit Boot
/// Protocol". The kernel then changes a flag of its boot parameters, to which RSI points at the start.
const START_SCRIPT: &str = r#"
target remote 127.0.0.1:@PORT@
printf "start rip=%#lx cr0=%#lx\n", $rip, $cr0
stepi
printf "stepped from=%#lx to=%#lx flags=%#x\n", @KERNEL@, $rip, $eflags
set $flags = (unsigned char *)($rsi + 0x211)
hbreak *(@KERNEL@ + 0x200)
continue
printf "entry rip=%#lx efer=%#lx\n", $rip, $efer
monitor vmcs rip
delete
set $rbx = 0x1122334455667788
stepi
printf "register rbx=%#lx\n", $rbx
set $rbx = 0
x/4i $rip
break *$_
set $wanted = $_
continue
printf "breakpoint rip=%#lx wanted=%#lx byte=%#x\n", $rip, $wanted, *(unsigned char *)$wanted
delete
set $old = *(unsigned int *)0x90000
set *(unsigned int *)0x90000 = 0x12345678
printf "memory %#x\n", *(unsigned int *)0x90000
set *(unsigned int *)0x90000 = $old
printf "before %#x\n", *$flags & 2
watch *$flags
continue
printf "watched %#x\n", *$flags & 2
delete
monitor phys 0x90000 16
monitor exits
detach
"#;

/// What gdb says then, in this order.
const START_SAYS: &[&str] = &[
    "start rip=@KERNEL@ cr0=0x11",
    "stepped from=@KERNEL@ to=",
    "entry rip=@ENTRY@ efer=0x500",
    "RIP @ENTRY@",
    "register rbx=0x1122334455667788",
    "breakpoint rip=",
    "memory 0x12345678",
    "before 0",
    "watched 0x2",
    "CPU 0: ",
];

/// gdb stops the kernel at its first instruction, sets breakpoints and a watchpoint, steps, changes a register and
/// memory, and leaves. The kernel then starts as usual.
fn start(test: &Test, lane: Lane, tools: &Tools) -> Result<()> {
    let mut debugged = Debugged::boot(test.name, test.cpus, lane, "gdb=com2,wait", &[], tools)?;
    debugged.gdb(START_SCRIPT, START_SAYS)?;
    debugged.console.expect(PROMPT, BOOT)?;
    debugged.runs_on()
}

/// Attaches gdb to a running kernel. Checks that gdb finds functions by name under KASLR, that breakpoints, a
/// watchpoint and Ctrl-C stop the kernel, also while all CPUs hang, and that the kernel runs on after gdb has detached.
fn attach(test: &Test, lane: Lane, tools: &Tools) -> Result<()> {
    let mut debugged = Debugged::boot(test.name, test.cpus, lane, "gdb=com2 trace=on", &[], tools)?;
    debugged.console.expect(PROMPT, BOOT)?;
    let mut script = ATTACH_SCRIPT.to_owned();
    let mut says = ATTACH_SAYS.to_vec();
    // The kernel may say that a CPU was stuck.
    debugged.console.run("dmesg -n 1")?;
    if test.cpus > 1 {
        script += THREADS_SCRIPT;
        says.extend(THREADS_SAYS);
    }
    let cpus: Vec<_> = (1..=test.cpus).map(|cpu| cpu.to_string()).collect();
    let each = |script: &str| cpus.iter().map(|cpu| script.replace("@CPU@", cpu)).collect::<String>();
    script += &(each(HANG_SCRIPT) + INTERRUPT_SCRIPT + &each(HUNG_SCRIPT));
    // Two CPUs may have been at the same instruction, so the one that was changed last is changed back first.
    script.extend(cpus.iter().rev().map(|cpu| UNHANG_SCRIPT.replace("@CPU@", cpu)));
    says.push("received signal SIGINT");
    let hung: Vec<_> = cpus.iter().map(|cpu| format!("CPU {cpu} hangs 1, interrupts 0")).collect();
    says.extend(hung.iter().map(String::as_str));
    script += DETACH.0;
    says.push(DETACH.1);
    debugged.gdb(&script, &says)?;
    debugged.runs_on()
}
