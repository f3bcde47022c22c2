//! Boots Linux with a trace of the exits, and looks for those of a program in it.

pub mod events;

use std::num::NonZeroU32;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use self::events::Traced;
use super::lane::Lane;
use super::{LinuxMachine, Tools, linux, test_dir};
use crate::console::Console;
use crate::machine::abilities::Ability;
use crate::machine::{Machine, RunningMachine, Spec};

/// How often the program executes CPUID.
const CPUIDS: usize = 25;
/// The size of the trace. In Bochs with several CPUs each timer interrupt is two exits, and in a second they would fill
/// the smallest one.
const SIZE: &str = "256k";
/// How many exits are asked for. The console of Bochs is slow.
const LAST: usize = 60;

/// A machine whose exits are traced.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    lane: Lane,
    cpus: u32,
}

/// The machines. In Bochs, where a boot takes longest, there is only the one with one CPU: the traces of two are in the
/// report of `crash/on-demand`.
pub const SETUPS: [Setup; 3] = [
    Setup { lane: Lane::Vmx, cpus: 1 },
    Setup { lane: Lane::Svm, cpus: 1 },
    Setup { lane: Lane::Svm, cpus: 2 },
];

impl Setup {
    /// Returns the name of the test.
    pub fn test(self) -> String {
        let plural = if self.cpus == 1 { "" } else { "s" };
        self.lane.test(&format!("trace/{}-cpu{plural}", self.cpus))
    }

    /// Returns the folder of the test's files.
    pub fn folder(self) -> String {
        self.test().replace('/', "-")
    }

    /// What the emulator must be able to do.
    pub fn needs(self) -> Vec<Ability> {
        let mut needs = linux::needs(self.lane);
        if self.lane.machine() == Machine::Qemu {
            needs.push(Ability::QemuNestedRealMode);
        }
        needs
    }

    /// Boots the machine, runs the program on its last CPU, and looks for the program's exits.
    pub fn run(self, tools: &Tools) -> Result<()> {
        let (_running, mut console) = start(self.lane, self.cpus, &self.folder(), tools)?;
        kernel(&console.run(&format!("{SET_MTRR}; vidarctl exits --by-rip --json"))?)?;
        console.run("chmod +x /stress")?;
        let cpu = self.cpus - 1;
        let trace = format!("vidarctl trace --only cpuid --json -n {LAST}");
        let said = console.run(&format!("/stress cpuid {CPUIDS} {cpu}; {trace}"))?;
        let (program, json) = said.split_once("\n").context("the program said nothing")?;
        let rip = program.strip_prefix("stress: rip=0x").and_then(|rest| rest.split(' ').next());
        let rip = rip.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let rip = rip.with_context(|| format!("the program said {program:?}"))?;
        check(&events::read(json)?, rip, cpu)?;
        of_programs(&console.run("vidarctl exits --by-rip --json")?)?;
        table(&console.run("vidarctl trace -n 5")?)?;
        top(&console.run("vidarctl top --once --json")?, self.cpus)
    }
}

/// Boots the first guest with a trace and with the program of the tests, and waits for its shell.
pub fn start(lane: Lane, cpus: u32, folder: &str, tools: &Tools) -> Result<(RunningMachine, Console)> {
    let dir = test_dir(folder)?;
    let mut machine = LinuxMachine::new(lane, dir)?;
    machine.add_programs(&["stress"])?;
    machine.guest().cmdline += &lane.command_line();
    let for_cpus = if cpus > 1 { lane.machine().option_for_cpus() } else { "" };
    format!("trace={SIZE} {for_cpus}").trim_end().clone_into(&mut machine.menu.options);
    machine.spec = Spec { cpus: NonZeroU32::new(cpus), fixed_clock: true, ..machine.spec };
    machine.boot(tools)
}

/// Checks that the trace has each CPUID of the program at `rip` once, on the CPU where it ran, and no exit of
/// `vidarctl`.
fn check(trace: &[Traced], rip: u64, cpu: u32) -> Result<()> {
    let own: Vec<_> = trace.iter().filter(|exit| exit.rip == rip).collect();
    ensure!(own.len() == CPUIDS, "the trace has {} exits of the program, which made {CPUIDS}", own.len());
    for exit in &own {
        ensure!(exit.name == "cpuid leaf 0x80000000", "the program's exit is {}", exit.name);
        ensure!(exit.track == format!("CPU {cpu}"), "the program's exit was on {}", exit.track);
        ensure!(exit.place.starts_with("user program"), "the program is called {}", exit.place);
        ensure!(exit.ticks > 0.0, "an exit took no time");
    }
    ensure!(own.is_sorted_by_key(|exit| exit.tsc), "the exits are not in the order of time");
    let reader = trace.iter().find(|exit| exit.name == "hypercall trace");
    ensure!(reader.is_none(), "the trace has an exit of its reader: {reader:?}");
    Ok(())
}

/// Has the kernel write MTRRs, for an address at which there is neither memory nor a device. Firmware has made the
/// devices' addresses uncacheable, so that for those the kernel would only count.
const SET_MTRR: &str = "echo 'base=0x40000000 size=0x100000 type=uncachable' > /proc/mtrr";

/// Returns the counts by function.
fn by_rip(said: &str) -> Result<Vec<Value>> {
    let said: Value = serde_json::from_str(said.trim()).context("the counts are not JSON")?;
    said["functions"].as_array().cloned().context("there are no counts")
}

/// Checks that a function of the kernel which writes an MSR is named.
fn kernel(said: &str) -> Result<()> {
    let is_named = |row: &Value| row["kind"] == "wrmsr" && row["function"] != "user program";
    ensure!(by_rip(said)?.iter().any(is_named), "no function of the kernel is named: {said}");
    Ok(())
}

/// Checks that the exits of the program are counted.
fn of_programs(said: &str) -> Result<()> {
    let rows = by_rip(said)?;
    let program = rows.iter().find(|row| row["function"] == "user program" && row["kind"] == "cpuid");
    let count = program.and_then(|row| row["exits"].as_u64()).unwrap_or(0);
    ensure!(count >= CPUIDS as u64, "{count} exits of programs are counted: {said}");
    Ok(())
}

/// Checks that the table has its head and the number of lines that was asked for.
fn table(said: &str) -> Result<()> {
    let lines: Vec<_> = said.lines().collect();
    ensure!(lines.len() == 6 && lines[0].contains("us in Vidar"), "the table is {said:?}");
    Ok(())
}

/// Checks that the view has the number of CPUs.
fn top(said: &str, cpus: u32) -> Result<()> {
    let said: Value = serde_json::from_str(said.trim()).context("the view is not JSON")?;
    let columns = said["per_second"].as_array().map(Vec::len);
    ensure!(columns == Some(cpus as usize), "the view is {said}");
    let rate = said["per_second"][0]["kinds"]["cpuid"].as_f64();
    ensure!(rate.is_some_and(|rate| rate >= 0.0), "the view has no rate of CPUID: {said}");
    Ok(())
}
