//! The tests of the probe that need machines of their own: crashes, resets, and boot options.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Tools;
use super::lane::Lane;
use super::probes::UNDER_VIDAR;
use super::refused_entry;
use super::scenario::contains;
use super::small::{self, GUEST, Small};
use crate::console::{ANSWER, BOOT};
use crate::grub::Menu;
use crate::machine::abilities::Ability;

/// The lane and the folder in which a test runs.
#[derive(Debug)]
pub struct Place<'a> {
    lane: Lane,
    folder: String,
    tools: &'a Tools,
}

impl<'a> Place<'a> {
    fn new(lane: Lane, name: &str, tools: &'a Tools) -> Self {
        Self { lane, folder: lane.folder(name), tools }
    }
}

fn usual(place: &Place<'_>) -> Result<Small> {
    Ok(Small {
        name: place.folder.clone(),
        lane: place.lane,
        kernel: place.tools.probe()?.to_vec(),
        memory: 256,
        cpu: place.lane.cpu(),
        ..Small::default()
    })
}

/// A test with a machine of its own.
#[derive(Debug)]
pub struct Single {
    /// The test's name.
    pub name: &'static str,
    /// The only lane in which the test runs; `None` means all.
    lane: Option<Lane>,
    /// What the emulator must be able to do, besides running the lane.
    pub needs: &'static [Ability],
    check: fn(&Place<'_>) -> Result<()>,
}

/// The only one of these tests that also runs on a nested KVM in Bochs. Linux would need minutes to boot again there.
pub const RESET: &str = "probe/reset-cf9";
/// The only one of these tests that also runs on a nested KVM in QEMU: there an INIT has an effect of its own.
pub const CRASH_OF_ANOTHER_CPU: &str = "smp/crash-of-another-cpu";

/// The table of tests with machines of their own.
pub const SINGLES: &[Single] = &[
    single("iso/boots-from-disk", boots_from_disk),
    single("probe/crash-halts", crash_halts),
    single("probe/crash-resets", crash_resets),
    single("probe/crash-requested", crash_requested),
    single("probe/crash-log-is-damaged", crash_log_is_damaged),
    single(CRASH_OF_ANOTHER_CPU, crash_of_another_cpu),
    only_in(Lane::Vmx, "smp/crash-while-another-hangs", crash_while_another_hangs),
    single("probe/reset-keyboard", |place| resets(place, "reset-keyboard")),
    single("probe/reset-fast", |place| resets(place, "reset-fast")),
    single(RESET, |place| resets(place, "reset-cf9")),
    only_in(Lane::Svm, "smp/init-of-the-boot-cpu", init_of_the_boot_cpu),
    single("probe/hypervisor-bit-on", hypervisor_bit_on),
    single("probe/unknown-option", unknown_option),
    only_in(Lane::Vmx, "probe/xd-disable-works", xd_disable_works),
    Single {
        needs: &[Ability::BochsDebugger],
        ..only_in(Lane::Vmx, "probe/entry-refused-host", entry_refused_for_the_host)
    },
    Single {
        needs: &[Ability::BochsDebugger],
        ..only_in(Lane::Vmx, "probe/entry-refused-guest", |place| {
            refused_entry::guest(usual(place)?, place.tools)
        })
    },
    only_in(Lane::Svm, "probe/on-another-hypervisor", on_another_hypervisor),
];

const fn single(name: &'static str, check: fn(&Place<'_>) -> Result<()>) -> Single {
    Single { name, lane: None, needs: &[], check }
}

const fn only_in(lane: Lane, name: &'static str, check: fn(&Place<'_>) -> Result<()>) -> Single {
    Single { lane: Some(lane), ..single(name, check) }
}

impl Single {
    /// Returns true if the test runs in `lane`.
    pub fn is_in(&self, lane: Lane) -> bool {
        self.lane.is_none_or(|only| only == lane.usual())
    }

    /// Runs the test.
    pub fn run(&self, lane: Lane, tools: &Tools) -> Result<()> {
        (self.check)(&Place::new(lane, self.name, tools))
    }
}

/// The ISO is hybrid, so it also boots if it is written to a disk.
fn boots_from_disk(place: &Place<'_>) -> Result<()> {
    let small = Small { cmdline: "probe=cpuid".to_owned(), disk: true, ..usual(place)? };
    let mut booted = small.boot(place.tools)?;
    booted.console.expect("probe cpuid: ", BOOT)?;
    contains(&booted.console.expect("\r\n", ANSWER)?, UNDER_VIDAR)
}

fn with_options(place: &Place<'_>, cmdline: &str, options: &str) -> Result<small::BootedGuest> {
    let menu = Menu { default: Some(GUEST.to_owned()), options: options.to_owned(), ..Menu::default() };
    // The machine must survive a triple fault and a reset.
    Small { cmdline: cmdline.to_owned(), menu, survives_triple_fault: true, ..usual(place)? }
        .boot(place.tools)
}

/// Waits for `words`. It is an error if the machine starts once more before it says them.
fn in_this_boot(booted: &mut small::BootedGuest, words: &str, time: Duration) -> Result<()> {
    let before = booted.console.expect(words, time)?;
    ensure!(!before.contains("probe: hello"), "the machine was reset before it said {words:?}");
    Ok(())
}

/// The longest line of a report. Each fits on a screen of 80 columns.
const LONGEST_LINE: usize = 79;

/// Waits for the report of a triple fault, which ends with the words `last`. It has the cause and the registers, the
/// most important last, and no line is too long.
fn crash_report(booted: &mut small::BootedGuest, last: &str) -> Result<()> {
    says_nothing_of_the_last_start(&booted.console.expect("probe: hello", BOOT)?)?;
    in_this_boot(booted, "probe triple: now", ANSWER)?;
    in_this_boot(booted, "the guest has stopped on CPU 0: triple fault", ANSWER)?;
    let report = booted.console.expect(last, ANSWER)?;
    let mut rest = report.as_str();
    for register in ["cs ", "idtr ", "rip ", "rflags ", "rax ", "rsp ", "cr2 ", "cr0 "] {
        let (_, after) = rest
            .split_once(register)
            .with_context(|| format!("{register} is not in its place in: {report}"))?;
        rest = after;
    }
    let too_long = report.lines().find(|line| line.len() > LONGEST_LINE);
    ensure!(too_long.is_none(), "a line of the report is too long: {too_long:?}");
    Ok(())
}

/// Checks that the report has these words in a row.
fn says(report: &str, words: &str) -> Result<()> {
    ensure!(report.contains(words), "{words:?} is not in: {report}");
    Ok(())
}

fn crash_halts(place: &Place<'_>) -> Result<()> {
    let mut booted = with_options(place, "probe=triple", "on-crash=halt")?;
    crash_report(&mut booted, "the machine is halted (on-crash=halt)\r\n")?;
    let more = booted.console.listen(Duration::from_secs(2));
    ensure!(more.is_empty(), "after the report there was more: {more}");
    ensure!(booted.running.ended(Duration::ZERO)?.is_none(), "the machine did not stay on");
    Ok(())
}

fn crash_resets(place: &Place<'_>) -> Result<()> {
    let mut booted = with_options(place, "probe=triple", "on-crash=reset")?;
    crash_report(&mut booted, "the machine is reset (on-crash=reset)")?;
    // After the reset, the menu starts the same guest again, and Vidar shows the report once more.
    let start = booted.console.expect("probe: hello", BOOT)?;
    contains(&start, LAST_START)?;
    contains(&start, "guest has stopped on CPU 0: triple fault\r\n| ")
}

/// How Vidar begins to show the report in which the last start has ended.
const LAST_START: &str = "vidar: warning: the last start ended in: the ";

/// Checks that nothing is shown of the last start.
fn says_nothing_of_the_last_start(said: &str) -> Result<()> {
    ensure!(!said.contains("last start"), "Vidar speaks of the last start: {said}");
    Ok(())
}

/// Vidar shows no report that has changed in memory. At each start, the menu changes one byte of the log of the start
/// before.
fn crash_log_is_damaged(place: &Place<'_>) -> Result<()> {
    /// The first byte of the text of the first log: behind a page of the region, and the numbers of the log.
    const DAMAGE: &str = "write_byte 0x201030 0x58";
    let options = "on-crash=reset".to_owned();
    let menu = Menu { default: Some(GUEST.to_owned()), options, last: &[DAMAGE], ..Menu::default() };
    let cmdline = "probe=triple".to_owned();
    let mut booted =
        Small { cmdline, menu, survives_triple_fault: true, ..usual(place)? }.boot(place.tools)?;
    crash_report(&mut booted, "the machine is reset (on-crash=reset)")?;
    says_nothing_of_the_last_start(&booted.console.expect("probe: hello", BOOT)?)
}

/// A program at CPL 3 asks for a crash report. It is refused until it may write to the reset control register.
fn crash_requested(place: &Place<'_>) -> Result<()> {
    let mut booted = with_options(place, "probe=crash", "on-crash=halt")?;
    booted.console.expect("probe: hello", BOOT)?;
    in_this_boot(&mut booted, "probe crash: now with port 0xcf8\r\nprobe crash: survived\r\n", ANSWER)?;
    in_this_boot(&mut booted, "probe crash: now with port 0xcf9\r\n", ANSWER)?;
    in_this_boot(&mut booted, "the guest has stopped on CPU 0: a program in the guest has asked", ANSWER)?;
    let report = booted.console.expect("the machine is halted (on-crash=halt)\r\n", ANSWER)?;
    says(&report, "cpl 3\r\n  rax 0000000000000006")?;
    ensure!(!report.contains("survived"), "the guest went on: {report}");
    Ok(())
}

/// A triple fault on the second CPU also stops the first one, and the report has the state of both. QEMU resets a boot
/// CPU that gets an INIT, even if the hypervisor intercepts it. So there Vidar sends none, and the test has the machine
/// reset instead of halted.
fn crash_of_another_cpu(place: &Place<'_>) -> Result<()> {
    let halts = place.lane == Lane::Vmx;
    let options = format!("cpu-startup=emulated on-crash={}", if halts { "halt" } else { "reset" });
    let menu = Menu { default: Some(GUEST.to_owned()), options, ..Menu::default() };
    let cmdline = "probe=triple-other".to_owned();
    let small = Small { cmdline, menu, cpus: 2, survives_triple_fault: true, ..usual(place)? };
    let mut booted = small.boot(place.tools)?;
    booted.console.expect("probe: hello", BOOT)?;
    in_this_boot(&mut booted, "the guest has stopped on CPU 1: triple fault", ANSWER)?;
    if halts {
        let report = booted.console.expect("the machine is halted (on-crash=halt)\r\n", ANSWER)?;
        says(&report, "the other CPUs, which this one has stopped:\r\n  CPU 0 rip ")?;
        says(&report, "the state of CPU 1:\r\n")?;
        says(&report, "CPU 1 stopped at 0x")?;
        let more = booted.console.listen(Duration::from_secs(5));
        ensure!(more.is_empty(), "after the report there was more: {more}");
    } else {
        let report = booted.console.expect("probe: hello", BOOT)?;
        says(&report, "the other CPUs run on, since")?;
    }
    Ok(())
}

/// One CPU asks for a report while the other hangs with interrupts off. The report says where that one hangs: at the
/// jump after the three instructions of nine bytes with which it begins.
fn crash_while_another_hangs(place: &Place<'_>) -> Result<()> {
    let options = "cpu-startup=emulated on-crash=halt".to_owned();
    let menu = Menu { default: Some(GUEST.to_owned()), options, ..Menu::default() };
    let small = Small { cmdline: "probe=crash-while-other-hangs".to_owned(), menu, cpus: 2, ..usual(place)? };
    let mut booted = small.boot(place.tools)?;
    booted.console.expect("probe: hello", BOOT)?;
    in_this_boot(&mut booted, "the guest has stopped on CPU 0: a program in the guest has asked", ANSWER)?;
    let report = booted.console.expect("the machine is halted (on-crash=halt)\r\n", ANSWER)?;
    says(&report, "the other CPUs, which this one has stopped:\r\n  CPU 1 rip 0000000000000009 rsp ")
}

/// The guest resets the machine in one of a PC's ways. Vidar and the guest then start again.
fn resets(place: &Place<'_>, scenario: &str) -> Result<()> {
    let cmdline = format!("probe={scenario}");
    starts_again(place, scenario, Small { cmdline, survives_triple_fault: true, ..usual(place)? })
}

/// The boot CPU sends itself an INIT where Vidar starts CPUs. It goes on in the guest, where the firmware resets the
/// machine.
fn init_of_the_boot_cpu(place: &Place<'_>) -> Result<()> {
    let options = "guard=data".to_owned();
    let menu = Menu { default: Some(GUEST.to_owned()), options, ..Menu::default() };
    let cmdline = "probe=init".to_owned();
    let small = Small { cmdline, menu, cpus: 2, survives_triple_fault: true, ..usual(place)? };
    starts_again(place, "init", small)
}

/// The guest resets the machine in its scenario, and Vidar and the guest then start again.
fn starts_again(place: &Place<'_>, scenario: &str, small: Small) -> Result<()> {
    let mut booted = small.boot(place.tools)?;
    booted.console.expect("probe: hello", BOOT)?;
    in_this_boot(&mut booted, &format!("probe {scenario}: now"), ANSWER)?;
    booted.console.expect("vidar: ", BOOT)?;
    says_nothing_of_the_last_start(&booted.console.expect("probe: hello", BOOT)?)
}

fn hypervisor_bit_on(place: &Place<'_>) -> Result<()> {
    let mut booted = with_options(place, "probe=cpuid", "hypervisor-bit=on")?;
    booted.console.expect("probe cpuid: ", BOOT)?;
    contains(&booted.console.expect("\r\n", ANSWER)?, "hypervisor=1 signature=VidarVMM")
}

/// By default, CPUID of QEMU's CPUs has the hypervisor bit and names TCG. The guest sees the bit, as it does without
/// Vidar, but none of the leaves. MSRs that no map covers are refused, although QEMU would accept all of them.
fn on_another_hypervisor(place: &Place<'_>) -> Result<()> {
    let cmdline = "probe=cpuid,hypercall,unknown-msrs".to_owned();
    let small = Small { cmdline, cpu: Some("EPYC"), ..usual(place)? };
    let mut booted = small.boot(place.tools)?;
    booted.console.expect("probe cpuid: ", BOOT)?;
    let nothing = "40000000=0:0:0:0 40000001=0:0:0:0 signature=";
    contains(&booted.console.expect("\r\n", ANSWER)?, &format!("hypervisor=1 {nothing}"))?;
    booted.console.expect("probe hypercall: ", BOOT)?;
    contains(&booted.console.expect("\r\n", ANSWER)?, "version=ok")?;
    booted.console.expect("probe unknown-msrs: ", BOOT)?;
    let said = booted.console.expect("\r\n", ANSWER)?;
    ["0x2000", "0x80000000", "0xbfffffff", "0xc0002000", "0xffffffff", "0x4b564d00", "0x11", "0x12"]
        .iter()
        .try_for_each(|index| contains(&said, &format!("{index}=#GP(0)/#GP(0)")))
}

/// XD Bit Disable works as on Intel's CPUs. Bochs has no IA32_MISC_ENABLE and is told to ignore accesses to it, so the
/// bit's effect comes from Vidar alone.
fn xd_disable_works(place: &Place<'_>) -> Result<()> {
    let small = Small { cmdline: "probe=xd-disable".to_owned(), lenient_msrs: true, ..usual(place)? };
    let mut booted = small.boot(place.tools)?;
    booted.console.expect("probe xd-disable: ", BOOT)?;
    let words = "disabled=ok/1/nx:0/nxe:#GP(0)/other:ok enabled=ok/0/nx:1/nxe:ok/other:ok";
    contains(&booted.console.expect("\r\n", ANSWER)?, words)
}

fn entry_refused_for_the_host(place: &Place<'_>) -> Result<()> {
    refused_entry::host(usual(place)?, place.tools)
}

fn unknown_option(place: &Place<'_>) -> Result<()> {
    let mut booted = with_options(place, "probe=cpuid", "colour=red")?;
    booted.console.expect("warning: there is no option \"colour\"; the options are log, ", BOOT)?;
    booted.console.expect("probe: done", ANSWER)?;
    Ok(())
}
