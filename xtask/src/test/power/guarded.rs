//! Resets a machine whose kernel is guarded and locked in each way that Linux knows, has it sleep, and calls its
//! firmware. What the guard stands in the way of must be named.

use std::fs::{self, File};
use std::time::Instant;

use anyhow::{Result, ensure};

use super::{Machine, Step, machine, suspend_to_idle};
use crate::console::{ANSWER, BOOT, PROMPT, TALK};
use crate::grub::Menu;
use crate::machine::Spec;
use crate::machine::disk::{Bus, Disk, Format};
use crate::modules;
use crate::test::lane::Lane;
use crate::test::menu::{self, MENU};
use crate::test::report::Report;
use crate::test::{Tools, test_dir};

/// A machine, and the steps that are taken in it. The first begins at GRUB's menu, and the last ends there.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    uefi: bool,
    modules: &'static [&'static str],
    steps: &'static [(&'static str, Step)],
}

/// The machines.
pub const SETUPS: [Setup; 2] = [
    Setup {
        uefi: false,
        modules: &["virtio_pci", "virtio_blk"],
        steps: &[
            ("acpi", |machine| reset(machine, "acpi")),
            ("kbd", |machine| reset(machine, "kbd")),
            ("pci", |machine| reset(machine, "pci")),
            ("triple", |machine| reset(machine, "triple")),
            ("bios", bios),
            ("hibernation", hibernation),
            ("resume-refused", resume_refused),
        ],
    },
    Setup {
        uefi: true,
        modules: &["button", "efivarfs"],
        steps: &[("efi-variables", efi_variables), ("suspend-to-idle", sleep), ("efi", by_efi)],
    },
];

/// The size of the disk with the swap space.
const SWAP: u64 = 256 << 20;

/// The titles by which the guard is switched off in GRUB's menu.
const OFF: [&str; 2] =
    ["Boot options of Vidar", "[-] Guard nothing: for kexec, and to resume from hibernation (guard=off)"];

impl Setup {
    /// Returns the names of the tests.
    pub fn names(self, lane: Lane) -> Vec<String> {
        self.steps.iter().map(|(step, _)| lane.test(&format!("power/guarded/{step}"))).collect()
    }

    /// Takes the steps, up to the first that fails.
    pub fn all(self, lane: Lane, tools: &Tools, report: &Report) -> Result<()> {
        let begun = Instant::now();
        let firmware = if self.uefi { "uefi" } else { "bios" };
        let dir = test_dir(&lane.folder(&format!("power-guarded-{firmware}")))?;
        let mut machine = machine(lane, self.uefi, dir.clone())?;
        let modules = modules::archive(machine.guest(), self.modules)?;
        machine.add_initrd(modules);
        machine.menu = Menu { options: "guard=data".to_owned(), timeout: 60, ..machine.menu };
        let swap = dir.join("swap");
        if !self.uefi {
            File::create(&swap)?.set_len(SWAP)?;
            let disk = Disk { path: swap.clone(), format: Format::Raw, bus: Bus::Virtio };
            machine.spec = Spec { disks: vec![disk], ..machine.spec };
        }
        let (mut running, mut console) = machine.start(tools)?;
        console.expect(MENU, BOOT)?;
        let mut machine = Machine { under_vidar: true, monitor: running.monitor()?, running, console };
        let steps = self.names(lane).into_iter().zip(self.steps.iter().map(|(_, step)| *step));
        report.steps(&mut machine, steps, begun, Some(&dir.join("serial.log")));
        // What is saved is as large as the guest's memory.
        let _ = fs::remove_file(swap);
        Ok(())
    }
}

/// Boots the entry that is highlighted in the menu.
fn boot(machine: &mut Machine) -> Result<()> {
    let console = &mut machine.console;
    console.press("\r")?;
    console.expect("Linux version", BOOT)?;
    console.expect(PROMPT, BOOT)?;
    console.run(&modules::insert()).map(drop)
}

/// Locks the kernel.
fn lock(machine: &mut Machine) -> Result<()> {
    let said = machine.console.run("vidarctl guard lock")?;
    ensure!(said.contains("is locked on 1 of 1 CPU"), "vidarctl guard lock says: {said}");
    Ok(())
}

/// Boots a kernel, locks it, and begins to reset the machine by `way`.
fn begin_reset(machine: &mut Machine, way: &str) -> Result<()> {
    boot(machine)?;
    lock(machine)?;
    machine.console.run(&format!("echo {way} >/sys/kernel/reboot/type"))?;
    machine.console.type_line(&format!("{TALK}; reboot"))?;
    machine.console.expect("reboot: machine restart", ANSWER).map(drop)
}

/// Resets the machine by `way`.
fn reset(machine: &mut Machine, way: &str) -> Result<()> {
    begin_reset(machine, way)?;
    if way == "triple" {
        let report = "the guest has stopped on CPU 0: triple fault";
        machine.console.expect(report, ANSWER)?;
    }
    let said = machine.console.expect(MENU, ANSWER)?;
    ensure!(!said.contains("the guard has refused"), "the guard stands in the way: {said}");
    Ok(())
}

/// Linux goes back to real mode for this. It reports that this is refused, and does nothing more, until the machine's
/// own button resets it.
fn bios(machine: &mut Machine) -> Result<()> {
    begin_reset(machine, "bios")?;
    for said in ["general protection fault", "RIP: 0008:", "exited with irqs disabled"] {
        machine.console.expect(said, ANSWER)?;
    }
    machine.monitor.reset()?;
    machine.console.expect(MENU, ANSWER).map(drop)
}

/// Saves a locked kernel to the disk, and resumes it in a boot without the guard, which the menu offers. Then saves it
/// again.
fn hibernation(machine: &mut Machine) -> Result<()> {
    boot(machine)?;
    lock(machine)?;
    machine.console.run("mkswap /dev/vda && swapon /dev/vda && echo reboot >/sys/power/disk")?;
    machine.console.type_line("echo disk >/sys/power/state; echo aw''ake")?;
    machine.console.expect(MENU, ANSWER)?;
    for title in OFF {
        menu::choose(&mut machine.console, title)?;
        machine.console.expect(MENU, ANSWER)?;
    }
    boot(machine)?;
    machine.console.type_line(RESUME)?;
    machine.console.expect("awake\r\n", ANSWER)?;
    machine.console.expect(PROMPT, ANSWER)?;
    let status = machine.console.run("vidarctl status")?;
    ensure!(status.contains("guarded  nothing"), "the guard should be off: {status}");
    machine.console.type_line("echo disk >/sys/power/state; echo aw''ake")?;
    machine.console.expect(MENU, ANSWER).map(drop)
}

/// The command that resumes the kernel which the disk holds.
const RESUME: &str = "cat /sys/block/vda/dev >/sys/power/resume";

/// A guarded kernel cannot resume another one, and Vidar's report says why.
fn resume_refused(machine: &mut Machine) -> Result<()> {
    boot(machine)?;
    machine.console.type_line(RESUME)?;
    machine.console.expect("the guest has stopped on CPU 0: triple fault", ANSWER)?;
    machine.console.expect("there the guard has refused to change CR4.", ANSWER)?;
    machine.console.expect(MENU, ANSWER).map(drop)
}

/// Writes and reads a variable of the firmware, before the lock and after it.
fn efi_variables(machine: &mut Machine) -> Result<()> {
    boot(machine)?;
    let console = &mut machine.console;
    console.run("mount -t efivarfs none /sys/firmware/efi/efivars")?;
    write_and_read(machine, "VidarUnlocked")?;
    lock(machine)?;
    write_and_read(machine, "VidarLocked")
}

/// Writes and reads the variable `name`, which does not exist yet.
fn write_and_read(machine: &mut Machine, name: &str) -> Result<()> {
    // Nobody else has this GUID. The attributes come before the text: the variable stays, and can be used while Linux
    // runs.
    let make = format!(
        "cd /sys/firmware/efi/efivars; f={name}-7b4a3c52-0d5e-4f6a-9d8b-2c1e0f9a8b7c; \
         printf '\\007\\000\\000\\000hello' >/new && cat /new >$f && tail -c +5 $f && echo; cd /"
    );
    let said = machine.console.run(&make)?;
    ensure!(said == "hello\n", "the variable {name} is {said:?}");
    Ok(())
}

fn sleep(machine: &mut Machine) -> Result<()> {
    suspend_to_idle(machine)?;
    let status = machine.console.run("vidarctl status")?;
    ensure!(
        status.contains("read-only data on 1 of 1 CPU") && status.contains("; 0 refused"),
        "after it slept, the machine is guarded otherwise: {status}"
    );
    Ok(())
}

fn by_efi(machine: &mut Machine) -> Result<()> {
    machine.console.run("echo efi >/sys/kernel/reboot/type")?;
    machine.console.type_line(&format!("{TALK}; reboot"))?;
    machine.console.expect(MENU, ANSWER).map(drop)
}
