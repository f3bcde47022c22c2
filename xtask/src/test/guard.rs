//! Boots Linux with `guard=cpu`, attacks where its system calls lead to, and looks at what Linux and Vidar say.

use std::num::NonZeroU32;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::lane::Lane;
use super::{LinuxMachine, Tools, smp, test_dir};
use crate::console::Console;
use crate::modules;

/// The name of the test.
pub const NAME: &str = "guard/linux";

/// The MSR that holds where SYSCALL leads to.
const LSTAR: &str = "c0000082";

/// Boots a Linux with two CPUs, and attacks each of them by the module msr.
pub fn run(lane: Lane, tools: &Tools) -> Result<()> {
    let dir = test_dir(&lane.folder(NAME))?;
    let for_cpus = lane.machine().option_for_cpus();
    let mut machine = LinuxMachine::new(lane, dir)?;
    machine.add_programs(&["stress"])?;
    let modules = modules::archive(machine.guest(), &["msr"])?;
    machine.add_initrd(modules);
    machine.guest().cmdline += smp::for_several_cpus(lane);
    machine.menu.options = format!("guard=cpu {for_cpus}").trim_end().to_owned();
    machine.spec.cpus = NonZeroU32::new(2);
    let (_running, mut console) = machine.boot(tools)?;
    console.run(&modules::insert())?;
    console.run("chmod +x /stress")?;
    let exits = console.run("vidarctl exits")?;
    ensure!(exits.contains("wrmsr"), "no write of an MSR has exited: {exits}");

    for (cpu, refused) in [(0, 1), (1, 2)] {
        attack(&mut console, cpu)?;
        expect(&mut console, refused)?;
    }
    let log = console.run("vidarctl log")?;
    let line = log.lines().find(|line| line.contains("has tried to change LSTAR at "));
    let line = line.with_context(|| format!("the log does not name the attack: {log}"))?;
    ensure!(line.contains("wrmsr") || line.contains("write_msr"), "no function is named: {line}");

    // A CPU that has been off is guarded again, and has the same targets as before.
    let switch = "f=/sys/devices/system/cpu/cpu1/online; echo 0 > $f; cat $f; echo 1 > $f; cat $f";
    let said = console.run(switch)?;
    ensure!(said.split_whitespace().eq(["0", "1"]), "the CPU does not go off and on: {said}");
    attack(&mut console, 1)?;
    expect(&mut console, 3)?;
    // Where Vidar starts the CPUs, their timers exit.
    if for_cpus.is_empty() {
        let idle = console.run("vidarctl exits --idle 3 --json")?;
        let idle: Value = serde_json::from_str(idle.trim()).context("no JSON")?;
        ensure!(idle["total"] == 0, "the idle machine exits: {idle}");
    }
    let status = console.run("vidarctl status")?;
    ensure!(
        status.contains("guarded  the CPU's protections (") && status.contains("; 3 refused"),
        "{status}"
    );
    Ok(())
}

/// Writes another value to LSTAR of a CPU, which Linux must not be able to do.
fn attack(console: &mut Console, cpu: u32) -> Result<()> {
    let said = console.run(&format!("/stress msr {LSTAR} 1000 {cpu}; echo $?"))?;
    ensure!(
        said.contains("os error 5") && said.trim().ends_with('1'),
        "the write should fail with EIO: {said}"
    );
    Ok(())
}

/// Checks that `vidarctl guard` counts so many attacks on LSTAR, which is guarded on both CPUs.
fn expect(console: &mut Console, refused: u64) -> Result<()> {
    let said = console.run("vidarctl guard --json")?;
    let answer: Value = serde_json::from_str(said.trim()).with_context(|| format!("no JSON: {said}"))?;
    let all = answer["protections"].as_array().context("no protections")?;
    let one =
        |name: &str| all.iter().find(|one| one["protection"] == name).context("a protection is missing");
    let lstar = one("LSTAR")?;
    ensure!(lstar["refused"] == refused && lstar["cpus"] == 2, "LSTAR stands otherwise: {lstar}");
    for name in ["CR0.PE", "CR0.WP", "CR0.PG", "EFER.LME", "EFER.NXE", "STAR", "SYSENTER_EIP"] {
        let other = one(name)?;
        ensure!(other["refused"] == 0 && other["cpus"] == 2, "{name} stands otherwise: {other}");
    }
    Ok(())
}
