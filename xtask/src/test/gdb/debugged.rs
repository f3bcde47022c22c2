//! A machine with a stock kernel that gdb debugs.

use std::fs;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::console::{ANSWER, BOOT, Console};
use crate::guests::{self, Freshness};
use crate::machine::RunningMachine;
use crate::machine::gdb::Relay;
use crate::symbols;
use crate::test::lane::Lane;
use crate::test::{LinuxMachine, Tools, folder, smp, test_dir};

/// A test of the debugger.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    /// The test's name.
    pub name: &'static str,
    /// The lanes in which it runs. In Bochs each boot takes a minute or two.
    pub lanes: &'static [Lane],
    /// The number of the machine's CPUs.
    pub cpus: u32,
    pub check: fn(&Test, Lane, &Tools) -> Result<()>,
}

impl Test {
    /// Runs the test in a lane.
    pub fn run(&self, lane: Lane, tools: &Tools) -> Result<()> {
        (self.check)(self, lane, tools)
    }
}

/// A machine with a stock kernel, and a line for gdb.
pub struct Debugged {
    running: RunningMachine,
    pub console: Console,
    pub relay: Relay,
    /// The address of the kernel, which is that of its first instruction.
    kernel: u64,
    /// The file with the kernel's symbols.
    symbols: PathBuf,
    pub folder: String,
}

impl Debugged {
    /// Boots the machine of the test `name` with these boot options of Vidar. The guest gets these programs of the
    /// tests.
    pub fn boot(
        name: &str,
        cpus: u32,
        lane: Lane,
        options: &str,
        programs: &[&str],
        tools: &Tools,
    ) -> Result<Self> {
        let mut machine = LinuxMachine::new(lane, test_dir(&lane.folder(name))?)?;
        machine.menu.options = options.to_owned();
        if cpus > 1 {
            machine.guest().cmdline += smp::for_several_cpus(lane);
            machine.menu.options += &format!(" {}", lane.machine().option_for_cpus());
        }
        if !programs.is_empty() {
            machine.add_programs(programs)?;
        }
        machine.spec.cpus = NonZeroU32::new(cpus);
        machine.spec.second_serial = true;
        let symbols =
            symbols::make(&guests::kernel(machine.guest(), Freshness::Any)?, &machine.guest().name)?.0;
        let (mut running, mut console) = machine.start(tools)?;
        let relay = Relay::open(running.second_serial()?, 0)?;
        console.expect(", goes to 0x", BOOT)?;
        let kernel = u64::from_str_radix(console.expect("\r\n", ANSWER)?.trim(), 16)?;
        console.expect("the machine is the guest's now", BOOT)?;
        Ok(Self { running, console, relay, kernel, symbols, folder: lane.folder(name) })
    }

    /// Returns the number of interrupts of each CPU's timer, as Linux counts them. Checks that Linux has found none
    /// that it did not expect.
    pub fn interrupts(&mut self) -> Result<Vec<u64>> {
        let wrong = self.console.run("grep -E 'ERR:|MIS:|SPU:' /proc/interrupts")?;
        let counts = wrong.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
        ensure!(counts.sum::<u64>() == 0, "Linux has found interrupts that it did not expect: {wrong}");
        let timers = self.console.run("grep LOC: /proc/interrupts")?;
        Ok(timers.split_whitespace().filter_map(|word| word.parse().ok()).collect())
    }

    /// Runs gdb with `script`, and checks that it says each line of `says` in this order.
    pub fn gdb(&self, script: &str, says: &[&str]) -> Result<()> {
        let filled = |text: &str| {
            text.replace("@PORT@", &self.relay.port().to_string())
                .replace("@KERNEL@", &format!("{:#x}", self.kernel))
                .replace("@SYMBOLS@", &self.symbols.display().to_string())
                .replace("@ENTRY@", &format!("{:#x}", self.kernel + 0x200))
        };
        let said = run(&self.folder, &filled(script), BOOT)?;
        let mut rest = said.as_str();
        for line in says.iter().map(|line| filled(line)) {
            let at =
                rest.find(&line).with_context(|| format!("gdb does not say {line:?}; it says:\n{said}"))?;
            rest = &rest[at + line.len()..];
        }
        Ok(())
    }

    /// Checks that the guest answers at its shell, that its clock goes on, and that it has got none of the NMIs by
    /// which gdb calls Vidar.
    pub fn runs_on(mut self) -> Result<()> {
        let time = "cut -d. -f1 /proc/uptime";
        let before: u64 = self.console.run(time)?.trim().parse()?;
        let after: u64 = self.console.run(&format!("sleep 2; {time}"))?.trim().parse()?;
        ensure!(
            after >= before + 2,
            "while the guest slept for 2 s, its clock went from {before} to {after}"
        );
        self.console.run("! dmesg | grep 'NMI received'")?;
        drop(self.running);
        Ok(())
    }
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
