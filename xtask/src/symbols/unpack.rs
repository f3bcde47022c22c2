//! Unpacks the kernel that is in a bzImage. Linux, Documentation/arch/x86/boot.rst: the fields setup_sects,
//! payload_offset and payload_length.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;

/// The largest size of an unpacked kernel. A damaged small file could unpack to any size.
const LARGEST: usize = 1 << 30;

/// Returns the ELF file that the bzImage `file` unpacks when it starts.
pub fn kernel(file: &[u8]) -> Result<Vec<u8>> {
    let number = |at: usize| {
        let bytes = file.get(at..at + 4).context("the file is too short for a kernel")?;
        Ok::<_, anyhow::Error>(u32::from_le_bytes(bytes.try_into()?) as usize)
    };
    ensure!(file.get(0x202..0x206) == Some(b"HdrS"), "the file is no bzImage");
    let sectors = match file[0x1f1] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * 512 + number(0x248)?;
    let packed = file.get(start..start + number(0x24c)?).context("the packed kernel is cut off")?;
    // The last four bytes are the size of what is packed, and not of any packer's format.
    let (packed, _) = packed.split_at(packed.len().saturating_sub(4));
    let unpacked = match packed {
        [0x1f, 0x8b, ..] => {
            let mut unpacked = Vec::new();
            GzDecoder::new(packed).take(LARGEST as u64).read_to_end(&mut unpacked)?;
            unpacked
        }
        [0x02, 0x21, 0x4c, 0x18, rest @ ..] => lz4(rest)?,
        [0xfd, b'7', b'z', ..] => by("xz", packed)?,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => by("zstd", packed)?,
        [0x7f, b'E', b'L', b'F', ..] => packed.to_vec(),
        _ => bail!("the kernel is packed in a way that this program does not know"),
    };
    ensure!(unpacked.starts_with(b"\x7fELF"), "what is packed is no ELF file");
    Ok(unpacked)
}

/// Unpacks by a program that reads its input and writes its output.
fn by(program: &str, packed: &[u8]) -> Result<Vec<u8>> {
    let mut command = Command::new(program);
    command.args(["-d", "-c", "-q"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("cannot run {program}"))?;
    let mut input = child.stdin.take().context("no input")?;
    let packed = packed.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&packed));
    let output = child.wait_with_output()?;
    let _ = writer.join();
    ensure!(!output.stdout.is_empty(), "{program} cannot unpack the kernel");
    Ok(output.stdout)
}

/// Unpacks the blocks of the old format of LZ4, which Linux uses. Each has its packed size before it.
fn lz4(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    while let Some((size, after)) = rest.split_first_chunk() {
        let size = u32::from_le_bytes(*size) as usize;
        let (block, after) = after.split_at_checked(size).context("a block of LZ4 is cut off")?;
        block_of_lz4(block, &mut unpacked).context("a block of LZ4 is damaged")?;
        ensure!(unpacked.len() <= LARGEST, "the kernel unpacks to too many bytes");
        rest = after;
    }
    Ok(unpacked)
}

/// Unpacks a block to the end of `out`: each sequence is a number of bytes as they are, and a copy of bytes before.
fn block_of_lz4(block: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let begin = out.len();
    let mut bytes = block.iter().copied();
    while let Some(token) = bytes.next() {
        for _ in 0..length(token >> 4, &mut bytes)? {
            out.push(bytes.next()?);
        }
        // The last sequence has no copy.
        let Some(low) = bytes.next() else { return Some(()) };
        let distance = usize::from(u16::from_le_bytes([low, bytes.next()?]));
        let from = out.len().checked_sub(distance).filter(|from| *from >= begin && distance > 0)?;
        for at in from..from + length(token & 15, &mut bytes)? + 4 {
            out.push(out[at]);
        }
    }
    Some(())
}

/// Returns a length that begins with four bits. If all of them are set, bytes follow until one that is not 255.
fn length(bits: u8, bytes: &mut impl Iterator<Item = u8>) -> Option<usize> {
    let mut length = usize::from(bits);
    let mut more = bits == 15;
    while more {
        let byte = bytes.next()?;
        length += usize::from(byte);
        more = byte == 255;
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_lz4_has_bytes_and_copies() {
        let mut out = Vec::new();
        // Three bytes as they are, then nine that begin three bytes before; then one byte alone.
        assert_eq!(block_of_lz4(&[0x35, b'a', b'b', b'c', 3, 0, 0x10, b'!'], &mut out), Some(()));
        assert_eq!(out, b"abcabcabcabc!");
        assert_eq!(block_of_lz4(&[0x05, 1, 0], &mut Vec::new()), None, "nothing is before");
        assert_eq!(block_of_lz4(&[0x40, b'a'], &mut Vec::new()), None, "it is cut off");
    }

    #[test]
    fn files_that_are_no_kernels_are_refused() {
        assert!(kernel(b"").is_err());
        assert!(kernel(&[0; 0x1000]).is_err());
    }
}
