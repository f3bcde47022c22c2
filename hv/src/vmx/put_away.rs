//! MSRs that hold the guest's value in the guest and 0 in Vidar, where the CPU has the controls: performance counters, Intel
//! PT, branch records and MPX see nothing of Vidar then. Intel SDM Vol. 3C, 25.7.1 "VM-Exit Controls" and 25.8.1 "VM-Entry
//! Controls".

#![expect(unsafe_code, reason = "MSRs are written")]

use super::capabilities::Capabilities;
use super::controls::{entry, exit};
use super::exit::Fields;
use super::field::Field;
use super::field::put_away::{
    GUEST_BNDCFGS, GUEST_LBR_CTL, GUEST_PERF_GLOBAL_CTRL, GUEST_RTIT_CTL, HOST_PERF_GLOBAL_CTRL,
};
use super::vmcs::Vmcs;
use crate::arch::msr;

/// An MSR, its field, and the control with which entries load it.
struct Row {
    msr: u32,
    field: Field<u64>,
    control: u32,
}

const ROWS: [Row; 4] = [
    Row { msr: msr::PERF_GLOBAL_CTRL, field: GUEST_PERF_GLOBAL_CTRL, control: entry::LOAD_PERF_GLOBAL },
    Row { msr: msr::RTIT_CTL, field: GUEST_RTIT_CTL, control: entry::LOAD_RTIT },
    Row { msr: msr::LBR_CTL, field: GUEST_LBR_CTL, control: entry::LOAD_LBR },
    Row { msr: msr::BNDCFGS, field: GUEST_BNDCFGS, control: entry::LOAD_BNDCFGS },
];

fn rows(capabilities: &Capabilities) -> impl Iterator<Item = &'static Row> {
    let entry = capabilities.entry;
    ROWS.iter().filter(move |row| entry & row.control != 0)
}

/// Moves what firmware left in the MSRs to the guest: with Intel PT on, the first entry would fail.
pub fn take_over(vmcs: &mut Vmcs, capabilities: &Capabilities) {
    for row in rows(capabilities) {
        vmcs.write(row.field, msr::read_checked(row.msr).unwrap_or(0));
        // SAFETY: 0 switches each of them off, as every exit will.
        let _ = unsafe { msr::write_checked(row.msr, 0) };
    }
    if capabilities.exit & exit::LOAD_PERF_GLOBAL != 0 {
        vmcs.write(HOST_PERF_GLOBAL_CTRL, 0);
    }
}

/// Gives the MSRs what the guest had in them.
pub fn give_back(vmcs: &Vmcs, capabilities: &Capabilities) {
    for row in rows(capabilities) {
        // SAFETY: the guest's value harms Vidar as little as it would without the controls.
        let _ = unsafe { msr::write_checked(row.msr, vmcs.read(row.field)) };
    }
}

/// Empties IA32_BNDCFGS, as INIT does, if exits put it away. Returns whether they do.
pub fn reset_bndcfgs(vmcs: &mut Vmcs, capabilities: &Capabilities) -> bool {
    let put_away = capabilities.entry & entry::LOAD_BNDCFGS != 0;
    if put_away {
        vmcs.write(GUEST_BNDCFGS, 0);
    }
    put_away
}
