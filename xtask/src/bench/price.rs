//! Counts the instructions of a round trip that are slow on hardware, such as VMREAD. In an emulator they take one tick
//! like any other, so the round trips measured in instructions do not show them.

use anyhow::{Result, bail, ensure};

use super::probe;
use super::table::{Row, Table};
use crate::console::BOOT;
use crate::grub::Menu;
use crate::test::Tools;
use crate::test::lane::Lane;
use crate::test::small::{GUEST, Small};

/// The commands for the debugger of Bochs: list the instructions from the guest's first mark to its third, and quit,
/// which flushes the output. A mark is XCHG BX, BX.
const TRACE: &str = "c\ntrace on\nc\nc\nq\n";

/// The listing of a mark.
const MARK: &str = "xchg bx, bx";

/// How often a round trip executes each of the slow instructions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// The number of VMREADs.
    pub reads: u32,
    /// The number of VMWRITEs.
    pub writes: u32,
    /// The number of VMLOADs and VMSAVEs.
    pub switches: u32,
    /// The number of RDMSRs and WRMSRs.
    pub msrs: u32,
}

/// The limits, for CPUID and for a hypercall alike. They are what is needed today, since each instruction costs tens of
/// cycles.
const MUST_VMX: Counts = Counts { reads: 5, writes: 1, switches: 0, msrs: 0 };
const MUST_SVM: Counts = Counts { reads: 0, writes: 0, switches: 3, msrs: 0 };

/// Adds the rows of `lane`, which must be one in Bochs. `on` is added to the name of each instruction.
pub fn rows(table: &mut Table, lane: Lane, hypercall: &str, on: &str, tools: &Tools) -> Result<()> {
    let [cpuid, call] = measure(lane, tools)?;
    let hypercall = format!("{hypercall} that does nothing");
    for (what, counts) in [("CPUID", cpuid), (&hypercall, call)] {
        let rows = match lane.usual() {
            Lane::Vmx => vec![
                ("VMREADs", counts.reads, MUST_VMX.reads),
                ("VMWRITEs", counts.writes, MUST_VMX.writes),
                ("RDMSRs and WRMSRs", counts.msrs, MUST_VMX.msrs),
            ],
            _ => vec![
                ("VMLOADs and VMSAVEs", counts.switches, MUST_SVM.switches),
                ("RDMSRs and WRMSRs", counts.msrs, MUST_SVM.msrs),
            ],
        };
        for (which, number, must) in rows {
            let (number, must) = (f64::from(number), f64::from(must));
            table.add(Row::at_most(
                format!("{what}{on}, {which}"),
                "",
                number,
                &number.to_string(),
                must,
                must,
            ));
        }
    }
    Ok(())
}

/// Boots the probe under Vidar and has Bochs list the instructions of one CPUID and of one hypercall.
fn measure(lane: Lane, tools: &Tools) -> Result<[Counts; 2]> {
    let small = Small {
        name: lane.folder("bench-price"),
        lane,
        kernel: tools.probe()?.to_vec(),
        cmdline: "probe=price".to_owned(),
        menu: Menu { default: Some(GUEST.to_owned()), ..Menu::default() },
        memory: 256,
        cpu: probe::cpu(lane),
        debugger: Some(TRACE.to_owned()),
        ..Small::default()
    };
    let mut booted = small.boot(tools)?;
    ensure!(booted.running.ended(BOOT)?.is_some(), "the guest has not reached its marks");
    counts(&booted.running.emulator_output())
}

/// Returns the counts of the two round trips in what Bochs printed. The list begins at the first mark, and each of the
/// other two marks ends a round trip.
fn counts(output: &str) -> Result<[Counts; 2]> {
    let listed: Vec<_> = output.lines().filter_map(instruction).collect();
    let parts: Vec<_> = listed.split(|instruction| *instruction == MARK).collect();
    let [first, second, _] = parts[..] else {
        bail!("Bochs lists {} of the guest's last two marks", parts.len().saturating_sub(1))
    };
    ensure!(!first.is_empty() && !second.is_empty(), "nothing is listed between two marks");
    Ok([first, second].map(|part| {
        let mnemonics = || part.iter().filter_map(|instruction| instruction.split(' ').next());
        let number =
            |wanted: &[&str]| mnemonics().filter(|mnemonic| wanted.contains(mnemonic)).count() as u32;
        Counts {
            reads: number(&["vmread"]),
            writes: number(&["vmwrite"]),
            switches: number(&["vmload", "vmsave"]),
            msrs: number(&["rdmsr", "wrmsr"]),
        }
    }))
}

/// Returns the instruction of a line such as `(0).[165433422] [0x000000200100] 0008:ffffffff80000100 (unk. ctxt):
/// vmread rcx, rax ; 0f78c1`. Other lines that show an instruction have no number after a dot, and are ignored.
fn instruction(line: &str) -> Option<&str> {
    let (cpu, rest) = line.strip_prefix('(')?.split_once(").[")?;
    let (_, rest) = rest.split_once("): ")?;
    let is_number = cpu.chars().all(|digit| digit.is_ascii_digit());
    is_number.then(|| rest.split(';').next().unwrap_or_default().trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
        (0) Magic breakpoint\n\
        Next at t=165433422\n\
        (0) [0x000001009560] 0008:ffffffff80009560 (unk. ctxt): cpuid                     ; 0fa2\n\
        Tracing enabled for CPU0\n\
        (0).[165433422] [0x000001009560] 0008:ffffffff80009560 (unk. ctxt): cpuid                     ; 0fa2\n\
        (0).[165433449] [0x000000218460] 0008:ffffffff80018460 (unk. ctxt): vmread rcx, rax           ; 0f78c1\n\
        (0).[165433503] [0x000000219187] 0008:ffffffff80019187 (unk. ctxt): vmwrite rdx, rax          ; 0f79d0\n\
        (0).[165433552] [0x0000010095ed] 0008:ffffffff800095ed (unk. ctxt): xchg bx, bx               ; 6687db\n\
        (0) Magic breakpoint\n\
        (0).[165433553] [0x0000010095f0] 0008:ffffffff800095f0 (unk. ctxt): vmcall                    ; 0f01c1\n\
        (0).[165433560] [0x000000218460] 0008:ffffffff80018460 (unk. ctxt): rdmsr                     ; 0f32\n\
        (0).[165433561] [0x000000218462] 0008:ffffffff80018462 (unk. ctxt): vmload                    ; 0f01da\n\
        (0).[165433562] [0x000000218465] 0008:ffffffff80018465 (unk. ctxt): vmsave                    ; 0f01db\n\
        (0).[165433671] [0x0000010095f8] 0008:ffffffff800095f8 (unk. ctxt): xchg bx, bx               ; 6687db\n\
        (0) Magic breakpoint\n\
        Next at t=165433672\n";

    #[test]
    fn instructions_between_the_marks_are_counted() {
        let [cpuid, call] = counts(OUTPUT).unwrap();
        assert_eq!(cpuid, Counts { reads: 1, writes: 1, switches: 0, msrs: 0 });
        assert_eq!(call, Counts { reads: 0, writes: 0, switches: 2, msrs: 1 });
    }

    #[test]
    fn a_list_without_its_marks_is_an_error() {
        let (cut, _) = OUTPUT.rsplit_once("(0).[165433671]").unwrap();
        assert!(counts(cut).is_err());
        assert!(counts("").is_err());
    }
}
