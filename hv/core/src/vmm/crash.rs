//! What a crash report shows of a virtual CPU. The room `report` makes text of it.

use super::cpu_state::CpuState;

/// Everything that a crash report shows of a virtual CPU.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The state of the CPU.
    pub state: CpuState,
    /// The names and values of fields of the VMCS or VMCB. A pair with an empty name is not shown.
    pub vendor: [(&'static str, u64); 6],
}
