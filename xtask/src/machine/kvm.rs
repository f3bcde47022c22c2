//! QEMU with KVM: fast, where the host lets its guests use VT-x or AMD-V as Vidar needs it. Whether it does is asked of KVM's
//! modules, of the rights on its device, and of QEMU, in this order; the first that is in the way is named.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::qemu::{self, QEMU};
use super::{Ports, Spec, tied_to_us};

/// One of KVM's modules for a vendor's CPUs.
#[derive(Debug, PartialEq, Eq)]
struct Module {
    name: &'static str,
    /// The feature of the CPU that lets a guest be a hypervisor.
    feature: &'static str,
    /// Parameters that must be on for a guest that is Vidar, which needs nested paging and, on VT-x, unrestricted guests.
    parameters: &'static [&'static str],
}

const MODULES: [Module; 2] = [
    Module { name: "kvm_intel", feature: "vmx", parameters: &["nested", "ept", "unrestricted_guest"] },
    Module { name: "kvm_amd", feature: "svm", parameters: &["nested", "npt"] },
];

/// Where the kernel shows its modules, and where KVM is.
const SYS_MODULE: &str = "/sys/module";
const DEVICE: &str = "/dev/kvm";

/// How long QEMU may take to answer. On a busy host it has to be loaded from a disk first.
const ANSWER: Duration = Duration::from_secs(30);

/// Why KVM cannot be used, in a sentence that goes on with what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// No module of KVM's is there.
    #[error(
        "this host has no KVM (neither kvm_intel nor kvm_amd is loaded): switch on VT-x or AMD-V in the firmware's setup, and load \
         the module (`sudo modprobe kvm_intel` or `kvm_amd`)"
    )]
    NoModule,
    /// Parameters of the module are off.
    #[error(
        "{module} is loaded with {off}, and Vidar in a guest needs {on}: stop all virtual machines and load it anew by `sudo modprobe -r \
         {module} && sudo modprobe {module} {on}`"
    )]
    Parameters {
        /// The module.
        module: &'static str,
        /// What there is.
        off: String,
        /// What there should be.
        on: String,
    },
    /// The device cannot be opened.
    #[error(
        "{DEVICE} cannot be opened ({0}): if it is there, add yourself to its group (`ls -l {DEVICE}` shows it) and log in again"
    )]
    Device(String),
    /// QEMU gave up.
    #[error("QEMU does not start with KVM; it says: {0}")]
    Qemu(String),
    /// QEMU said nothing.
    #[error("QEMU with KVM does not answer")]
    Silent,
}

/// The command that runs it.
pub fn command(spec: &Spec, ports: Ports) -> Result<Command> {
    let module = module(Path::new(SYS_MODULE))?;
    let mut command = qemu::machine(spec, ports, &cpu(module))?;
    command.args(["-accel", "kvm"]);
    Ok(command)
}

/// The host's CPU, and what lets its guest be a hypervisor. What cannot go to another host is shown as well: that is the invariant
/// TSC.
fn cpu(module: &Module) -> String {
    format!("host,migratable=off,+{}", module.feature)
}

/// What is in the way of a guest that is Vidar, if anything is.
pub fn obstacle() -> Option<Obstacle> {
    let asked = module(Path::new(SYS_MODULE)).and_then(|module| {
        let opened = File::options().read(true).write(true).open(DEVICE);
        opened.map_err(|error| Obstacle::Device(error.to_string()))?;
        ask(QEMU, module, ANSWER)
    });
    asked.err()
}

/// The module that is loaded, if its parameters will do. `modules` is a folder with a folder for each.
fn module(modules: &Path) -> Result<&'static Module, Obstacle> {
    let home = |module: &Module| -> PathBuf { modules.join(module.name) };
    let module = MODULES.iter().find(|module| home(module).is_dir()).ok_or(Obstacle::NoModule)?;
    let off: Vec<_> = module
        .parameters
        .iter()
        .filter_map(|name| {
            let value = fs::read_to_string(home(module).join("parameters").join(name)).ok()?;
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

/// Starts QEMU with the host's CPU. Its monitor answers once the machine has been made, and before anything runs in it.
fn ask(qemu: &str, module: &Module, patience: Duration) -> Result<(), Obstacle> {
    let failed = |error: std::io::Error| Obstacle::Qemu(error.to_string());
    let mut command = tied_to_us(qemu);
    command.args(["-accel", "kvm", "-cpu", &format!("{},enforce", cpu(module))]);
    command.args(["-display", "none", "-serial", "none", "-nodefaults", "-m", "64", "-S", "-qmp", "stdio"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    // One that has given up does not read it.
    let mut commands = child.stdin.take().expect("it is piped");
    let _ = writeln!(commands, "{{\"execute\": \"qmp_capabilities\"}}");
    let (answers, words) =
        (child.stdout.take().expect("it is piped"), child.stderr.take().expect("it is piped"));
    let (sender, answered) = mpsc::channel();
    thread::spawn(move || {
        let mut lines = BufReader::new(answers).lines().map_while(Result::ok);
        let _ = sender.send(lines.any(|line| line.contains("\"return\"")));
    });
    let answer = answered.recv_timeout(patience);
    let _ = child.kill();
    let _ = child.wait();
    let mut said = String::new();
    let _ = BufReader::new(words).read_to_string(&mut said);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    match answer {
        Err(RecvTimeoutError::Timeout) if said.is_empty() => Err(Obstacle::Silent),
        // It may run and complain all the same, of a feature that it cannot give.
        Ok(true) if said.is_empty() => Ok(()),
        _ if said.is_empty() => Err(Obstacle::Qemu("nothing".to_owned())),
        _ => Err(Obstacle::Qemu(said)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A tree of modules with these parameters.
    fn modules(parameters: &[(&str, &str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (module, name, value) in parameters {
            let folder = dir.path().join(module).join("parameters");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(name), format!("{value}\n")).unwrap();
        }
        dir
    }

    fn verdict(parameters: &[(&str, &str, &str)]) -> Result<&'static str, String> {
        let dir = modules(parameters);
        module(dir.path()).map(|module| module.feature).map_err(|obstacle| obstacle.to_string())
    }

    #[test]
    fn the_modules_parameters_decide() {
        let intel = |nested, ept, unrestricted| {
            verdict(&[
                ("kvm_intel", "nested", nested),
                ("kvm_intel", "ept", ept),
                ("kvm_intel", "unrestricted_guest", unrestricted),
            ])
        };
        let amd = |nested, npt| verdict(&[("kvm_amd", "nested", nested), ("kvm_amd", "npt", npt)]);
        assert_eq!(intel("Y", "Y", "Y"), Ok("vmx"));
        assert_eq!(amd("1", "Y"), Ok("svm"));
        assert_eq!(amd("1", "1"), Ok("svm"));
        for (verdict, off, on) in [
            (intel("N", "Y", "Y"), "kvm_intel is loaded with nested=N,", "nested=1`"),
            (intel("Y", "N", "Y"), "kvm_intel is loaded with ept=N,", "modprobe kvm_intel ept=1`"),
            (intel("Y", "Y", "N"), "kvm_intel is loaded with unrestricted_guest=N,", "unrestricted_guest=1`"),
            (intel("Y", "N", "N"), "with ept=N unrestricted_guest=N,", "ept=1 unrestricted_guest=1`"),
            (amd("0", "Y"), "kvm_amd is loaded with nested=0,", "modprobe kvm_amd nested=1`"),
            (amd("1", "N"), "kvm_amd is loaded with npt=N,", "npt=1`"),
        ] {
            let sentence = verdict.unwrap_err();
            assert!(sentence.contains(off) && sentence.ends_with(on), "{sentence}");
        }
        assert!(verdict(&[]).unwrap_err().starts_with("this host has no KVM (neither "));
    }

    /// What a QEMU comes to that is this shell script.
    fn asked(script: &str, patience: Duration) -> Result<(), Obstacle> {
        let dir = tempfile::tempdir().unwrap();
        let qemu = dir.path().join("qemu");
        fs::write(&qemu, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
        ask(qemu.to_str().unwrap(), &MODULES[1], patience)
    }

    #[test]
    fn qemu_has_the_last_word() {
        // It would run for a day.
        let answers = "echo '{\"QMP\": {}}'; read line; echo '{\"return\": {}}'; exec sleep 86400";
        assert_eq!(asked(answers, Duration::from_secs(3600)), Ok(()));
        let complains = format!("echo 'warning: no svm' >&2; {answers}");
        assert_eq!(
            asked(&complains, Duration::from_secs(3600)),
            Err(Obstacle::Qemu("warning: no svm".into()))
        );
        // The greeting alone is no answer: it comes before the machine is made.
        let gives_up = "echo '{\"QMP\": {}}'; echo 'qemu: CPU feature svm:\n not there' >&2; exit 1";
        let said = asked(gives_up, Duration::from_secs(3600)).unwrap_err().to_string();
        assert_eq!(said, "QEMU does not start with KVM; it says: qemu: CPU feature svm: not there");
        let hangs = "echo '{\"QMP\": {}}'; exec sleep 86400";
        assert_eq!(asked(hangs, Duration::from_millis(100)), Err(Obstacle::Silent));
        assert!(matches!(ask("/none/qemu", &MODULES[0], ANSWER), Err(Obstacle::Qemu(_))));
    }

    #[test]
    fn the_command_shows_the_invariant_tsc() {
        assert_eq!(cpu(&MODULES[1]), "host,migratable=off,+svm");
    }
}
