//! Ends a Linux in ways that lead to a crash report, and compares what Vidar reads from the dead kernel with what that kernel
//! said of itself.

use std::num::NonZeroU32;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::lane::Lane;
use super::linux::NEWEST_KERNELS;
use super::{Tools, test_dir};
use crate::console::{ANSWER, BOOT, Console, PROMPT, TALK};
use crate::grub::Menu;
use crate::iso::{self, Recipe};
use crate::machine::{RunningMachine, Spec};
use crate::manifest::{self, Guest};

type Check = fn(Option<&str>, Lane, &Path, &Tools) -> Result<()>;

/// Returns the tests: the name of each, the suite of Debian that the kernel comes from if it is not what this machine follows, and
/// what is checked. Those with the newest kernels are included if `newest` is true.
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

/// Boots the first guest of the manifest to its shell, with the kernel of `suite` if there is one, and with more words on its command line and more of Vidar's options.
fn boot(
    suite: Option<&str>,
    lane: Lane,
    more: &str,
    options: &str,
    cpus: u32,
    dir: &Path,
    tools: &Tools,
) -> Result<(RunningMachine, Console)> {
    let mut guest = manifest::load()?.into_iter().next().context("the manifest names no guest")?;
    if let Some(suite) = suite {
        guest = guest.of_suite(suite).context("the manifest's first guest has no package")?;
    }
    let guest = Guest { cmdline: format!("{} {more}", guest.cmdline), ..guest };
    let menu =
        Menu { default: Some(guest.name.clone()), options: format!("{OPTIONS}{options}"), ..Menu::default() };
    let iso = dir.join("vidar.iso");
    let hypervisor = Some(tools.hypervisor.clone());
    iso::make(
        &Recipe { guests: vec![guest], menu, hypervisor, vidarctl: Some(tools.vidarctl.clone()) },
        &iso,
    )?;
    let spec =
        Spec { dir: dir.to_path_buf(), iso, cpus: NonZeroU32::new(cpus), memory: 512, ..Spec::default() };
    let running = lane.machine().start(&spec)?;
    let mut console = Console::new(running.serial()?, &dir.join("serial.log"))?;
    console.expect("Linux version", BOOT)?;
    console.expect(PROMPT, BOOT)?;
    Ok((running, console))
}

/// Reads the report up to its last line, and checks that no line is too long.
fn report(console: &mut Console) -> Result<String> {
    let report = console.expect(HALTED, ANSWER)?.replace("\r\n", "\n");
    let too_long = report.lines().find(|line| line.len() > LONGEST_LINE);
    ensure!(too_long.is_none(), "a line of the report is too long: {too_long:?}");
    Ok(report)
}

/// Linux panics and then resets the machine by a triple fault. Vidar names the functions that have led to it, and from the
/// panic outwards these are the ones that the kernel itself has printed.
fn panic(suite: Option<&str>, lane: Lane, dir: &Path, tools: &Tools) -> Result<()> {
    let (_running, mut console) = boot(suite, lane, "panic=1 reboot=t", "", 1, dir, tools)?;
    console.run(TALK)?;
    console.type_line("echo c > /proc/sysrq-trigger")?;
    console.expect("Kernel panic - not syncing: sysrq triggered crash", ANSWER)?;
    let said = console.expect("the guest has stopped on CPU 0: triple fault", ANSWER)?;
    let printed = outwards_from_panic(said.lines().filter_map(printed_function));
    ensure!(printed.len() > 3, "the kernel has printed no call chain: {said}");
    // The end of the kernel's log is in the report.
    console.expect("Kernel panic - not syncing: sysrq triggered crash", ANSWER)?;
    let report = report(&mut console)?;
    let chain = report.split_once("functions of CPU 0, the innermost first:\n").context("no chain")?.1;
    let functions: Vec<_> = chain.lines().map_while(reported_function).collect();
    let innermost = functions.first().context("the chain is empty")?;
    ensure!(innermost.starts_with("native_machine_emergency_restart+"), "the chain begins with {innermost}");
    let reported = outwards_from_panic(functions.into_iter());
    ensure!(reported == printed, "Vidar says {reported:?}, and the kernel said {printed:?}");
    Ok(())
}

/// Returns the function in a line of a call chain that Linux has printed, if it is sure of it.
fn printed_function(line: &str) -> Option<&str> {
    let (_, text) = line.split_once("] ")?;
    let (function, size) = text.trim().rsplit_once('/')?;
    (size.starts_with("0x") && function.contains("+0x") && !function.contains(' ')).then_some(function)
}

/// Returns the function in a line of a call chain that Vidar has written.
fn reported_function(line: &str) -> Option<&str> {
    let (address, function) = line.strip_prefix("  ")?.split_once(' ')?;
    (address.len() == 16 && function.contains("+0x")).then(|| function.trim_end_matches(" (interrupted)"))
}

/// Returns the functions of a chain from the caller of `panic` on. The place in `panic` differs, since the chain was printed
/// before the panic went on.
fn outwards_from_panic<'a>(functions: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    functions.skip_while(|function| !function.starts_with("panic+")).skip(1).collect()
}

/// `vidarctl crash` asks before it ends a Linux of which another CPU is busy in the kernel. The report has the state of both
/// where Vidar can stop the other one.
fn on_demand(suite: Option<&str>, lane: Lane, dir: &Path, tools: &Tools) -> Result<()> {
    let (_running, mut console) = boot(suite, lane, "", " trace=on", 2, dir, tools)?;
    let refused = console.run("echo no | vidarctl crash 2>&1 || true")?;
    ensure!(refused.contains("Type yes to go on") && refused.contains("nothing was done"), "{refused}");
    console.run("(taskset 2 cat /dev/urandom > /dev/null &)")?;
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
        says("the other CPUs, which this one has stopped:\n  CPU 1 rip ")?;
        says("functions of CPU 1, the innermost first:\n  ffff")?;
        says(" do_syscall_64+0x")?;
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
        let linux = "[    4.063411]  sysrq_handle_crash+0x16/0x20";
        assert_eq!(printed_function(linux), Some("sysrq_handle_crash+0x16"));
        for line in
            ["[    4.063411]  ? _printk+0x58/0x6f", "[    4.063411] Call Trace:", "[    4.1]  <TASK>", ""]
        {
            assert_eq!(printed_function(line), None, "{line}");
        }
        assert_eq!(reported_function("  ffffffff818f2a04 panic+0x2e9"), Some("panic+0x2e9"));
        assert_eq!(reported_function("  ffffffff818f2a04 leaf+0x4 (interrupted)"), Some("leaf+0x4"));
        assert_eq!(reported_function("  (user mode)"), None);
        let chain = ["emergency_restart+0xa", "panic+0x1", "a+0x1", "b+0x2"];
        assert_eq!(outwards_from_panic(chain.into_iter()), ["a+0x1", "b+0x2"]);
    }
}
