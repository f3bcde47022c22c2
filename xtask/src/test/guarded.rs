//! The probe's attacks on what the boot option `guard=cpu` keeps, on the first CPU and on a second one. Each attack
//! succeeds on the bare machine. Without the option it does so under Vidar too, since other runs compare the results of
//! the same scenarios there with those of the bare machine.

use super::lane::Lane;
use super::scenario::Verdict::Attack;
use super::scenario::{ProbeRun, Scenario, models};
use crate::machine::abilities::Ability;

/// A machine in which Vidar guards the protections of all CPUs.
#[derive(Debug, Clone, Copy)]
pub struct Guarded {
    lane: Lane,
    cpus: u32,
    options: &'static str,
    needs: Option<Ability>,
}

const OPTION: &str = "guard=cpu";
const STARTED_BY_VIDAR: &str = "guard=cpu cpu-startup=emulated";
const BOCHS_INIT: Option<Ability> = Some(Ability::BochsInit);
const REAL_MODE: Option<Ability> = Some(Ability::QemuNestedRealMode);

/// The table of machines.
pub const GUARDED: [Guarded; 7] = [
    Guarded { lane: Lane::Vmx, cpus: 1, options: OPTION, needs: None },
    Guarded { lane: Lane::Vmx, cpus: 2, options: STARTED_BY_VIDAR, needs: None },
    Guarded { lane: Lane::VmxTigerLake, cpus: 2, options: STARTED_BY_VIDAR, needs: None },
    Guarded { lane: Lane::VmxArrowLake, cpus: 2, options: OPTION, needs: BOCHS_INIT },
    Guarded { lane: Lane::Svm, cpus: 1, options: OPTION, needs: None },
    Guarded { lane: Lane::Svm, cpus: 2, options: OPTION, needs: REAL_MODE },
    Guarded { lane: Lane::SvmMax, cpus: 2, options: OPTION, needs: REAL_MODE },
];

/// The name of the scenario in which the first CPU attacks its own protections.
const OWN: &str = "guard";
/// The same for those of the second CPU.
const OTHERS: &str = "other-guard";

/// The words of the attacks that every CPU model shows, and of those that some do. On the bare machine each attack
/// succeeds.
macro_rules! attacks {
    (bare $more_bare:literal, refused $more:literal, counted $counted:literal) => {
        Attack {
            bare: concat!(
                "wp=ok/ok/0 smep=ok/ok/0 pge=ok/1 nxe=ok/ok/0 sce=ok/ok/0 \
                 star=ok/ok/ok/0x23000800000000 lstar=ok/ok/ok/0xffff800011113333 \
                 cstar=ok/ok/ok/0xffff800022223333 sfmask=ok/ok/ok/0x0 sysenter-cs=ok/ok/ok/0x0 \
                 sysenter-esp=ok/ok/ok/0xffff800033332222 sysenter-eip=ok/ok/ok/0x1000 held=0 counted=off ",
                $more_bare
            ),
            refused: concat!(
                "pe=#GP(0) pg=#GP(0) reserved=#GP(0) not-canonical=#GP(0) counted-of-these=none wp=ok/#GP(0)/1 \
                 smep=ok/#GP(0)/1 pge=ok/1 nxe=ok/#GP(0)/1 sce=ok/ok/0 star=ok/ok/#GP(0)/0x13000800000000 \
                 lstar=ok/ok/#GP(0)/0xffff800011112222 cstar=ok/ok/#GP(0)/0xffff800022221111 \
                 sfmask=ok/ok/#GP(0)/0x47700 sysenter-cs=ok/ok/#GP(0)/0x10 \
                 sysenter-esp=ok/ok/#GP(0)/0xffff800033331111 sysenter-eip=ok/ok/#GP(0)/0xffff800044441111 held=1 ",
                $more,
                " counted=CR0.WP:1,",
                $counted,
                ",EFER.NXE:1,STAR:1,LSTAR:1,CSTAR:1,SFMASK:1,SYSENTER_CS:1,SYSENTER_ESP:1,SYSENTER_EIP:1"
            ),
        }
    };
}

/// The words of the attacks on the other CPU. Both CPUs hold LSTAR, and after INIT only the first does. Then all is
/// counted once more. On the bare machine each attack succeeds.
macro_rules! other_attacks {
    (bare $more_bare:literal, refused $more:literal, counted $once:literal, then $twice:literal) => {
        Attack {
            bare: concat!(
                "started=1 free-wp=0 wp=0/0/0 smep=0/0/0 nxe=0/0/0 lstar=0/0/0 pg=0/1 pe=0/0 held=0 again=1 counted=off ",
                $more_bare
            ),
            refused: concat!(
                "started=1 free-wp=0 wp=0/1/1 smep=0/1/1 nxe=0/1/1 lstar=0/1/1 pg=1/80000001 pe=1/80000001 held=2 \
                 again=1 held=1 ",
                $more,
                " counted=CR0.PE:1,CR0.WP:1,CR0.PG:1,",
                $once,
                ",EFER.NXE:1,LSTAR:1 counted=CR0.PE:2,CR0.WP:2,CR0.PG:2,",
                $twice,
                ",EFER.NXE:2,LSTAR:2"
            ),
        }
    };
}

/// The models with CET.
const WITH_CET: &[Lane] = &[Lane::VmxTigerLake, Lane::VmxArrowLake];

/// What the guard refuses in these machines. The usual CPU of Bochs has no SMAP, and the usual ones have no UMIP.
const ATTACKS: &[Scenario] = &[
    models(
        &[Lane::Svm],
        OWN,
        attacks!(bare "smap=ok/ok/0", refused "smap=ok/#GP(0)/1", counted "CR4.SMEP:1,CR4.SMAP:1"),
    ),
    models(
        &[Lane::SvmMax],
        OWN,
        attacks!(
            bare "umip=ok/ok/0 smap=ok/ok/0",
            refused "umip=ok/#GP(0)/1 smap=ok/#GP(0)/1",
            counted "CR4.UMIP:1,CR4.SMEP:1,CR4.SMAP:1"
        ),
    ),
    models(&[Lane::Vmx], OWN, attacks!(bare "smap=lacks", refused "smap=lacks", counted "CR4.SMEP:1")),
    models(
        WITH_CET,
        OWN,
        attacks!(
            bare "umip=ok/ok/0 smap=ok/ok/0 wp-with-cet=#GP(0) cet=ok/ok/0",
            refused "umip=ok/#GP(0)/1 smap=ok/#GP(0)/1 wp-with-cet=#GP(0) cet=ok/#GP(0)/1",
            counted "CR4.UMIP:1,CR4.SMEP:1,CR4.SMAP:1,CR4.CET:1"
        ),
    ),
    models(
        &[Lane::Svm],
        OTHERS,
        other_attacks!(
            bare "smap=0/0/0",
            refused "smap=0/1/1",
            counted "CR4.SMEP:1,CR4.SMAP:1",
            then "CR4.SMEP:2,CR4.SMAP:2"
        ),
    ),
    models(
        &[Lane::SvmMax],
        OTHERS,
        other_attacks!(
            bare "umip=0/0/0 smap=0/0/0",
            refused "umip=0/1/1 smap=0/1/1",
            counted "CR4.UMIP:1,CR4.SMEP:1,CR4.SMAP:1",
            then "CR4.UMIP:2,CR4.SMEP:2,CR4.SMAP:2"
        ),
    ),
    models(
        &[Lane::Vmx],
        OTHERS,
        other_attacks!(bare "again=1", refused "again=1", counted "CR4.SMEP:1", then "CR4.SMEP:2"),
    ),
    models(
        WITH_CET,
        OTHERS,
        other_attacks!(
            bare "umip=0/0/0 smap=0/0/0 cet=0/0/0",
            refused "umip=0/1/1 smap=0/1/1 cet=0/1/1",
            counted "CR4.UMIP:1,CR4.SMEP:1,CR4.SMAP:1,CR4.CET:1",
            then "CR4.UMIP:2,CR4.SMEP:2,CR4.SMAP:2,CR4.CET:2"
        ),
    ),
];

impl Guarded {
    /// Returns the run of the attacks in this machine.
    pub fn probe_run(self) -> ProbeRun {
        let Self { lane, cpus, options, .. } = self;
        let is_possible =
            |scenario: &&Scenario| scenario.is_in(lane) == Some(true) && (cpus > 1 || scenario.name == OWN);
        let name = if cpus == 1 { "guarded" } else { "pair-guarded" };
        ProbeRun { name, lane, cpus, options, scenarios: ATTACKS.iter().filter(is_possible).collect() }
    }

    /// What the emulator must be able to do.
    pub fn needs(self) -> Vec<Ability> {
        self.lane.needs().into_iter().chain(self.needs).collect()
    }
}
