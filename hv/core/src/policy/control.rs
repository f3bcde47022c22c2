//! The effects of writes to CR0, CR4 and EFER, and when they fault.
//!
//! On VT-x, writes to CR0 and CR4 exit only if they change a bit that the guest does not own. Such a write may change
//! other bits as well, and for example enable paging, so the rules for all bits are here. On AMD-V these writes do not
//! exit.

use crate::x86::msr::{EFER_LMA, EFER_LME, Fault};
use crate::x86::registers::{Register, Registers};

/// CR0.PE.
pub const CR0_PE: u64 = 1 << 0;
/// CR0.TS.
pub const CR0_TS: u64 = 1 << 3;
/// CR0.ET, which is always 1.
pub const CR0_ET: u64 = 1 << 4;
/// CR0.NE.
pub const CR0_NE: u64 = 1 << 5;
/// CR0.WP.
pub const CR0_WP: u64 = 1 << 16;
/// CR0.NW.
pub const CR0_NW: u64 = 1 << 29;
/// CR0.CD.
pub const CR0_CD: u64 = 1 << 30;
/// CR0.PG.
pub const CR0_PG: u64 = 1 << 31;
/// CR0.MP, EM and AM.
const CR0_OTHERS: u64 = 1 << 1 | 1 << 2 | 1 << 18;
/// All bits of CR0 that are not reserved.
const CR0_DEFINED: u64 = CR0_PE | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_NW | CR0_CD | CR0_PG | CR0_OTHERS;

/// CR4.DE: DR4 and DR5 do not stand for DR6 and DR7.
pub const CR4_DE: u64 = 1 << 3;
/// CR4.PSE.
pub const CR4_PSE: u64 = 1 << 4;
/// CR4.PAE.
pub const CR4_PAE: u64 = 1 << 5;
/// CR4.MCE: machine checks raise #MC. While it is 0 they shut the CPU down.
pub const CR4_MCE: u64 = 1 << 6;
/// CR4.UMIP.
pub const CR4_UMIP: u64 = 1 << 11;
/// CR4.LA57.
pub const CR4_LA57: u64 = 1 << 12;
/// CR4.VMXE.
pub const CR4_VMXE: u64 = 1 << 13;
/// CR4.SMXE.
pub const CR4_SMXE: u64 = 1 << 14;
/// CR4.PCIDE.
pub const CR4_PCIDE: u64 = 1 << 17;
/// CR4.OSXSAVE.
pub const CR4_OSXSAVE: u64 = 1 << 18;
/// CR4.KL: Key Locker.
pub const CR4_KL: u64 = 1 << 19;
/// CR4.SMEP.
pub const CR4_SMEP: u64 = 1 << 20;
/// CR4.SMAP.
pub const CR4_SMAP: u64 = 1 << 21;
/// CR4.PKE.
pub const CR4_PKE: u64 = 1 << 22;
/// CR4.CET.
pub const CR4_CET: u64 = 1 << 23;

/// The bits of CR4 at whose change a CPU with PAE paging reloads the page-directory-pointer-table entries: PSE, PAE,
/// PGE and SMEP. Intel SDM Vol. 3A, 4.4.1 "PDPTE Registers".
const CR4_RELOADS_PDPTES: u64 = CR4_PSE | CR4_PAE | 1 << 7 | CR4_SMEP;
/// The bits of CR0 at whose change a CPU with PAE paging reloads these entries.
const CR0_RELOADS_PDPTES: u64 = CR0_PG | CR0_CD | CR0_NW;

/// The control registers as the guest sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Controls {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// CS.L. If EFER.LMA is set, it decides between 64-bit mode and compatibility mode.
    pub cs_l: bool,
}

/// A write to a control register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlWrite {
    /// MOV to CR0 from a register.
    Cr0(Register),
    /// CLTS.
    Clts,
    /// LMSW with this operand.
    Lmsw(u16),
    /// MOV to CR4 from a register.
    Cr4(Register),
}

/// The effect of a write to a control register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update {
    /// The control registers after the write.
    pub controls: Controls,
    /// True if the CPU loads the page-directory-pointer-table entries of PAE paging from the table at CR3. The write
    /// raises #GP if they are not valid.
    pub reload_pdptes: bool,
}

/// Returns the effect of `write` on the control registers `old`. `cr4_allowed` are the bits of CR4 that the guest may
/// set.
///
/// # Errors
/// Returns [`Fault`] if the CPU raises #GP(0). Intel SDM Vol. 2B, 4.3 "MOV-Move to/from Control Registers", protected
/// and 64-bit mode exceptions.
pub fn write(
    old: &Controls,
    write: ControlWrite,
    registers: &Registers,
    cr4_allowed: u64,
) -> Result<Update, Fault> {
    let mut new = *old;
    // The operand of MOV has 64 bits in 64-bit mode, and otherwise 32.
    let width = if old.efer & EFER_LMA != 0 && old.cs_l { u64::MAX } else { 0xffff_ffff };
    match write {
        ControlWrite::Cr0(register) => new.cr0 = registers.get(register) & width,
        ControlWrite::Clts => new.cr0 &= !CR0_TS,
        // LMSW writes PE, MP, EM and TS, and cannot clear PE.
        ControlWrite::Lmsw(word) => new.cr0 = old.cr0 & !0xe | u64::from(word) & 0xf,
        ControlWrite::Cr4(register) => new.cr4 = registers.get(register) & width,
    }
    if matches!(write, ControlWrite::Cr4(_)) {
        check_cr4(old, &new, cr4_allowed)?;
    } else {
        check_cr0(&mut new, old)?;
    }
    let pae_paging = new.cr0 & CR0_PG != 0 && new.cr4 & CR4_PAE != 0 && new.efer & EFER_LMA == 0;
    let changed = (old.cr0 ^ new.cr0) & CR0_RELOADS_PDPTES | (old.cr4 ^ new.cr4) & CR4_RELOADS_PDPTES;
    Ok(Update { controls: new, reload_pdptes: pae_paging && changed != 0 })
}

/// Checks the new value of CR0, and sets or clears EFER.LMA if it enables or disables paging.
fn check_cr0(new: &mut Controls, old: &Controls) -> Result<(), Fault> {
    if new.cr0 >> 32 != 0 {
        return Err(Fault);
    }
    // Writes to reserved bits of the low half, and to ET, have no effect. The reserved bits are 0, and ET is 1.
    new.cr0 = new.cr0 & CR0_DEFINED | CR0_ET;
    let has = |bit| new.cr0 & bit != 0;
    if has(CR0_PG) && !has(CR0_PE) || has(CR0_NW) && !has(CR0_CD) || !has(CR0_WP) && new.cr4 & CR4_CET != 0 {
        return Err(Fault);
    }
    match (old.cr0 & CR0_PG != 0, has(CR0_PG)) {
        (false, true) if new.efer & EFER_LME != 0 => {
            if new.cr4 & CR4_PAE == 0 || new.cs_l {
                return Err(Fault);
            }
            new.efer |= EFER_LMA;
        }
        (true, false) => {
            if new.cr4 & CR4_PCIDE != 0 || new.efer & EFER_LMA != 0 && new.cs_l {
                return Err(Fault);
            }
            new.efer &= !EFER_LMA;
        }
        _ => {}
    }
    Ok(())
}

/// Checks the new value of CR4.
fn check_cr4(old: &Controls, new: &Controls, allowed: u64) -> Result<(), Fault> {
    let long_mode = old.efer & EFER_LMA != 0;
    let turns_on = |bit| new.cr4 & bit != 0 && old.cr4 & bit == 0;
    let refused = new.cr4 & !allowed != 0
        || long_mode && new.cr4 & CR4_PAE == 0
        || long_mode && (old.cr4 ^ new.cr4) & CR4_LA57 != 0
        || turns_on(CR4_PCIDE) && (!long_mode || old.cr3 & 0xfff != 0)
        || new.cr4 & CR4_CET != 0 && old.cr0 & CR0_WP == 0;
    if refused { Err(Fault) } else { Ok(()) }
}

/// Returns the control registers after a write of `value` to IA32_EFER. `old` are those before it, and `allowed` are
/// the bits of EFER that the guest may set, LMA aside.
///
/// # Errors
/// Returns [`Fault`] if the CPU raises #GP(0): for a reserved bit, and for a change of LME while paging is enabled. AMD
/// APM Vol. 2, 3.1.7 "Extended Feature Enable Register (EFER)".
pub fn write_efer(old: &Controls, value: u64, allowed: u64) -> Result<Controls, Fault> {
    // Software cannot change LMA: the write does not affect it.
    let efer = value & !EFER_LMA | old.efer & EFER_LMA;
    let reserved = efer & !(allowed | EFER_LMA) != 0;
    if reserved || old.cr0 & CR0_PG != 0 && (old.efer ^ efer) & EFER_LME != 0 {
        return Err(Fault);
    }
    Ok(Controls { efer, ..*old })
}

/// Returns true if these page-directory-pointer-table entries of PAE paging are valid: no entry that is present has a
/// reserved bit set. Intel SDM Vol. 3A, 4.4.1 "PDPTE Registers".
pub fn valid_pdptes(entries: &[u64; 4], physical_address_bits: u32) -> bool {
    let reserved = 0x1e6 | u64::MAX.checked_shl(physical_address_bits).unwrap_or(0);
    entries.iter().all(|entry| entry & 1 == 0 || entry & reserved == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x86::msr::{EFER_NXE, EFER_SVME};

    const ALLOWED: u64 = 0xff_ffff & !(CR4_VMXE | CR4_SMXE);

    fn long_mode() -> Controls {
        Controls {
            cr0: CR0_PG | CR0_PE | CR0_NE | CR0_ET | CR0_WP,
            cr3: 0x1000,
            cr4: CR4_PAE,
            efer: EFER_LME | EFER_LMA,
            cs_l: true,
        }
    }

    fn mov(old: &Controls, write: impl Fn(Register) -> ControlWrite, value: u64) -> Result<Update, Fault> {
        let mut registers = Registers::default();
        registers.set(Register::Rbx, value);
        super::write(old, write(Register::Rbx), &registers, ALLOWED)
    }

    #[test]
    fn writes_of_hidden_bits_of_cr4_fault() {
        for bit in [CR4_VMXE, CR4_SMXE, 1 << 40] {
            assert_eq!(mov(&long_mode(), ControlWrite::Cr4, CR4_PAE | bit), Err(Fault));
        }
        assert_eq!(
            mov(&long_mode(), ControlWrite::Cr4, CR4_PAE | CR4_OSXSAVE).map(|u| u.reload_pdptes),
            Ok(false)
        );
    }

    #[test]
    fn writes_of_cr4_that_break_a_rule_of_long_mode_fault() {
        assert_eq!(mov(&long_mode(), ControlWrite::Cr4, 0), Err(Fault));
        assert_eq!(mov(&long_mode(), ControlWrite::Cr4, CR4_PAE | CR4_LA57), Err(Fault));
        assert!(mov(&long_mode(), ControlWrite::Cr4, CR4_PAE | CR4_PCIDE).is_ok());
        let with_pcid = Controls { cr3: 0x1001, ..long_mode() };
        assert_eq!(mov(&with_pcid, ControlWrite::Cr4, CR4_PAE | CR4_PCIDE), Err(Fault));
    }

    #[test]
    fn writes_of_invalid_values_of_cr0_fault() {
        let old = long_mode();
        for value in [CR0_PG, old.cr0 | CR0_NW, old.cr0 & !CR0_PG, old.cr0 | 1 << 32] {
            assert_eq!(mov(&old, ControlWrite::Cr0, value), Err(Fault), "{value:#x}");
        }
        let without_ne = mov(&old, ControlWrite::Cr0, old.cr0 & !CR0_NE).expect("NE may be cleared");
        assert_eq!(without_ne.controls.cr0, old.cr0 & !CR0_NE);
    }

    #[test]
    fn paging_switches_long_mode() {
        let compatibility = Controls { cs_l: false, ..long_mode() };
        let off = mov(&compatibility, ControlWrite::Cr0, CR0_PE | CR0_ET)
            .expect("compatibility mode may disable paging")
            .controls;
        assert_eq!(off.efer, EFER_LME);
        let on = mov(&off, ControlWrite::Cr0, long_mode().cr0).expect("PAE and LME are set");
        assert_eq!(on.controls.efer, EFER_LME | EFER_LMA);
        assert!(!on.reload_pdptes);
        let legacy = Controls { efer: 0, ..off };
        assert!(mov(&legacy, ControlWrite::Cr0, long_mode().cr0).expect("PAE is set").reload_pdptes);
        let no_pae = Controls { cr4: 0, ..off };
        assert_eq!(mov(&no_pae, ControlWrite::Cr0, long_mode().cr0), Err(Fault));
    }

    #[test]
    fn lmsw_sets_but_never_clears_pe() {
        let registers = Registers::default();
        let cleared =
            write(&long_mode(), ControlWrite::Lmsw(0), &registers, ALLOWED).expect("no rule broken");
        assert_eq!(cleared.controls.cr0, long_mode().cr0);
        let set =
            write(&long_mode(), ControlWrite::Lmsw(0xfff8), &registers, ALLOWED).expect("no rule broken");
        assert_eq!(set.controls.cr0, long_mode().cr0 | CR0_TS);
        let cleared = write(&set.controls, ControlWrite::Clts, &registers, ALLOWED).expect("no rule broken");
        assert_eq!(cleared.controls.cr0, long_mode().cr0);
    }

    #[test]
    fn writes_of_efer_keep_lma_and_fault_for_reserved_bits_and_a_change_of_lme() {
        const SCE: u64 = 1;
        let allowed = SCE | EFER_LME | EFER_NXE;
        let old = long_mode();
        let efer = |old: &Controls, value| write_efer(old, value, allowed).map(|controls| controls.efer);
        assert_eq!(efer(&old, EFER_LME | SCE), Ok(EFER_LME | EFER_LMA | SCE), "LMA stays");
        assert_eq!(efer(&old, EFER_LMA), Err(Fault), "LME is cleared while paging is enabled");
        assert_eq!(efer(&old, old.efer | EFER_SVME), Err(Fault), "reserved");
        let off = Controls { cr0: CR0_PE | CR0_ET, efer: 0, ..old };
        assert_eq!(efer(&off, EFER_LME | EFER_LMA | EFER_NXE), Ok(EFER_LME | EFER_NXE), "LMA is not set");
        assert_eq!(write_efer(&off, 0, allowed), Ok(off));
    }

    #[test]
    fn present_pdptes_must_not_have_reserved_bits_set() {
        assert!(valid_pdptes(&[0x1001, 0, 0xffff_ffff_ffff_fffe, 0x2019], 36));
        assert!(!valid_pdptes(&[0x1003, 0, 0, 0], 36));
        assert!(!valid_pdptes(&[1 << 36 | 1, 0, 0, 0], 36));
    }
}
