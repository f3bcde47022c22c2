//! Debugs a stock kernel by gdb over the second serial port, from its first instruction on.

use std::fs;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::lane::Lane;
use super::{Tools, folder, smp, test_dir};
use crate::console::{ANSWER, BOOT, Console, PROMPT};
use crate::grub::Menu;
use crate::guests::{self, Freshness};
use crate::iso::{self, Recipe};
use crate::machine::gdb::Relay;
use crate::machine::{RunningMachine, Spec};
use crate::manifest::{self, Initrd};
use crate::{build, initramfs, symbols};

/// A test of the debugger.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    /// The test's name.
    pub name: &'static str,
    /// The lanes in which it runs. In Bochs each boot takes a minute or two.
    pub lanes: &'static [Lane],
    /// The number of the machine's CPUs.
    cpus: u32,
    check: fn(&Test, Lane, &Tools) -> Result<()>,
}

/// The table of tests.
pub const TESTS: &[Test] = &[
    Test { name: "gdb/start", lanes: &Lane::ALL, cpus: 1, check: start },
    Test { name: "gdb/attach", lanes: &[Lane::Svm], cpus: 1, check: attach },
    Test { name: "gdb/attach-2-cpus", lanes: &Lane::ALL, cpus: 2, check: attach },
];

impl Test {
    /// Runs the test in a lane.
    pub fn run(&self, lane: Lane, tools: &Tools) -> Result<()> {
        (self.check)(self, lane, tools)
    }
}

/// What gdb does with a kernel that runs and idles. `@SYMBOLS@` stands for the file with the kernel's symbols. KASLR has
/// moved the kernel, and gdb has to find its functions all the same.
const ATTACH_SCRIPT: &str = r#"
file @SYMBOLS@
target remote 127.0.0.1:@PORT@
monitor kernel
hbreak hrtimer_interrupt
continue
printf "hardware %d\n", $rip == (unsigned long)&hrtimer_interrupt
monitor bt
delete
break tick_sched_timer
continue
printf "software %d\n", $rip == (unsigned long)&tick_sched_timer
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
    "software 1",
    "step 1",
    "Old value = ",
    "received signal SIGINT",
    "end: ",
    "received signal SIGINT",
];

/// What gdb then does with two CPUs: it has the first one hang with interrupts off, in an instruction that jumps to itself,
/// and stops it there.
const HANG_SCRIPT: &str = r#"
info threads
thread 2
printf "second %d\n", $cs & 3
monitor bt
thread 1
set $place = $rip
set $code = *(unsigned short *)$place
set $flags = (unsigned int)$eflags
set *(unsigned short *)$place = 0xfeeb
set $eflags = $flags & ~0x200
shell (sleep 3; kill -INT $PPID) &
continue
thread 1
printf "hangs %d, interrupts %#x\n", $rip == $place, (unsigned int)$eflags & 0x200
set *(unsigned short *)$place = $code
set $eflags = $flags
"#;

/// What gdb says then, in this order.
const HANG_SAYS: &[&str] =
    &["Thread 1.1", "Thread 1.2", "second ", "end: ", "received signal SIGINT", "hangs 1, interrupts 0"];

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
    "register rbx=0x1122334455667788",
    "breakpoint rip=",
    "memory 0x12345678",
    "before 0",
    "watched 0x2",
    "CPU 0: ",
];

/// The test of many rounds. In Bochs a round takes seconds.
const ROUNDS: Test = Test { name: "gdb/rounds", lanes: &[Lane::Svm], cpus: 2, check: |_, _, _| Ok(()) };

/// What gdb does then: it stops the kernel at each interrupt of a timer, steps over the instruction there, and has the
/// kernel go on.
const ROUNDS_SCRIPT: &str = r#"
file @SYMBOLS@
target remote 127.0.0.1:@PORT@
hbreak hrtimer_interrupt
set $round = 0
while $round < @ROUNDS@
  continue
  set $round = $round + 1
end
printf "rounds %d\n", $round
delete
detach
"#;

/// A machine with a stock kernel, and a line for gdb.
struct Debugged {
    running: RunningMachine,
    console: Console,
    relay: Relay,
    /// The address of the kernel, which is that of its first instruction.
    kernel: u64,
    /// The file with the kernel's symbols.
    symbols: PathBuf,
    folder: String,
}

impl Debugged {
    /// Boots the machine of a test with these boot options of Vidar. The guest gets these programs of the tests.
    fn boot(test: &Test, lane: Lane, options: &str, programs: &[&str], tools: &Tools) -> Result<Self> {
        let dir = test_dir(&lane.folder(test.name))?;
        let mut guest = manifest::load()?.into_iter().next().context("there is no guest")?;
        let mut options = options.to_owned();
        if test.cpus > 1 {
            guest.cmdline += smp::for_several_cpus(lane);
            options = format!("{options} {}", lane.machine().option_for_cpus());
        }
        if !programs.is_empty() {
            let file = |name: &&str| Ok(((*name).to_owned(), fs::read(build::guest_program(name)?)?));
            let files = programs.iter().map(file).collect::<Result<Vec<_>>>()?;
            let archive = dir.join("initrd");
            fs::write(&archive, initramfs::pack_files(&[], &files)?)?;
            guest.initrds.push(Initrd::File(archive));
        }
        let symbols = symbols::make(&guests::kernel(&guest, Freshness::Any)?, &guest.name)?.0;
        let iso = dir.join("vidar.iso");
        let recipe = Recipe {
            guests: vec![guest],
            menu: Menu { timeout: 0, options, ..Menu::default() },
            hypervisor: Some(tools.hypervisor.clone()),
            vidarctl: Some(tools.vidarctl.clone()),
        };
        iso::make(&recipe, &iso)?;
        let spec = Spec {
            dir: dir.clone(),
            iso,
            memory: 512,
            cpus: NonZeroU32::new(test.cpus),
            second_serial: true,
            verbose: true,
            ..Spec::default()
        };
        let mut running = lane.machine().start(&spec)?;
        let mut console = Console::new(running.serial()?, &dir.join("serial.log"))?;
        let relay = Relay::open(running.second_serial()?, 0)?;
        console.expect(", goes to 0x", BOOT)?;
        let kernel = u64::from_str_radix(console.expect("\r\n", ANSWER)?.trim(), 16)?;
        console.expect("the machine is the guest's now", BOOT)?;
        Ok(Self { running, console, relay, kernel, symbols, folder: lane.folder(test.name) })
    }

    /// Returns the number of interrupts of each CPU's timer, as Linux counts them. Checks that Linux has found none that
    /// it did not expect.
    fn interrupts(&mut self) -> Result<Vec<u64>> {
        let wrong = self.console.run("grep -E 'ERR:|MIS:|SPU:' /proc/interrupts")?;
        let counts = wrong.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
        ensure!(counts.sum::<u64>() == 0, "Linux has found interrupts that it did not expect: {wrong}");
        let timers = self.console.run("grep LOC: /proc/interrupts")?;
        Ok(timers.split_whitespace().filter_map(|word| word.parse().ok()).collect())
    }

    /// Runs gdb with `script`, and checks that it says each line of `says` in this order.
    fn gdb(&self, script: &str, says: &[&str]) -> Result<()> {
        self.gdb_within(script, says, BOOT)
    }

    /// Does the same, and waits this long for gdb's end.
    fn gdb_within(&self, script: &str, says: &[&str], within: Duration) -> Result<()> {
        let filled = |text: &str| {
            text.replace("@PORT@", &self.relay.port().to_string())
                .replace("@KERNEL@", &format!("{:#x}", self.kernel))
                .replace("@SYMBOLS@", &self.symbols.display().to_string())
                .replace("@ENTRY@", &format!("{:#x}", self.kernel + 0x200))
        };
        let said = run(&self.folder, &filled(script), within)?;
        let mut rest = said.as_str();
        for line in says.iter().map(|line| filled(line)) {
            let at =
                rest.find(&line).with_context(|| format!("gdb does not say {line:?}; it says:\n{said}"))?;
            rest = &rest[at + line.len()..];
        }
        Ok(())
    }

    /// Checks that the guest answers at its shell and that its clock goes on.
    fn runs_on(mut self) -> Result<()> {
        let time = "cut -d. -f1 /proc/uptime";
        let before: u64 = self.console.run(time)?.trim().parse()?;
        let after: u64 = self.console.run(&format!("sleep 2; {time}"))?.trim().parse()?;
        ensure!(
            after >= before + 2,
            "while the guest slept for 2 s, its clock went from {before} to {after}"
        );
        drop(self.running);
        Ok(())
    }
}

/// Returns the name of the test of many rounds.
pub fn rounds_name() -> String {
    ROUNDS.lanes[0].test(ROUNDS.name)
}

/// Stops a kernel with two CPUs and has it go on `count` times, while it is under a load that checks its own results. A
/// timer interrupt that is lost would be the last of its CPU, since its handler starts the timer again, and the load would
/// wait for a lost interrupt between CPUs for good.
pub fn rounds(count: u32, tools: &Tools) -> Result<()> {
    let lane = ROUNDS.lanes[0];
    let mut debugged = Debugged::boot(&ROUNDS, lane, "gdb=com2", &["stress"], tools)?;
    debugged.console.expect(PROMPT, BOOT)?;
    debugged.console.run("dmesg -n 1; chmod +x /stress")?;
    let before = debugged.interrupts()?;
    // The guest's clock goes on while it is stopped, so the load outlasts the rounds.
    debugged.console.run(&format!("/stress {} >/stress.txt & true", 60 + count / 4))?;
    let script = ROUNDS_SCRIPT.replace("@ROUNDS@", &count.to_string());
    debugged.gdb_within(&script, &[&format!("rounds {count}")], BOOT * 4)?;
    let between = debugged.interrupts()?;
    let taken: u64 = between.iter().zip(&before).map(|(after, before)| after - before).sum();
    ensure!(
        taken >= u64::from(count),
        "gdb has stopped at {count} timer interrupts, and Linux has counted {taken}"
    );
    let said =
        debugged.console.run("while ! grep -q stress: /stress.txt; do sleep 1; done; cat /stress.txt")?;
    ensure!(said.contains("stress: cpus=2 "), "the load reports {said:?}");
    ensure!(!said.contains("=0"), "parts of the load did nothing: {said:?}");
    let after = debugged.interrupts()?;
    let ticks = after.iter().zip(&between).all(|(after, between)| after > between);
    ensure!(ticks, "a CPU gets no timer interrupts any more: {between:?}, then {after:?}");
    debugged.runs_on()
}

/// Runs gdb with the commands `script`, and returns what it says. An error in a command is an error.
fn run(name: &str, script: &str, within: Duration) -> Result<String> {
    let dir = folder(name);
    let (commands, output) = (dir.join("commands.gdb"), dir.join("gdb.log"));
    let settings =
        "set pagination off\nset confirm off\nset architecture i386:x86-64\nset remotetimeout 60\n";
    fs::write(&commands, format!("{settings}{script}"))?;
    let log = fs::File::create(&output)?;
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-q", "-batch", "-x"]).arg(&commands);
    gdb.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut child = gdb.spawn().context("cannot run gdb")?;
    let begun = Instant::now();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if begun.elapsed() > within => {
                let _ = child.kill();
                let _ = child.wait();
                bail!("gdb did not end within {} s: see {}", within.as_secs(), output.display());
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let said = fs::read_to_string(&output)?;
    ensure!(status.success(), "gdb ends with {status} and says:\n{said}");
    Ok(said)
}

/// gdb stops the kernel at its first instruction, sets breakpoints and a watchpoint, steps, changes a register and memory,
/// and leaves. The kernel then starts as usual.
fn start(test: &Test, lane: Lane, tools: &Tools) -> Result<()> {
    let mut debugged = Debugged::boot(test, lane, "gdb=com2,wait", &[], tools)?;
    debugged.gdb(START_SCRIPT, START_SAYS)?;
    debugged.console.expect(PROMPT, BOOT)?;
    debugged.runs_on()
}

/// Attaches gdb to a running kernel. Checks that gdb finds functions by name under KASLR, that breakpoints, a watchpoint
/// and Ctrl-C stop the kernel, also while one of two CPUs hangs, and that the kernel runs on after gdb has detached.
fn attach(test: &Test, lane: Lane, tools: &Tools) -> Result<()> {
    let mut debugged = Debugged::boot(test, lane, "gdb=com2", &[], tools)?;
    debugged.console.expect(PROMPT, BOOT)?;
    let mut script = ATTACH_SCRIPT.to_owned();
    let mut says = ATTACH_SAYS.to_vec();
    if test.cpus > 1 {
        // The kernel may say that a CPU was stuck.
        debugged.console.run("dmesg -n 1")?;
        if lane == Lane::Svm {
            // On AMD-V a CPU looks for gdb when it gets an interrupt, and an idle CPU gets few.
            debugged.console.run("taskset 2 sh -c 'while :; do :; done' & true")?;
        }
        script += HANG_SCRIPT;
        says.extend(HANG_SAYS);
    }
    script += DETACH.0;
    says.push(DETACH.1);
    debugged.gdb(&script, &says)?;
    debugged.runs_on()
}
