//! The record of an exit in the trace, and what it means.

use core::fmt;

use crate::{Call, ExitKind};

/// An exit, as the trace keeps it: 32 bytes, in four words.
///
/// | word | bits | what |
/// |---|---|---|
/// | 0 | 63:0 | the time-stamp counter of the CPU at the exit |
/// | 1 | 63:0 | RIP of the guest at the exit |
/// | 2 | 31:0 | how many ticks of that counter Vidar took, up to the entry; of a longer time, the low 32 bits |
/// | 2 | 39:32 | the [`ExitKind`] |
/// | 2 | 63:40 | 0 |
/// | 3 | 63:0 | what exited, which [`Record::subject`] decodes |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The time-stamp counter at the exit.
    pub tsc: u64,
    /// RIP of the guest at the exit.
    pub rip: u64,
    /// The ticks that Vidar took.
    pub ticks: u32,
    /// The kind of the exit.
    pub kind: ExitKind,
    /// What exited, as a number whose meaning depends on the kind.
    pub detail: u64,
}

impl Record {
    /// The number of words of a record.
    pub const WORDS: usize = 4;

    /// Returns the record as words.
    pub const fn to_words(self) -> [u64; Self::WORDS] {
        [self.tsc, self.rip, (self.kind as u64) << 32 | self.ticks as u64, self.detail]
    }

    /// Returns the record that the words hold, or `None` if they hold none. A kind that is newer than this code is
    /// [`ExitKind::Other`].
    pub fn from_words([tsc, rip, visit, detail]: [u64; Self::WORDS]) -> Option<Self> {
        if visit >> 40 != 0 {
            return None;
        }
        let kind = ExitKind::from_raw(visit >> 32).unwrap_or(ExitKind::Other);
        Some(Self { tsc, rip, ticks: visit as u32, kind, detail })
    }

    /// Returns what exited.
    pub fn subject(&self) -> Subject {
        let number = self.detail as u32;
        match self.kind {
            ExitKind::Cpuid => Subject::Leaf(number),
            ExitKind::Rdmsr | ExitKind::Wrmsr => Subject::Msr(number),
            ExitKind::Xsetbv => Subject::Xcr(number),
            ExitKind::Hypercall => Subject::Call(number),
            ExitKind::SecondStage => Subject::Address(self.detail),
            ExitKind::Sipi => Subject::Vector(self.detail as u8),
            ExitKind::Other if self.detail != 0 => Subject::Code(number),
            _ => Subject::None,
        }
    }
}

/// What exited. It is displayed for people, without the kind of the exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A leaf of CPUID.
    Leaf(u32),
    /// The MSR with this index.
    Msr(u32),
    /// The extended control register with this number.
    Xcr(u32),
    /// The hypercall with this number.
    Call(u32),
    /// A guest-physical address.
    Address(u64),
    /// The vector of a start-up IPI.
    Vector(u8),
    /// The extension's own code of the exit.
    Code(u32),
    /// The kind says it all.
    None,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Leaf(leaf) => write!(f, "leaf {leaf:#x}"),
            Self::Msr(index) => write!(f, "MSR {index:#x}"),
            Self::Xcr(number) => write!(f, "XCR{number}"),
            Self::Call(number) => match Call::from_raw(number.into()) {
                Some(call) => f.write_str(call.name()),
                None => write!(f, "call {number:#x}"),
            },
            Self::Address(address) => write!(f, "address {address:#x}"),
            Self::Vector(vector) => write!(f, "vector {vector:#x}"),
            Self::Code(code) => write!(f, "code {code:#x}"),
            Self::None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    const RECORD: Record =
        Record { tsc: u64::MAX, rip: 1 << 63, ticks: 123, kind: ExitKind::Cpuid, detail: 4 };

    #[test]
    fn a_record_comes_back_from_its_words() {
        for kind in ExitKind::ALL {
            for ticks in [0, 1, u32::MAX] {
                let record = Record { kind: *kind, ticks, ..RECORD };
                assert_eq!(Record::from_words(record.to_words()), Some(record));
            }
        }
        assert_eq!(size_of_val(&RECORD.to_words()), 32);
    }

    #[test]
    fn other_words_are_no_record_and_a_newer_kind_is_an_other_one() {
        assert_eq!(Record::from_words([0, 0, 1 << 40, 0]), None);
        let newer = Record::from_words([0, 0, 200 << 32, 0]).expect("this is a record");
        assert_eq!(newer.kind, ExitKind::Other);
    }

    #[test]
    fn the_subject_names_what_exited() {
        let said = |kind, detail| Record { kind, detail, ..RECORD }.subject().to_string();
        assert_eq!(said(ExitKind::Cpuid, 4), "leaf 0x4");
        assert_eq!(said(ExitKind::Cpuid, 0x8000_0000), "leaf 0x80000000");
        assert_eq!(said(ExitKind::Wrmsr, 0x1b), "MSR 0x1b");
        assert_eq!(said(ExitKind::Xsetbv, 0), "XCR0");
        assert_eq!(said(ExitKind::Hypercall, 3), "log");
        assert_eq!(said(ExitKind::Hypercall, 0x77), "call 0x77");
        assert_eq!(said(ExitKind::SecondStage, 0xfee0_0000_0000), "address 0xfee000000000");
        assert_eq!(said(ExitKind::Sipi, 0x9a), "vector 0x9a");
        assert_eq!(said(ExitKind::Other, 0x37), "code 0x37");
        assert_eq!(said(ExitKind::Init, 0), "");
    }
}
