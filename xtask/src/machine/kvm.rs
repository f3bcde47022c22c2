//! QEMU with KVM: fast, where the host lets its guests use VT-x or AMD-V.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::qemu::{self, QEMU};
use super::{Ports, Spec, tied_to_us};

/// The modules of KVM, and the feature of the CPU that each lets guests use if it is told to.
const MODULES: &[(&str, &str)] = &[("kvm_intel", "vmx"), ("kvm_amd", "svm")];

/// The command that runs it.
pub fn command(spec: &Spec, ports: Ports) -> Result<Command> {
    let mut command = qemu::machine(spec, ports, &format!("host,+{}", feature().unwrap_or("vmx")))?;
    command.args(["-accel", "kvm"]);
    Ok(command)
}

/// Whether a guest of KVM can use VT-x or AMD-V here. /dev/kvm alone proves nothing: so the module is asked, and QEMU is
/// started for a moment and must neither give up nor complain.
pub fn works() -> bool {
    feature().is_some_and(|feature| starts(feature).unwrap_or(false))
}

fn feature() -> Option<&'static str> {
    let nests = |module: &str| {
        let nested =
            fs::read_to_string(format!("/sys/module/{module}/parameters/nested")).unwrap_or_default();
        matches!(nested.trim(), "Y" | "1")
    };
    MODULES.iter().find(|(module, _)| nests(module)).map(|(_, feature)| *feature)
}

fn starts(feature: &str) -> std::io::Result<bool> {
    let complaints = tempfile::NamedTempFile::new()?;
    let mut qemu = tied_to_us(QEMU);
    qemu.args(["-accel", "kvm", "-cpu", &format!("host,+{feature},enforce")]);
    qemu.args(["-display", "none", "-monitor", "none", "-serial", "none", "-nodefaults", "-m", "64", "-S"]);
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
