//! Load for a disk: writes it, and reads it back.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::run::Run;

/// The number of bytes that are written at a time.
const BLOCK: usize = 64 << 10;
/// The number of blocks that are written in a round.
const BLOCKS: u64 = 64;

/// Writes blocks whose content depends on their number, makes Linux drop its cache, and reads them back.
pub fn write_and_read(run: &Run, path: &str, done: &AtomicU64) -> Result<(), String> {
    let failed = |error| format!("{path}: {error}");
    let mut disk = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
    let content = |round: u64, block: u64| -> Vec<u8> {
        let words = (0..BLOCK as u64 / 8)
            .map(|word| (round << 40 | block << 16 | word).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        words.flat_map(u64::to_le_bytes).collect()
    };
    let mut read = vec![0; BLOCK];
    for round in 0.. {
        if run.is_over() {
            break;
        }
        disk.seek(SeekFrom::Start(0)).map_err(failed)?;
        for block in 0..BLOCKS {
            disk.write_all(&content(round, block)).map_err(failed)?;
        }
        disk.sync_all().map_err(failed)?;
        fs::write("/proc/sys/vm/drop_caches", "1").map_err(failed)?;
        disk.seek(SeekFrom::Start(0)).map_err(failed)?;
        for block in 0..BLOCKS {
            disk.read_exact(&mut read).map_err(failed)?;
            if read != content(round, block) {
                return Err(format!("block {block} of {path} is not what was written"));
            }
        }
        done.fetch_add(BLOCKS, Ordering::Relaxed);
    }
    Ok(())
}
