//! Attacks the kernel of a Debian: with `guard=data` each attempt is refused, in the journal, and named by Vidar, and
//! bare each succeeds.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::guest::Guest;
use crate::attack::{self, Attack, DONOR, Kind};
use crate::console::Console;

/// An attempt of a module.
struct Attempt {
    kind: Kind,
    /// A symbol of the kernel, and the distance of the byte from it.
    place: (&'static str, u64),
    /// The byte, or the bits of the control register.
    value: u64,
    /// What Vidar calls it.
    named: &'static str,
}

/// Nothing is at this place that an attempt writes to.
const NOWHERE: (&str, u64) = ("page_offset_base", 0);
/// A letter in the kernel's text of /proc/version.
const BANNER: (&str, u64) = ("linux_proc_banner", 3);
/// A byte in the address of a system call that no Linux has, and a reserved byte of an interrupt gate.
const SYSTEM_CALL: (&str, u64) = ("sys_call_table", 177 * 8 + 7);
const GATE: (&str, u64) = ("idt_table", 200 * 16 + 12);

/// The module with the number of its place in this list makes the attempt.
const ATTEMPTS: [Attempt; 6] = [
    Attempt { kind: Kind::ClearCr0, place: NOWHERE, value: 1 << 16, named: "CR0.WP" },
    Attempt { kind: Kind::ClearCr4, place: NOWHERE, value: 1 << 20, named: "CR4.SMEP" },
    Attempt { kind: Kind::Write, place: SYSTEM_CALL, value: 0, named: "read-only data" },
    Attempt { kind: Kind::WriteDirect, place: BANNER, value: b'V' as u64, named: "read-only data" },
    Attempt { kind: Kind::Write, place: GATE, value: 1, named: "IDT" },
    Attempt { kind: Kind::WriteDirect, place: GATE, value: 2, named: "IDT" },
];
/// The number of the module with the code to which the MSR LSTAR is changed.
const HOOK: usize = ATTEMPTS.len();

/// What an administrator does, and what must go on working: the function tracer, a tracepoint, a static key, the
/// controllers of cgroups, BPF programs, a module, and a CPU that goes off and on.
const WORK: [&str; 6] = [
    "cd /sys/kernel/tracing && echo function >current_tracer && ls / >/dev/null && grep -q '<-' trace && \
     echo nop >current_tracer && cd",
    "cd /sys/kernel/tracing && echo 1 >events/sched/sched_switch/enable && sleep 1 && grep -q sched_switch: trace && \
     echo 0 >events/sched/sched_switch/enable && cd",
    "echo 1 >/proc/sys/kernel/sched_schedstats && echo 0 >/proc/sys/kernel/sched_schedstats",
    "printf '[Service]\\nType=oneshot\\nExecStart=/bin/true\\nMemoryMax=50M\\nCPUQuota=50%%\\nIPAddressDeny=any\\n' \
     >/run/systemd/system/work.service; systemctl daemon-reload && systemctl start work",
    "modprobe dummy && rmmod dummy",
    "cd /sys/devices/system/cpu/cpu1 && echo 0 >online && echo 1 >online && cd && [ $(nproc) = 2 ]",
];

/// The MSR LSTAR.
const LSTAR: u32 = 0xc000_0082;
/// The place of the settings of Vidar's entries.
const SETTINGS: &str = "/etc/default/grub.d/vidar.cfg";

/// Boots with `guard=data`, locks the kernel, and makes every attempt. Each one fails, with a reason in the journal,
/// and the machine goes on.
pub fn refuses(guest: &mut Guest) -> Result<()> {
    set_options(&mut guest.console, "guard=data")?;
    guest.console.run("grub-reboot vidar")?;
    guest.reboot()?;
    let console = &mut guest.console;
    let said = console.run("vidarctl guard lock")?;
    ensure!(said.contains("on 2 of 2 CPUs"), "vidarctl guard lock says: {said}");
    for command in WORK {
        console.run(command)?;
    }
    unpack(console)?;
    for (number, attempt) in ATTEMPTS.iter().enumerate() {
        let before = refused(console, attempt.named)?;
        let said = insert(console, number, attempt)?;
        ensure!(said.lines().last() != Some("0"), "the attempt on {} has succeeded: {said}", attempt.named);
        let oops = console.run(&format!(
            "journalctl --boot --dmesg --output=cat --no-pager | grep -A60 'general protection fault' | \
             grep -c 'RIP: .*attack{number}.$' || true"
        ))?;
        ensure!(oops.trim() != "0", "the journal has no oops for the attempt on {}: {oops:?}", attempt.named);
        ensure!(refused(console, attempt.named)? == before + 1, "{} is not counted", attempt.named);
    }
    let before = refused(console, "LSTAR")?;
    let said = lead_system_calls_to(console, 0x1000)?;
    ensure!(said.contains("Input/output error"), "the write of LSTAR should fail with EIO: {said}");
    ensure!(refused(console, "LSTAR")? == before + 1, "LSTAR is not counted");
    let note = "journalctl --boot --dmesg --output=cat --no-pager | grep -c 'msr: Write to unrecognized MSR 0xc0000082'";
    ensure!(console.run(note)? != "0\n", "the journal does not have the write of LSTAR");
    let named = console.run("vidarctl log | grep -c 'the guard has refused it'")?;
    let all = ATTEMPTS.len() + 1;
    ensure!(named.trim() == all.to_string(), "Vidar names {named} attempts of {all}");
    let version = console.run("cat /proc/version")?;
    ensure!(version.starts_with("Linux version "), "the kernel's data has changed: {version}");
    // The machine lives: it loads modules, and starts services.
    console.run(&format!("modprobe {DONOR} && rmmod {DONOR} && systemctl start work"))?;
    set_options(console, "")
}

/// Makes every attempt on the bare machine, where each succeeds.
pub fn bare(guest: &mut Guest) -> Result<()> {
    let console = &mut guest.console;
    unpack(console)?;
    for (number, attempt) in ATTEMPTS.iter().enumerate() {
        let said = insert(console, number, attempt)?;
        ensure!(said.lines().last() == Some("0"), "the attempt on {} has failed: {said}", attempt.named);
    }
    let version = console.run("cat /proc/version")?;
    ensure!(version.starts_with("Linux Version "), "the kernel's data did not change: {version}");
    let old = lstar(console)?;
    let words = Attack { kind: Kind::Hook, target: old, base: 0, value: 0 };
    let file = format!("/run/attack{HOOK}.ko");
    console.run(&format!("{}; insmod {file}", words.into(&file)))?;
    let text = console.run(&format!("cat /sys/module/attack{HOOK}/sections/.text"))?;
    let text = text.trim().strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let hook = text.context("the module has no address")? + attack::hook();
    let said = lead_system_calls_to(console, hook)?;
    ensure!(said.is_empty(), "the write of LSTAR has failed: {said}");
    ensure!(lstar(console)? == hook, "system calls do not lead to the module");
    let said = lead_system_calls_to(console, old)?;
    ensure!(said.is_empty() && lstar(console)? == old, "LSTAR cannot be set back: {said}");
    Ok(())
}

/// Changes Vidar's boot options in the menu.
fn set_options(console: &mut Console, options: &str) -> Result<()> {
    console
        .run(&format!("sed -i 's/^VIDAR_OPTIONS=.*/VIDAR_OPTIONS=\"{options}\"/' {SETTINGS} && update-grub"))
        .map(drop)
}

/// Makes the modules, from one of the running kernel's.
fn unpack(console: &mut Console) -> Result<()> {
    /// The base64 digits of a line, which a terminal takes at once.
    const LINE: usize = 1000;
    let donor =
        format!("f=$(modinfo -n {DONOR}); case $f in *.xz) xz -dc $f;; *) cat $f;; esac | base64 -w0");
    let donor = STANDARD.decode(console.run(&donor)?.trim()).context("the module is not base64")?;
    let module = STANDARD.encode(attack::module(&donor, "attack0")?);
    console.run("modprobe msr; rm -f /run/attack*; : >/run/attack")?;
    for line in module.as_bytes().chunks(LINE) {
        console.run(&format!("echo {} >>/run/attack", String::from_utf8_lossy(line)))?;
    }
    // The names have the same length, so nothing in the file moves.
    console.run(&format!(
        "for n in $(seq 0 {HOOK}); do base64 -d /run/attack | LC_ALL=C sed s/attack0/attack$n/g >/run/attack$n.ko; done"
    ))?;
    Ok(())
}

/// Inserts the module with this number, which makes the attempt. Returns what insmod says and its status.
fn insert(console: &mut Console, number: usize, attempt: &Attempt) -> Result<String> {
    let (symbol, distance) = attempt.place;
    let (target, base) = (address(console, symbol)? + distance, address(console, "page_offset_base")?);
    let file = format!("/run/attack{number}.ko");
    let attack = Attack { kind: attempt.kind, target, base, value: attempt.value };
    console.run(&format!("{}; insmod {file}; echo $?", attack.into(&file)))
}

/// Returns the address of a symbol of the kernel.
fn address(console: &mut Console, symbol: &str) -> Result<u64> {
    let line = console.run(&format!("grep -w {symbol} /proc/kallsyms"))?;
    let address = line.split(' ').next().and_then(|digits| u64::from_str_radix(digits, 16).ok());
    address.with_context(|| format!("the kernel has no {symbol}"))
}

/// Returns how often Vidar has refused to change a protection.
fn refused(console: &mut Console, protection: &str) -> Result<u64> {
    let said = console.run("vidarctl guard --json")?;
    let answer: serde_json::Value = serde_json::from_str(said.trim()).with_context(|| said.clone())?;
    let all = answer["protections"].as_array().context("no protections")?;
    let one = all.iter().find(|one| one["protection"] == protection).context("a protection is missing")?;
    one["refused"].as_u64().context("no number")
}

/// Writes LSTAR of CPU 0 by the module msr. Returns what dd says about it.
fn lead_system_calls_to(console: &mut Console, address: u64) -> Result<String> {
    let mut bytes = String::new();
    address.to_le_bytes().into_iter().for_each(|byte| _ = write!(bytes, "\\{byte:03o}"));
    console.run(&format!(
        "printf '{bytes}' | dd of=/dev/cpu/0/msr bs=8 seek={LSTAR} oflag=seek_bytes conv=notrunc status=none 2>&1 || true"
    ))
}

/// Reads LSTAR of CPU 0.
fn lstar(console: &mut Console) -> Result<u64> {
    let said = console.run(&format!(
        "dd if=/dev/cpu/0/msr bs=8 skip={LSTAR} iflag=skip_bytes count=1 status=none | od -An -tx8"
    ))?;
    u64::from_str_radix(said.trim(), 16).with_context(|| format!("LSTAR is {said}"))
}
