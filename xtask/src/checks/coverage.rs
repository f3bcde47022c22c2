//! Prints which lines of the package that only decides the tests of the host execute, a row for each room.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{PACKAGE, SOURCE};
use crate::{build, packages, paths, progress};

/// The tests, compiled so that they count what they execute.
const TESTS: [&str; 7] = [
    "test",
    "--quiet",
    "-p",
    PACKAGE,
    "--lib",
    "--tests",
    "--config=build.rustflags=['-Cinstrument-coverage']",
];

/// Lines of a room: all that can be executed, and those that were.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Lines {
    all: usize,
    executed: usize,
}

impl Lines {
    fn add(&mut self, executed: bool) {
        self.all += 1;
        self.executed += usize::from(executed);
    }

    fn row(self, name: &str) -> String {
        let percent = 100.0 * self.executed as f64 / self.all.max(1) as f64;
        format!("{name:<12} {:>6} of {:>6} lines {percent:>6.1} %", self.executed, self.all)
    }
}

/// Runs the tests and prints the table.
pub fn run() -> Result<()> {
    let host = host()?;
    let [profdata, cov] = tools(&host)?;
    let folder = paths::target().join("coverage");
    let profiles = folder.join("profiles");
    let _ = fs::remove_dir_all(&profiles);
    let profiles = paths::ensure(profiles)?;
    let programs = test_programs(&host, &folder)?;
    let mut cargo = build::cargo_command_into(&folder, &TESTS);
    // With a target named, programs that only run while others are built count nothing.
    cargo.args(["--target", &host]);
    cargo.env("LLVM_PROFILE_FILE", profiles.join("%p-%m.profraw")).stdout(Stdio::null());
    progress::step("running the tests", || {
        let passed = cargo.status().context("cannot run cargo")?.success();
        if passed { Ok(()) } else { bail!("a test failed; `cargo xtask test --filter host` says which") }
    })?;

    let merged = folder.join("merged.profdata");
    let mut merge = Command::new(profdata);
    output(merge.args(["merge", "--sparse", "--output"]).arg(&merged).arg(&profiles))?;
    let mut export = Command::new(cov);
    export.args(["export", "--format=lcov", "--instr-profile"]).arg(&merged);
    for program in &programs {
        export.arg("--object").arg(program);
    }
    let rooms = rooms(&output(&mut export)?, &paths::root().join(SOURCE))?;
    let mut total = Lines::default();
    for (room, lines) in &rooms {
        println!("{}", lines.row(room));
        total.all += lines.all;
        total.executed += lines.executed;
    }
    println!("{}", total.row("total"));
    Ok(())
}

/// Returns the target that the compiler itself runs on.
fn host() -> Result<String> {
    let version = output(Command::new("rustc").arg("-vV").current_dir(paths::root()))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    Ok(host.to_owned())
}

/// Where llvm-profdata and llvm-cov are, in this order: rustup brings those that fit the compiler.
fn tools(host: &str) -> Result<[PathBuf; 2]> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(paths::root()))?;
    let folder = Path::new(sysroot.trim()).join("lib/rustlib").join(host).join("bin");
    let tools = ["llvm-profdata", "llvm-cov"].map(|tool| folder.join(tool));
    if tools.iter().all(|tool| tool.is_file()) {
        return Ok(tools);
    }
    if !packages::has_program("rustup") {
        bail!(
            "llvm-profdata and llvm-cov of this Rust are missing, and there is no rustup here that could add them"
        );
    }
    progress::step("adding Rust's component llvm-tools", || {
        output(Command::new("rustup").args(["component", "add", "llvm-tools"]).current_dir(paths::root()))
            .map(drop)
    })?;
    Ok(tools)
}

/// Builds the tests and returns their programs.
fn test_programs(host: &str, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut cargo = build::cargo_command_into(folder, &TESTS);
    cargo.args(["--target", host, "--no-run", "--message-format=json"]).stderr(Stdio::inherit());
    let text = progress::step("building the tests", || output(&mut cargo))?;
    let program = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    };
    Ok(text.lines().filter_map(program).collect())
}

/// What the command prints.
fn output(command: &mut Command) -> Result<String> {
    let output =
        command.output().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!(
            "{} failed: {}",
            command.get_program().display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads a report in lcov's format, for the files below `source`. Lines of tests do not count.
fn rooms(report: &str, source: &Path) -> Result<BTreeMap<String, Lines>> {
    let mut rooms = BTreeMap::new();
    let mut current = None;
    for line in report.lines() {
        if let Some(file) = line.strip_prefix("SF:").map(Path::new) {
            current = match file.strip_prefix(source) {
                Ok(place) => {
                    let text = fs::read_to_string(file)
                        .with_context(|| format!("cannot read {}", file.display()))?;
                    // A file outside of all rooms has a row of its own.
                    let room = place.iter().next().unwrap_or_default().to_string_lossy().into_owned();
                    Some((room, tests(&text)))
                }
                // Another crate, or the standard library.
                Err(_) => None,
            };
        } else if let Some((room, tests)) = &current
            && let Some((number, count)) = line.strip_prefix("DA:").and_then(|line| line.split_once(','))
        {
            let number: usize = number.parse().context("llvm-cov names a line that is no number")?;
            if !tests.get(number - 1).is_some_and(|test| *test) {
                rooms.entry(room.clone()).or_insert_with(Lines::default).add(count != "0");
            }
        }
    }
    Ok(rooms)
}

/// Says of each line of a file, as rustfmt leaves it, if it belongs to tests: to a module that is compiled for them
/// alone.
fn tests(text: &str) -> Vec<bool> {
    let mut inside = false;
    let mut attribute = false;
    text.lines()
        .map(|line| {
            inside |= attribute && line.contains("mod ") && line.ends_with('{');
            attribute = line == "#[cfg(test)]";
            let belongs = inside;
            inside &= line != "}";
            belongs
        })
        .collect()
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn lines_of_tests_are_known() {
        let text = "fn a() {\n}\n#[cfg(test)]\nuse b;\n#[cfg(test)]\nmod tests {\n    }\n}\nfn c() {}\n";
        let expected = [false, false, false, false, false, true, true, true, false];
        assert_eq!(tests(text), expected);
    }

    #[test]
    fn a_report_is_counted_by_room() {
        let folder = tempfile::tempdir().unwrap();
        let file = |place: &str, text: &str| {
            let path = folder.path().join(place);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let one = file("vmm/a.rs", "fn a() {}\nfn b() {}\n#[cfg(test)]\nmod tests {\n    fn c() {}\n}\n");
        let other = file("mem/b.rs", "fn d() {}\n");
        let report =
            format!("SF:{one}\nDA:1,7\nDA:2,0\nDA:5,1\nend_of_record\nSF:{other}\nDA:1,1\nend_of_record\n");
        let rooms = rooms(&report, folder.path()).unwrap();
        assert_eq!(rooms["vmm"], Lines { all: 2, executed: 1 });
        assert_eq!(rooms["mem"], Lines { all: 1, executed: 1 });
        assert_eq!(rooms["vmm"].row("vmm"), "vmm               1 of      2 lines   50.0 %");
    }
}
