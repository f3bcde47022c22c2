//! Ends a Linux in ways that lead to a crash report, and compares what Vidar reads from the dead kernel with what that
//! kernel said of itself.

use std::num::NonZeroU32;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::lane::Lane;
use super::linux::NEWEST_KERNELS;
use super::{LinuxMachine, Tools, locks, test_dir};
use crate::attack::{self, Attack, Kind};
use crate::console::{ANSWER, Console, TALK};
use crate::machine::RunningMachine;

type Check = fn(Option<&str>, Lane, &Path, &Tools) -> Result<()>;

/// Returns the tests: the name of each, the suite of Debian that the kernel comes from if it is not what this machine
/// follows, and what is checked. Those with the newest kernels are included if `newest` is true.
pub fn tests(newest: bool) -> Vec<(String, Option<&'static str>, Check)> {
    let mut tests: Vec<(String, _, Check)> =
        vec![("crash/panic".to_owned(), None, panic), ("crash/on-demand".to_owned(), None, on_demand)];
    let suites = NEWEST_KERNELS.iter().copied().filter(|_| newest);
    tests.extend(suites.map(|suite| (format!("crash/panic-{suite}"), Some(suite), panic as Check)));
    tests
}

/// The longest line of a report.
const LONGEST_LINE: usize = 79;

/// The last line of a report, whichever CPUs it is about.
const HALTED: &str = " is halted (on-crash=halt)\r\n";

/// The boot options. In Bochs, Linux gets a second CPU up only if Vidar starts it.
const OPTIONS: &str = "on-crash=halt cpu-startup=emulated";

/// Runs a test in a folder of its own.
pub fn run(name: &str, suite: Option<&str>, check: Check, lane: Lane, tools: &Tools) -> Result<()> {
    check(suite, lane, &test_dir(&lane.folder(name))?, tools)
}

/// A machine that boots the first guest of the manifest.
#[derive(Debug, Default)]
struct Machine<'a> {
    /// The suite of Debian that the kernel comes from, if it is not what this machine follows.
    suite: Option<&'a str>,
    /// More words on the kernel's command line.
    words: &'a str,
    /// More of Vidar's options.
    options: &'a str,
    cpus: u32,
    /// True if the guest has the modules that write to the kernel's memory.
    attacks: bool,
}

impl Machine<'_> {
    /// Boots the guest to its shell.
    fn boot(self, lane: Lane, dir: &Path, tools: &Tools) -> Result<(RunningMachine, Console)> {
        let Self { suite, words, options, cpus, attacks } = self;
        let mut machine = LinuxMachine::new(lane, dir.to_path_buf())?;
        if let Some(suite) = suite {
            let guest = machine
                .guest()
                .clone()
                .of_suite(suite)
                .context("the manifest's first guest has no package")?;
            machine = LinuxMachine::with(lane, dir.to_path_buf(), guest);
        }
        if attacks {
            let modules = attack::archive(machine.guest(), &locks::names())?;
            machine.add_initrd(modules);
        }
        machine.guest().cmdline += &format!(" {words}");
        machine.menu.options = format!("{OPTIONS}{options}");
        machine.spec.cpus = NonZeroU32::new(cpus);
        machine.boot(tools)
    }
}

/// Reads the report up to its last line, and checks that no line is too long.
fn report(console: &mut Console) -> Result<String> {
    let report = console.expect(HALTED, ANSWER)?.replace("\r\n", "\n");
    let too_long = report.lines().find(|line| line.len() > LONGEST_LINE);
    ensure!(too_long.is_none(), "a line of the report is too long: {too_long:?}");
    Ok(report)
}

/// Linux panics and then resets the machine by a triple fault. Vidar names the functions that have led to it, and from
/// the panic outwards these are the ones that the kernel itself has printed.
fn panic(suite: Option<&str>, lane: Lane, dir: &Path, tools: &Tools) -> Result<()> {
    let machine = Machine { suite, words: "panic=1 reboot=t", cpus: 1, ..Machine::default() };
    let (_running, mut console) = machine.boot(lane, dir, tools)?;
    console.run(TALK)?;
    console.type_line("echo c > /proc/sysrq-trigger")?;
    console.expect("Kernel panic - not syncing: sysrq triggered crash", ANSWER)?;
    let said = console.expect("the guest has stopped on CPU 0: triple fault", ANSWER)?;
    // The end of the kernel's log is in the report.
    console.expect("Kernel panic - not syncing: sysrq triggered crash", ANSWER)?;
    after_panic(&said, &report(&mut console)?)
}

/// Checks that the call chain of CPU 0 in Vidar's `report` begins where Linux makes a triple fault, and that from the
/// panic outwards it has the functions that Linux has printed, in what it `said`.
pub fn after_panic(said: &str, report: &str) -> Result<()> {
    let (printed, reported) = (printed(said), reported(report, 0)?);
    let innermost = reported.first().context("the chain is empty")?;
    ensure!(innermost.starts_with("native_machine_emergency_restart+"), "the chain begins with {innermost}");
    let (printed, reported) = (outwards_from_panic(&printed), outwards_from_panic(&reported));
    ensure!(printed.len() > 3, "the kernel has printed no call chain: {said}");
    ensure!(reported == printed, "Vidar says {reported:?}, and the kernel said {printed:?}");
    Ok(())
}

/// Returns the functions that Linux has printed, without those of which it is not sure.
fn printed(said: &str) -> Vec<String> {
    said.lines().filter_map(printed_function).collect()
}

/// Returns the function in a line of a call chain that Linux has printed, if it is sure of it. The one in which an
/// interrupt came is in the line of its registers. A module's name comes after the function, and is put before it, as
/// Vidar has it.
fn printed_function(line: &str) -> Option<String> {
    let (_, text) = line.split_once("] ")?;
    let text = text.trim();
    let (function, size) = text.strip_prefix("RIP: 0010:").unwrap_or(text).rsplit_once('/')?;
    let (size, module) = size.split_once(" [").unwrap_or((size, ""));
    if !size.starts_with("0x") || !function.contains("+0x") || function.contains(' ') {
        return None;
    }
    let module = module.strip_suffix(']').map(|name| format!("{name}:")).unwrap_or_default();
    Some(module + function)
}

/// Returns the functions in the call chain of a CPU in Vidar's report. Those that a screen has no room for are in a
/// part of their own.
fn reported(report: &str, cpu: u32) -> Result<Vec<String>> {
    let part = |head: &str| {
        let lines = report.split_once(head).map_or("", |(_, rest)| rest).lines();
        lines.take_while(|line| line.starts_with("  ")).filter_map(reported_function)
    };
    let head = format!("functions of CPU {cpu}, the innermost first:\n");
    ensure!(report.contains(&head), "the report has no chain of CPU {cpu}: {report}");
    Ok(part(&head).chain(part(&format!("further functions of CPU {cpu}:\n"))).collect())
}

/// Returns the function in a line of a call chain that Vidar has written.
fn reported_function(line: &str) -> Option<String> {
    let (address, function) = line.strip_prefix("  ")?.split_once(' ')?;
    let is_function = address.len() == 16 && function.contains("+0x");
    is_function.then(|| function.trim_end_matches(" (interrupted)").to_owned())
}

/// Returns the functions of a chain from the caller of `panic` on. The place in `panic` differs, since the chain was
/// printed before the panic went on.
fn outwards_from_panic(functions: &[String]) -> &[String] {
    let panic = functions.iter().position(|function| function.starts_with("panic+"));
    panic.map_or(&[], |panic| &functions[panic + 1..])
}

/// What Linux calls to answer who reads this file.
const HANGS: (&str, &str) = ("uptime_proc_show", "/proc/uptime");
/// The instructions that take the place of that function's first ones: CLI, and a jump to itself.
const HANG: [u8; 3] = [0xfa, 0xeb, 0xfe];

/// Has CPU 1 hang in the kernel with interrupts off, and returns the functions that the kernel prints of it. The shell
/// and the devices' interrupts, among them the serial line's, stay on CPU 0.
fn hang(console: &mut Console) -> Result<Vec<String>> {
    let (function, file) = HANGS;
    console.run("taskset -p 1 $$; for i in /proc/irq/*/smp_affinity; do echo 1 2>/dev/null >$i; done")?;
    // In Bochs it takes long to read the symbols, so it is done once.
    let base_symbol = "page_offset_base";
    let lines = console.run(&format!("grep -E ' ({function}|{base_symbol})$' /proc/kallsyms"))?;
    let address = |symbol: &str| {
        let line = lines.lines().find(|line| line.ends_with(&format!(" {symbol}")));
        let digits = line.and_then(|line| line.split(' ').next());
        let address = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        address.with_context(|| format!("the kernel has no {symbol}"))
    };
    let (begin, base) = (address(function)?, address(base_symbol)?);
    for (number, (value, target)) in HANG.into_iter().zip(begin..).enumerate() {
        let file = format!("/{}.ko", locks::name(number));
        let attack = Attack { kind: Kind::Write, target, base, value: value.into() };
        console.run(&format!("{}; insmod {file}", attack.into(&file)))?;
    }
    // The shell's own loop takes some interrupts of the timer before, and starts no program, whose CPUIDs would be the
    // last exits.
    let program = format!("i=0; while [ $i -lt 3000 ]; do i=$((i + 1)); done; read x <{file}");
    console.run(&format!("(taskset 2 sh -c '{program}' &)"))?;
    // An NMI has each CPU print its functions, which is asked until CPU 1 is where it hangs.
    let ask = format!("dmesg -c >/dev/null; echo l > /proc/sysrq-trigger; dmesg | grep -q '{function}+'");
    let said =
        console.run(&format!("for i in 1 2 3 4 5 6 7 8 9; do sleep 3; {ask} && break; done; dmesg"))?;
    let (_, said) =
        said.split_once("NMI backtrace for cpu 1").with_context(|| format!("Linux said {said}"))?;
    Ok(printed(said))
}

/// `vidarctl crash` asks before it ends a Linux of which another CPU hangs in the kernel with interrupts off. The
/// report has the state of both where Vidar can stop the other one, and names the functions that the kernel itself has
/// printed of it.
fn on_demand(suite: Option<&str>, lane: Lane, dir: &Path, tools: &Tools) -> Result<()> {
    let machine = Machine { suite, options: " trace=on", cpus: 2, attacks: true, ..Machine::default() };
    let (_running, mut console) = machine.boot(lane, dir, tools)?;
    let refused = console.run("echo no | vidarctl crash 2>&1 || true")?;
    ensure!(refused.contains("Type yes to go on") && refused.contains("nothing was done"), "{refused}");
    let printed = hang(&mut console)?;
    ensure!(printed.first() == Some(&format!("{}+0x1", HANGS.0)), "CPU 1 hangs elsewhere: {printed:?}");
    console.type_line("taskset 1 vidarctl crash --yes")?;
    console.expect("the guest has stopped on CPU 0: a program in the guest has asked", ANSWER)?;
    let report = report(&mut console)?;
    let says = |words: &str| {
        ensure!(report.contains(words), "{words:?} is not in the report: {report}");
        Ok(())
    };
    says("functions of CPU 0, the innermost first:\n  0000")?;
    says("\n  (user mode)\n")?;
    says("the last lines of the log of Linux ")?;
    let unwrapped = report.replace("\n    ", " ");
    let exits = |cpu: u32| -> Result<Vec<&str>> {
        let head = format!("the last exits of CPU {cpu}, the newest last:\n");
        let rest = unwrapped.split_once(&head).with_context(|| format!("the report lacks {head:?}"))?.1;
        Ok(rest.lines().take_while(|line| line.starts_with("  ")).collect())
    };
    let (own, other) = (exits(0)?, exits(1)?);
    ensure!(own.len() == 8 && other.len() == 8, "these are not eight exits each: {own:?}, {other:?}");
    let asked = own.iter().any(|line| line.contains(" hypercall version at 0x"));
    ensure!(asked, "the exits of vidarctl are missing: {own:?}");
    // With these boot options each timer interrupt of the kernel is two exits.
    let named = other.iter().any(|line| line.contains(" at native_apic_mem_write+0x"));
    ensure!(named, "the exits of the kernel have no functions: {other:?}");
    if lane == Lane::Vmx {
        says("the other CPUs, which this one has stopped:\n  CPU 1 rip ffff")?;
        let reported = reported(&report, 1)?;
        ensure!(reported == printed, "Vidar says {reported:?}, and the kernel said {printed:?}");
    } else {
        says("the other CPUs run on, since")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_in_the_lines_of_both() {
        for (line, function) in [
            ("[    4.063411]  sysrq_handle_crash+0x16/0x20", "sysrq_handle_crash+0x16"),
            ("[    4.063411]  softdog_fire+0x4b/0x60 [softdog]", "softdog:softdog_fire+0x4b"),
            ("[    4.063411] RIP: 0010:default_idle+0xf/0x20", "default_idle+0xf"),
        ] {
            assert_eq!(printed_function(line).as_deref(), Some(function));
        }
        for line in [
            "[    4.063411]  ? _printk+0x58/0x6f",
            "[    4.063411] RIP: 0033:0x47b7a0",
            "[    4.063411] Call Trace:",
            "[    4.1]  <TASK>",
            "",
        ] {
            assert_eq!(printed_function(line), None, "{line}");
        }
        assert_eq!(reported_function("  ffffffff818f2a04 panic+0x2e9").as_deref(), Some("panic+0x2e9"));
        let interrupted = "  ffffffff818f2a04 leaf+0x4 (interrupted)";
        assert_eq!(reported_function(interrupted).as_deref(), Some("leaf+0x4"));
        assert_eq!(reported_function("  (user mode)"), None);
    }

    #[test]
    fn a_chain_goes_on_in_the_part_that_a_screen_does_not_show() {
        let report = "functions of CPU 0, the innermost first:\n  ffffffff818f2a04 a+0x1\n  ffffffff818f2a05 panic+0x2\n  \
                      (and 3 more on the serial line and in the log)\nvidar: error: further functions of CPU 0:\n  \
                      ffffffff818f2a06 b+0x3\n  000000000047b7a0 (interrupted)\n  (user mode)\nvidar: c\n";
        let functions = reported(report, 0).unwrap();
        assert_eq!(functions, ["a+0x1", "panic+0x2", "b+0x3"]);
        assert_eq!(outwards_from_panic(&functions), ["b+0x3"]);
        assert!(reported(report, 1).is_err());
    }
}
