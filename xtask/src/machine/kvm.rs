//! QEMU with KVM: fast, where the host lets its guests use VT-x.

use std::fs;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{Spec, tied_to_us};

const QEMU: &str = "qemu-system-x86_64";

/// The command that runs it.
pub fn command(spec: &Spec, port: u16) -> Command {
    let mut command = tied_to_us(QEMU);
    command.args(["-accel", "kvm", "-display", "none", "-monitor", "none", "-nodefaults", "-vga", "std"]);
    command.args(["-cpu", spec.cpu.as_deref().unwrap_or("host,+vmx")]);
    command.args(["-m", &spec.memory.to_string()]);
    command.args(["-chardev", &format!("socket,id=com1,host=127.0.0.1,port={port}")]);
    command.args(["-serial", "chardev:com1"]);
    let media = if spec.disk { "disk,format=raw,snapshot=on" } else { "cdrom,readonly=on" };
    command.arg("-drive").arg(format!("file={},media={media}", spec.iso_from_dir().display()));
    command
}

/// Whether a QEMU that ended did so because the guest powered off.
pub fn ended_well(status: ExitStatus, _: &str) -> bool {
    status.success()
}

/// Whether a guest of KVM can use VT-x here. /dev/kvm alone proves nothing: so the module is asked, and QEMU is
/// started for a moment and must neither give up nor complain.
pub fn works() -> bool {
    let nested = fs::read_to_string("/sys/module/kvm_intel/parameters/nested").unwrap_or_default();
    if !matches!(nested.trim(), "Y" | "1") {
        return false;
    }
    starts().unwrap_or(false)
}

fn starts() -> std::io::Result<bool> {
    let complaints = tempfile::NamedTempFile::new()?;
    let mut qemu = tied_to_us(QEMU);
    qemu.args(["-accel", "kvm", "-cpu", "host,+vmx,enforce", "-display", "none", "-monitor", "none"]);
    qemu.args(["-serial", "none", "-nodefaults", "-m", "64", "-S"]);
    let mut qemu = qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(complaints.reopen()?).spawn()?;
    let begun = Instant::now();
    let mut runs_on = true;
    while runs_on && begun.elapsed() < Duration::from_secs(2) {
        thread::sleep(Duration::from_millis(50));
        runs_on = qemu.try_wait()?.is_none();
    }
    let _ = qemu.kill();
    qemu.wait()?;
    Ok(runs_on && fs::read_to_string(complaints.path())?.trim().is_empty())
}
