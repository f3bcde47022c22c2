//! Dumps a running kernel over the line to the debugger.

use anyhow::{Context, Result, ensure};
use vidar_core::kernel::Kernel;

use super::core_file::CoreFile;
use super::debugged::{Debugged, Test};
use crate::console::{BOOT, PROMPT};
use crate::dump as tool;
use crate::test::lane::Lane;
use crate::test::{Tools, folder};

/// Dumps a running kernel over the line to the debugger. Checks that the core has the kernel's symbols, its log, and a
/// variable at the virtual address that its symbol has, and that the kernel runs on.
pub fn dump(test: &Test, lane: Lane, tools: &Tools) -> Result<()> {
    let mut debugged = Debugged::boot(test.name, test.cpus, lane, "gdb=com2", &[], tools)?;
    debugged.console.expect(PROMPT, BOOT)?;
    debugged.console.run("echo a line for the dump >/dev/kmsg")?;
    let (version, release) = (debugged.console.run("cat /proc/version")?, debugged.console.run("uname -r")?);
    let file = folder(&debugged.folder).join("guest.core");
    tool::run(&format!("127.0.0.1:{}", debugged.relay.port()), &file)?;
    let core = CoreFile::read(&file)?;
    ensure!(core.cpus == 1, "the core has the registers of {} CPUs", core.cpus);
    let kernel = Kernel::find(&core, &core.ram()).context("the core has no kernel")?;
    ensure!(kernel.release() == release.trim(), "the core has Linux {}", kernel.release());
    let banner = kernel.address(&core, "linux_banner").context("the core has no symbol linux_banner")?;
    ensure!(core.text(banner).as_deref() == Some(&version), "linux_banner is {:?}", core.text(banner));
    let mut lines = Vec::new();
    kernel.log(&core, usize::MAX, &mut |line| lines.push(String::from_utf8_lossy(line).into_owned()));
    for wanted in ["Linux version ", "a line for the dump"] {
        ensure!(lines.iter().any(|line| line.contains(wanted)), "the log in the core has no {wanted:?}");
    }
    debugged.runs_on()
}
