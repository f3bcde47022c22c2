//! Scenarios of the probe that take a second CPU, which is started, told what to do, and sent an INIT.

use super::lane::Lane;
use super::scenario::Verdict::{AsBare, AsBareBut};
use super::scenario::{Scenario, Sitting, models, scenario};
use crate::machine::abilities::Ability;

/// A machine of two CPUs, and who starts the second one for the guest.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    lane: Lane,
    name: &'static str,
    options: &'static str,
    needs: Option<Ability>,
}

const STARTED_BY_VIDAR: &str = "cpu-startup=emulated";

/// All of them.
pub const PAIRS: [Pair; 5] = [
    Pair { lane: Lane::Vmx, name: "pair-started-by-vidar", options: STARTED_BY_VIDAR, needs: None },
    Pair { lane: Lane::VmxArrowLake, name: "pair", options: "", needs: Some(Ability::BochsInit) },
    Pair { lane: Lane::VmxTigerLake, name: "pair-started-by-vidar", options: STARTED_BY_VIDAR, needs: None },
    Pair { lane: Lane::Svm, name: "pair", options: "", needs: Some(Ability::QemuNestedRealMode) },
    Pair { lane: Lane::SvmMax, name: "pair", options: "", needs: Some(Ability::QemuNestedRealMode) },
];

/// The models of Bochs whose second CPU Vidar starts, and all others whose APICs have x2APIC mode.
const STARTED_IN_BOCHS: &[Lane] = &[Lane::Vmx, Lane::VmxTigerLake];
const OTHERS: &[Lane] = &[Lane::VmxArrowLake, Lane::Svm, Lane::SvmMax];

/// The table, in the order in which they are asked: the last one leaves the APICs in another mode.
///
/// An INIT leaves the MSRs of SYSCALL, CR0.CD and CR0.NW as they are, clears CR2, and puts the CPU's signature into EDX. Vidar does so; the INIT of
/// Bochs does not. Intel SDM Vol. 3A, 10.1.1 "Processor State After Reset". Nor does Bochs refuse reserved bits of the interrupt command
/// register, which Vidar does where it looks at it. On AMD-V the second CPU begins with its caches on, and QEMU does not apply the
/// PAT of the guest, so that it reads Vidar's until it has written its own.
const SCENARIOS: &[Scenario] = &[
    scenario("other-wherever", AsBare),
    models(STARTED_IN_BOCHS, "other-registers", AsBareBut("edx=signature")),
    models(
        &[Lane::VmxArrowLake],
        "other-registers",
        AsBareBut("star=kept fmask=kept kernel-gs-base=kept cr0=10 cr2=0 edx=signature"),
    ),
    models(&[Lane::Svm, Lane::SvmMax], "other-registers", AsBareBut("cr0=10 pat=0x707050100070406")),
    models(&[Lane::VmxTigerLake, Lane::VmxArrowLake], "other-cet", AsBare),
    scenario("other-apic", AsBare),
    models(
        STARTED_IN_BOCHS,
        "x2apic",
        AsBareBut(
            "bit-12=#GP(0)/0/0 bit-13=#GP(0)/0/0 bit-16=#GP(0)/0/0 bit-20=#GP(0)/0/0 bit-31=#GP(0)/0/0",
        ),
    ),
    models(OTHERS, "x2apic", AsBare),
];

impl Pair {
    /// What is asked in it.
    pub fn sitting(self) -> Sitting {
        Sitting {
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

    /// What its emulator must be able to do.
    pub fn needs(self) -> Vec<Ability> {
        self.lane.needs().into_iter().chain(self.needs).collect()
    }
}
