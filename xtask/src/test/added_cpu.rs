//! A CPU that is added to a running machine, bare and under Vidar. Vidar has nothing to run it with, so it must not start, and
//! never beside Vidar.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::lane::Lane;
use super::startup::waits_for_startup;
use super::{Tools, test_dir};
use crate::console::{BOOT, Console, PROMPT};
use crate::grub::{self, Menu};
use crate::iso::{self, Recipe};
use crate::machine::Spec;
use crate::machine::monitor::Monitor;
use crate::manifest;

/// The tests: each name, and whether it is under Vidar.
pub const TESTS: [(&str, bool); 2] = [("added-cpu/bare", false), ("added-cpu/vidar", true)];

/// Boots Linux on one CPU, adds another, and has Linux start it.
pub fn run(name: &str, under_vidar: bool, tools: &Tools) -> Result<()> {
    let dir = test_dir(&Lane::Svm.folder(name))?;
    let guest = manifest::load()?.into_iter().next().context("the manifest names no guest")?;
    let default = if under_vidar { guest.name.clone() } else { grub::bare(&guest.name) };
    let menu = Menu { default: Some(default), timeout: 0, ..Menu::default() };
    let recipe = Recipe {
        guests: vec![guest],
        menu,
        hypervisor: Some(tools.hypervisor.clone()),
        vidarctl: Some(tools.vidarctl.clone()),
    };
    let iso = dir.join("vidar.iso");
    iso::make(&recipe, &iso)?;
    let spec =
        Spec { dir: dir.clone(), iso, memory: 512, room_for_cpus: 1, verbose: true, ..Spec::default() };
    let mut running = Lane::Svm.machine().start(&spec)?;
    let mut console = Console::new(running.serial()?, &dir.join("serial.log"))?;
    console.expect("Linux version", BOOT)?;
    console.expect(PROMPT, BOOT)?;
    let mut monitor = running.monitor()?;
    add(&mut monitor)?;
    console.run("until [ -e /sys/devices/system/cpu/cpu1/online ]; do sleep 1; done")?;
    let started = console.run("echo 1 >/sys/devices/system/cpu/cpu1/online && echo yes || echo no")?;
    let online = console.run("cat /sys/devices/system/cpu/online")?;
    let (said, cpus) = if under_vidar { ("no", "0") } else { ("yes", "0-1") };
    ensure!(started.ends_with(&format!("{said}\n")), "Linux says of starting it: {started:?}");
    ensure!(online.trim() == cpus, "the CPUs {online:?} run");
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
