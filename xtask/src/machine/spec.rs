//! The description of a machine, and the files in its folder.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use super::disk::Disk;

/// The file with the emulator's log.
pub const LOG: &str = "emulator.log";
/// The file with what the emulator prints.
pub const OUTPUT: &str = "emulator.out";
/// The file with the console of the Linux around a nested KVM.
pub const LINUX_LOG: &str = "linux.log";

/// A network card. It is on QEMU's user network, which lets the guest make connections but not receive them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// A virtio-net card over PCI.
    Virtio,
    /// An Intel 82540EM.
    E1000,
}

/// The chipset of a machine. In Bochs it is always the older one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Chipset {
    /// Intel's 440FX of 1996, with PCI.
    #[default]
    Pc,
    /// Intel's Q35 of 2007, with PCI Express, and with AHCI for its drives.
    Q35,
}

/// How QEMU runs the CPUs of a machine without KVM. Bochs always runs them in one thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Threads {
    /// One thread runs all CPUs by turns.
    #[default]
    OneForAll,
    /// Each CPU has a thread of its own. QEMU then loses machines that use AMD-V, so this is for the test that shows
    /// it.
    ///
    /// FXRSTOR, XRSTOR, FLDENV and FRSTOR on *any* CPU clear a bit in the flags of *CPU 0* (`cpu_clear_ignne` in QEMU's
    /// target/i386/tcg/sysemu/fpu_helper.c), without a lock and not atomically. Another bit of the same word is set
    /// while nested paging is on. If CPU 0 leaves its guest in between, that bit is set again, and Vidar runs in the
    /// guest's memory.
    OneForEach,
}

/// The kind of a machine's IOMMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Iommu {
    /// VT-d, with addresses of 48 bits.
    Intel,
    /// AMD-Vi.
    Amd,
}

/// How a machine's keyboard is attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keyboard {
    /// At a PS/2 port.
    #[default]
    Ps2,
    /// At an xHCI controller, without any PS/2 port. This is possible with Q35 only, and not in Bochs.
    Usb,
}

/// The medium that an ISO is on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Medium {
    /// A CD.
    #[default]
    Cd,
    /// A disk, as if the ISO had been written to one.
    Disk,
    /// A USB stick. Not possible in Bochs.
    Usb,
    /// A disk at virtio, which a guest of KVM reads with the fewest exits. In Bochs it is an ordinary disk.
    Virtio,
}

/// What the Linux with KVM does instead of running a machine.
#[derive(Debug, Clone, Default)]
pub struct Errand {
    /// A shell script. Its output goes to the machine's serial port.
    pub script: String,
    /// A program of this host, which the script finds in /usr/bin.
    pub program: PathBuf,
    /// Other files, with their paths.
    pub files: Vec<(String, Vec<u8>)>,
}

/// The description of a machine. The default suits interactive use.
#[derive(Debug, Clone, Default)]
pub struct Spec {
    /// The folder for the machine's configuration and logs.
    pub dir: PathBuf,
    /// The chipset.
    pub chipset: Chipset,
    /// True for a machine without a serial port.
    pub no_serial: bool,
    /// True for a machine without a screen. In Bochs there is always one.
    pub no_screen: bool,
    /// The ISO, or the image of another disk, that the machine boots from. It stays as it is.
    pub iso: PathBuf,
    /// The medium that the ISO is on. A disk that is no ISO is on a disk.
    pub medium: Medium,
    /// Other disks, which the guest writes to. Not possible in Bochs.
    pub disks: Vec<Disk>,
    /// The network cards. Not possible in Bochs.
    pub networks: Vec<Network>,
    /// True for a Q35 with an IOMMU that remaps interrupts, and with CPUs that have x2APIC mode. Not possible in Bochs.
    pub remaps_interrupts: bool,
    /// The IOMMU of a Q35. Behind it is QEMU's device `edu`, whose DMA engine writes wherever the guest tells it to.
    /// Not possible in Bochs.
    pub attacker: Option<Iommu>,
    /// How the keyboard is attached.
    pub keyboard: Keyboard,
    /// The size of memory in MiB.
    pub memory: u32,
    /// The size of memory in MiB up to which memory can be added while the machine runs, if it can. Not possible in
    /// Bochs.
    pub max_memory: Option<u32>,
    /// The number of CPUs; `None` means one.
    pub cpus: Option<NonZeroU32>,
    /// How QEMU runs the CPUs.
    pub threads: Threads,
    /// The number of CPUs that can be added while the machine runs. Not possible in Bochs.
    pub room_for_cpus: u32,
    /// True for a machine whose firmware is UEFI and not a BIOS.
    pub uefi: bool,
    /// True for a Q35 whose firmware is UEFI with Secure Boot on, and with Microsoft's keys. Not possible in Bochs.
    pub secure_boot: bool,
    /// The emulator's name for the CPU model; `None` means the emulator's default.
    pub cpu: Option<String>,
    /// True if the clock shall start at the same moment each time, so that runs can be compared tick by tick.
    pub fixed_clock: bool,
    /// True if time shall pass with the instructions that are executed, independently of the host. In Bochs it always
    /// does, and with KVM it cannot.
    pub counts_instructions: bool,
    /// True if the machine shall stop at a triple fault, where a real machine resets. QEMU then stops at any reset.
    pub stops_at_triple_fault: bool,
    /// True if an MSR that does not exist shall fault, as in a real machine. Otherwise Bochs ignores the access, as
    /// QEMU always does.
    pub strict_msrs: bool,
    /// Commands for the debugger of Bochs, to be executed from the machine's start. Without any, the debugger lets the
    /// machine run.
    pub debugger: Option<String>,
    /// True if the debugger of Bochs shall also stop at the guest's marks, which are XCHG BX, BX.
    pub stops_at_marks: bool,
    /// True if QEMU shall wait for a debugger before the first instruction. Bochs has a debugger of another kind.
    pub waits_for_debugger: bool,
    /// True if the machine has a second serial port, for gdb. Not possible with a nested KVM.
    pub second_serial: bool,
    /// True if the emulator shall log everything unusual. This would fill the disk for a guest that idles for hours.
    pub verbose: bool,
    /// True if the machine runs a nested KVM. The console of the Linux in it then goes to a file, and its second serial
    /// port is connected to this program.
    pub runs_kvm: bool,
    /// What the Linux around a nested KVM does instead of running this machine.
    pub errand: Option<Errand>,
}

impl Spec {
    /// Returns the number of CPUs.
    pub fn cpus(&self) -> u32 {
        self.cpus.map_or(1, NonZeroU32::get)
    }

    /// Returns the path of the ISO relative to the machine's folder, in which the emulator runs. The names of folders
    /// are thus kept out of the emulator's options, where a space, a comma and a `$` have a meaning.
    pub fn iso_from_dir(&self) -> &Path {
        self.iso.strip_prefix(&self.dir).unwrap_or(&self.iso)
    }
}
