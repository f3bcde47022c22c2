//! Checks what `vidarctl` says in a guest, under Vidar and bare.

use anyhow::{Context, Result, ensure};
use vidar_abi::Commit;

use super::doctor::Doctor;
use super::lane::Lane;
use crate::console::Console;

/// What `vidarctl trace` says, and its exit status, if Vidar was booted without `trace=on`.
const TRACE_IS_OFF: &str = "vidarctl: Vidar keeps no trace of the exits: boot with its option trace=on, which is in GRUB's menu\n1\n";

/// Checks that `vidarctl` fails without Vidar, and at a wrong command, each with a sentence that says why, and that it
/// calls the machine one on which Vidar can run.
pub fn check_bare(console: &mut Console, lane: Lane) -> Result<()> {
    let said = console.run("vidarctl status 2>&1; echo $?")?;
    let sentence =
        "vidarctl: this Linux does not run under Vidar: choose an entry \"under Vidar\" in GRUB's menu\n1\n";
    ensure!(said == sentence, "`vidarctl status` said {said:?}");
    let said = console.run("vidarctl stats 2>&1; echo $?")?;
    let sentence = "vidarctl: there is no command stats: give one of the commands below\n";
    ensure!(said.starts_with(sentence) && said.ends_with("\n2\n"), "`vidarctl stats` said {said:?}");
    let (doctor, said) = Doctor::ask(console)?;
    // Without the module msr, a Linux before 6.8 does not know if firmware has switched AMD-V off.
    let unknown = if lane.usual() == Lane::Svm { &["firmware-lock"][..] } else { &[] };
    let fits = match (doctor.verdict.as_str(), doctor.status) {
        ("can-run", 0) => doctor.with("unknown").is_empty(),
        ("unknown", 3) => doctor.with("unknown") == unknown,
        _ => false,
    };
    ensure!(fits && doctor.with("problem").is_empty(), "`vidarctl doctor` said {said}");
    Ok(())
}

/// Runs each command of `vidarctl`. It must say that Vidar runs on `extension`.
pub fn check(console: &mut Console, extension: &str) -> Result<()> {
    let mut release = String::new();
    let mut run = |command: &str, check: &dyn Fn(&str, &mut String) -> Result<()>| {
        let said = console.run(&format!("vidarctl {command}"))?;
        check(&said, &mut release).with_context(|| format!("`vidarctl {command}` said {said:?}"))
    };
    run("--version", &|said, release| {
        *release = version(said)?.to_owned();
        Ok(())
    })?;
    run("status", &|said, release| status(said, release, extension))?;
    run("exits", &|said, _| exits(said))?;
    run("log", &|said, release| log(said, release))?;
    run("trace 2>&1; echo $?", &|said, _| {
        ensure!(said == TRACE_IS_OFF, "this does not say how to switch the trace on");
        Ok(())
    })?;
    let (doctor, said) = Doctor::ask(console)?;
    let fits = doctor.verdict == "under-vidar" && doctor.status == 0;
    let bad = [doctor.with("problem"), doctor.with("unknown")].concat();
    ensure!(fits && bad.is_empty(), "`vidarctl doctor` said {said}");
    Ok(())
}

/// Checks the version of `vidarctl`, which has the commit that it was built from if this is known. Returns both.
fn version(said: &str) -> Result<&str> {
    let release = said.strip_prefix("vidarctl ").and_then(|rest| rest.strip_suffix('\n'));
    let release = release.context("this is not one line with a version")?;
    let rest = release.strip_prefix(env!("CARGO_PKG_VERSION")).context("the version is another one")?;
    let commit = rest.strip_prefix(" (").and_then(|rest| rest.strip_suffix(')'));
    ensure!(rest.is_empty() || commit.and_then(Commit::parse).is_some(), "the commit has another form");
    Ok(release)
}

/// Checks that Vidar is of the same `release` as `vidarctl`, and checks the extension, the number of exits and the
/// memory.
fn status(said: &str, release: &str, extension: &str) -> Result<()> {
    let after = |label: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(label));
        line.map(str::trim_start).with_context(|| format!("there is no {label:?}"))
    };
    ensure!(after("Vidar ")?.starts_with(&format!("{release},")), "Vidar is not of the release {release:?}");
    ensure!(after("runs on ")?.starts_with(&format!("{extension},")), "the extension is another one");
    ensure!(number(after("exits ")?).is_some_and(|exits| exits > 0), "there are no exits");
    let bytes = after("memory ")?.split_once('(').and_then(|(_, bytes)| number(bytes));
    ensure!(bytes.is_some_and(|bytes| bytes > 0), "there is no size of memory");
    Ok(())
}

/// Checks the number of exits by CPUID, which every kernel executes, and the total, which includes it.
fn exits(said: &str) -> Result<()> {
    let of = |kind: &str| {
        let row = said.lines().find(|line| line.split_whitespace().nth(1) == Some(kind));
        row.and_then(number).with_context(|| format!("there is no number of {kind}"))
    };
    let (cpuid, total) = (of("cpuid")?, of("total")?);
    ensure!(0 < cpuid && cpuid <= total, "{cpuid} of {total} exits are by CPUID");
    Ok(())
}

/// Checks that the log begins with Vidar's first line, which has the `release`, and names no broken rule.
fn log(said: &str, release: &str) -> Result<()> {
    let first = format!("vidar: Vidar {release}, started by ");
    ensure!(said.starts_with(&first), "the log does not begin with {first:?}");
    names_no_rule(said)
}

/// Checks that the log names no rule for entering the guest that was broken, as it would with `check=on`.
pub fn names_no_rule(log: &str) -> Result<()> {
    let broken = log.lines().find(|line| line.contains(" is broken: "));
    ensure!(broken.is_none(), "the log says {:?}", broken.unwrap_or_default());
    Ok(())
}

/// The number at the beginning of the text, which may have commas between its thousands.
fn number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.replace(',', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: &str = "0.1.0 (0123456789ab+)";
    const STATUS: &str = "Vidar    0.1.0 (0123456789ab+), hypercall ABI 1.0\nruns on  Intel VT-x, 1 CPU\n\
        exits    1,169\nmemory   2 MiB (2097152 bytes) at 0x200000-0x3fffff\nguarded  nothing\n";
    const EXITS: &str = "         1,158  cpuid\n             5  wrmsr\n         1,163  total\n";
    const LOG: &str = "vidar: Vidar 0.1.0 (0123456789ab+), started by GRUB\nvidar: more\n";

    fn fails(check: fn(&str) -> Result<()>, good: &str, from: &str, to: &str) {
        check(good).unwrap();
        let bad = good.replace(from, to);
        assert!(bad != good && check(&bad).is_err(), "{from} -> {to}");
    }

    #[test]
    fn the_form_of_the_version_is_checked() {
        let known = concat!("vidarctl ", env!("CARGO_PKG_VERSION"), " (0123456789ab+)\n");
        assert_eq!(version(known).unwrap(), concat!(env!("CARGO_PKG_VERSION"), " (0123456789ab+)"));
        let unknown = concat!("vidarctl ", env!("CARGO_PKG_VERSION"), "\n");
        assert_eq!(version(unknown).unwrap(), env!("CARGO_PKG_VERSION"));
        for (from, to) in [
            (env!("CARGO_PKG_VERSION"), "9.9.9"),
            (" (", " "),
            ("9a", "9"),
            ("vidarctl", "vidar"),
            ("\n", "\n\n"),
        ] {
            fails(|said| version(said).map(drop), known, from, to);
        }
    }

    #[test]
    fn each_part_of_the_status_is_checked() {
        for (from, to) in [
            ("0.1.0", "9.9.9"),
            (" (0123456789ab+)", ""),
            ("ab+", "ab"),
            ("Intel VT-x", "AMD-V"),
            ("1,169", "0"),
            ("exits", "visits"),
            ("(2097152", "(0"),
            ("memory   2 MiB (2097152 bytes)", "memory"),
        ] {
            fails(|said| status(said, RELEASE, "Intel VT-x"), STATUS, from, to);
        }
    }

    #[test]
    fn the_exits_by_cpuid_and_the_total_are_checked() {
        for (from, to) in [("1,158", "0"), ("cpuid", "rdmsr"), ("1,163", "0"), ("total", "sum")] {
            fails(exits, EXITS, from, to);
        }
    }

    #[test]
    fn the_first_line_of_the_log_is_checked() {
        for (from, to) in [
            ("Vidar", "Odin"),
            ("vidar: Vidar", "tail\nvidar: Vidar"),
            ("0.1.0", "0.1.1"),
            ("ab+", "ba+"),
            ("more", "error: rule C1 is broken: "),
        ] {
            fails(|said| log(said, RELEASE), LOG, from, to);
        }
    }
}
