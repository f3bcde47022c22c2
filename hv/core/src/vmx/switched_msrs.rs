//! The MSRs that hold the guest's value in the guest and 0 in Vidar, if the CPU has the controls for that. So
//! performance counters, Intel PT, branch records and MPX do not observe Vidar. Intel SDM Vol. 3C, 25.7.1 "VM-Exit
//! Controls" and 25.8.1 "VM-Entry Controls".

use super::capabilities::Capabilities;
use super::controls::entry;
use super::field::Field;
use super::field::switched_msrs::{GUEST_BNDCFGS, GUEST_LBR_CTL, GUEST_PERF_GLOBAL_CTRL, GUEST_RTIT_CTL};
use crate::x86::msr;

/// An MSR, the VMCS field with the guest's value, and the control with which entries load it.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The index of the MSR.
    pub msr: u32,
    /// The field of the guest's value.
    pub field: Field<u64>,
    control: u32,
}

const ROWS: [Row; 4] = [
    Row { msr: msr::PERF_GLOBAL_CTRL, field: GUEST_PERF_GLOBAL_CTRL, control: entry::LOAD_PERF_GLOBAL },
    Row { msr: msr::RTIT_CTL, field: GUEST_RTIT_CTL, control: entry::LOAD_RTIT },
    Row { msr: msr::LBR_CTL, field: GUEST_LBR_CTL, control: entry::LOAD_LBR },
    Row { msr: msr::BNDCFGS, field: GUEST_BNDCFGS, control: entry::LOAD_BNDCFGS },
];

/// Returns the MSRs that entries and exits switch on a CPU with these capabilities.
pub fn rows(capabilities: &Capabilities) -> impl Iterator<Item = &'static Row> {
    let entry = capabilities.entry;
    ROWS.iter().filter(move |row| entry & row.control != 0)
}
