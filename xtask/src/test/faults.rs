//! Provokes faults in the hardware and in Vidar itself: machine checks, a panic, and a CPU in a state in which a loader
//! should not leave it. This is done by QEMU's monitor and debugger, and so only in the lane of AMD-V.

use std::fs;

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSymbol};

use super::Tools;
use super::lane::Lane;
use super::small::{BootedGuest, GUEST, Small};
use crate::console::{ANSWER, BOOT};
use crate::grub::{self, Menu};
use crate::machine::debugger::{Debugger, Register};
use crate::symbolize::symbolize;
use crate::{paths, probe_image};

/// A test with a machine of its own.
#[derive(Debug)]
pub struct Fault {
    /// The test's name.
    pub name: &'static str,
    check: fn(Small, &Tools) -> Result<()>,
}

/// The table of faults.
pub const FAULTS: &[Fault] = &[
    Fault { name: "faults/machine-check-of-the-guest", check: of_the_guest },
    Fault { name: "faults/machine-check-before-the-guest", check: before_the_guest },
    Fault { name: "faults/machine-check-after-the-guest", check: after_the_guest },
    Fault { name: "faults/panic-halts", check: panic_halts },
    Fault { name: "faults/panic-resets", check: panic_resets },
    Fault { name: "faults/inherited-registers", check: inherited_registers },
    Fault { name: "faults/entry-refused", check: entry_refused },
];

/// IA32_MCG_STATUS after an error that lets the interrupted code continue (RIPV and MCIP), and after one that does not
/// (MCIP). MCIP says that a machine check is in progress.
const RESTARTABLE: u64 = 0b101;
const FATAL: u64 = 0b100;

/// The physical address at which GRUB loads the image in a machine of this size.
const LOADED_AT: u64 = 0x20_0000;
/// The virtual address at which the image runs.
const IMAGE_BASE: u64 = 0xffff_ffff_8000_0000;

impl Fault {
    /// Returns the folder of the test.
    pub fn folder(&self) -> String {
        Lane::Svm.folder(self.name)
    }

    /// Runs the test.
    pub fn run(&self, tools: &Tools) -> Result<()> {
        let small = Small {
            name: self.folder(),
            lane: Lane::Svm,
            kernel: tools.probe()?.to_vec(),
            cmdline: "probe=cpuid".to_owned(),
            memory: 256,
            survives_triple_fault: true,
            ..Small::default()
        };
        (self.check)(small, tools)
    }
}

fn menu(options: &str) -> Menu {
    Menu { default: Some(GUEST.to_owned()), options: options.to_owned(), ..Menu::default() }
}

/// The guest handles a machine check in the same way under Vidar as on the bare machine.
fn of_the_guest(small: Small, tools: &Tools) -> Result<()> {
    let mut said = Vec::new();
    for entry in [grub::bare(GUEST), GUEST.to_owned()] {
        let menu = Menu { default: Some(entry), ..Menu::default() };
        let small = Small { cmdline: "probe=machine-check".to_owned(), menu, ..small.clone() };
        let mut booted = small.boot(tools)?;
        booted.console.expect("probe machine-check: now", BOOT)?;
        booted.running.monitor()?.machine_check(0, RESTARTABLE)?;
        booted.console.expect("probe machine-check: ", ANSWER)?;
        said.push(booted.console.expect("\r\n", ANSWER)?);
    }
    ensure!(
        said[0] == said[1],
        "under Vidar the probe says {:?}, and on the bare machine {:?}",
        said[1],
        said[0]
    );
    ensure!(said[0] == "taken=1 global=0x5 status=0xb200000000000000", "the probe says {:?}", said[0]);
    Ok(())
}

/// After Vidar has refused a kernel, it halts. A machine check is then reported by Vidar, since there is no guest.
fn before_the_guest(small: Small, tools: &Tools) -> Result<()> {
    let menu = menu("on-crash=reset");
    let mut booted = Small { kernel: probe_image::garbage(), menu, ..small }.boot(tools)?;
    booted.console.expect("cannot start: the kernel is not a Linux bzImage", BOOT)?;
    booted.console.expect("\r\n", BOOT)?;
    booted.running.monitor()?.machine_check(0, RESTARTABLE)?;
    reported(&mut booted)?;
    booted.console.expect("the machine is reset (on-crash=reset)", ANSWER)?;
    booted.console.expect("cannot start: the kernel is not a Linux bzImage", BOOT)?;
    Ok(())
}

/// After the guest has crashed, Vidar reports that and halts. A machine check still reaches it, since GIF is 1.
fn after_the_guest(small: Small, tools: &Tools) -> Result<()> {
    let small = Small { cmdline: "probe=triple".to_owned(), menu: menu("on-crash=halt"), ..small };
    let mut booted = small.boot(tools)?;
    booted.console.expect("the guest has stopped on CPU 0: triple fault", BOOT)?;
    booted.console.expect("the machine is halted (on-crash=halt)\r\n", ANSWER)?;
    booted.running.monitor()?.machine_check(0, FATAL)?;
    reported(&mut booted)?;
    booted.console.expect("this CPU is halted (on-crash=halt)\r\n", ANSWER)?;
    Ok(())
}

fn reported(booted: &mut BootedGuest) -> Result<()> {
    booted.console.expect("machine check in Vidar on CPU 0: the hardware reports an error", ANSWER)?;
    booted.console.expect("bank 1 status 0xb200000000000000", ANSWER)?;
    Ok(())
}

/// Makes Vidar jump to an address without code, right before the guest's first instruction. Returns the report up to
/// the build ID as well.
fn panics(small: Small, options: &str, tools: &Tools) -> Result<(BootedGuest, Debugger, String)> {
    let mut booted = Small { waits_for_debugger: true, menu: menu(options), ..small }.boot(tools)?;
    let mut debugger = booted.running.debugger(BOOT)?;
    debugger.run_to(address(tools, "vidar_svm_enter")?)?;
    debugger.set(Register::Rip, 0)?;
    debugger.go_on()?;
    booted.console.expect("Vidar panicked: exception 14 ", ANSWER)?;
    let report = booted.console.expect("; report this with what follows", ANSWER)?;
    Ok((booted, debugger, report))
}

/// The report of a panic names its build, and `cargo xtask symbolize` finds the functions and lines of its addresses.
fn panic_halts(small: Small, tools: &Tools) -> Result<()> {
    let (mut booted, _debugger, begin) = panics(small, "on-crash=halt", tools)?;
    let rest = booted.console.expect("the machine is halted (on-crash=halt)\r\n", ANSWER)?;
    let image = fs::read(paths::image_with_symbols())?;
    let named = symbolize(&(begin + &rest), &image)?;
    for function in
        ["vidar::debug::panic::report at hv/src/debug/panic.rs:", " at hv/src/host/exceptions.rs:"]
    {
        ensure!(named.contains(function), "{function} is not in:\n{named}");
    }
    Ok(())
}

fn panic_resets(small: Small, tools: &Tools) -> Result<()> {
    let (mut booted, _debugger, _) = panics(small, "", tools)?;
    booted.console.expect("the machine is reset (on-crash=reset)", ANSWER)?;
    booted.console.expect("the last start ended in: Vidar panicked: exception 14 ", BOOT)?;
    booted.console.expect("probe: hello", BOOT)?;
    Ok(())
}

/// The guest has a bit in EFER that the CPU lacks. No guest can set it, so the debugger does, before the guest's first
/// instruction. The CPU refuses to enter the guest after its next exit, and the report names the rule.
fn entry_refused(small: Small, tools: &Tools) -> Result<()> {
    const RESERVED: u64 = 1 << 19;
    let mut booted = Small { waits_for_debugger: true, menu: menu("on-crash=halt"), ..small }.boot(tools)?;
    let mut debugger = booted.running.debugger(BOOT)?;
    debugger.run_to(probe_image::PREFERRED_ADDRESS)?;
    let efer = debugger.get(Register::Efer)?;
    debugger.set(Register::Efer, efer | RESERVED)?;
    debugger.go_on()?;
    booted.console.expect("the guest has stopped on CPU 0: the CPU refused to enter it", ANSWER)?;
    let report = booted.console.expect("the machine is halted (on-crash=halt)\r\n", ANSWER)?;
    let rule = "rule A6 is broken: EFER has only bits that exist.\r\n  AMD APM Vol. 2, 15.5.1 \"Basic Operation\"\r\n  EFER 0x";
    ensure!(report.contains(rule), "the report does not name the rule: {report}");
    ensure!(report.matches("is broken").count() == 1, "the report names other rules: {report}");
    Ok(())
}

/// Firmware may leave 5-level paging and much else switched on, and a loader that switches paging off may not change
/// that. Vidar must run with known values all the same.
fn inherited_registers(small: Small, tools: &Tools) -> Result<()> {
    /// The bits that are set before Vidar starts: LA57, SMAP, SMEP, FSGSBASE, PGE; CD, NW, TS, EM, MP; SCE; AC, NT.
    const LEFT: [(Register, u64); 4] = [
        (Register::Cr4, 1 << 12 | 1 << 21 | 1 << 20 | 1 << 16 | 1 << 7),
        (Register::Cr0, 0x6000_001f),
        (Register::Efer, 1),
        (Register::Rflags, 1 << 18 | 1 << 14 | 2),
    ];
    /// The values that Vidar runs with: PAE, MCE, OSXSAVE; PG, WP, NE, ET, PE; SVME, NXE, LMA, LME.
    const KNOWN: [(Register, u64); 3] =
        [(Register::Cr4, 0x4_0060), (Register::Cr0, 0x8001_0031), (Register::Efer, 0x1d00)];
    let cpu = Some("EPYC,-hypervisor,+la57");
    let small = Small { survives_triple_fault: false, menu: menu(""), ..small };
    let mut booted = Small { waits_for_debugger: true, cpu, ..small }.boot(tools)?;
    let mut debugger = booted.running.debugger(BOOT)?;
    debugger.run_to(address(tools, "vidar_start32")? - IMAGE_BASE + LOADED_AT)?;
    for (register, value) in LEFT {
        debugger.set(register, value)?;
        ensure!(debugger.get(register)? == value, "{register:?} does not take {value:#x}");
    }
    debugger.run_to(address(tools, "vidar_svm_enter")?)?;
    for (register, value) in KNOWN {
        let found = debugger.get(register)?;
        ensure!(found == value, "{register:?} is {found:#x} and should be {value:#x}");
    }
    let flags = debugger.get(Register::Rflags)?;
    ensure!(flags & LEFT[3].1 == 2, "RFLAGS is {flags:#x}");
    debugger.go_on()?;
    booted.console.expect("probe: done", ANSWER)?;
    Ok(())
}

/// Returns the address of `symbol` in the hypervisor's image.
pub fn address(tools: &Tools, symbol: &str) -> Result<u64> {
    let image = fs::read(&tools.hypervisor)?;
    let image = object::File::parse(image.as_slice()).context("the hypervisor's image is not an ELF file")?;
    let found = image.symbols().find(|found| found.name() == Ok(symbol));
    Ok(found.with_context(|| format!("the hypervisor's image has no {symbol}"))?.address())
}
