//! Boots Linux, locks the kernel's read-only data, and attacks it and the CPU's protections. What changes the kernel's
//! code must go on working, and with `guard=audit` be in the table of what has written to it. Without the guard each
//! attack succeeds.

use std::collections::HashMap;
use std::num::NonZeroU32;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::lane::Lane;
use super::{LinuxMachine, Tools, linux, smp, test_dir, work};
use crate::attack::{self, Attack, Kind};
use crate::console::Console;
use crate::machine::abilities::Ability;
use crate::machine::{Machine, RunningMachine, Spec};

/// A machine whose kernel is locked.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    lane: Lane,
    cpus: u32,
    /// The value of the boot option.
    guard: &'static str,
}

/// The machines.
pub const SETUPS: [Setup; 6] = [
    Setup { lane: Lane::Vmx, cpus: 2, guard: "audit" },
    Setup { lane: Lane::Vmx, cpus: 1, guard: "data" },
    Setup { lane: Lane::Vmx, cpus: 1, guard: OFF },
    Setup { lane: Lane::Svm, cpus: 2, guard: "audit" },
    Setup { lane: Lane::Svm, cpus: 1, guard: "data" },
    Setup { lane: Lane::Svm, cpus: 1, guard: OFF },
];

/// The value of the boot option with which nothing is guarded.
const OFF: &str = "off";

impl Setup {
    /// Returns the name of the test.
    pub fn test(self) -> String {
        let plural = if self.cpus == 1 { "" } else { "s" };
        self.lane.test(&format!("locks/{}-{}-cpu{plural}", self.guard, self.cpus))
    }

    /// Returns true if the machine is in this lane.
    pub fn is_in(self, lane: Lane) -> bool {
        self.lane == lane
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

    /// Boots the machine and attacks its kernel.
    pub fn run(self, tools: &Tools) -> Result<()> {
        let (_running, mut console) = self.start(tools)?;
        console.run("chmod +x /stress")?;
        let symbols = Symbols::read(&mut console)?;
        if self.guard == OFF {
            return done(&mut console, &symbols);
        }
        // The control: before the lock, the attack succeeds.
        attack(&mut console, &symbols, 0, &CONTROL)?;
        ensure!(
            console.run(VERSION)?.starts_with("Linux Version "),
            "the kernel's data did not change before the lock"
        );
        self.lock(&mut console)?;
        self.work(&mut console)?;
        refused(&mut console, &symbols)?;
        console.run(&work::load("", attack::DONOR)).map(drop)
    }

    /// Locks the kernel's read-only data.
    fn lock(self, console: &mut Console) -> Result<()> {
        let said = console.run("vidarctl guard lock --json")?;
        let all = format!("{{\"locked_on\":{0},\"cpus\":{0}}}\n", self.cpus);
        ensure!(said == all, "`vidarctl guard lock` said {said:?}");
        let status = console.run("vidarctl status")?;
        let held = format!("the kernel's read-only data on {0} of {0} CPUs", self.cpus);
        ensure!(
            status.contains(&held) && status.contains("; 0 refused"),
            "the status does not say {held:?}, or has refusals: {status}"
        );
        Ok(())
    }

    /// Does what changes the kernel's code.
    fn work(self, console: &mut Console) -> Result<()> {
        let with_cpus = (self.cpus > 1).then_some(&work::CPU_OFF_AND_ON);
        for command in work::PREPARE.iter().chain(&work::WORK).chain(with_cpus) {
            console.run(command)?;
        }
        if self.guard == "audit" {
            let said = console.run("vidarctl guard audit --json")?;
            audit(&said)?;
        }
        Ok(())
    }

    fn start(self, tools: &Tools) -> Result<(RunningMachine, Console)> {
        let Self { lane, cpus, guard } = self;
        let dir = test_dir(&self.folder())?;
        let mut machine = LinuxMachine::new(lane, dir)?;
        let archive = attack::archive(machine.guest(), &names())?;
        machine.add_initrd(archive);
        machine.add_programs(&["stress"])?;
        machine.guest().cmdline += &lane.command_line();
        let mut options = format!("guard={guard}");
        if cpus > 1 {
            machine.guest().cmdline += smp::for_several_cpus(lane);
            options = format!("{options} {}", lane.machine().option_for_cpus());
        }
        options.trim_end().clone_into(&mut machine.menu.options);
        machine.spec = Spec { cpus: NonZeroU32::new(cpus), fixed_clock: true, ..machine.spec };
        machine.boot(tools)
    }
}

/// A byte or a control register that is attacked.
#[derive(Debug)]
struct Attempt {
    /// A symbol of the kernel, and the distance of the byte from it. Control registers have none.
    place: (&'static str, u64),
    /// The byte that is written, or the bits of the control register that are cleared.
    value: u64,
    kind: Kind,
    /// What Vidar calls it.
    named: &'static str,
}

/// The kernel's text of /proc/version, which is a part of its read-only data, and the command that prints it.
const BANNER: (&str, u64) = ("linux_proc_banner", 3);
const VERSION: &str = "cat /proc/version";
/// The address of a system call that no Linux has, and a reserved byte of an interrupt gate.
const SYSTEM_CALL: (&str, u64) = ("sys_call_table", 177 * 8 + 7);
const GATE: (&str, u64) = ("idt_table", 200 * 16 + 12);

/// The variable with the start of the direct map.
const DIRECT_MAP: &str = "page_offset_base";

const DATA: &str = "read-only data";
const CONTROL: Attempt = Attempt { place: BANNER, value: b'V' as u64, kind: Kind::Write, named: DATA };
/// Each byte is attacked at two linear addresses. Before that, the CPU's own protections are.
const ATTACKS: [Attempt; 8] = [
    Attempt { place: BANNER, value: 1 << 16, kind: Kind::ClearCr0, named: "CR0.WP" },
    Attempt { place: BANNER, value: 1 << 20, kind: Kind::ClearCr4, named: "CR4.SMEP" },
    Attempt { value: b'v' as u64, ..CONTROL },
    Attempt { value: b'v' as u64, kind: Kind::WriteDirect, ..CONTROL },
    Attempt { place: SYSTEM_CALL, value: 0, kind: Kind::Write, named: DATA },
    Attempt { place: SYSTEM_CALL, value: 0, kind: Kind::WriteDirect, named: DATA },
    Attempt { place: GATE, value: 1, kind: Kind::Write, named: "IDT" },
    Attempt { place: GATE, value: 1, kind: Kind::WriteDirect, named: "IDT" },
];

/// Returns the name of the module with this number.
pub(super) fn name(number: usize) -> String {
    format!("attack{number}")
}

/// Returns the names of the modules. There is one archive of them for all tests.
pub(super) fn names() -> Vec<String> {
    (0..=ATTACKS.len()).map(name).collect()
}

/// The addresses of the symbols that the attempts need. In Bochs it takes a minute to search them once.
struct Symbols(HashMap<String, u64>);

impl Symbols {
    fn read(console: &mut Console) -> Result<Self> {
        let places = ATTACKS.iter().map(|attempt| attempt.place.0).chain([DIRECT_MAP]);
        let names = places.collect::<Vec<_>>().join("\\|");
        let said = console.run(&format!("grep -w '{names}' /proc/kallsyms"))?;
        let symbol = |line: &str| {
            let mut words = line.split_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            Some((words.nth(1)?.to_owned(), address))
        };
        Ok(Self(said.lines().filter_map(symbol).collect()))
    }

    fn address(&self, name: &str) -> Result<u64> {
        self.0.get(name).copied().with_context(|| format!("the kernel has no {name}"))
    }
}

/// Loads the module with this number, which makes the attempt.
fn attack(console: &mut Console, symbols: &Symbols, number: usize, attempt: &Attempt) -> Result<()> {
    let (symbol, distance) = attempt.place;
    let (target, base) = (symbols.address(symbol)? + distance, symbols.address(DIRECT_MAP)?);
    let file = format!("/{}.ko", name(number));
    let attack = Attack { kind: attempt.kind, target, base, value: attempt.value };
    // If the module causes an oops, the program that has loaded it is killed, and must not be insmod.
    console.run(&format!("{}; /stress module {file} || true", attack.into(&file))).map(drop)
}

/// Makes all attempts on a kernel that is locked. Each fails with an oops, and is named and counted by Vidar.
fn refused(console: &mut Console, symbols: &Symbols) -> Result<()> {
    for (number, attempt) in (1..).zip(&ATTACKS) {
        attack(console, symbols, number, attempt)?;
        ensure!(console.run(VERSION)?.starts_with("Linux Version "), "{attempt:?} changed the kernel's data");
        let oops =
            format!("dmesg | grep -c 'general protection fault'; dmesg | grep -q 'RIP: .*attack{number}.$'");
        let said = console.run(&oops)?;
        ensure!(said == format!("{number}\n"), "the kernel did not report {attempt:?}: {said:?}");
        let place = match attempt.kind {
            Kind::ClearCr0 | Kind::ClearCr4 => format!("to change {} at", attempt.named),
            _ => format!("kernel.s {} at attack{number}:", attempt.named),
        };
        let named = format!("vidarctl log | grep -c '{place}'");
        ensure!(console.run(&named)? == "1\n", "Vidar did not name {attempt:?}");
    }
    let status = console.run("vidarctl status")?;
    let refused = format!("; {} refused", ATTACKS.len());
    ensure!(status.contains(&refused), "the status does not say {refused:?}: {status}");
    Ok(())
}

/// Makes all attempts on a kernel that is not guarded. Each succeeds, so that its module stays.
fn done(console: &mut Console, symbols: &Symbols) -> Result<()> {
    /// What distinguishes a small letter from a capital one. The addresses of a byte get different values, so that it
    /// changes at each attempt.
    const CAPITAL: u64 = 1 << 5;
    let status = console.run("vidarctl status")?;
    ensure!(status.contains("guarded  nothing ("), "something is guarded: {status}");
    for (number, attempt) in (1..).zip(&ATTACKS) {
        let value = if attempt.kind == Kind::Write { attempt.value ^ CAPITAL } else { attempt.value };
        attack(console, symbols, number, &Attempt { value, ..*attempt })?;
        let inserted = format!("grep -q '^{} ' /proc/modules", name(number));
        console.run(&inserted).with_context(|| format!("without the guard {attempt:?} has failed"))?;
        let version = match (attempt.kind, attempt.place) {
            (Kind::Write, BANNER) => "Linux Version ",
            (Kind::WriteDirect, BANNER) => "Linux version ",
            _ => continue,
        };
        let said = console.run(VERSION)?;
        ensure!(said.starts_with(version), "{attempt:?} did not change the kernel's data: {said}");
    }
    Ok(())
}

/// Checks that the table names functions that write to the kernel's code for others.
fn audit(said: &str) -> Result<()> {
    let said: Value = serde_json::from_str(said.trim()).context("the table is not JSON")?;
    let rows = said["rows"].as_array().context("there is no table")?;
    let by = |name: &str| {
        rows.iter()
            .any(|row| row["by"].as_array().is_some_and(|by| by.iter().any(|function| function == name)))
    };
    for name in ["__text_poke", "text_poke_bp_batch"] {
        ensure!(by(name), "{name} is not in the table: {said}");
    }
    Ok(())
}
