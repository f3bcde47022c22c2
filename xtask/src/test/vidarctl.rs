//! What `vidarctl` must say in a guest, under Vidar and bare.

use anyhow::{Context, Result, ensure};

use crate::console::Console;

/// Where Vidar is not, it must say so in one sentence and fail.
pub fn check_bare(console: &mut Console) -> Result<()> {
    let said = console.run("vidarctl status 2>&1; echo $?")?;
    let sentence =
        "vidarctl: this Linux does not run under Vidar: choose an entry \"under Vidar\" in GRUB's menu\n1\n";
    ensure!(said == sentence, "`vidarctl status` said {said:?}");
    Ok(())
}

/// Asks it for everything; it must say that it runs on `extension`.
pub fn check(console: &mut Console, extension: &str) -> Result<()> {
    let said = console.run("vidarctl status")?;
    status(&said, extension).with_context(|| format!("`vidarctl status` said {said:?}"))?;
    for (command, check) in [("exits", exits as fn(&str) -> Result<()>), ("log", log as _)] {
        let said = console.run(&format!("vidarctl {command}"))?;
        check(&said).with_context(|| format!("`vidarctl {command}` said {said:?}"))?;
    }
    Ok(())
}

/// Version, vendor, exits and memory.
fn status(said: &str, extension: &str) -> Result<()> {
    let after = |label: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(label));
        line.map(str::trim_start).with_context(|| format!("there is no {label:?}"))
    };
    ensure!(after("Vidar ")?.starts_with(concat!(env!("CARGO_PKG_VERSION"), ",")), "another version");
    ensure!(after("runs on ")?.starts_with(&format!("{extension},")), "another extension");
    ensure!(number(after("exits ")?).is_some_and(|exits| exits > 0), "no exits");
    let bytes = after("memory ")?.split_once('(').and_then(|(_, bytes)| number(bytes));
    ensure!(bytes.is_some_and(|bytes| bytes > 0), "no memory");
    Ok(())
}

/// CPUID, which every kernel executes, and a total that has it in.
fn exits(said: &str) -> Result<()> {
    let of = |kind: &str| {
        let row = said.lines().find(|line| line.split_whitespace().nth(1) == Some(kind));
        row.and_then(number).with_context(|| format!("there is no number of {kind}"))
    };
    let (cpuid, total) = (of("cpuid")?, of("total")?);
    ensure!(0 < cpuid && cpuid <= total, "{cpuid} of {total} exits are those of CPUID");
    Ok(())
}

/// The log from its first line on.
fn log(said: &str) -> Result<()> {
    let first = concat!("vidar: Vidar ", env!("CARGO_PKG_VERSION"), ", started by ");
    ensure!(said.starts_with(first), "it does not begin with {first:?}");
    Ok(())
}

/// The number that the text begins with, which may have commas between its thousands.
fn number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.replace(',', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = concat!(
        "Vidar    ",
        env!("CARGO_PKG_VERSION"),
        ", hypercall ABI 1.0\nruns on  Intel VT-x, 1 CPU\nexits    1,169\n",
        "memory   2 MiB (2097152 bytes) at 0x200000-0x3fffff\n"
    );
    const EXITS: &str = "         1,158  cpuid\n             5  wrmsr\n         1,163  total\n";
    const LOG: &str = concat!("vidar: Vidar ", env!("CARGO_PKG_VERSION"), ", started by GRUB\nvidar: more\n");

    fn fails(check: fn(&str) -> Result<()>, good: &str, from: &str, to: &str) {
        check(good).unwrap();
        let bad = good.replace(from, to);
        assert!(bad != good && check(&bad).is_err(), "{from} -> {to}");
    }

    #[test]
    fn a_status_has_all_four() {
        for (from, to) in [
            (env!("CARGO_PKG_VERSION"), "9.9.9"),
            ("Intel VT-x", "AMD-V"),
            ("1,169", "0"),
            ("exits", "visits"),
            ("(2097152", "(0"),
            ("memory   2 MiB (2097152 bytes)", "memory"),
        ] {
            fails(|said| status(said, "Intel VT-x"), STATUS, from, to);
        }
    }

    #[test]
    fn exits_are_those_of_cpuid_and_others() {
        for (from, to) in [("1,158", "0"), ("cpuid", "rdmsr"), ("1,163", "0"), ("total", "sum")] {
            fails(exits, EXITS, from, to);
        }
    }

    #[test]
    fn the_log_begins_at_its_beginning() {
        fails(log, LOG, "Vidar", "Odin");
        fails(log, LOG, "vidar: Vidar", "tail\nvidar: Vidar");
    }
}
