//! A CPU with VT-x refuses to enter the guest, and the report names the rule that is broken. No guest can bring that
//! about, so the debugger of Bochs turns Vidar's VMWRITE of HOST_RSP into one of another field. Bochs says in its log
//! what it refused.

use anyhow::{Context, Result, ensure};

use super::Tools;
use super::faults::address;
use super::small::{GUEST, Small};
use crate::console::{ANSWER, BOOT};
use crate::grub::Menu;

/// A field that gets the value of RSP, and what is said about it.
struct Case {
    /// The commands for the debugger after it has stopped at the entry of the assembly for the first time.
    commands: &'static str,
    /// What the report says of the exit.
    exit: &'static str,
    /// What the report says of the rule.
    rule: &'static str,
    /// What Bochs says in its log.
    bochs: &'static str,
}

/// HOST_CR3 gets an address that is not in memory. The first entry fails with the error of the host's state.
pub fn host(small: Small, tools: &Tools) -> Result<()> {
    let case = Case {
        // Seven instructions lead to the VMWRITE.
        commands: "s 7\nset rax = 0x6c02\n",
        exit: "EntryFailed { code: 8, qualification: 0 }",
        rule: "rule H3 is broken: CR3 of the host is an address in memory.\r\n  Intel SDM Vol. 3C, 27.2.2 \
               \"Checks on Host Control Registers, MSRs, and SSP\"\r\n  HOST_CR3 0xffffff",
        bochs: "VMCS host state invalid CR3",
    };
    case.check(small, tools)
}

/// GUEST_RFLAGS gets reserved bits. The entry after the guest's first exit fails, and that is an exit itself.
pub fn guest(small: Small, tools: &Tools) -> Result<()> {
    let case = Case {
        // At the second entry HOST_RSP has its value already. Vidar writes it again if RSP is another for a moment.
        commands: "c\ns 3\nset rsp = rsp - 8\ns 4\nset rax = 0x6820\ns 1\nset rsp = rsp + 8\n",
        exit: "EntryFailed { code: 21, qualification: 0 }",
        rule: "rule G38a is broken: Bits 63:22, 15, 5 and 3 of RFLAGS are 0, and\r\n    bit 1 is 1.\r\n  Intel SDM Vol. 3C, 27.3.1.4 \
               \"Checks on Guest RIP, RFLAGS, and SSP\"\r\n  GUEST_RFLAGS 0xffffff",
        bochs: "RFLAGS reserved bits",
    };
    case.check(small, tools)
}

impl Case {
    fn check(&self, small: Small, tools: &Tools) -> Result<()> {
        let at = address(tools, "vidar_vmx_enter")?;
        let menu =
            Menu { default: Some(GUEST.to_owned()), options: "on-crash=halt".to_owned(), ..Menu::default() };
        let debugger = Some(format!("lb {at:#x}\nc\n{}", self.commands));
        let small = Small { cmdline: "probe=cpuid".to_owned(), menu, debugger, ..small };
        let mut booted = small.boot(tools)?;
        booted.console.expect("the guest has stopped on CPU 0: the CPU refused to enter it", BOOT)?;
        let report = booted.console.expect("the machine is halted (on-crash=halt)\r\n", ANSWER)?;
        for said in [self.exit, self.rule] {
            ensure!(report.contains(said), "the report does not say {said:?}: {report}");
        }
        ensure!(report.matches("is broken").count() == 1, "the report names other rules: {report}");
        let log = booted.running.emulator_log();
        let refused = log.lines().find(|line| line.contains("VMFAIL") || line.contains("VMENTER FAIL"));
        let refused = refused.context("Bochs does not say what it refused")?;
        ensure!(refused.contains(self.bochs), "Bochs refused something else: {refused}");
        Ok(())
    }
}
