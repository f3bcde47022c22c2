//! QEMU with KVM is fast, but needs a host that lets its guests use VT-x or AMD-V. Whether it does is decided by the
//! CPU, by KVM's modules, by the rights on KVM's device, and by QEMU, in this order. The first obstacle is reported.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::abilities::QEMU;
use super::line::Ports;
use super::qemu;
use super::spec::Spec;
use super::tie::tied_to_us;
use crate::packages;

/// KVM's module for the CPUs of a vendor.
#[derive(Debug, PartialEq, Eq)]
pub struct Module {
    /// The name of the module in `/sys/module`.
    pub name: &'static str,
    /// The usual name of the extension.
    extension: &'static str,
    /// The CPU feature that lets a guest be a hypervisor.
    feature: &'static str,
    /// The parameters that must be on for Vidar as a guest. It needs nested paging and, on VT-x, unrestricted guests.
    parameters: &'static [&'static str],
}

/// The module for VT-x.
pub const INTEL: Module = Module {
    name: "kvm_intel",
    extension: "VT-x",
    feature: "vmx",
    parameters: &["nested", "ept", "unrestricted_guest"],
};
/// The module for AMD-V.
pub const AMD: Module =
    Module { name: "kvm_amd", extension: "AMD-V", feature: "svm", parameters: &["nested", "npt"] };

/// QEMU's arguments for KVM, without `vapic`, an optimisation for the task-priority register (TPR) of old 32-bit
/// guests.
///
/// With `vapic`, QEMU reads and writes all registers of a CPU that accesses the TPR in memory, even if that CPU runs a
/// nested guest. KVM (Linux 6.1) then loses the read shadows of CR0 and CR4 that the hypervisor in it has set for its
/// guest: the guest of Vidar sees CR0.NE and CR4.VMXE set, until it is entered again after an exit to Vidar.
pub const ACCELERATOR: [&str; 4] = ["-accel", "kvm", "-global", "kvm-apic.vapic=off"];

/// The files in which the kernel describes its CPUs and its modules, and KVM's device.
const CPUINFO: &str = "/proc/cpuinfo";
const SYS_MODULE: &str = "/sys/module";
const DEVICE: &str = "/dev/kvm";

/// The time that QEMU has to answer. On a busy host, loading it from a disk takes most of that.
const ANSWER: Duration = Duration::from_secs(30);

/// The reason why KVM cannot be used. Its message also says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The CPU has neither extension, or the firmware or a hypervisor hides it.
    #[error(
        "this host's CPU shows neither VT-x nor AMD-V: switch it on in the firmware's setup or, if the host is itself a virtual machine, \
         in the settings of its hypervisor"
    )]
    NoExtension,
    /// The module for this CPU is not loaded.
    #[error(
        "this host's CPU has {extension}, but {module} is not loaded: load it (`sudo modprobe {module}`); if that fails, `sudo dmesg` \
         says why"
    )]
    NoModule {
        /// The CPU's extension.
        extension: &'static str,
        /// The module for it.
        module: &'static str,
    },
    /// Parameters of the module are off.
    #[error(
        "{module} is loaded with {off}, and Vidar in a guest needs {on}: stop all virtual machines and load it again (`sudo modprobe -r \
         {module} && sudo modprobe {module} {on}`); if a parameter is off even then, this CPU does not support it"
    )]
    Parameters {
        /// The module.
        module: &'static str,
        /// The parameters that are off, with their present values.
        off: String,
        /// The same parameters with the values that they need.
        on: String,
    },
    /// This user may not open the device.
    #[error(
        "you have no right to use {DEVICE}: add yourself to its group (`sudo usermod -aG kvm $USER` where `ls -l {DEVICE}` names kvm) and \
         log in again"
    )]
    NoRight,
    /// The device cannot be opened.
    #[error(
        "{DEVICE} cannot be opened ({0}): load KVM's module again or, in a container, make {DEVICE} available to it"
    )]
    Device(String),
    /// QEMU is not installed.
    #[error("there is no {QEMU} here: install it (`cargo xtask setup`)")]
    NoQemu,
    /// QEMU ended with this message.
    #[error("QEMU does not start with KVM; it says \"{0}\": resolve that, and try again")]
    Qemu(String),
    /// QEMU ended with this status and without a message.
    #[error("QEMU with KVM ends at once ({0}) and does not say why: see whether `sudo dmesg` does")]
    Ended(String),
    /// QEMU did not answer within this time.
    #[error(
        "QEMU with KVM did not start a machine within {} s: see what else keeps the host busy, and what `sudo dmesg` says", .0.as_secs()
    )]
    Silent(Duration),
}

/// Returns the command that runs QEMU with KVM.
pub fn command(spec: &Spec, ports: Ports) -> Result<Command> {
    let module = module(Path::new(CPUINFO), Path::new(SYS_MODULE))?;
    let mut command = qemu::machine(spec, ports, &module.cpu())?;
    command.args(ACCELERATOR);
    Ok(command)
}

impl Module {
    /// Returns the `-cpu` argument: the host's CPU, with the feature that lets a guest be a hypervisor, and with what
    /// cannot be migrated to another host, which is the invariant TSC.
    pub fn cpu(&self) -> String {
        format!("host,migratable=off,+{}", self.feature)
    }
}

/// Returns the reason why Vidar cannot run as a guest of KVM here, if there is one.
pub fn obstacle() -> Option<Obstacle> {
    let asked = module(Path::new(CPUINFO), Path::new(SYS_MODULE)).and_then(|module| {
        openable(Path::new(DEVICE))?;
        let qemu = packages::program(QEMU).ok_or(Obstacle::NoQemu)?;
        ask(&qemu.to_string_lossy(), module, ANSWER)
    });
    asked.err()
}

/// Returns KVM's module for the CPU that `cpuinfo` describes, if it is loaded and its parameters suffice. The folder
/// `modules` has a folder for each loaded module, and for each that is built into the kernel.
fn module(cpuinfo: &Path, modules: &Path) -> Result<&'static Module, Obstacle> {
    let cpuinfo = fs::read_to_string(cpuinfo).unwrap_or_default();
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let has = |module: &&&Module| flags.split_whitespace().any(|flag| flag == module.feature);
    let module = *[&INTEL, &AMD].iter().find(has).ok_or(Obstacle::NoExtension)?;
    let home = modules.join(module.name);
    if !home.is_dir() {
        return Err(Obstacle::NoModule { extension: module.extension, module: module.name });
    }
    let off: Vec<_> = module
        .parameters
        .iter()
        .filter_map(|name| {
            let value = fs::read_to_string(home.join("parameters").join(name)).ok()?;
            let value = value.trim();
            (!matches!(value, "Y" | "1")).then(|| (name, value.to_owned()))
        })
        .collect();
    if off.is_empty() {
        return Ok(module);
    }
    let all = |one: &dyn Fn(&(&&str, String)) -> String| off.iter().map(one).collect::<Vec<_>>().join(" ");
    Err(Obstacle::Parameters {
        module: module.name,
        off: all(&|(name, value)| format!("{name}={value}")),
        on: all(&|(name, _)| format!("{name}=1")),
    })
}

/// Opens the device as QEMU does.
fn openable(device: &Path) -> Result<(), Obstacle> {
    match File::options().read(true).write(true).open(device) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(Obstacle::NoRight),
        Err(error) => Err(Obstacle::Device(error.to_string())),
    }
}

/// Starts QEMU with the host's CPU. Its monitor answers once the machine exists, and before anything runs in it. With
/// `enforce`, QEMU makes no machine whose CPU would lack a requested feature. Other output is a warning.
fn ask(qemu: &str, module: &Module, patience: Duration) -> Result<(), Obstacle> {
    let failed = |error: std::io::Error| Obstacle::Qemu(error.to_string());
    let mut command = tied_to_us(qemu);
    command.args(ACCELERATOR).args(["-cpu", &format!("{},enforce", module.cpu())]);
    command.args(["-display", "none", "-serial", "none", "-nodefaults", "-m", "64", "-S", "-qmp", "stdio"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    // Writing fails if QEMU has already ended. Its status and its output then say why.
    let mut commands = child.stdin.take().expect("stdin is piped");
    let _ = writeln!(commands, "{{\"execute\": \"qmp_capabilities\"}}");
    let (answers, words) =
        (child.stdout.take().expect("stdout is piped"), child.stderr.take().expect("stderr is piped"));
    let (sender, answered) = mpsc::channel();
    thread::spawn(move || {
        let mut lines = BufReader::new(answers).lines().map_while(Result::ok);
        let _ = sender.send(lines.any(|line| line.contains("\"return\"")));
    });
    let answer = answered.recv_timeout(patience);
    if answer != Ok(false) {
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed)?;
    let mut said = String::new();
    let _ = BufReader::new(words).read_to_string(&mut said);
    verdict(answer, patience, status, &said.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Decides whether QEMU can be used, from the `answer` of its monitor, the `status` that it ended with, and its other
/// output, `said`.
fn verdict(
    answer: Result<bool, RecvTimeoutError>,
    patience: Duration,
    status: ExitStatus,
    said: &str,
) -> Result<(), Obstacle> {
    match answer {
        Ok(true) => Ok(()),
        _ if !said.is_empty() => Err(Obstacle::Qemu(said.to_owned())),
        Err(_) => Err(Obstacle::Silent(patience)),
        Ok(false) => Err(Obstacle::Ended(status.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Returns the feature that is used with these CPU flags and module parameters, or the obstacle.
    fn decide(flags: &str, parameters: &[(&str, &str, &str)]) -> Result<&'static str, String> {
        let dir = tempfile::tempdir().unwrap();
        for (module, name, value) in parameters {
            let folder = dir.path().join(module).join("parameters");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(name), format!("{value}\n")).unwrap();
        }
        let cpuinfo = dir.path().join("cpuinfo");
        fs::write(&cpuinfo, format!("processor\t: 0\nflags\t\t: fpu {flags} sse\nvmx flags\t: ept\n"))
            .unwrap();
        module(&cpuinfo, dir.path()).map(|module| module.feature).map_err(|obstacle| obstacle.to_string())
    }

    const ALL_ON: [(&str, &str, &str); 5] = [
        ("kvm_intel", "nested", "Y"),
        ("kvm_intel", "ept", "Y"),
        ("kvm_intel", "unrestricted_guest", "Y"),
        ("kvm_amd", "nested", "1"),
        ("kvm_amd", "npt", "Y"),
    ];

    #[test]
    fn parameters_that_are_off_are_named() {
        let intel = |nested, ept, unrestricted| {
            let parameters = [
                ("kvm_intel", "nested", nested),
                ("kvm_intel", "ept", ept),
                ("kvm_intel", "unrestricted_guest", unrestricted),
            ];
            decide("vmx", &parameters)
        };
        let amd = |nested, npt| decide("svm", &[("kvm_amd", "nested", nested), ("kvm_amd", "npt", npt)]);
        assert_eq!(intel("Y", "Y", "Y"), Ok("vmx"));
        assert_eq!(amd("1", "Y"), Ok("svm"));
        assert_eq!(amd("1", "1"), Ok("svm"));
        for (verdict, off, on) in [
            (intel("N", "Y", "Y"), "kvm_intel is loaded with nested=N,", "nested=1`)"),
            (intel("Y", "N", "Y"), "kvm_intel is loaded with ept=N,", "modprobe kvm_intel ept=1`)"),
            (
                intel("Y", "Y", "N"),
                "kvm_intel is loaded with unrestricted_guest=N,",
                "unrestricted_guest=1`)",
            ),
            (intel("Y", "N", "N"), "with ept=N unrestricted_guest=N,", "ept=1 unrestricted_guest=1`)"),
            (amd("0", "Y"), "kvm_amd is loaded with nested=0,", "modprobe kvm_amd nested=1`)"),
            (amd("1", "N"), "kvm_amd is loaded with npt=N,", "npt=1`)"),
        ] {
            let sentence = verdict.unwrap_err();
            assert!(sentence.contains(off) && sentence.contains(on), "{sentence}");
        }
    }

    #[test]
    fn the_module_follows_from_the_cpu() {
        assert_eq!(decide("vmx", &ALL_ON), Ok("vmx"));
        assert_eq!(decide("svm", &ALL_ON), Ok("svm"));
        let none = decide("vmxe", &ALL_ON).unwrap_err();
        assert!(none.starts_with("this host's CPU shows neither VT-x nor AMD-V: switch it on"), "{none}");
        let other = decide("svm", &ALL_ON[..3]).unwrap_err();
        assert!(
            other.starts_with("this host's CPU has AMD-V, but kvm_amd is not loaded: load it"),
            "{other}"
        );
    }

    #[test]
    fn missing_rights_and_a_missing_device_are_distinguished() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(openable(&dir.path().join("none")), Err(Obstacle::Device(_))));
        assert!(openable(Path::new("/dev/null")).is_ok());
        let file = dir.path().join("kvm");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
        // Root may open it all the same.
        let may = rustix::process::geteuid().is_root();
        assert_eq!(openable(&file), if may { Ok(()) } else { Err(Obstacle::NoRight) });
    }

    /// Asks a QEMU that is this shell script.
    fn asked(script: &str, patience: Duration) -> Result<(), Obstacle> {
        let dir = tempfile::tempdir().unwrap();
        let qemu = dir.path().join("qemu");
        fs::write(&qemu, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
        ask(qemu.to_str().unwrap(), &AMD, patience)
    }

    #[test]
    fn qemu_decides_whether_kvm_can_be_used() {
        const LONG: Duration = Duration::from_secs(3600);
        // This QEMU would run for a day if it were not ended.
        let answers = "echo '{\"QMP\": {}}'; read line; echo '{\"return\": {}}'; exec sleep 86400";
        assert_eq!(asked(answers, LONG), Ok(()));
        assert_eq!(asked(&format!("echo 'warning: old' >&2; {answers}"), LONG), Ok(()));
        // The greeting alone is not an answer, since it comes before the machine is made.
        let gives_up = "echo '{\"QMP\": {}}'; echo 'qemu: CPU feature svm:\n not there' >&2; exit 1";
        let said = asked(gives_up, LONG).unwrap_err().to_string();
        let sentence = "QEMU does not start with KVM; it says \"qemu: CPU feature svm: not there\": resolve that, and try again";
        assert_eq!(said, sentence);
        let ends = asked("exit 3", LONG).unwrap_err().to_string();
        assert!(
            ends.starts_with("QEMU with KVM ends at once (exit status: 3) and does not say why: "),
            "{ends}"
        );
        let hangs = "echo '{\"QMP\": {}}'; exec sleep 86400";
        let patience = Duration::from_millis(100);
        assert_eq!(asked(hangs, patience), Err(Obstacle::Silent(patience)));
        assert_eq!(
            Obstacle::Silent(ANSWER).to_string().split(':').next(),
            Some("QEMU with KVM did not start a machine within 30 s")
        );
    }

    #[test]
    fn the_guests_cpu_has_the_invariant_tsc() {
        assert_eq!(AMD.cpu(), "host,migratable=off,+svm");
        assert_eq!(INTEL.cpu(), "host,migratable=off,+vmx");
    }
}
