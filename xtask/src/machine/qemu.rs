//! QEMU: the arguments that all its machines have in common, and the machine without KVM, which emulates AMD-V on any
//! host.

use std::process::{Command, ExitStatus};

use anyhow::Result;
use serde_json::json;

use super::abilities::{self, QEMU};
use super::disk::Bus;
use super::line::Ports;
use super::spec::{Chipset, Iommu, Keyboard, LOG, Medium, Network, Spec, Threads};
use super::tie::tied_to_us;
use crate::packages;

/// The default CPU, with AMD-V and nested paging. QEMU would set CPUID's hypervisor bit, but this machine stands for a
/// physical one.
const EMULATED_CPU: &str = "EPYC,-hypervisor";

/// Takes CMPXCHG16B away from a CPU. QEMU before 8.0 computes the flags after that instruction from an earlier
/// operation, so that RFLAGS may get an operand's bits, such as IF, NT and VM. If the guest saves the flags, or the
/// CPU's turn ends, the wrong flags stay. Kernels then die of double faults, or of interrupts that come while they are
/// disabled; from 6.12 on this happens within a few boots. They can do without the instruction.
const WITHOUT_CMPXCHG16B: &str = ",-cx16";

/// The binary logarithm of the nanoseconds that an instruction takes. A tick of the TSC is a nanosecond. 16 ns are
/// about what the host needs to emulate an instruction; with less, a guest that waits for its clock would wait long.
const SHIFT: u32 = 4;
/// The ticks of the TSC for each instruction, in a machine that counts instructions.
pub const TICKS_PER_INSTRUCTION: u64 = 1 << SHIFT;

/// Returns the command that runs QEMU without KVM.
pub fn command(spec: &Spec, ports: Ports) -> Result<Command> {
    let cpu = emulated(spec.cpu.as_deref().unwrap_or(EMULATED_CPU));
    let mut command = machine(&Spec { cpu: Some(cpu), ..spec.clone() }, ports, EMULATED_CPU)?;
    command.args(["-accel", accelerator(spec)]);
    if spec.counts_instructions {
        // When all CPUs are idle, time jumps to the next event.
        command.args(["-icount", &format!("shift={SHIFT},sleep=off")]);
    }
    if spec.verbose {
        command.args(["-d", "guest_errors", "-D", LOG]);
    }
    Ok(command)
}

/// Returns the CPU `cpu`, without the instruction that this QEMU emulates wrongly.
pub fn emulated(cpu: &str) -> String {
    format!("{cpu}{}", if abilities::qemu_spoils_flags() { WITHOUT_CMPXCHG16B } else { "" })
}

/// Returns the `-accel` argument for emulation, with the way in which QEMU runs the CPUs. [`Threads`] says why this
/// matters.
fn accelerator(spec: &Spec) -> &'static str {
    match spec.threads {
        Threads::OneForAll => "tcg,thread=single",
        Threads::OneForEach => "tcg,thread=multi",
    }
}

/// Returns the command without the accelerator.
pub fn machine(spec: &Spec, ports: Ports, cpu: &str) -> Result<Command> {
    let mut command = tied_to_us(QEMU);
    // What a guest writes to a snapshot of a disk may be much, so it stays in the machine's folder.
    command.env("TMPDIR", &spec.dir);
    command.args(["-nodefaults", "-display", "none"]);
    command.args(["-vga", if spec.no_screen { "none" } else { "std" }]);
    let chipset = match spec.chipset {
        _ if spec.secure_boot => "q35,smm=on",
        _ if spec.remaps_interrupts || spec.attacker.is_some() => "q35",
        Chipset::Pc => "pc",
        Chipset::Q35 => "q35",
    };
    let ps2 = if spec.keyboard == Keyboard::Ps2 { "" } else { ",i8042=off" };
    command.args(["-machine", &format!("{chipset}{ps2}")]);
    let x2apic = if spec.remaps_interrupts { ",+x2apic" } else { "" };
    command.args(["-cpu", &format!("{}{x2apic}", spec.cpu.as_deref().unwrap_or(cpu))]);
    if spec.remaps_interrupts {
        // With eim=on, interrupts reach all APIC IDs. Without that, Linux does not use x2APIC mode.
        command.args(["-device", "intel-iommu,intremap=on,eim=on"]);
    }
    if let Some(iommu) = spec.attacker {
        let iommu = match iommu {
            Iommu::Intel => "intel-iommu,intremap=on,aw-bits=48",
            Iommu::Amd => "amd-iommu,intremap=on",
        };
        command.args(["-device", iommu, "-device", "edu,addr=04.0"]);
    }
    let room = spec.max_memory.map_or_else(String::new, |max| format!(",slots=1,maxmem={max}M"));
    command.args(["-m", &format!("{}{room}", spec.memory)]);
    command.args(["-smp", &processors(spec)]);
    let lines = [
        ("com1", ports.serial, ["-serial", "chardev:com1"]),
        ("com2", ports.second_serial, ["-serial", "chardev:com2"]),
        ("monitor", ports.monitor, ["-mon", "chardev=monitor,mode=control"]),
        ("debugger", ports.debugger, ["-gdb", "chardev:debugger"]),
    ];
    for (name, port, uses) in lines {
        if let Some(port) = port {
            command.args(["-chardev", &format!("socket,id={name},host=127.0.0.1,port={port}")]).args(uses);
        }
    }
    if spec.waits_for_debugger {
        command.arg("-S");
    }
    if spec.secure_boot {
        // Only the firmware itself, in system management mode, may write its variables.
        command.args(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
        for (file, access) in packages::UEFI_SECURE_BOOT.into_iter().zip(["readonly=on", "snapshot=on"]) {
            command.args(["-drive", &format!("if=pflash,format=raw,{access},file={file}")]);
        }
    } else if spec.uefi {
        command.args(["-bios", packages::UEFI]);
    }
    if spec.fixed_clock {
        command.args(["-rtc", "base=2023-11-14T22:13:20,clock=vm"]);
    }
    if spec.stops_at_triple_fault {
        command.arg("-no-reboot");
    }
    let (media, device) = match spec.medium {
        Medium::Cd => ("readonly=on", "ide-cd"),
        Medium::Disk => ("snapshot=on", "ide-hd"),
        Medium::Usb => ("snapshot=on", "usb-storage"),
        Medium::Virtio => ("snapshot=on", "virtio-blk-pci"),
    };
    if spec.medium == Medium::Usb || spec.keyboard == Keyboard::Usb {
        command.args(["-device", "qemu-xhci"]);
    }
    if spec.keyboard == Keyboard::Usb {
        command.args(["-device", "usb-kbd"]);
    }
    command
        .arg("-drive")
        .arg(format!("if=none,id=iso,format=raw,{media},file={}", spec.iso_from_dir().display()));
    command.args(["-device", &format!("{device},drive=iso,bootindex=0")]);
    for (index, disk) in spec.disks.iter().enumerate() {
        // In JSON, no character of the path can be taken for syntax.
        let file = json!({ "driver": "file", "filename": disk.path });
        let node = json!({ "driver": disk.format.name(), "node-name": format!("disk{index}"), "file": file });
        command.args(["-blockdev", &node.to_string()]);
        match disk.bus {
            Bus::Virtio => command.args(["-device", &format!("virtio-blk-pci,drive=disk{index}")]),
            Bus::Ahci => command
                .args(["-device", &format!("ahci,id=ahci{index}")])
                .args(["-device", &format!("ide-hd,bus=ahci{index}.0,drive=disk{index}")]),
            Bus::Nvme => command.args(["-device", &format!("nvme,serial={index},drive=disk{index}")]),
            Bus::Usb => command
                .args(["-device", &format!("qemu-xhci,id=xhci{index}")])
                .args(["-device", &format!("usb-storage,bus=xhci{index}.0,drive=disk{index}")]),
        };
    }
    for (index, network) in spec.networks.iter().enumerate() {
        let card = match network {
            Network::Virtio => "virtio-net-pci",
            Network::E1000 => "e1000",
        };
        command.args(["-netdev", &format!("user,id=net{index}")]);
        // The card's boot ROM is left out, since it is in a package that nothing else here needs.
        command.args(["-device", &format!("{card},netdev=net{index},romfile=")]);
    }
    Ok(command)
}

/// Returns what `-smp` says of the machine's CPUs. Where more can be added, each CPU is a package with one core and one
/// thread: on what seems to be bare metal, some kernels from 6.9 on ignore a CPU that is added to a package which is
/// there already.
fn processors(spec: &Spec) -> String {
    let cpus = spec.cpus();
    match spec.room_for_cpus {
        0 => cpus.to_string(),
        room => format!("{cpus},maxcpus={most},sockets={most},cores=1,threads=1", most = cpus + room),
    }
}

/// Returns true if QEMU ended because the guest powered the machine off.
pub fn ended_well(status: ExitStatus, _: &str) -> bool {
    status.success()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::disk::{Disk, Format};

    #[test]
    fn the_command_follows_the_specification() {
        let disk = |path: &str, bus| Disk { path: path.into(), format: Format::Qcow2, bus };
        let spec = Spec {
            dir: "/x".into(),
            iso: "/x/vidar.iso".into(),
            memory: 384,
            max_memory: Some(1024),
            waits_for_debugger: true,
            room_for_cpus: 2,
            disks: vec![disk("/a, \"b\"", Bus::Virtio), disk("/c", Bus::Ahci)],
            networks: vec![Network::Virtio, Network::E1000],
            ..Spec::default()
        };
        let words = |spec: &Spec, ports: Ports| -> Vec<String> {
            let command = command(spec, ports).unwrap();
            command.get_args().map(|word| word.to_string_lossy().into_owned()).collect()
        };
        let arguments = words(
            &spec,
            Ports { serial: Some(4711), monitor: Some(4712), debugger: Some(4713), second_serial: None },
        );
        for wanted in [
            "pc",
            "1,maxcpus=3,sockets=3,cores=1,threads=1",
            "socket,id=monitor,host=127.0.0.1,port=4712",
            "socket,id=debugger,host=127.0.0.1,port=4713",
            "-S",
            "socket,id=com1,host=127.0.0.1,port=4711",
            "if=none,id=iso,format=raw,readonly=on,file=vidar.iso",
            "384,slots=1,maxmem=1024M",
            "virtio-blk-pci,drive=disk0",
            "ide-hd,bus=ahci1.0,drive=disk1",
            "virtio-net-pci,netdev=net0,romfile=",
            "e1000,netdev=net1,romfile=",
            &emulated(EMULATED_CPU),
            "tcg,thread=single",
        ] {
            assert!(arguments.iter().any(|word| word == wanted), "{wanted}");
        }
        let bare = Spec { chipset: Chipset::Q35, no_serial: true, waits_for_debugger: false, ..spec };
        let bare =
            words(&bare, Ports { serial: None, monitor: Some(1), debugger: None, second_serial: None });
        assert!(bare.iter().any(|word| word == "q35") && !bare.iter().any(|word| word.contains("serial")));
        assert!(!bare.iter().any(|word| word == "-S" || word.contains("debugger")));
        let none = Ports { serial: None, monitor: None, debugger: None, second_serial: None };
        let remaps = words(&Spec { remaps_interrupts: true, ..Spec::default() }, none).join(" ");
        let cpu = emulated(EMULATED_CPU);
        assert!(
            remaps
                .contains(&format!("-machine q35 -cpu {cpu},+x2apic -device intel-iommu,intremap=on,eim=on"))
        );
        let node = arguments.iter().find(|word| word.contains("\"disk0\"")).unwrap();
        let node: serde_json::Value = serde_json::from_str(node).unwrap();
        assert_eq!((&node["driver"], &node["file"]["filename"]), (&json!("qcow2"), &json!("/a, \"b\"")));
    }
}
