//! Scenarios of the probe that need a second CPU. The first CPU starts it, gives it work, and sends it an INIT.

use super::lane::Lane;
use super::scenario::Verdict::{AsBare, AsBareBut};
use super::scenario::{ProbeRun, Scenario, models, scenario};
use crate::machine::abilities::Ability;

/// A machine with two CPUs, and the option that says who starts the second one.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    lane: Lane,
    name: &'static str,
    options: &'static str,
    needs: Option<Ability>,
}

const STARTED_BY_VIDAR: &str = "cpu-startup=emulated";

/// The table of machines.
pub const PAIRS: [Pair; 5] = [
    Pair { lane: Lane::Vmx, name: "pair-started-by-vidar", options: STARTED_BY_VIDAR, needs: None },
    Pair { lane: Lane::VmxArrowLake, name: "pair", options: "", needs: Some(Ability::BochsInit) },
    Pair { lane: Lane::VmxTigerLake, name: "pair-started-by-vidar", options: STARTED_BY_VIDAR, needs: None },
    Pair { lane: Lane::Svm, name: "pair", options: "", needs: Some(Ability::QemuNestedRealMode) },
    Pair { lane: Lane::SvmMax, name: "pair", options: "", needs: Some(Ability::QemuNestedRealMode) },
];

/// The lanes in Bochs in which Vidar starts the second CPU, and the other lanes.
const STARTED_IN_BOCHS: &[Lane] = &[Lane::Vmx, Lane::VmxTigerLake];
const OTHERS: &[Lane] = &[Lane::VmxArrowLake, Lane::Svm, Lane::SvmMax];

/// The models whose other CPU is reset by an INIT under Vidar as well, and those on which the INIT, or a call in its
/// place, exits and Vidar does what the INIT would have done.
const BY_RESET: &[Lane] = &[Lane::Svm, Lane::SvmMax];
const BY_EXIT: &[Lane] = &[Lane::Vmx, Lane::VmxTigerLake, Lane::VmxArrowLake];

/// The state of the other CPU's local APIC after an INIT in x2APIC mode: the mode and the IDs stay (Intel SDM Vol. 3A,
/// 11.12.5.1 "x2APIC States"). The INIT of Bochs goes back to xAPIC mode.
const STAYS_IN_X2APIC_MODE: &str = "by-id-base=0xfee00c00 by-id-id=0x1 by-id-logical=0x2 by-id-spurious=0xff \
     to-others-base=0xfee00c00 to-others-id=0x1 to-others-logical=0x2 to-others-spurious=0xff";

/// The scenarios in the order in which they run. The last two leave the local APICs in another mode.
///
/// An INIT leaves the MSRs of SYSCALL, CR0.CD and CR0.NW unchanged, clears CR2, and puts the CPU's signature into EDX
/// (Intel SDM Vol. 3A, 10.1.1 "Processor State After Reset"). Vidar does so, while Bochs does not. Vidar also refuses
/// reserved bits of the interrupt command register where it intercepts writes to it, while Bochs accepts them. Where an
/// INIT exits, interrupts that were requested and not yet served stay requested, since Vidar cannot take them back. On
/// AMD-V the second CPU starts with its caches on. QEMU does not apply the guest's PAT, so the guest reads Vidar's
/// until it has written its own.
const SCENARIOS: &[Scenario] = &[
    scenario("other-wherever", AsBare),
    models(
        &[Lane::Vmx],
        "other-registers",
        AsBareBut("star=kept fmask=kept kernel-gs-base=kept cr2=0 edx=signature"),
    ),
    models(
        &[Lane::VmxTigerLake, Lane::VmxArrowLake],
        "other-registers",
        AsBareBut("star=kept fmask=kept kernel-gs-base=kept cr0=10 cr2=0 edx=signature"),
    ),
    models(&[Lane::Svm, Lane::SvmMax], "other-registers", AsBareBut("cr0=10 pat=0x707050100070406")),
    models(&[Lane::VmxTigerLake, Lane::VmxArrowLake], "other-cet", AsBare),
    scenario("other-apic", AsBare),
    scenario("other-guard", AsBare),
    models(BY_RESET, "other-requested", AsBare),
    models(BY_EXIT, "other-requested", AsBareBut("requested-after=35,55 came=2")),
    models(
        STARTED_IN_BOCHS,
        "x2apic",
        AsBareBut(
            "bit-12=#GP(0)/0/0 bit-13=#GP(0)/0/0 bit-16=#GP(0)/0/0 bit-20=#GP(0)/0/0 bit-31=#GP(0)/0/0",
        ),
    ),
    models(OTHERS, "x2apic", AsBare),
    models(BY_RESET, "x2apic-start-up", AsBare),
    models(BY_EXIT, "x2apic-start-up", AsBareBut(STAYS_IN_X2APIC_MODE)),
];

impl Pair {
    /// Returns the run of the probe in this machine.
    pub fn probe_run(self) -> ProbeRun {
        ProbeRun {
            name: self.name,
            lane: self.lane,
            cpus: 2,
            options: self.options,
            scenarios: SCENARIOS
                .iter()
                .filter(|scenario| scenario.is_in(self.lane).unwrap_or(true))
                .collect(),
        }
    }

    /// What the emulator must be able to do.
    pub fn needs(self) -> Vec<Ability> {
        self.lane.needs().into_iter().chain(self.needs).collect()
    }
}
