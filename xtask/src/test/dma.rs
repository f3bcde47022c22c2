//! The guard of Vidar's memory against devices. The probe attacks with a device's DMA engine and with the IOMMU's own
//! queue, on a machine that has both. Without the guard, the attacks succeed.

use anyhow::{Context, Result, ensure};

use super::Tools;
use super::lane::Lane;
use super::scenario::contains;
use super::small::{GUEST, Small};
use crate::console::{ANSWER, BOOT};
use crate::grub::Menu;
use crate::machine::Iommu;

/// A test: its name, and its function.
pub type Test = (&'static str, fn(&'static str, &Tools) -> Result<()>);

/// The tests, which need QEMU's IOMMUs.
pub const TESTS: [Test; 3] = [
    ("dma/attack-refused", refused),
    ("dma/attack-succeeds-unguarded", unguarded),
    ("dma/amd-vi-is-said-not-to-guard", amd_vi),
];

/// What the device writes, and the 32 bits that the IOMMU writes 16 bytes later.
const MARK: &[u8] = b"attacked";
const QUEUED: [u8; 4] = 0x5566_7788_u32.to_le_bytes();

/// Returns the machine in which the probe runs, with an IOMMU.
fn machine(name: &str, iommu: Iommu, options: &str, tools: &Tools) -> Result<Small> {
    let menu = Menu { default: Some(GUEST.to_owned()), options: options.to_owned(), ..Menu::default() };
    Ok(Small {
        name: Lane::Svm.folder(name),
        lane: Lane::Svm,
        kernel: tools.probe()?.to_vec(),
        cmdline: "probe=dma,triple".to_owned(),
        menu,
        memory: 256,
        attacker: Some(iommu),
        survives_triple_fault: true,
        ..Small::default()
    })
}

/// Boots the probe with `options`. Returns what it says of the attacks, and the memory of the target afterwards.
fn attack(name: &str, options: &str, tools: &Tools) -> Result<(String, String, Vec<u8>)> {
    let mut booted = machine(name, Iommu::Intel, options, tools)?.boot(tools)?;
    let log = booted.console.expect("probe dma: ", BOOT)?;
    let said = booted.console.expect("\r\n", ANSWER)?;
    let target = said.split("target=").nth(1).and_then(|rest| rest.split_whitespace().next());
    let target = target.and_then(|number| u64::from_str_radix(number.trim_start_matches("0x"), 16).ok());
    let target = target.with_context(|| format!("the probe names no target: {said}"))?;
    // From the crash on the machine stays as it is.
    booted.console.expect("the guest has stopped on CPU 0: triple fault", ANSWER)?;
    let memory = booted.running.monitor()?.physical(target, 32)?;
    Ok((log, said, memory))
}

/// With the guard, neither device writes to Vidar's memory, the first is named, and the probe's own memory is written.
fn refused(name: &'static str, tools: &Tools) -> Result<()> {
    let (log, said, memory) = attack(name, "dma=guard on-crash=halt", tools)?;
    contains(&log, "DMA: guarded, by VT-d; IOMMUs: 1")?;
    for words in [
        "own=written widths=0x0 status=0x0 state=0 units=1 faults=1 first=0x20/write/0x3ff000",
        "queue=written head=0x20 read=other",
        "present=yes",
    ] {
        contains(&said, words)?;
    }
    ensure!(memory == [0; 32], "Vidar's memory has changed: {memory:x?}");
    Ok(())
}

/// Without the guard, both devices write to Vidar's memory. This shows that the attacks are attacks.
fn unguarded(name: &'static str, tools: &Tools) -> Result<()> {
    let (log, said, memory) = attack(name, "on-crash=halt", tools)?;
    contains(&log, "DMA: not guarded: the boot option dma=guard is not given")?;
    contains(
        &said,
        "own=written widths=0x6 status=0x0 state=2 units=1 faults=0 queue=written head=0x20 read=mark ",
    )?;
    ensure!(memory.starts_with(MARK) && memory[16..20] == QUEUED, "Vidar's memory is kept: {memory:x?}");
    Ok(())
}

/// On a machine with AMD-Vi, a warning says that the option has no effect.
fn amd_vi(name: &'static str, tools: &Tools) -> Result<()> {
    let mut booted = machine(name, Iommu::Amd, "dma=guard", tools)?.boot(tools)?;
    let said = "warning: DMA: not guarded: this machine has AMD-Vi, which Vidar does not drive; dma=guard has no effect";
    booted.console.expect(said, BOOT)?;
    Ok(())
}
