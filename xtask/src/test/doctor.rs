//! Checks what `vidarctl doctor` says on a bare machine, for CPUs on which Vidar runs and for CPUs that it refuses. It
//! has to say what Vidar says at its start; those sentences are in the tests of refusals.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::lane::Lane;
use super::{LinuxMachine, Tools, test_dir};
use crate::console::Console;
use crate::machine::Spec;
use crate::modules;

/// A CPU, and what `vidarctl doctor` must find wrong with it.
#[derive(Debug)]
pub struct Patient {
    /// The last part of the test's name.
    pub name: &'static str,
    /// True if the firmware is UEFI, without Secure Boot, which `vidarctl doctor` then has to see.
    uefi: bool,
    cpu: Option<&'static str>,
    problems: &'static [&'static str],
}

/// The table of CPUs.
pub const PATIENTS: [Patient; 5] = [
    Patient { name: "doctor/usual", uefi: false, cpu: None, problems: &[] },
    Patient { name: "doctor/uefi", uefi: true, cpu: None, problems: &[] },
    Patient {
        name: "doctor/cpu-without-nested-paging",
        uefi: false,
        cpu: Some("EPYC,-hypervisor,-npt"),
        problems: &["this CPU's AMD-V lacks nested paging"],
    },
    Patient {
        name: "doctor/cpu-without-svm",
        uefi: false,
        cpu: Some("EPYC,-hypervisor,-svm"),
        problems: &["this CPU has neither VT-x nor AMD-V"],
    },
    Patient {
        name: "doctor/cpu-without-no-execute",
        uefi: false,
        cpu: Some("EPYC,-hypervisor,-nx"),
        problems: &["this CPU's no-execute pages are switched off"],
    },
];

impl Patient {
    /// Boots a bare Linux with the module msr, and compares.
    pub fn run(&self, tools: &Tools) -> Result<()> {
        let dir = test_dir(&Lane::Svm.folder(self.name))?;
        let mut machine = LinuxMachine::new(Lane::Svm, dir)?;
        let modules = modules::archive(machine.guest(), &["msr"])?;
        machine.add_initrd(modules);
        machine.bare_unless(false);
        machine.spec = Spec { uefi: self.uefi, cpu: self.cpu.map(str::to_owned), ..machine.spec };
        let (_running, mut console) = machine.boot(tools)?;
        console.run(&modules::insert())?;
        let (doctor, said) = Doctor::ask(&mut console)?;
        let wanted = if self.problems.is_empty() { ("can-run", 0) } else { ("cannot-run", 1) };
        ensure!(
            (doctor.verdict.as_str(), doctor.status) == wanted,
            "the verdict should be {}: {said}",
            wanted.0
        );
        ensure!(doctor.problems() == self.problems, "the problems should be {:?}: {said}", self.problems);
        Ok(())
    }
}

/// What `vidarctl doctor` has found.
#[derive(Debug)]
pub struct Doctor {
    /// What follows from all findings.
    pub verdict: String,
    /// The exit status.
    pub status: i32,
    checks: Vec<(String, String, String)>,
}

impl Doctor {
    /// Runs `vidarctl doctor`. Also returns all that it printed.
    pub fn ask(console: &mut Console) -> Result<(Self, String)> {
        let said = console.run("vidarctl doctor --json; echo $?")?;
        let doctor = Self::read(&said).with_context(|| format!("`vidarctl doctor --json` said {said:?}"))?;
        Ok((doctor, said))
    }

    /// Reads the line of JSON, and the exit status on the line below.
    fn read(said: &str) -> Result<Self> {
        let (json, status) = said.trim().split_once('\n').context("there are not two lines")?;
        let answer: Value = serde_json::from_str(json.trim()).context("the first line is not JSON")?;
        let text = |value: &Value, name: &str| value[name].as_str().map(str::to_owned);
        let check = |value| Some((text(value, "id")?, text(value, "state")?, text(value, "text")?));
        let checks: Option<Vec<_>> =
            answer["checks"].as_array().context("there are no checks")?.iter().map(check).collect();
        Ok(Self {
            verdict: text(&answer, "verdict").context("there is no verdict")?,
            status: status.trim().parse().context("there is no exit status")?,
            checks: checks.context("a check lacks a field")?,
        })
    }

    /// Returns the names of the checks with this state.
    pub fn with(&self, state: &str) -> Vec<&str> {
        self.checks.iter().filter(|(_, other, _)| other == state).map(|(id, ..)| id.as_str()).collect()
    }

    /// Returns the texts of the checks that have found a problem.
    pub fn problems(&self) -> Vec<&str> {
        self.checks
            .iter()
            .filter(|(_, state, _)| state == "problem")
            .map(|(.., text)| text.as_str())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_and_the_exit_status_are_read() {
        let said = "{\"verdict\":\"cannot-run\",\"checks\":[{\"id\":\"cpu\",\"state\":\"ok\",\"text\":\"a\",\"advice\":null},\
                    {\"id\":\"extension\",\"state\":\"problem\",\"text\":\"b\",\"advice\":\"c\"}]}\n1\n";
        let doctor = Doctor::read(said).unwrap();
        assert_eq!((doctor.verdict.as_str(), doctor.status), ("cannot-run", 1));
        assert_eq!((doctor.with("problem"), doctor.problems()), (vec!["extension"], vec!["b"]));
        for bad in
            ["", "{}\n0\n", "{\"verdict\":\"x\",\"checks\":[{}]}\n0\n", "{\"verdict\":\"x\",\"checks\":[]}\n"]
        {
            assert!(Doctor::read(bad).is_err(), "{bad}");
        }
    }
}
