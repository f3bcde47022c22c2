//! Checks what `cargo xtask run --machine kvm` says where KVM cannot be used. The program itself runs in a Linux whose
//! KVM is set up in one unsuitable way after the other.

use std::env;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::lane::Lane;
use super::report::Report;
use super::test_dir;
use crate::console::{ANSWER, Console};
use crate::machine::{Errand, Spec};
use crate::paths;

/// A way in which KVM may be set up.
#[derive(Debug)]
struct Case {
    lane: Lane,
    /// The name of the test.
    name: &'static str,
    /// The parameters of KVM's module.
    parameters: &'static str,
    /// True if the program runs as a user other than root, who may not use the device.
    by_a_user: bool,
    /// What the output must contain.
    says: &'static str,
}

const fn case(lane: Lane, name: &'static str, parameters: &'static str, says: &'static str) -> Case {
    Case { lane, name, parameters, by_a_user: false, says }
}

const NO_RIGHT: &str = "error: you have no right to use /dev/kvm: ";
/// What the program says if there is no obstacle. It then looks for the tools to build with, which are missing in this
/// Linux.
const NOTHING: &str = "error: cannot run rustc";

const CASES: &[Case] = &[
    case(
        Lane::SvmKvm,
        "nested",
        "nested=0",
        "error: kvm_amd is loaded with nested=0, and Vidar in a guest needs nested=1: ",
    ),
    case(
        Lane::SvmKvm,
        "npt",
        "npt=0",
        "error: kvm_amd is loaded with npt=N, and Vidar in a guest needs npt=1: ",
    ),
    Case { by_a_user: true, ..case(Lane::SvmKvm, "rights", "", NO_RIGHT) },
    case(Lane::SvmKvm, "none", "", NOTHING),
    case(
        Lane::VmxKvm,
        "nested",
        "nested=0",
        "error: kvm_intel is loaded with nested=N, and Vidar in a guest needs nested=1: ",
    ),
    case(
        Lane::VmxKvm,
        "ept",
        "ept=0",
        "error: kvm_intel is loaded with ept=N unrestricted_guest=N, and Vidar in a guest needs ept=1 unrestricted_guest=1: ",
    ),
    case(
        Lane::VmxKvm,
        "unrestricted-guest",
        "unrestricted_guest=0",
        "error: kvm_intel is loaded with unrestricted_guest=N, and Vidar in a guest needs unrestricted_guest=1: ",
    ),
    // There is no case without an obstacle, since in Bochs QEMU may need longer to start than `cargo xtask run` waits.
    Case { by_a_user: true, ..case(Lane::VmxKvm, "rights", "", NO_RIGHT) },
];

/// The time that the Linux with KVM has to boot.
const UP: Duration = Duration::from_secs(3600);
/// A user of that Linux who may not use KVM.
const USER: &str = "user";
/// The folder of the checkout in that Linux.
const CHECKOUT: &str = "vidar";

fn cases(lane: Lane) -> impl Iterator<Item = &'static Case> {
    CASES.iter().filter(move |case| case.lane == lane)
}

/// Returns the names of the tests of a lane, in their order.
pub fn names(lane: Lane) -> Vec<String> {
    cases(lane).map(|case| lane.test(&format!("obstacle/{}", case.name))).collect()
}

/// Sets KVM up in each way, and runs the program.
pub fn all(lane: Lane, report: &Report) -> Result<()> {
    let dir = test_dir(&lane.folder("obstacle"))?;
    let log = dir.join("serial.log");
    let program = env::current_exe().context("this program does not know its file")?;
    let name = program.file_name().context("this program has no name")?.to_string_lossy().into_owned();
    let manifest = fs::read(paths::root().join("iso/guests.toml"))?;
    let errand = Errand {
        script: script(lane, &name),
        program,
        files: vec![
            (format!("{CHECKOUT}/iso/guests.toml"), manifest),
            ("etc/passwd".to_owned(), format!("{USER}:x:1000:1000::/:/bin/sh\n").into_bytes()),
        ],
    };
    let mut begun = Instant::now();
    let running = lane.machine().start(&Spec { dir, errand: Some(errand), ..Spec::default() })?;
    let mut console = Console::new(running.serial()?, &log)?;
    for (case, name) in cases(lane).zip(names(lane)) {
        report.result(&name, begun, check(case, &mut console), Some(&log));
        begun = Instant::now();
    }
    Ok(())
}

fn check(case: &Case, console: &mut Console) -> Result<()> {
    console.expect(&format!("asked: {}\n", case.name), UP)?;
    let said = console.expect("answered", ANSWER)?;
    ensure!(said.contains(case.says), "the program says {:?}", said.trim());
    Ok(())
}

/// Returns a script that loads KVM with the parameters of each case, and runs the program.
fn script(lane: Lane, program: &str) -> String {
    let module = lane.kvm_module();
    let mut script = format!("export CARGO_MANIFEST_DIR=/{CHECKOUT}/xtask\n");
    for case in cases(lane) {
        let user = if case.by_a_user { format!("start-stop-daemon -S -c {USER} -x") } else { String::new() };
        let dashes = if case.by_a_user { "--" } else { "" };
        script += &format!(
            "rmmod {module}; insmod /lib/modules/{module}.ko {}\n\
             echo 'asked: {}'; {user} /usr/bin/{program} {dashes} run --machine kvm </dev/null; echo answered\n",
            case.parameters, case.name
        );
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_is_loaded_for_each_case_before_the_program_runs() {
        let script = script(Lane::SvmKvm, "xtask");
        let lines: Vec<_> = script.lines().collect();
        assert_eq!(lines[1], "rmmod kvm_amd; insmod /lib/modules/kvm_amd.ko nested=0");
        assert_eq!(
            lines[2],
            "echo 'asked: nested';  /usr/bin/xtask  run --machine kvm </dev/null; echo answered"
        );
        assert!(lines[6].contains("start-stop-daemon -S -c user -x /usr/bin/xtask -- run"));
        assert_eq!(lines.len(), 1 + 2 * cases(Lane::SvmKvm).count());
    }
}
