//! Guests that misbehave. The probe does what guests should not do, bare and under Vidar: the table of its scenarios.

use super::lane::Lane;
use super::scenario::Verdict::{AsBare, AsBareBut, Words};
use super::scenario::{ProbeRun, Scenario, models, only, scenario};

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
    // CR4 keeps its value, with PAE, OSFXSR and OSXMMEXCPT, which the probe has set. On AMD-V Vidar leaves CR4 to the
    // CPU.
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

/// Returns the same run with the rules for entering the guest checked before each entry, and with a debugger that
/// nobody uses: the exceptions that it shares with the guest exit, and are passed on.
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
