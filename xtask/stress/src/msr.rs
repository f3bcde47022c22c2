//! Writes an MSR of a CPU by Linux's module msr.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

/// Writes `value` to the MSR `index` of the CPU with this number.
pub fn write(index: u64, value: u64, cpu: u64) -> Result<String, String> {
    let path = format!("/dev/cpu/{cpu}/msr");
    let device = OpenOptions::new().write(true).open(&path);
    let written = device.and_then(|device| device.write_all_at(&value.to_le_bytes(), index));
    written.map(|()| "written".to_owned()).map_err(|error| format!("cannot write to {path}: {error}"))
}
