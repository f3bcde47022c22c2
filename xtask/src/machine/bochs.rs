//! Bochs emulates VT-x, slowly, on any host. Its TSC counts instructions.

use std::fs;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result};

use super::abilities::{self, Debugger};
use super::line::Ports;
use super::spec::{LINUX_LOG, LOG, Medium, Spec};
use super::tie::tied_to_us;
use crate::packages;

/// The default CPU model, with VT-x and EPT. Its CPUID names no TSC frequency, so Linux measures the frequency and gets
/// it right.
const USUAL_CPU: &str = "corei7_haswell_4770";

/// The instructions in a second of the guest's time. A low number means fewer timer ticks during a boot.
pub const INSTRUCTIONS_PER_SECOND: u32 = 20_000_000;

const CONFIGURATION: &str = "bochsrc";
const DEBUGGER_COMMANDS: &str = "debugger-commands";

/// The message with which Bochs ends if its VNC server does not come up in time, as happens on a busy host.
pub const NO_PORT: &str = "RFB could not bind any port";

/// The message in Bochs' log when the guest powers the machine off.
const POWERED_OFF: &str = "soft power off";

/// Writes the configuration, and returns the command that runs Bochs with it.
pub fn command(spec: &Spec, ports: Ports) -> Result<Command> {
    let configuration = spec.dir.join(CONFIGURATION);
    let firmware = if spec.uefi {
        let size =
            fs::metadata(packages::UEFI).with_context(|| format!("there is no {}", packages::UEFI))?.len();
        uefi(size)
    } else {
        BIOS.to_owned()
    };
    let text = configuration_text(spec, ports, &firmware);
    fs::write(&configuration, text).with_context(|| format!("cannot write {}", configuration.display()))?;
    let mut command = tied_to_us("bochs");
    command.args(["-q", "-f", CONFIGURATION]);
    let debugger = abilities::bochs_debugger();
    if debugger == Debugger::OnDemand && spec.debugger.is_some() {
        command.arg("-debugger");
    }
    if debugger != Debugger::Absent {
        // The debugger stops at a prompt before the first instruction and at each reset.
        let commands = spec.debugger.as_deref().unwrap_or_default();
        fs::write(spec.dir.join(DEBUGGER_COMMANDS), commands.to_owned() + &"c\n".repeat(1000))?;
        command.args(["-rc", DEBUGGER_COMMANDS]);
    }
    Ok(command)
}

/// Returns true if Bochs ended because the guest powered the machine off.
pub fn ended_well(_: ExitStatus, log: &str) -> bool {
    log.contains(POWERED_OFF)
}

/// The configuration of the firmware for a machine with a BIOS.
const BIOS: &str = "file=\"/usr/share/bochs/BIOS-bochs-latest\"";

/// Returns the configuration of the firmware for a machine with UEFI. `size` is the size of its file: 2 MiB in Debian
/// 12, and 4 MiB from Debian 13 on. The firmware ends at 4 GiB, since the CPU executes its first instruction 16 bytes
/// below that. Intel SDM Vol. 3A, 10.1.4 "First Instruction Executed".
fn uefi(size: u64) -> String {
    format!("file=\"{}\", address={:#x}", packages::UEFI, (1 << 32) - size)
}

fn configuration_text(spec: &Spec, ports: Ports, firmware: &str) -> String {
    let (memory, cpus) = (spec.memory, spec.cpus());
    let iso = spec.iso_from_dir().display();
    let cpu = spec.cpu.as_deref().unwrap_or(USUAL_CPU);
    let time = if spec.fixed_clock { "1700000000" } else { "utc" };
    let (boot, drive) = if spec.medium != Medium::Cd {
        ("disk", format!("type=disk, mode=volatile, path=\"{iso}\", cylinders=0"))
    } else {
        ("cdrom", format!("type=cdrom, path=\"{iso}\", status=inserted"))
    };
    let line = match ports.serial {
        Some(port) => format!("enabled=1, mode=socket-client, dev=127.0.0.1:{port}"),
        None => "enabled=0".to_owned(),
    };
    let serial = if spec.runs_kvm {
        format!("com1: enabled=1, mode=file, dev={LINUX_LOG}\ncom2: {line}")
    } else {
        let second = |port| format!("\ncom2: enabled=1, mode=socket-client, dev=127.0.0.1:{port}");
        format!("com1: {line}{}", ports.second_serial.map_or_else(String::new, second))
    };
    let marks = u8::from(spec.stops_at_marks);
    let errors = if spec.verbose { "report" } else { "ignore" };
    // Where KVM uses virtual interrupts, Bochs logs a message at each VM entry, which is megabytes in a minute.
    let news = if spec.runs_kvm { "ignore" } else { "report" };
    // After Linux has rebooted, the BIOS of Bochs writes to an MSR that it has locked. That ends in a triple fault, and
    // the reset that follows lets it go on.
    let reset = u8::from(!spec.stops_at_triple_fault);
    let vga_bios = packages::vga_bios();
    // The UEFI firmware reads MSRs that this CPU does not have.
    let ignore = u8::from(!spec.strict_msrs || spec.uefi);
    // The guest has a speaker, but its sound goes nowhere, since Bochs 2.7 aborts where ALSA has no sound card.
    format!(
        "plugin_ctrl: unmapped=true, biosdev=true, speaker=true, extfpuirq=true, parallel=false, serial=true\n\
         sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy\n\
         config_interface: textconfig\n\
         display_library: rfb, options=\"timeout=0\"\n\
         memory: guest={memory}, host={memory}\n\
         romimage: {firmware}\n\
         vgaromimage: file=\"{vga_bios}\"\n\
         boot: {boot}\n\
         ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
         ata0-master: {drive}\n\
         clock: sync=none, time0={time}\n\
         cpu: model={cpu}, count={cpus}, ips={INSTRUCTIONS_PER_SECOND}, \
         reset_on_triple_fault={reset}, ignore_bad_msrs={ignore}\n\
         pci: enabled=1, chipset=i440fx\n\
         magic_break: enabled={marks}\n\
         {serial}\n\
         log: {LOG}\n\
         panic: action=fatal\n\
         error: action={errors}\n\
         info: action={news}\n\
         debug: action=ignore\n"
    )
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn the_configuration_follows_the_specification() {
        let spec = Spec {
            dir: "/x, $y".into(),
            iso: "/x, $y/vidar.iso".into(),
            memory: 384,
            cpus: NonZeroU32::new(2),
            cpu: Some("tigerlake".into()),
            fixed_clock: true,
            ..Spec::default()
        };
        let ports = Ports { serial: Some(4711), monitor: None, debugger: None, second_serial: Some(4712) };
        let text = configuration_text(&spec, ports, BIOS);
        for line in [
            "memory: guest=384, host=384",
            "ata0-master: type=cdrom, path=\"vidar.iso\", status=inserted",
            "clock: sync=none, time0=1700000000",
            "com1: enabled=1, mode=socket-client, dev=127.0.0.1:4711",
            "com2: enabled=1, mode=socket-client, dev=127.0.0.1:4712",
            "log: emulator.log",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}");
        }
        assert!(text.contains("cpu: model=tigerlake, count=2, "));
        let none = Ports { serial: None, monitor: None, debugger: None, second_serial: None };
        let usual = configuration_text(&Spec { cpu: None, fixed_clock: false, ..spec }, none, BIOS);
        assert!(usual.lines().any(|line| line == "romimage: file=\"/usr/share/bochs/BIOS-bochs-latest\""));
        assert!(usual.lines().any(|line| line == "com1: enabled=0"));
        assert!(usual.contains(USUAL_CPU) && usual.contains("time0=utc"));
        let nested = configuration_text(&Spec { runs_kvm: true, ..Spec::default() }, ports, BIOS);
        for line in [
            "com1: enabled=1, mode=file, dev=linux.log",
            "com2: enabled=1, mode=socket-client, dev=127.0.0.1:4711",
            "info: action=ignore",
        ] {
            assert!(nested.lines().any(|other| other == line), "{line}");
        }
    }

    #[test]
    fn firmware_of_any_size_ends_at_4_gib() {
        for (size, address) in [(2 << 20, "0xffe00000"), (4 << 20, "0xffc00000"), (0x36_0000, "0xffca0000")] {
            assert_eq!(uefi(size), format!("file=\"{}\", address={address}", packages::UEFI));
        }
    }
}
