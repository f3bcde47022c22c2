//! Checks what `vidarctl` says in a guest, under Vidar and bare.

use anyhow::{Context, Result, ensure};

use crate::console::Console;

/// Checks that `vidarctl` fails without Vidar, and at a wrong command, each with a sentence that says why.
pub fn check_bare(console: &mut Console) -> Result<()> {
    let said = console.run("vidarctl status 2>&1; echo $?")?;
    let sentence =
        "vidarctl: this Linux does not run under Vidar: choose an entry \"under Vidar\" in GRUB's menu\n1\n";
    ensure!(said == sentence, "`vidarctl status` said {said:?}");
    let said = console.run("vidarctl stats 2>&1; echo $?")?;
    let sentence = "vidarctl: there is no command stats: give one of the commands below\n";
    ensure!(said.starts_with(sentence) && said.ends_with("\n2\n"), "`vidarctl stats` said {said:?}");
    Ok(())
}

/// Runs each command of `vidarctl`. It must say that Vidar runs on `extension`.
pub fn check(console: &mut Console, extension: &str) -> Result<()> {
    let said = console.run("vidarctl status")?;
    status(&said, extension).with_context(|| format!("`vidarctl status` said {said:?}"))?;
    for (command, check) in [("exits", exits as fn(&str) -> Result<()>), ("log", log as _)] {
        let said = console.run(&format!("vidarctl {command}"))?;
        check(&said).with_context(|| format!("`vidarctl {command}` said {said:?}"))?;
    }
    Ok(())
}

/// Checks the version, the extension, the number of exits and the memory.
fn status(said: &str, extension: &str) -> Result<()> {
    let after = |label: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(label));
        line.map(str::trim_start).with_context(|| format!("there is no {label:?}"))
    };
    ensure!(
        after("Vidar ")?.starts_with(concat!(env!("CARGO_PKG_VERSION"), ",")),
        "the version is another one"
    );
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

/// Checks that the log begins with Vidar's first line.
fn log(said: &str) -> Result<()> {
    let first = concat!("vidar: Vidar ", env!("CARGO_PKG_VERSION"), ", started by ");
    ensure!(said.starts_with(first), "the log does not begin with {first:?}");
    Ok(())
}

/// The number at the beginning of the text, which may have commas between its thousands.
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
    fn each_part_of_the_status_is_checked() {
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
    fn the_exits_by_cpuid_and_the_total_are_checked() {
        for (from, to) in [("1,158", "0"), ("cpuid", "rdmsr"), ("1,163", "0"), ("total", "sum")] {
            fails(exits, EXITS, from, to);
        }
    }

    #[test]
    fn the_first_line_of_the_log_is_checked() {
        fails(log, LOG, "Vidar", "Odin");
        fails(log, LOG, "vidar: Vidar", "tail\nvidar: Vidar");
    }
}
