//! The log of the last start, after Linux has crashed: Vidar shows the report, `vidarctl` prints the log, and Linux has
//! it in `/sys/fs/pstore`.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::job::Job;
use super::lane::Lane;
use super::report::Report;
use super::{LinuxMachine, Tools, crash, linux, small, test_dir};
use crate::console::{ANSWER, BOOT, Console, PROMPT, TALK};
use crate::machine::Machine;
use crate::modules;

/// A machine in which the log is kept.
#[derive(Debug, Clone, Copy)]
struct Setup {
    lane: Lane,
    uefi: bool,
}

/// All setups.
const SETUPS: [Setup; 3] = [
    Setup { lane: Lane::Vmx, uefi: false },
    Setup { lane: Lane::Svm, uefi: false },
    Setup { lane: Lane::Svm, uefi: true },
];

/// The module that shows what memory has kept, and one that crashes: in the interrupt of a timer.
const MODULES: &[&str] = &["ramoops", "softdog"];
/// Inserts the module that crashes, and starts its timer: a watchdog that nobody feeds.
const CRASH: &str = "insmod /lib/modules/watchdog.ko; insmod /lib/modules/softdog.ko soft_margin=1 soft_panic=1; echo >/dev/watchdog";
/// What Linux says of that.
const PANIC: &str = "Kernel panic - not syncing: Software Watchdog Timer expired";

/// What Vidar reports when Linux resets the machine by a triple fault.
const REPORT: &str = "the guest has stopped on CPU 0: triple fault";

/// The functions that the next start names: the one of Linux that makes the triple fault, and the one of the module if
/// that crashes.
const FUNCTIONS: [&str; 2] = ["native_machine_emergency_restart+0x", " softdog:softdog_fire"];
/// The last line of the report.
const RESET: &str = "the machine is reset (on-crash=reset)\r\n";

/// Returns a job for each setup.
pub fn jobs<'a>(tools: &'a Tools, report: &'a Report) -> impl Iterator<Item = Job<'a>> {
    SETUPS.into_iter().map(move |setup| {
        let check = move || {
            let (begun, log) = (Instant::now(), small::log(&setup.folder()));
            report.result(&setup.test(), begun, setup.run(tools), Some(&log));
            Ok(())
        };
        Job::new(vec![setup.test()], check).needing(linux::needs(setup.lane))
    })
}

impl Setup {
    /// Returns the test's name.
    fn test(self) -> String {
        self.lane.test(if self.uefi { "kept-log/uefi" } else { "kept-log/bios" })
    }

    /// Returns the folder of the test.
    fn folder(self) -> String {
        self.test().replace('/', "-")
    }

    /// Returns true if a module of Linux crashes. In Bochs it would take minutes to insert it, and Linux itself makes
    /// the triple fault.
    fn module_crashes(self) -> bool {
        self.lane.machine() != Machine::Bochs
    }

    /// Returns the functions that the next start names.
    fn functions(self) -> &'static [&'static str] {
        if self.module_crashes() { &FUNCTIONS } else { &FUNCTIONS[..1] }
    }

    /// Boots Linux, has a module of its panic and so reset the machine by a triple fault, and looks for the report
    /// there and in the next start. After the start after that one, which follows a reset without a report, nothing is
    /// left of it.
    fn run(self, tools: &Tools) -> Result<()> {
        let dir = test_dir(&self.folder())?;
        let mut machine = LinuxMachine::new(self.lane, dir)?;
        let modules = modules::archive(machine.guest(), MODULES)?;
        machine.add_initrd(modules);
        machine.guest().cmdline += " panic=1 reboot=t";
        machine.spec.uefi = self.uefi;
        let (_running, mut console) = machine.start(tools)?;
        cold(&mut console)?;
        if self.module_crashes() {
            console.run(TALK)?;
            console.type_line(CRASH)?;
            console.expect(PANIC, ANSWER)?;
            let said = console.expect(REPORT, ANSWER)?;
            console.expect(PANIC, ANSWER)?;
            crash::after_panic(&said, &console.expect(RESET, ANSWER)?.replace("\r\n", "\n"))?;
        } else {
            console.type_line("reboot")?;
            console.expect(REPORT, ANSWER)?;
        }
        after_crash(&mut console, self.functions())?;
        // This way past the triple fault is a reset of which Vidar knows nothing.
        console.type_line("echo pci >/sys/kernel/reboot/type; reboot")?;
        cold(&mut console)
    }
}

/// Waits for the shell, and returns what was said before.
fn boot(console: &mut Console) -> Result<String> {
    let said = console.expect("Linux version", BOOT)?;
    console.expect(PROMPT, BOOT)?;
    Ok(said)
}

/// A start that finds no report: after the power was off, or after a reset by the guest.
fn cold(console: &mut Console) -> Result<()> {
    let said = boot(console)?;
    ensure!(!said.contains("last start"), "Vidar speaks of the last start: {said}");
    let said = console.run("vidarctl log --ramoops 2>&1; echo $?")?;
    let sentence =
        "vidarctl: there is no record for ramoops, since no crash report of the last start was found";
    ensure!(said.starts_with(sentence) && said.ends_with("\n1\n"), "`vidarctl log --ramoops` said {said:?}");
    Ok(())
}

/// A start after a crash.
fn after_crash(console: &mut Console, functions: &[&str]) -> Result<()> {
    let said = boot(console)?;
    let ended = format!("the last start ended in: {REPORT}");
    ensure!(said.contains(&ended), "Vidar said {said}");
    functions.iter().try_for_each(|function| {
        ensure!(said.contains(function), "{function:?} is not in what Vidar said: {said}");
        Ok(())
    })?;
    // A log that went to the console would look like a crash of this start.
    let count = |from: &str| format!("{from} | grep -c '{}'", REPORT.replace("CPU", "C[P]U"));
    let lines = console.run(&count("vidarctl log --last"))?;
    ensure!(lines == "1\n", "`vidarctl log --last` has the report {lines:?} times");
    console.run(&format!("{}; dmesg >/dmesg", modules::insert()))?;
    let parameters = console.run("vidarctl log --ramoops")?;
    let insert = format!("rmmod ramoops 2>/dev/null; insmod /lib/modules/ramoops.ko {}", parameters.trim());
    console.run(&insert)?;
    console.run("mount -t pstore pstore /sys/fs/pstore")?;
    let lines = console.run(&count("cat /sys/fs/pstore/dmesg-ramoops-0"))?;
    ensure!(lines == "1\n", "/sys/fs/pstore has the report {lines:?} times");
    let same = "vidarctl log --last | cmp - /sys/fs/pstore/dmesg-ramoops-0 && echo same";
    ensure!(console.run(same)? == "same\n", "/sys/fs/pstore has another log than `vidarctl log --last`");
    Ok(())
}
