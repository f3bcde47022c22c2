//! What is seen under Vidar.

use super::cpu;
use super::finding::Finding;
use super::losses;
use super::machine::Machine;
use crate::log::Log;
use crate::status::Status;

/// The lines of Vidar's log that ask for attention begin with these.
const ATTENTION: [&str; 2] = ["vidar: warning: ", "vidar: error: "];

/// Looks at a Linux that runs under Vidar. The names are those of the findings in JSON. Only root gets the log.
pub fn checks(machine: &dyn Machine, status: &Status, log: Option<&Log>) -> Vec<(&'static str, Finding)> {
    vec![
        ("vidar", Finding::ok(format!("this Linux runs under Vidar {}", status.version_and_vendor()))),
        ("memory", Finding::ok(format!("Vidar keeps {} for itself", status.memory_text()))),
        ("cpus", cpus(machine, status)),
        ("log", warnings(log)),
        ("sleep", losses::sleep(machine)),
    ]
}

/// Checks that each CPU of Linux is under Vidar.
fn cpus(machine: &dyn Machine, status: &Status) -> Finding {
    let (own, online) = (status.cpus, cpu::online(machine).len() as u64);
    if online > own {
        return Finding::warning(
            format!(
                "Linux runs on {online} CPUs, and Vidar has {own}: a CPU that was added later runs beside Vidar"
            ),
            "take that CPU off, or boot Vidar's entry again",
        );
    }
    let plural = if own == 1 { "" } else { "s" };
    Finding::ok(format!("Vidar has {own} CPU{plural}, of which Linux runs on {online}"))
}

/// Looks for warnings in Vidar's log.
fn warnings(log: Option<&Log>) -> Finding {
    let Some(log) = log else {
        return Finding::unknown("Vidar shows its log to root alone", "run this as root");
    };
    let log = log.text();
    let lines = log.lines().filter_map(|line| ATTENTION.iter().find_map(|start| line.strip_prefix(start)));
    let lines: Vec<_> = lines.collect();
    match lines[..] {
        [] => Finding::ok("Vidar's log has no warning"),
        [first] => Finding::warning(format!("Vidar warns: {first}"), "look into `vidarctl log`"),
        [first, ..] => Finding::warning(
            format!("Vidar's log has {} warnings, the first of which is: {first}", lines.len()),
            "look into `vidarctl log`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use vidar_abi::{Vendor, Version};

    use super::super::fake::Fake;
    use super::super::finding::State;
    use super::*;
    use crate::guard::Guarded;

    #[test]
    fn warnings_of_the_log_are_shown() {
        assert_eq!(warnings(None).state, State::Unknown);
        let log = |text: &str| warnings(Some(&Log { bytes: text.into(), lost: 0 }));
        assert_eq!(log("vidar: Vidar 0.1.0\n").state, State::Ok);
        let one = log("vidar: Vidar 0.1.0\nvidar: warning: it is odd\n");
        assert_eq!((one.state, one.text.as_str()), (State::Warning, "Vidar warns: it is odd"));
        assert!(
            log("vidar: error: a\nvidar: warning: b\n").text.contains("2 warnings, the first of which is: a")
        );
    }

    #[test]
    fn cpus_beside_vidar_are_seen() {
        let status = Status {
            version: [0, 1, 0],
            commit: None,
            abi: Version { major: 1, minor: 1 },
            vendor: Vendor::Svm,
            cpus: 2,
            exits: 0,
            memory: Vec::new(),
            guarded: Guarded::Nothing,
            dma: None,
        };
        let with = |cpus| cpu_state(&Fake::default().with_cpus(cpus), &status);
        assert_eq!([1, 2, 3].map(with), [State::Ok, State::Ok, State::Warning]);
    }

    fn cpu_state(machine: &Fake, status: &Status) -> State {
        cpus(machine, status).state
    }
}
