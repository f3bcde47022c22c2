//! Asks Vidar by hypercalls, and returns the answers as plain structures.

// tidy: long because each call is a method here, with its tests.

use vidar_abi::{
    Call, Commit, DmaFault, DmaState, ExitKind, LOG_CHUNK, MAGIC, Protection, Record, SIGNATURE,
    Status as CallStatus, TRACE_CHUNK, VERSION, Vendor, Version,
};

use crate::dma::Dma;
use crate::exits::Counts;
use crate::failure::Failure;
use crate::guard::{Guarded, Kept};
use crate::hypercall::{Answer, Request};
use crate::log::Log;
use crate::ramoops::Ramoops;
use crate::status::{Piece, Status};

/// The signature of a hypervisor without a name. Vidar shows it in place of the signature of a hypervisor that it runs
/// on.
const NO_SIGNATURE: [u8; 12] = [0; 12];

/// A Vidar that speaks our major version of the ABI.
pub struct Vidar<C> {
    call: C,
    abi: Version,
    version: u64,
}

impl<C: Fn(Request) -> Answer> Vidar<C> {
    /// Looks for Vidar. `hypervisor` is the signature that CPUID shows, if it shows one.
    ///
    /// A hypervisor with another name than Vidar's gets no hypercall. In all other cases a hypercall finds out if it is
    /// Vidar, which shows its name in CPUID only if a boot option says so.
    pub fn find(call: C, hypervisor: Option<[u8; 12]>) -> Result<Self, Failure> {
        if hypervisor.is_some_and(|signature| signature != SIGNATURE && signature != NO_SIGNATURE) {
            return Err(Failure::NotUnderVidar);
        }
        let answer = call(Request { rax: Call::Version as u64, rbx: 0, rcx: 0 });
        if answer.rax != CallStatus::Ok as u64 || answer.rbx != MAGIC {
            return Err(Failure::NotUnderVidar);
        }
        let abi = Version::from_raw(answer.rcx as u32);
        if abi.major != VERSION.major {
            return Err(Failure::Incompatible(abi));
        }
        Ok(Self { call, abi, version: answer.rdx })
    }

    /// Asks for the status.
    pub fn status(&self) -> Result<Status, Failure> {
        let malformed = Failure::Malformed(Call::Status);
        let answer = self.ask(Call::Status, 0, 0)?.ok_or(malformed)?;
        Ok(Status {
            version: [(self.version >> 32) as u32, self.version as u32 >> 16, self.version as u32 & 0xffff],
            commit: self.commit()?,
            abi: self.abi,
            vendor: Vendor::from_raw(answer.rdx).ok_or(malformed)?,
            cpus: answer.rsi,
            exits: answer.rdi,
            memory: self.memory(Piece { base: answer.rbx, size: answer.rcx })?,
            guarded: match self.guard() {
                Ok(all) => Guarded::All(all),
                Err(Failure::Off(_) | Failure::TooOld(_)) => Guarded::Nothing,
                Err(Failure::NotPermitted(_)) => Guarded::Hidden,
                Err(failure) => return Err(failure),
            },
            dma: match self.dma() {
                Ok(dma) => Some(dma),
                Err(Failure::TooOld(_)) => None,
                Err(failure) => return Err(failure),
            },
        })
    }

    /// Asks for the commit that Vidar was built from. Before version 1.2 of the ABI nobody can know it.
    fn commit(&self) -> Result<Option<Commit>, Failure> {
        if self.abi.minor < 2 {
            return Ok(None);
        }
        let answer = self.ask(Call::Commit, 0, 0)?.ok_or(Failure::Malformed(Call::Commit))?;
        Ok(Commit::from_raw(answer.rbx, answer.rcx))
    }

    /// Asks for all memory that Vidar occupies, whose first piece is known. Before version 1.1 of the ABI there is only
    /// that one.
    fn memory(&self, first: Piece) -> Result<Vec<Piece>, Failure> {
        let mut pieces = vec![first];
        if self.abi.minor >= 1 {
            while let Some(answer) = self.ask(Call::Memory, pieces.len() as u64, 0)? {
                pieces.push(Piece { base: answer.rbx, size: answer.rcx });
            }
        }
        Ok(pieces)
    }

    /// Counts the exits of each kind, of all CPUs together.
    pub fn exits(&self) -> Result<Counts, Failure> {
        let by_cpu = self.exits_by_cpu()?;
        let mut all = Counts::default();
        all.calls += 1; // the call for the number of CPUs
        for counts in &by_cpu {
            ExitKind::ALL.iter().for_each(|kind| all.add(*kind, counts.of(*kind)));
            all.calls += counts.calls;
        }
        Ok(all)
    }

    /// Counts the exits of each kind, for each CPU.
    pub fn exits_by_cpu(&self) -> Result<Vec<Counts>, Failure> {
        (0..self.cpus()?).map(|cpu| self.exits_of(cpu)).collect()
    }

    /// Asks for the number of CPUs. This is one call; [`Vidar::status`] makes more of them.
    pub fn cpus(&self) -> Result<u64, Failure> {
        Ok(self.ask(Call::Status, 0, 0)?.ok_or(Failure::Malformed(Call::Status))?.rsi)
    }

    fn exits_of(&self, cpu: u64) -> Result<Counts, Failure> {
        let mut counts = Counts::default();
        for kind in ExitKind::ALL {
            // An older Vidar does not know the newest kinds and calls them a bad argument: it has had no such exits.
            counts.add(*kind, self.ask(Call::Exits, cpu, *kind as u64)?.map_or(0, |answer| answer.rbx));
            counts.calls += 1;
        }
        Ok(counts)
    }

    /// Reads the log, as far back as it reaches.
    pub fn log(&self) -> Result<Log, Failure> {
        self.log_by(Call::Log)
    }

    /// Reads the log of the last start, if there is one. Before version 1.3 of the ABI there is none.
    pub fn last_log(&self) -> Result<Log, Failure> {
        let log = if self.abi.minor < 3 { Log::default() } else { self.log_by(Call::LastLog)? };
        if log.bytes.is_empty() { Err(Failure::NoLastLog) } else { Ok(log) }
    }

    /// Asks for the record of the last start. Before version 1.3 of the ABI there is none.
    pub fn record(&self) -> Result<Ramoops, Failure> {
        if self.abi.minor < 3 {
            return Err(Failure::NoRecord);
        }
        let answer = self.ask(Call::LastLog, 0, 0)?.ok_or(Failure::Malformed(Call::LastLog))?;
        if answer.rsi == 0 {
            Err(Failure::NoRecord)
        } else {
            Ok(Ramoops { base: answer.rdx, size: answer.rsi })
        }
    }

    /// Reads a log by `call`.
    fn log_by(&self, call: Call) -> Result<Log, Failure> {
        let malformed = Failure::Malformed(call);
        let mut log = Log::default();
        let mut position = 0;
        loop {
            let answer = self.ask(call, position, 0)?.ok_or(malformed)?;
            if answer.rcx == 0 {
                return Ok(log);
            }
            let length =
                usize::try_from(answer.rcx).ok().filter(|length| *length <= LOG_CHUNK).ok_or(malformed)?;
            log.lost += answer.rbx.checked_sub(position).ok_or(malformed)?;
            let bytes = answer.r8_to_r15.into_iter().flat_map(u64::to_le_bytes);
            log.bytes.extend(bytes.take(length));
            position = answer.rbx + length as u64;
        }
    }

    /// Asks how each protection stands that Vidar guards. An older Vidar does not know the newest ones.
    pub fn guard(&self) -> Result<Vec<Kept>, Failure> {
        if self.abi.minor < Call::Guard.since().minor {
            return Err(Failure::TooOld(Call::Guard));
        }
        let mut all = Vec::new();
        for protection in Protection::ALL {
            if let Some(answer) = self.ask(Call::Guard, *protection as u64, 0)? {
                let Answer { rbx: cpus, rcx: refused, rdx: last, .. } = answer;
                all.push(Kept { protection: *protection, cpus, refused, last });
            }
        }
        Ok(all)
    }

    /// Asks whether devices can reach Vidar's memory, and which have been refused.
    pub fn dma(&self) -> Result<Dma, Failure> {
        let ask = |index| self.ask_new(Call::Dma, index)?.ok_or(Failure::Malformed(Call::Dma));
        let first = ask(0)?;
        let mut faults = Vec::new();
        let mut answer = first;
        while let Some(fault) = DmaFault::from_words([answer.rsi, answer.rdi]) {
            faults.push(fault);
            answer = ask(faults.len() as u64)?;
        }
        Ok(Dma { state: DmaState::from_raw(first.rbx), units: first.rcx, count: first.rdx, faults })
    }

    /// Has Vidar end this Linux with a crash report. Returns only if that fails.
    pub fn crash(&self) -> Failure {
        let answer = self.ask_new(Call::Crash, 0);
        answer.err().unwrap_or(Failure::Malformed(Call::Crash))
    }

    /// Returns the position that the next exit of a CPU will have in the trace.
    pub fn trace_end(&self, cpu: u64) -> Result<u64, Failure> {
        Ok(self.trace_chunk(cpu, u64::MAX)?.0)
    }

    /// Reads the trace of a CPU from one position to another. Returns the exits that have not been overwritten, each
    /// with its position.
    pub fn trace(&self, cpu: u64, from: u64, to: u64) -> Result<Vec<(u64, Record)>, Failure> {
        let (mut position, mut records) = (from, Vec::new());
        while position < to {
            let (start, chunk) = self.trace_chunk(cpu, position)?;
            if chunk.is_empty() {
                break;
            }
            position = start + chunk.len() as u64;
            records.extend((start..to).zip(chunk));
        }
        Ok(records)
    }

    /// Reads as much of the trace as one call returns.
    fn trace_chunk(&self, cpu: u64, position: u64) -> Result<(u64, Vec<Record>), Failure> {
        let malformed = Failure::Malformed(Call::Trace);
        if self.abi.minor < Call::Trace.since().minor {
            return Err(Failure::TooOld(Call::Trace));
        }
        let answer = self.ask(Call::Trace, cpu, position)?.ok_or(malformed)?;
        let (words, _) = answer.r8_to_r15.as_chunks();
        let count =
            usize::try_from(answer.rcx).ok().filter(|count| *count <= TRACE_CHUNK).ok_or(malformed)?;
        if count > 0 && answer.rbx < position {
            return Err(malformed);
        }
        let records: Option<_> = words.iter().take(count).map(|words| Record::from_words(*words)).collect();
        Ok((answer.rbx, records.ok_or(malformed)?))
    }

    /// Makes a call that an older Vidar may not have, as [`Vidar::ask`] does.
    pub fn ask_new(&self, call: Call, rbx: u64) -> Result<Option<Answer>, Failure> {
        if self.abi.minor < call.since().minor {
            return Err(Failure::TooOld(call));
        }
        self.ask(call, rbx, 0)
    }

    /// Makes a call. Returns its answer, or `None` if Vidar says that an argument is out of range.
    pub fn ask(&self, call: Call, rbx: u64, rcx: u64) -> Result<Option<Answer>, Failure> {
        let answer = (self.call)(Request { rax: call as u64, rbx, rcx });
        match CallStatus::from_raw(answer.rax) {
            Some(CallStatus::Ok) => Ok(Some(answer)),
            Some(CallStatus::BadArgument) => Ok(None),
            Some(CallStatus::NotPermitted) => Err(Failure::NotPermitted(call)),
            Some(CallStatus::Off) => Err(Failure::Off(call)),
            Some(CallStatus::NotFound) => Err(Failure::NotFound(call)),
            Some(CallStatus::NoMemory) => Err(Failure::NoMemory(call)),
            Some(CallStatus::UnknownCall) | None => Err(Failure::Malformed(call)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::fake::{FAULT, TEXT, exit, vidar};

    #[test]
    fn the_trace_is_read_between_two_positions() {
        let vidar = Vidar::find(vidar, None).unwrap();
        assert_eq!(vidar.trace_end(1), Ok(9));
        for (from, to, there) in
            [(0, 9, 4..9), (5, 9, 5..9), (5, 8, 5..8), (0, 3, 4..4), (9, 9, 9..9), (9, 12, 9..9)]
        {
            let wanted: Vec<_> = there.map(|at| (at, exit(at))).collect();
            assert_eq!(vidar.trace(1, from, to), Ok(wanted), "{from} to {to}");
        }
    }

    #[test]
    fn a_trace_that_is_not_kept_or_not_known_is_a_failure() {
        let failure = Vidar::find(vidar, None).unwrap().trace_end(0).err().unwrap();
        assert_eq!(
            failure.to_string(),
            "Vidar keeps no trace of the exits: boot with its option trace=on, which is in GRUB's menu"
        );
        let older = |request: Request| match Call::from_raw(request.rax) {
            Some(Call::Version) => Answer { rcx: 1 << 16 | 2, ..vidar(request) },
            _ => panic!("version 1.2 does not have this call"),
        };
        let failure = Vidar::find(older, None).unwrap().trace_end(1).err().unwrap();
        assert_eq!(failure, Failure::TooOld(Call::Trace));
        let wrong = |request: Request| match Call::from_raw(request.rax) {
            Some(Call::Trace) => Answer { rcx: 3, ..Answer::default() },
            _ => vidar(request),
        };
        assert_eq!(Vidar::find(wrong, None).unwrap().trace_end(1), Err(Failure::Malformed(Call::Trace)));
    }

    #[test]
    fn vidar_is_found_with_and_without_its_signature() {
        assert!(Vidar::find(vidar, Some(SIGNATURE)).is_ok());
        assert!(Vidar::find(vidar, None).is_ok());
        assert!(Vidar::find(vidar, Some(NO_SIGNATURE)).is_ok(), "Vidar that runs on another hypervisor");
    }

    #[test]
    fn other_hypervisors_are_not_taken_for_vidar() {
        let never = |_| -> Answer { panic!("another hypervisor gets no hypercall") };
        assert_eq!(Vidar::find(never, Some(*b"KVMKVMKVM\0\0\0")).err(), Some(Failure::NotUnderVidar));
        let refuses = |_| Answer { rax: u64::MAX, ..Answer::default() };
        assert_eq!(Vidar::find(refuses, None).err(), Some(Failure::NotUnderVidar));
        let no_magic = |_| Answer::default();
        assert_eq!(Vidar::find(no_magic, None).err(), Some(Failure::NotUnderVidar));
    }

    #[test]
    fn another_major_version_is_refused() {
        let other = |_| Answer { rbx: MAGIC, rcx: 2 << 16 | 7, ..Answer::default() };
        let failure = Vidar::find(other, None).err().unwrap();
        assert_eq!(
            failure.to_string(),
            format!(
                "Vidar speaks version 2.7 of the hypercall ABI, and this vidarctl speaks version 1.{}: use the vidarctl \
                 that came with this Vidar",
                VERSION.minor
            )
        );
    }

    #[test]
    fn the_status_is_read_from_the_registers() {
        let status = Vidar::find(vidar, None).unwrap().status().unwrap();
        assert_eq!(status.version, [1, 2, 3]);
        assert_eq!(status.commit, Commit::parse("0000000000ab+"));
        assert_eq!((status.cpus, status.exits), (2, 1234));
        let pieces: Vec<_> = status.memory.iter().map(|piece| (piece.base, piece.size)).collect();
        assert_eq!(pieces, [(0x3fc0_0000, 4 << 20), (0x9_e000, 0x1000)]);
        assert_eq!(status.vendor, Vendor::Vmx);
    }

    #[test]
    fn a_program_without_rights_gets_the_status_without_the_guard() {
        let refuses = |request: Request| match Call::from_raw(request.rax) {
            Some(Call::Guard) => Answer { rax: CallStatus::NotPermitted as u64, ..Answer::default() },
            _ => vidar(request),
        };
        let found = Vidar::find(refuses, None).unwrap();
        assert_eq!(found.status().unwrap().guarded, Guarded::Hidden);
        assert_eq!(found.guard(), Err(Failure::NotPermitted(Call::Guard)));
    }

    #[test]
    fn refused_accesses_of_devices_are_read_one_by_one() {
        let dma = Vidar::find(vidar, None).unwrap().dma();
        let faults = vec![FAULT; 2];
        assert_eq!(dma, Ok(Dma { state: Some(DmaState::Guarded), units: 1, count: 9, faults }));
    }

    #[test]
    fn an_older_vidar_is_not_asked_for_its_commit_nor_for_dma() {
        let older = |request: Request| match Call::from_raw(request.rax) {
            Some(Call::Version) => Answer { rcx: 1 << 16 | 1, ..vidar(request) },
            Some(Call::Commit | Call::Dma) => panic!("version 1.1 does not have this call"),
            _ => vidar(request),
        };
        let status = Vidar::find(older, None).unwrap().status().unwrap();
        assert_eq!((status.commit, status.dma), (None, None));
    }

    #[test]
    fn exits_are_summed_over_the_cpus() {
        let counts = Vidar::find(vidar, None).unwrap().exits().unwrap();
        assert_eq!(counts.of(ExitKind::Cpuid), 10);
        assert_eq!(counts.of(ExitKind::Rdmsr), 12);
        assert_eq!(counts.of(ExitKind::Other), 0, "a kind that this Vidar does not know");
        assert_eq!(counts.calls, 2 * ExitKind::COUNT as u64 + 1);
        let by_cpu = Vidar::find(vidar, None).unwrap().exits_by_cpu().unwrap();
        assert_eq!(by_cpu.iter().map(|counts| counts.of(ExitKind::Rdmsr)).collect::<Vec<_>>(), [1, 11]);
    }

    #[test]
    fn every_hypercall_for_the_exits_is_counted() {
        let calls = Cell::new(0);
        let counting = |request| {
            calls.set(calls.get() + 1);
            vidar(request)
        };
        let found = Vidar::find(counting, None).unwrap();
        calls.set(0);
        assert_eq!(found.exits().unwrap().calls, calls.get());
    }

    #[test]
    fn the_log_is_read_to_its_end() {
        let log = Vidar::find(vidar, None).unwrap().log().unwrap();
        assert_eq!(log.bytes, TEXT);
        assert_eq!(log.lost, 10);
    }

    #[test]
    fn the_log_and_the_record_of_the_last_start_are_read_if_there_are_any() {
        let found = Vidar::find(vidar, None).unwrap();
        assert_eq!(found.last_log().unwrap().bytes, TEXT);
        assert_eq!(found.record(), Ok(Ramoops { base: 0x1000, size: 0x8000 }));
        let without = |request: Request| match Call::from_raw(request.rax) {
            Some(Call::LastLog) => Answer::default(),
            _ => vidar(request),
        };
        let older = |request: Request| match Call::from_raw(request.rax) {
            Some(Call::Version) => Answer { rcx: 1 << 16 | 2, ..vidar(request) },
            Some(Call::LastLog) => panic!("version 1.2 does not have this call"),
            _ => vidar(request),
        };
        let without = Vidar::find(without, None).unwrap();
        assert_eq!(without.last_log().err(), Some(Failure::NoLastLog));
        assert_eq!(without.record().err(), Some(Failure::NoRecord));
        let older = Vidar::find(older, None).unwrap();
        assert_eq!(older.last_log().err(), Some(Failure::NoLastLog));
        assert_eq!(older.record().err(), Some(Failure::NoRecord));
    }

    #[test]
    fn an_answer_that_the_abi_does_not_allow_is_a_failure() {
        let broken = |request: Request| match Call::from_raw(request.rax) {
            Some(Call::Log) => Answer { rcx: 33, ..Answer::default() },
            Some(Call::Status) => Answer { rdx: 9, ..Answer::default() },
            _ => vidar(request),
        };
        let broken = Vidar::find(broken, None).unwrap();
        assert_eq!(broken.log().err(), Some(Failure::Malformed(Call::Log)));
        assert_eq!(broken.status().err(), Some(Failure::Malformed(Call::Status)));
    }

    #[test]
    fn a_crash_that_is_refused_or_not_known_has_a_reason() {
        let found = Vidar::find(vidar, None).ok().unwrap();
        assert_eq!(found.crash(), Failure::NotPermitted(Call::Crash));
        let old = |request: Request| match request.rax {
            0 => Answer { rbx: MAGIC, rcx: 1 << 16 | 2, ..Answer::default() },
            _ => panic!("an old Vidar does not know the call"),
        };
        assert_eq!(Vidar::find(old, None).ok().unwrap().crash(), Failure::TooOld(Call::Crash));
        let goes_on = |request: Request| match request.rax {
            0 => Answer { rbx: MAGIC, rcx: VERSION.to_raw().into(), ..Answer::default() },
            _ => Answer::default(),
        };
        let found = Vidar::find(goes_on, None).ok().unwrap();
        assert_eq!(
            found.crash(),
            Failure::Malformed(Call::Crash),
            "a Linux that was ended cannot read an answer"
        );
    }
}
