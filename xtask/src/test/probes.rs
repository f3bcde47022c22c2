//! Guests that misbehave. The probe does what guests should not do, bare and under Vidar.

// tidy: long because it holds the table of scenarios, and the tests of the probe that need a machine of their own.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Tools;
use super::lane::Lane;
use super::refused_entry;
use super::scenario::Verdict::{AsBare, AsBareBut, Words};
use super::scenario::{ProbeRun, Scenario, contains, models, only, scenario};
use super::small::{self, GUEST, Small};
use crate::console::{ANSWER, BOOT};
use crate::grub::Menu;
use crate::machine::abilities::Ability;

/// What the probe says about CPUID under Vidar only. Each bare machine shows one of these extensions.
pub const UNDER_VIDAR: &str = "vmx=0 smx=0 svm=0";

/// Returns the scenarios of a lane.
fn scenarios(lane: Lane) -> impl Iterator<Item = &'static Scenario> {
    let own = move |scenario: &Scenario| scenario.is_in(lane) == Some(true);
    // A row for some lanes replaces the row for all lanes there.
    let for_all = move |scenario: &Scenario| {
        let has_own = SCENARIOS.iter().any(|other| own(other) && other.name == scenario.name);
        scenario.is_in(lane).is_none() && !has_own && left_out(lane).all(|(name, _)| name != scenario.name)
    };
    SCENARIOS.iter().filter(move |scenario| own(scenario) || for_all(scenario))
}

/// Returns the scenarios that the emulator of `lane` cannot show, and why.
fn left_out(lane: Lane) -> impl Iterator<Item = (&'static str, &'static str)> {
    let here = LEFT_OUT.iter().filter(move |(only, ..)| *only == lane);
    here.flat_map(|(_, names, why)| names.iter().map(|name| (*name, *why)))
}

/// Returns the names of the tests of a lane that are left out, and why.
pub fn names_left_out(lane: Lane) -> impl Iterator<Item = (String, &'static str)> {
    left_out(lane).map(move |(name, why)| (lane.test(&format!("probe/{name}")), why))
}

/// The scenarios that emulators cannot show: the lane, the scenarios, and the reason.
const LEFT_OUT: &[(Lane, &[&str], &str)] = &[
    (Lane::Svm, &["int1"], "QEMU takes INT1 for a breakpoint of its own debugger, and stops the machine"),
    (Lane::Svm, &["general-detect"], "QEMU's CPUs have no DR7.GD"),
    (
        Lane::SvmNextRip,
        &["step", "step-hypercall", "lengths", "delivery", "flags"],
        "Bochs delays the single-step trap of an instruction that exits until after the exit, and so delivers it to Vidar",
    ),
    (
        Lane::SvmKvm,
        &["quiet", "interrupts", "priority"],
        "QEMU aborts if a guest of the nested KVM writes CR8 while KVM waits until the guest can take an interrupt",
    ),
    (Lane::SvmKvm, &["nmi"], "QEMU loses NMIs for a guest of the nested KVM, on the bare machine as well"),
    (
        Lane::SvmKvm,
        &["fpu"],
        "QEMU loses the upper halves of the YMM registers of a guest of the nested KVM, on the bare machine as well",
    ),
    (
        Lane::VmxKvm,
        &["nmi"],
        "in Bochs no external interrupt causes an exit from a guest that was entered with IF clear, so NMIs of a timer come too late for \
         a guest of the nested KVM that waits for them so, on the bare machine as well",
    ),
];

/// What CPUID says under Vidar on KVM. The hypervisor bit is set as without Vidar, but KVM's leaves are hidden.
const ON_KVM: &str = "vmx=0 smx=0 svm=0 skinit=0 hypervisor=1 40000000=0:0:0:0 signature=";

/// The table of scenarios, by the probe's names. Some rows are for one lane only, since QEMU's emulated CPU has every
/// MSR, and accepts values of control registers that no real CPU accepts.
const SCENARIOS: &[Scenario] = &[
    scenario("cpuid", Words("vmx=0 smx=0 svm=0 skinit=0 hypervisor=0 signature=")),
    only(Lane::SvmKvm, "cpuid", Words(ON_KVM)),
    only(Lane::VmxKvm, "cpuid", Words(ON_KVM)),
    scenario(
        "vmx",
        Words(
            "vmxon=#UD vmxoff=#UD vmclear=#UD vmptrld=#UD vmptrst=#UD vmread=#UD vmwrite=#UD vmlaunch=#UD \
             vmresume=#UD invept=#UD invvpid=#UD vmfunc=#UD getsec=#UD",
        ),
    ),
    scenario("svm", Words("vmrun=#UD vmload=#UD vmsave=#UD stgi=#UD clgi=#UD skinit=#UD invlpga=#UD")),
    only(Lane::Vmx, "vmx-msrs", Words("reads-#GP(0)=18 writes-#GP(0)=18 write-lock=#GP(0) write-on=#GP(0)")),
    only(
        Lane::VmxKvm,
        "vmx-msrs",
        Words("reads-#GP(0)=18 writes-#GP(0)=18 write-lock=#GP(0) write-on=#GP(0)"),
    ),
    only(Lane::Svm, "vmx-msrs", AsBare),
    only(Lane::SvmKvm, "vmx-msrs", AsBare),
    scenario("svm-msrs", Words("c0010114=#GP(0)/#GP(0) c0010117=#GP(0)/#GP(0) c0010118=#GP(0)/#GP(0)")),
    only(Lane::Vmx, "unknown-msrs", AsBare),
    only(
        Lane::VmxKvm,
        "unknown-msrs",
        AsBareBut("0x11=#GP(0)/#GP(0) 0x12=#GP(0)/#GP(0) 0x4b564d00=#GP(0)/#GP(0) 0x4b564d01=#GP(0)/#GP(0)"),
    ),
    only(
        Lane::Svm,
        "unknown-msrs",
        AsBareBut(
            "0x40000000=#GP(0)/#GP(0) 0x40000021=#GP(0)/#GP(0) 0x11=#GP(0)/#GP(0) 0x12=#GP(0)/#GP(0) \
             0x4b564d00=#GP(0)/#GP(0) 0x4b564d01=#GP(0)/#GP(0)",
        ),
    ),
    only(Lane::SvmNextRip, "unknown-msrs", AsBare),
    only(
        Lane::SvmKvm,
        "unknown-msrs",
        AsBareBut("0x11=#GP(0)/#GP(0) 0x12=#GP(0)/#GP(0) 0x4b564d00=#GP(0)/#GP(0) 0x4b564d01=#GP(0)/#GP(0)"),
    ),
    only(Lane::Vmx, "efer", AsBare),
    only(Lane::VmxKvm, "efer", AsBare),
    only(Lane::SvmKvm, "efer", AsBareBut("svme=#GP(0)/0x500")),
    only(Lane::SvmNextRip, "efer", AsBareBut("svme=#GP(0)/0x500")),
    only(Lane::Svm, "efer", AsBareBut("lme=#GP(0)/0x500 svme=#GP(0)/0x500 reserved=#GP(0)/0x500")),
    scenario("xd-disable", AsBare),
    // KVM stores the bit, but it has no effect there without Vidar.
    only(Lane::VmxKvm, "xd-disable", AsBareBut("disabled=ok/1/nx:0/nxe:#GP(0)/other:ok")),
    scenario("cr4", AsBare),
    // CR4 keeps its value, with PAE, OSFXSR and OSXMMEXCPT, which the probe has set. On AMD-V Vidar leaves CR4 to the CPU.
    only(Lane::Vmx, "cr4-refused", AsBareBut("vmxe=#GP(0)/0x620 smxe=#GP(0)/0x620")),
    only(Lane::VmxKvm, "cr4-refused", AsBareBut("vmxe=#GP(0)/0x620 smxe=#GP(0)/0x620")),
    scenario("cr0", AsBare),
    only(Lane::Vmx, "cr0-refused", AsBare),
    only(Lane::VmxKvm, "cr0-refused", AsBare),
    scenario("xsetbv", AsBare),
    // KVM leaves the check of CR4.OSXSAVE to the CPU, and QEMU 10.0 does not check it.
    only(Lane::SvmKvm, "xsetbv", AsBareBut("without-osxsave=#UD")),
    scenario("invd", AsBare),
    // No emulator has microcode. They refuse the MSRs for it, or ignore writes to them.
    scenario("microcode", AsBare),
    // KVM ignores writes to the MSRs of both vendors. Vidar reads the update, and refuses MSRs that no bitmap covers.
    only(Lane::VmxKvm, "microcode", AsBareBut("update-nothing=#GP(0) loader-nothing=#GP(0) loader=#GP(0)")),
    scenario("mtrr", AsBare),
    scenario("apicbase", AsBare),
    scenario(
        "hypercall",
        Words(
            "version=ok status=ok exits=ok log=ok memory=ok commit=ok trace=off lock=off audit=off trace-of-no-cpu=bad-argument \
             0xffffffffffffffff=unknown-call cpl3-crash=0x3 cpl3-log=0x3 cpl3-trace=0x3 \
             cpl3-guard=0x3 after=ok",
        ),
    ),
    scenario("touch", Words("faults=0 region=same version=ok log=ok present=yes")),
    scenario("far", AsBare),
    only(Lane::Vmx, "msrs", AsBare),
    // For a nested guest KVM makes these two addresses canonical.
    only(Lane::VmxKvm, "msrs", AsBareBut("sysenter-esp=ok/kept/ok sysenter-eip=ok/kept/ok")),
    only(Lane::Svm, "msrs", AsBareBut("efer=ok/kept/#GP(0)")),
    only(Lane::SvmNextRip, "msrs", AsBare),
    only(Lane::SvmKvm, "msrs", AsBare),
    scenario("apicbase-vidar", Words("first=#GP(0) last=#GP(0) behind=ok")),
    // The hypercall has three bytes, and the trap comes after it with DR6.BS set.
    scenario("step-hypercall", Words("vmcall=+3:4000,+4:4000")),
    only(Lane::Vmx, "quiet", AsBare),
    only(Lane::VmxKvm, "quiet", AsBare),
    // EFER.SVME is set under Vidar and hidden from the guest, so each read of EFER exits.
    only(Lane::Svm, "quiet", AsBareBut("rdmsr-efer=ok/100")),
    only(Lane::SvmNextRip, "quiet", AsBareBut("rdmsr-efer=ok/100")),
    scenario("interrupts", AsBare),
    scenario("priority", AsBare),
    scenario("modes", AsBare),
    scenario("edge", AsBare),
    scenario("step", AsBare),
    // On the bare machine, VMMCALL is not a hypercall.
    only(Lane::Vmx, "lengths", AsBare),
    only(Lane::VmxKvm, "lengths", AsBare),
    only(Lane::SvmKvm, "lengths", AsBareBut("vmmcall=+5:4000,+6:4000")),
    only(Lane::Svm, "lengths", AsBareBut("vmmcall=+5:4000,+6:4000")),
    // On a bare machine QEMU executes some of these instructions, which real CPUs do not.
    scenario("locked", Words("cpuid=#UD cpuid-longer=#UD rdmsr=#UD wrmsr=#UD xsetbv=#UD vmmcall=#UD")),
    scenario("hidden", Words("cpuid=same")),
    scenario("shadow", AsBare),
    scenario("rf", AsBare),
    scenario("int3", AsBare),
    only(Lane::Vmx, "int1", AsBare),
    only(Lane::VmxKvm, "int1", AsBare),
    only(Lane::SvmNextRip, "int1", AsBare),
    scenario("flags", AsBare),
    only(Lane::Vmx, "general-detect", AsBare),
    only(Lane::VmxKvm, "general-detect", AsBare),
    only(Lane::SvmNextRip, "general-detect", AsBare),
    scenario("nmi", AsBare),
    scenario("delivery", AsBare),
    scenario("regs", AsBare),
    scenario("debugregs", AsBare),
    scenario("fpu", AsBare),
    models(NEWER_INTEL, "cet", AsBare),
    models(NEWER_INTEL, "shadow-stack", AsBare),
    models(NEWER_INTEL, "branches", AsBare),
    models(NEWER, "supervisor-state", AsBare),
    models(NEWER, "keys", AsBare),
    models(NEWER_INTEL, "waiting", AsBare),
    models(NEWER_INTEL, "lass", AsBare),
    models(NEWER_INTEL, "user-interrupts", AsBareBut(USER_INTERRUPTS)),
    models(&[Lane::SvmMax], "five-levels", AsBare),
    // The last one, since it takes the probe's pages from programs. Nothing is refused without the option `guard`.
    scenario("guard", AsBare),
];

/// The words that show the way of a user interrupt: it is held off across an exit, noted by the CPU without an ordinary
/// interrupt, and delivered. The other words are about the MSRs, which have to be the same as on the bare machine.
const USER_INTERRUPTS: &str = "cpuid=1 off=#UD set=ok/1 ready=ok let-in=0x1 held-off=0x0 ordinary=0 noted=0/0x0/0x20 received=0x500 then=0x0";

/// The lanes whose CPU models have the features of the last years. For AMD's models, QEMU does not emulate CET.
const NEWER: &[Lane] = &[Lane::VmxTigerLake, Lane::VmxArrowLake, Lane::SvmGenoa, Lane::SvmMax];
const NEWER_INTEL: &[Lane] = &[Lane::VmxTigerLake, Lane::VmxArrowLake];

/// Returns the run of the probe with all scenarios of a lane.
pub fn probe_run(lane: Lane) -> ProbeRun {
    ProbeRun { name: "probe", lane, cpus: 1, options: "", scenarios: scenarios(lane).collect() }
}

/// Returns the same run with the rules for entering the guest checked before each entry, and with a debugger that nobody
/// uses: the exceptions that it shares with the guest exit, and are passed on.
pub fn checked_run(lane: Lane) -> ProbeRun {
    // A debugger makes the guest exit more often.
    let scenarios = scenarios(lane).filter(|scenario| !["quiet", "interrupts"].contains(&scenario.name));
    ProbeRun {
        name: "probe-checked",
        options: "check=on gdb=com2",
        scenarios: scenarios.collect(),
        ..probe_run(lane)
    }
}

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

/// Waits for the report of a triple fault, which ends with the words `last`. It has the cause and the registers, the most
/// important last, and no line is too long.
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

/// A triple fault on the second CPU also stops the first one, and the report has the state of both. QEMU resets a boot CPU that gets an INIT, even if the
/// hypervisor intercepts it. So there Vidar sends none, and the test has the machine reset instead of halted.
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

/// One CPU asks for a report while the other hangs with interrupts off. The report says where that one hangs: at the jump after the
/// three instructions of nine bytes with which it begins.
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
    let small = Small { cmdline, survives_triple_fault: true, ..usual(place)? };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scenario_is_in_a_lane_once_or_left_out() {
        for lane in Lane::ALL.into_iter().chain(Lane::MORE).chain([Lane::VmxKvm]) {
            let names: Vec<_> = scenarios(lane).map(|scenario| scenario.name).collect();
            for name in &names {
                assert_eq!(names.iter().filter(|other| *other == name).count(), 1, "{lane:?} {name}");
            }
            for (name, _) in left_out(lane) {
                let known = SCENARIOS.iter().any(|scenario| scenario.name == name);
                assert!(known && !names.contains(&name), "{lane:?} {name}");
            }
        }
    }
}
