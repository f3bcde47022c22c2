//! Where emulators do not do as the tables say, and who is right by the manual. The page on the rules has this table.

use std::fmt;

use super::attempt::{Answer, Attempt};
use crate::machine::abilities::Ability;
use crate::test::lane::Lane;

/// Versions of Bochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Versions {
    /// Those before 3.0.
    Old,
    /// 3.0, and those after it.
    New,
    All,
}

/// A case in which an emulator does otherwise than the tables say.
#[derive(Debug)]
pub struct Known {
    /// The emulator, and the lanes in which it does so.
    emulator: &'static str,
    lanes: &'static [Lane],
    /// The versions of Bochs that do so.
    versions: Versions,
    /// The case, as [`Attempt::what`] has it.
    pub what: &'static str,
    /// What the case does.
    does: &'static str,
    /// What the emulator does.
    answer: Answer,
    /// What the manual says.
    manual: &'static str,
}

impl Known {
    /// Returns true if this is the case of `attempt`, and its answer.
    pub fn is(&self, attempt: &Attempt) -> bool {
        attempt.what == self.what && attempt.answer == self.answer
    }
}

/// The row of the page's table.
impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { emulator, what, does, answer, manual, .. } = self;
        // A number after the rule tells several cases of it apart.
        let rule = what.split_once(", ").map_or(*what, |(rule, _)| rule);
        let rule = if rule.as_bytes().get(1).is_some_and(u8::is_ascii_digit) { rule } else { "none" };
        let done = if *answer == Answer::Entered { "enters" } else { "refuses" };
        write!(f, "| {rule} | {does} | {emulator} {done} | {manual} |")
    }
}

/// Returns what is known in a lane.
pub fn of(lane: Lane) -> impl Iterator<Item = &'static Known> {
    // The model came with Bochs 3.0.
    let other =
        if Ability::BochsCpu("arrow_lake").missing().is_none() { Versions::Old } else { Versions::New };
    KNOWN.iter().filter(move |known| known.lanes.contains(&lane) && known.versions != other)
}

const BOCHS: Known = Known {
    emulator: "Bochs",
    lanes: &[Lane::Vmx, Lane::VmxTigerLake, Lane::VmxArrowLake],
    versions: Versions::All,
    what: "",
    does: "",
    answer: Answer::Entered,
    manual: "",
};
const OLD_BOCHS: Known = Known { emulator: "Bochs 2.7", versions: Versions::Old, ..BOCHS };
const NEW_BOCHS: Known = Known { emulator: "Bochs 3.0", versions: Versions::New, ..BOCHS };
const WITH_CET: Known =
    Known { emulator: "Bochs with CET", lanes: &[Lane::VmxTigerLake, Lane::VmxArrowLake], ..BOCHS };
const QEMU: Known = Known { emulator: "QEMU", lanes: &[Lane::Svm], ..BOCHS };

/// The table.
pub const KNOWN: &[Known] = &[
    Known {
        what: "CS.RPL 3 with CS.DPL 0, unrestricted guest",
        does: "CS of an unrestricted guest has RPL 3, and DPL 0 as SS has",
        answer: Answer::Refused('G'),
        manual: "27.3.1.2 compares the DPL of CS with that of SS, and no RPL: the tables are right",
        ..OLD_BOCHS
    },
    Known {
        what: "C34, 3",
        does: "an external interrupt has an error code",
        manual: "27.2.1.3 asks for a hardware exception, whatever IA32_VMX_BASIC says: the tables are right",
        ..WITH_CET
    },
    Known {
        what: "C34, 4",
        does: "a #GP in real mode has an error code",
        manual: "27.2.1.3 asks for CR0.PE, whatever IA32_VMX_BASIC says: the tables are right",
        ..WITH_CET
    },
    Known {
        what: "H5",
        does: "IA32_PERF_GLOBAL_CTRL of the host has bit 63",
        manual: "27.2.2 says that reserved bits must be clear: the tables are right",
        ..NEW_BOCHS
    },
    Known {
        what: "H9",
        does: "IA32_PKRS of the host has bit 32",
        manual: "27.2.2 says that bits 63:32 must be clear: the tables are right",
        lanes: &[Lane::VmxArrowLake],
        ..NEW_BOCHS
    },
    Known {
        what: "G3",
        does: "a guest in IA-32e mode has CR0.PG clear",
        manual: "27.3.1.1 says that it must be set: the tables are right",
        ..BOCHS
    },
    Known {
        what: "G7",
        does: "IA32_DEBUGCTL has bit 30",
        manual: "27.3.1.1 says that reserved bits must be clear: the tables are right",
        ..BOCHS
    },
    Known {
        what: "G9a",
        does: "IA32_PERF_GLOBAL_CTRL has bit 63",
        manual: "27.3.1.1 says that reserved bits must be clear: the tables are right",
        ..NEW_BOCHS
    },
    Known {
        what: "G14",
        does: "IA32_PKRS has bit 32",
        manual: "27.3.1.1 says that bits 63:32 must be clear: the tables are right",
        lanes: &[Lane::VmxArrowLake],
        ..NEW_BOCHS
    },
    Known {
        what: "G26, 3",
        does: "CS has DPL 3 and RPL 3, and SS has DPL 0",
        manual: "27.3.1.2 compares the DPL of CS with that of SS: the tables are right",
        ..OLD_BOCHS
    },
    Known {
        what: "G37, 2",
        does: "RIP in 64-bit code has bit 60",
        manual: "27.3.1.4 says that the bits above a linear address must be equal: the tables are right",
        ..BOCHS
    },
    Known {
        what: "G38b",
        does: "RFLAGS.VM is set in real mode",
        manual: "27.3.1.4 says that it must be clear if CR0.PE is: the tables are right",
        ..BOCHS
    },
    Known {
        what: "G41a",
        does: "a #DE is injected into a CPU that has executed HLT",
        manual: "27.3.1.5 lists the events that may be, and #DE is not one of them: the tables are right",
        ..BOCHS
    },
    Known {
        what: "G42g",
        does: "an NMI is injected while NMIs are blocked, with virtual NMIs",
        manual: "27.3.1.5 says that they must not be blocked then: the tables are right",
        ..BOCHS
    },
    Known {
        what: "G43a, 2",
        does: "the pending debug exceptions have bit 40",
        manual: "27.3.1.5 says that bits 63:17 must be clear: the tables are right",
        ..BOCHS
    },
    Known {
        what: "G43b",
        does: "no single step is pending after STI with RFLAGS.TF",
        manual: "27.3.1.5 says that one must be: the tables are right",
        ..BOCHS
    },
    Known {
        what: "G43b, 2",
        does: "a single step is pending after HLT without RFLAGS.TF",
        manual: "27.3.1.5 says that none must be: the tables are right",
        ..BOCHS
    },
    Known {
        what: "A6, 2",
        does: "EFER has bit 13, LMSLE",
        answer: Answer::Refused('A'),
        manual: "CPUID Fn8000_0008_EBX[20] is 0, which says that the bit exists, but QEMU does not have it: QEMU is right \
                 to refuse it, and its CPUID is wrong",
        ..QEMU
    },
    Known {
        what: "A11c",
        does: "a #BR is injected into 64-bit code",
        manual: "15.20 says that it is illegal: the tables are right",
        ..QEMU
    },
    Known {
        what: "A12a",
        does: "the root of the nested page tables is not in memory",
        manual: "15.25.4 says that reserved bits must be clear: the tables are right",
        ..QEMU
    },
    Known {
        what: "A12b",
        does: "G_PAT has the reserved memory type 2",
        manual: "15.25.4 says that it is illegal: the tables are right",
        ..QEMU
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths;

    #[test]
    fn the_page_has_the_table() {
        let page = std::fs::read_to_string(paths::root().join("hv/doc/entry-rules.md")).unwrap();
        let rows: Vec<_> = KNOWN.iter().map(|known| format!("{known}\n")).collect();
        assert!(page.contains(&rows.concat()), "hv/doc/entry-rules.md should have:\n{}", rows.concat());
    }
}
