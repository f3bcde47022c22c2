//! A Vidar for tests, which answers all calls that `vidarctl` makes.

use vidar_abi::{
    Call, DmaFault, ExitKind, LOG_CHUNK, MAGIC, Record, Status as CallStatus, TRACE_CHUNK, VERSION,
};

use crate::hypercall::{Answer, Request};

/// An access of a device that was refused.
pub const FAULT: DmaFault = DmaFault { requester: 0x20, write: true, address: 0x20_0000, reason: 5 };

/// What its log says after the bytes that it has lost.
pub const TEXT: &[u8] = b"vidar: one line that is longer than a chunk of the log\nand another\n";

/// Answers for a Vidar with two CPUs, whose log has lost its first ten bytes.
pub fn vidar(request: Request) -> Answer {
    let ok = Answer::default();
    let bad = Answer { rax: CallStatus::BadArgument as u64, ..ok };
    match Call::from_raw(request.rax) {
        Some(Call::Version) => {
            Answer { rbx: MAGIC, rcx: VERSION.to_raw().into(), rdx: 1 << 32 | 2 << 16 | 3, ..ok }
        }
        Some(Call::Status) => Answer { rbx: 0x3fc0_0000, rcx: 4 << 20, rdx: 1, rsi: 2, rdi: 1234, ..ok },
        Some(Call::Exits) if request.rbx < 2 && request.rcx < 14 => {
            Answer { rbx: 10 * request.rbx + request.rcx, ..ok }
        }
        Some(Call::Exits) => bad,
        Some(Call::Memory) if request.rbx == 1 => Answer { rbx: 0x9_e000, rcx: 0x1000, ..ok },
        Some(Call::Memory) => bad,
        Some(call @ (Call::Log | Call::LastLog)) => {
            let start = request.rbx.max(10);
            let rest = TEXT.get(start as usize - 10..).unwrap_or_default();
            let mut chunk = [0; LOG_CHUNK];
            let length = rest.len().min(LOG_CHUNK);
            chunk[..length].copy_from_slice(&rest[..length]);
            let word = |index: usize| u64::from_le_bytes(chunk[8 * index..8 * index + 8].try_into().unwrap());
            let (rdx, rsi) = if call == Call::LastLog { (0x1000, 0x8000) } else { (0, 0) };
            let r8_to_r15 = [word(0), word(1), word(2), word(3), 0, 0, 0, 0];
            Answer { rbx: start, rcx: length as u64, rdx, rsi, r8_to_r15, ..ok }
        }
        Some(Call::Commit) => Answer { rbx: 0xab, rcx: 1, ..ok },
        Some(Call::Dma) => {
            let [rsi, rdi] = if request.rbx < 2 { FAULT.to_words() } else { [0; 2] };
            Answer { rcx: 1, rdx: 9, rsi, rdi, ..ok }
        }
        Some(Call::Crash) => Answer { rax: CallStatus::NotPermitted as u64, ..ok },
        Some(Call::Trace) if request.rbx == 1 => {
            let start = request.rcx.clamp(4, 9);
            let words: Vec<_> = (start..9).take(TRACE_CHUNK).flat_map(|at| exit(at).to_words()).collect();
            let mut r8_to_r15 = [0; 8];
            r8_to_r15[..words.len()].copy_from_slice(&words);
            Answer { rbx: start, rcx: (words.len() / Record::WORDS) as u64, r8_to_r15, ..ok }
        }
        Some(Call::Guard) if request.rbx < 2 => Answer { rbx: 1, rcx: request.rbx, rdx: 5, ..ok },
        Some(Call::Guard) => bad,
        Some(Call::Trace) => Answer { rax: CallStatus::Off as u64, ..ok },
        // A call that vidarctl does not make.
        _ => Answer { rax: CallStatus::UnknownCall as u64, ..ok },
    }
}

/// Returns the exit at a position of the trace of CPU 1, of which the first four are overwritten and nine have been.
pub fn exit(position: u64) -> Record {
    Record { tsc: 100 * position, rip: 7, ticks: 8, kind: ExitKind::Rdmsr, detail: position }
}
