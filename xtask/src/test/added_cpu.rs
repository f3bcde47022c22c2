//! A CPU is added to a running machine, bare and under Vidar. Vidar cannot run it, so it must not start, and above all
//! not outside of Vidar's control.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::acpi::{self, CPU_0};
use super::lane::Lane;
use super::startup::waits_for_startup;
use super::{LinuxMachine, Tools, test_dir};
use crate::machine::monitor::Monitor;
use crate::manifest::{Guest, Initrd};

/// The tests: the name of each, and true if it is under Vidar.
pub const TESTS: [(&str, bool); 2] = [("added-cpu/bare", false), ("added-cpu/vidar", true)];

/// A list of CPUs that says of the one with the ID 1 that it may be added. QEMU's only says that it is not there, and
/// tables of its version of ACPI cannot say more. On a machine that shows no hypervisor Linux takes that for "never",
/// from 6.19 on and in the updates of older ones, such as 6.12.117. Structures: two CPUs, the I/O APIC, the pin of the
/// timer, the level-triggered interrupts of a PC of QEMU's, and the pin of NMIs.
const CPUS: &[&[u8]] = &[
    CPU_0,
    &[0, 8, 1, 1, ONLINE_CAPABLE, 0, 0, 0],
    &[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
    &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
    &[2, 10, 0, 5, 5, 0, 0, 0, LEVEL, 0],
    &[2, 10, 0, 9, 9, 0, 0, 0, LEVEL, 0],
    &[2, 10, 0, 10, 10, 0, 0, 0, LEVEL, 0],
    &[2, 10, 0, 11, 11, 0, 0, 0, LEVEL, 0],
    &[4, 6, 0xff, 0, 0, 1],
];
/// The flag of a CPU that is not there and may come. ACPI Specification 6.5, 5.2.12.2 "Processor Local APIC Structure".
const ONLINE_CAPABLE: u8 = 1 << 1;
/// The first revision that has the flag.
const REVISION: u8 = 5;
/// Active high, level-triggered.
const LEVEL: u8 = 0xd;

/// GRUB takes the tables from the initrd of a guest that is not booted.
const REPLACE: &[&str] = &["acpi --exclude=APIC,FACP /boot/guests/tables/initrd /boot/guests/tables/initrd2"];

/// Boots Linux on one CPU, adds another one, and makes Linux try to start it.
pub fn run(name: &str, under_vidar: bool, tools: &Tools) -> Result<()> {
    let dir = test_dir(&Lane::Svm.folder(name))?;
    let mut machine = LinuxMachine::new(Lane::Svm, dir.clone())?;
    machine.bare_unless(under_vidar);
    machine.menu.last = REPLACE;
    machine.spec.room_for_cpus = 1;
    let mut tables = Vec::new();
    for (name, table) in [("madt", acpi::madt(REVISION, CPUS, true)), ("fadt", acpi::fadt())] {
        let file = dir.join(name);
        fs::write(&file, table)?;
        tables.push(Initrd::File(file));
    }
    let tables = Guest { name: "tables".to_owned(), initrds: tables, ..machine.guest().clone() };
    machine.guests.push(tables);
    let (mut running, mut console) = machine.boot(tools)?;
    let mut monitor = running.monitor()?;
    add(&mut monitor)?;
    console.run("until [ -e /sys/devices/system/cpu/cpu1/online ]; do sleep 1; done")?;
    let started = console.run("echo 1 >/sys/devices/system/cpu/cpu1/online && echo yes || echo no")?;
    let online = console.run("cat /sys/devices/system/cpu/online")?;
    let (said, cpus) = if under_vidar { ("no", "0") } else { ("yes", "0-1") };
    ensure!(started.ends_with(&format!("{said}\n")), "when the CPU was to start, Linux said: {started:?}");
    ensure!(online.trim() == cpus, "the CPUs that are online are {online:?}");
    if under_vidar { waits_for_startup(&mut monitor) } else { Ok(()) }
}

/// Adds the CPU that the machine has room for.
fn add(monitor: &mut Monitor) -> Result<()> {
    let places = monitor.execute("query-hotpluggable-cpus", &json!({}))?;
    let free = |place: &&Value| place["qom-path"].is_null();
    let place = places.as_array().and_then(|places| places.iter().find(free));
    let place = place.with_context(|| format!("the machine has no room for a CPU: {places}"))?;
    let mut arguments = place["props"].clone();
    arguments["driver"] = place["type"].clone();
    arguments["id"] = json!("added");
    monitor.execute("device_add", &arguments)?;
    Ok(())
}
