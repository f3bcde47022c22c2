//! What Bochs says in its log of each refusal, by which it names the rule.

use anyhow::{Result, ensure};

use super::attempt::{Answer, Attempt};

/// A part of each message of a refusal. Each refusal has one of them, and what is said after it has none.
const REFUSALS: [&str; 3] = ["FAIL: ", "VMENTER: ", "VMX LoadMSRs"];

/// Compares the messages in the log of Bochs with the rules. Each refusal has one, in the same order.
pub fn compare(attempts: &[Attempt], log: &str) -> Result<()> {
    let messages: Vec<_> =
        log.lines().filter(|line| REFUSALS.iter().any(|refusal| line.contains(refusal))).collect();
    let refused: Vec<_> =
        attempts.iter().filter(|attempt| matches!(attempt.answer, Answer::Refused(_))).collect();
    ensure!(
        messages.len() == refused.len(),
        "Bochs refused {} entries and says so of {}",
        refused.len(),
        messages.len()
    );
    let mut wrong = Vec::new();
    for (attempt, message) in refused.iter().zip(messages).filter(|(attempt, _)| attempt.is_alone()) {
        let rule = attempt.rule.as_deref().unwrap_or_default();
        let words = WORDS.iter().filter(|(known, _)| *known == rule).map(|(_, words)| *words);
        if !words.clone().any(|words| message.contains(words)) {
            wrong.push(format!("{}: {message}", attempt.what));
        }
    }
    ensure!(wrong.is_empty(), "Bochs gives other reasons: {}", wrong.join("; "));
    Ok(())
}

/// The rules, and what Bochs says of what breaks them.
const WORDS: &[(&str, &str)] = &[
    ("C1", "pin-based controls allowed"),
    ("C2", "proc-based controls allowed"),
    ("C3", "secondary controls allowed"),
    ("C4", "tertiary controls allowed"),
    ("C5", "CR3 targets"),
    ("C6", "I/O bitmap"),
    ("C7", "MSR bitmap phy addr"),
    ("C8", "virtual apic phy addr"),
    ("C9a", "TPR threshold too big"),
    ("C9b", "TPR threshold > TPR shadow"),
    ("C10a", "virtual NMI control"),
    ("C10b", "virtual NMI control"),
    ("C11", "apic access page phy addr malformed"),
    ("C12", "without TPR shadow"),
    ("C13", "X2APIC mode enabled together with APIC access"),
    ("C14", "together with external interrupt exiting"),
    ("C15a", "posted interrupts must be enabled together"),
    ("C15b", "Posted Interrupt Descriptor phy addr"),
    ("C15b", "posted interrupts notification vector"),
    ("C16", "guest VPID == 0"),
    ("C17a", "invalid EPTPTR value"),
    ("C17b", "invalid EPTPTR value"),
    ("C17c", "invalid EPTPTR value"),
    ("C18a", "unrestricted guest without EPT"),
    ("C19", "#VE information address"),
    ("C19", "VMWRITE bitmap"),
    ("C19", "PML base"),
    ("C19", "SPP base"),
    ("C20a", "VM Functions control"),
    ("C20b", "EPTP-SWITCHING"),
    ("C21", "TSC multiplier should be non zero"),
    ("C28a", "vmexit controls allowed"),
    ("C29", "save_VMX_preemption_timer"),
    ("C30a", "VMEXIT CTRL: msr store addr"),
    ("C30a", "VMEXIT CTRL: msr load addr"),
    ("C30b", "VMENTRY CTRL: msr load addr"),
    ("C31a", "vmentry controls allowed"),
    ("C31b", "dual-monitor treatment"),
    ("C32", "injected event type"),
    ("C33", "injected event vector"),
    ("C33", "bad MTF injection"),
    ("C34", "broken error code"),
    ("C35", "VMENTRY broken interruption info field"),
    ("C36", "bad error code"),
    ("C37", "injected event instr length"),
    ("H1", "host state invalid CR0"),
    ("H2a", "host state invalid CR4"),
    ("H2b", "host CR4.CET=1 when CR0.WP=0"),
    ("H3", "host state invalid CR3"),
    ("H4", "host SYSENTER_"),
    ("H6", "invalid Memory Type in host MSR_PAT"),
    ("H7a", "host EFER reserved bits"),
    ("H7b", "host EFER (0x"),
    ("H8a", "host IA32_S_CET invalid"),
    ("H8b", "host SSP[1:0] not zero"),
    ("H8c", "host INTERRUPT_SSP_TABLE_ADDR"),
    ("H12a", "TI/RPL != 0"),
    ("H12b", "host TR selector"),
    ("H12b", "host CS selector"),
    ("H13", "BASE non canonical"),
    ("H14a", "x86-64 host control"),
    ("H14b", "host CR4.PAE=0 with x86-64 host"),
    ("H14c", "host RIP non-canonical"),
    ("G1a", "guest invalid CR0"),
    ("G1b", "unrestricted guest CR0.PG without CR0.PE"),
    ("G2a", "guest invalid CR4"),
    ("G2b", "guest CR4.CET=1 when CR0.WP=0"),
    ("G3", "guest CR4.PAE=0 in x86-64 mode"),
    ("G4", "CR4.PCIDE set in 32-bit guest"),
    ("G5", "guest invalid CR3"),
    ("G6", "guest invalid DR7"),
    ("G8", "guest SYSENTER_"),
    ("G9b", "invalid Memory Type in guest MSR_PAT"),
    ("G9c", "guest EFER reserved bits set !"),
    ("G9d", "guest EFER.LMA"),
    ("G9d", "guest EFER (0x"),
    ("G13a", "guest IA32_S_CET invalid"),
    ("G13b", "guest INTERRUPT_SSP_TABLE_ADDR"),
    ("G18", "guest TR.TI set"),
    ("G19", "CS.RPL != SS.RPL"),
    ("G20a", "v8086 guest bad"),
    ("G20b", "LIMIT != 0xFFFF"),
    ("G20c", "AR != 0xF3"),
    ("G21a", "BASE non canonical"),
    ("G21b", "BASE > 32 bit"),
    ("G22", "guest CS.TYPE"),
    ("G23", "guest SS.TYPE"),
    ("G24", "not ACCESSED"),
    ("G24", "not READABLE"),
    ("G25", "not segment"),
    // Bochs 2.7 compares the wrong privilege levels.
    ("G26", "CS.RPL <> CS.DPL"),
    ("G26", "CS.DPL <> SS.DPL"),
    ("G26", "CS.DPL > SS.DPL"),
    ("G26", "CS.RPL < CS.DPL"),
    ("G27a", "guest SS.RPL <> SS.DPL"),
    ("G27b", "unrestricted guest SS.DPL != 0"),
    ("G28", "DS.RPL < DS.DPL"),
    ("G29", "not present"),
    ("G30", "AR/LIMIT malformed"),
    ("G31", "wrong CS.D_B/L"),
    ("G32", "AR/LIMIT malformed"),
    ("G33", "guest TR invalid"),
    ("G33", "incorrect TR type"),
    ("G34", "incorrect LDTR type"),
    ("G36a", "guest IDTR/IDTR.BASE non canonical"),
    ("G36b", "guest GDTR/IDTR limit > 0xFFFF"),
    ("G37", "guest RIP > 32 bit"),
    ("G38a", "RFLAGS[1]"),
    ("G38a", "RFLAGS reserved"),
    ("G38c", "guest interrupts blocked when injecting external interrupt"),
    ("G39", "guest SSP[1:0]"),
    ("G39", "guest SSP non canonical"),
    ("G40a", "guest activity state"),
    ("G40b", "HLT state with SS.DPL"),
    ("G40c", "when entering non active CPU state"),
    ("G41a", "when entering Wait-For-Sipi state"),
    ("G42a", "guest interruptibility state broken"),
    ("G42b", "guest interruptibility state broken"),
    ("G42c", "by STI when EFLAGS.IF = 0"),
    ("G42d", "guest interrupts blocked when injecting external interrupt"),
    ("G42e", "guest interrupts blocked when injecting NMI"),
    ("G42f", "SMI blocked when not in SMM mode"),
    ("G42h", "guest interruptibility state broken"),
    ("G43a", "guest tmpDR6 reserved bits"),
    ("G43c", "guest tmpDR6 reserved bits"),
    ("G44a", "link pointer malformed"),
    ("G44b", "incorrect revision ID"),
    ("G44c", "link pointer equal to current VMCS pointer"),
    ("G45", "VMENTER: EPT Guest State PDPTRs Checks Failed"),
    ("M1", "VMX LoadMSRs"),
];
