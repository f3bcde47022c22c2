//! The machines that an ISO is booted in: emulators whose first serial port is a socket of ours, as is the monitor of
//! those that have one.

pub mod abilities;
mod bochs;
mod choice;
pub mod debugger;
pub mod disk;
mod keyboard;
mod kvm;
pub mod monitor;
mod nested;
pub mod picture;
mod qemu;
mod tie;

use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::abilities::Ability;
pub use self::bochs::INSTRUCTIONS_PER_SECOND as BOCHS_HZ;
pub use self::choice::Choice;
use self::debugger::Debugger;
use self::disk::Disk;
pub use self::kvm::Obstacle;
use self::monitor::Monitor;
pub use self::nested::Errand;
pub use self::qemu::TICKS_PER_INSTRUCTION;
use self::tie::tied_to_us;
use crate::paths;

/// Where an emulator logs.
const LOG: &str = "emulator.log";
/// What an emulator prints.
const OUTPUT: &str = "emulator.out";
/// What the Linux around a nested KVM says on its console.
const LINUX_LOG: &str = "linux.log";

/// How often an emulator is started that gives up before its machine runs, for want of a port.
const ATTEMPTS: u32 = 3;

/// A kind of machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// Bochs, which emulates VT-x on any host.
    Bochs,
    /// QEMU without KVM, which emulates AMD-V on any host.
    Qemu,
    /// QEMU with KVM, on hosts that let their guests use VT-x or AMD-V.
    Kvm,
    /// QEMU with KVM in a Linux of its own, which runs in a QEMU that emulates AMD-V: KVM that nests, on any host.
    KvmInQemu,
    /// The same in a Bochs that emulates VT-x, very slowly.
    KvmInBochs,
}

/// A network card. Its network is QEMU's own, from which the guest gets out and nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// virtio-net, over PCI.
    Virtio,
    /// Intel's 82540EM.
    E1000,
}

/// What a machine's devices are built around. Bochs always has the older one.
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
    /// One thread runs all of them by turns.
    #[default]
    OneForAll,
    /// Each CPU has a thread of its own. QEMU then loses machines that use AMD-V, so this is for the test that shows it.
    ///
    /// FXRSTOR, XRSTOR, FLDENV and FRSTOR on *any* CPU clear a bit in the flags of *CPU 0* (`cpu_clear_ignne` in QEMU's
    /// target/i386/tcg/sysemu/fpu_helper.c) without a lock and not in one step. The same word says whether nested paging
    /// is on. If CPU 0 leaves its guest in between, nested paging comes back on, and Vidar runs on the guest's memory.
    OneForEach,
}

/// Where a machine's keyboard is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keyboard {
    /// At a PS/2 port.
    #[default]
    Ps2,
    /// At USB, behind an xHCI; there is no PS/2 port then. Of the chipsets only Q35 can do without one, and Bochs cannot.
    Usb,
}

/// What an ISO is on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Medium {
    /// A CD.
    #[default]
    Cd,
    /// A disk, as if the ISO had been written to one.
    Disk,
    /// A USB stick. In Bochs there are none.
    Usb,
    /// A disk at virtio, which a guest of KVM reads with the fewest exits. In Bochs it is another disk.
    Virtio,
}

/// What a machine is made of. The default is one for people, and tests ask for more.
#[derive(Debug, Clone, Default)]
pub struct Spec {
    /// The folder of its configuration and logs.
    pub dir: PathBuf,
    /// Its chipset.
    pub chipset: Chipset,
    /// Whether it has no serial port at all; it has one otherwise.
    pub no_serial: bool,
    /// Whether it has no screen. In Bochs there is always one.
    pub no_screen: bool,
    /// The ISO in its drive.
    pub iso: PathBuf,
    /// What it is on.
    pub medium: Medium,
    /// Its other disks, which the guest writes to. Bochs has none.
    pub disks: Vec<Disk>,
    /// Its network cards. Bochs has none.
    pub networks: Vec<Network>,
    /// True for a Q35 with an IOMMU that remaps interrupts, and with CPUs that have x2APIC mode. Bochs has no such machine.
    pub remaps_interrupts: bool,
    /// Where its keyboard is.
    pub keyboard: Keyboard,
    /// Its memory in MiB.
    pub memory: u32,
    /// The memory in MiB that it has room for, if more than it starts with can be added while it runs. In Bochs it cannot.
    pub max_memory: Option<u32>,
    /// Its CPUs; `None` is one.
    pub cpus: Option<NonZeroU32>,
    /// How QEMU runs them.
    pub threads: Threads,
    /// CPUs that can be added to it while it runs. Bochs has room for none.
    pub room_for_cpus: u32,
    /// Whether its firmware is UEFI, and not a BIOS.
    pub uefi: bool,
    /// The CPU, as the emulator names it; `None` is the emulator's usual one.
    pub cpu: Option<String>,
    /// Whether its clock starts at the same moment each time, so that runs can be compared tick by tick.
    pub fixed_clock: bool,
    /// Whether its time comes from the instructions that it executes, so that it does not depend on the host. That of
    /// Bochs always does; KVM's cannot.
    pub counts_instructions: bool,
    /// Whether it stops at a triple fault, where a real machine resets. QEMU then stops at any reset.
    pub stops_at_triple_fault: bool,
    /// Whether an MSR that does not exist faults, as in a real machine; Bochs lets it pass otherwise, and QEMU always.
    pub strict_msrs: bool,
    /// What the debugger of Bochs is told before the machine starts; `None` has it go on whenever it asks.
    pub debugger: Option<String>,
    /// Whether that debugger stops as well where the guest marks it, by XCHG BX, BX.
    pub stops_at_marks: bool,
    /// Whether it waits for its debugger before the first instruction. Bochs has another.
    pub waits_for_debugger: bool,
    /// Whether the emulator logs all that it finds odd. A guest that idles for hours would fill the disk.
    pub verbose: bool,
    /// True if the machine runs a nested KVM. The console of the Linux in it goes to a file, and its second serial port is the
    /// line to us.
    pub runs_kvm: bool,
    /// What the Linux around a nested KVM does in place of running this machine.
    pub errand: Option<Errand>,
}

impl Spec {
    fn cpus(&self) -> u32 {
        self.cpus.map_or(1, NonZeroU32::get)
    }

    /// The path of the ISO from the machine's folder, in which the emulator runs: so no folder's name gets among its
    /// options, where a space, a comma and a `$` have a meaning.
    fn iso_from_dir(&self) -> &Path {
        self.iso.strip_prefix(&self.dir).unwrap_or(&self.iso)
    }
}

/// A running machine. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// `None` where it has no serial port.
    serial: Option<TcpStream>,
    /// `None` where the emulator has no monitor, or somebody has taken it.
    monitor: Option<TcpStream>,
    /// `None` where it was not asked for, or somebody has taken it.
    debugger: Option<TcpStream>,
    dir: PathBuf,
    ended_well: fn(ExitStatus, &str) -> bool,
}

impl Machine {
    /// Why a guest of KVM's cannot use VT-x or AMD-V here as Vidar needs it, if that is so.
    pub fn kvm_obstacle() -> Option<Obstacle> {
        kvm::obstacle()
    }

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bochs => "Bochs with emulated VT-x",
            Self::Qemu => "QEMU with emulated AMD-V",
            Self::Kvm => "QEMU/KVM with nested virtualisation",
            Self::KvmInQemu => "QEMU/KVM in a QEMU with emulated AMD-V",
            Self::KvmInBochs => "QEMU/KVM in a Bochs with emulated VT-x",
        }
    }

    /// Vidar's boot option by which Linux gets further CPUs up in it, if that takes one.
    pub fn option_for_cpus(self) -> &'static str {
        // Bochs keeps an INIT that comes while a CPU waits in a VT-x guest for its start-up IPI, and delivers it after that. Then
        // only a second start-up IPI helps, and Linux sends it after 20 microseconds, which are 400 instructions here: too early. What
        // is more, Bochs 2.7 keeps the INIT for ever.
        let starts_by_itself = match self {
            Self::Bochs => false,
            Self::Qemu => Ability::QemuNestedRealMode.missing().is_none(),
            _ => true,
        };
        if starts_by_itself { "" } else { "cpu-startup=emulated" }
    }

    /// Starts it. The ISO boots at once.
    pub fn start(self, spec: &Spec) -> Result<Running> {
        for _ in 1..ATTEMPTS {
            let started = self.try_to_start(spec);
            let output = fs::read_to_string(spec.dir.join(OUTPUT)).unwrap_or_default();
            if started.is_ok() || !output.contains(bochs::NO_PORT) {
                return started;
            }
            eprintln!(
                "note: {} found no port for its screen and ended before its machine ran; it is started again",
                self.name()
            );
        }
        self.try_to_start(spec)
    }

    fn try_to_start(self, spec: &Spec) -> Result<Running> {
        let dir = paths::ensure(spec.dir.clone())?;
        let serial = (!spec.no_serial).then(|| Line::open("serial port")).transpose()?;
        let has_monitor = matches!(self, Self::Qemu | Self::Kvm);
        let monitor = has_monitor.then(|| Line::open("monitor")).transpose()?;
        let debugger = spec.waits_for_debugger.then(|| Line::open("debugger")).transpose()?;
        let ports = Ports {
            serial: Line::port(serial.as_ref())?,
            monitor: Line::port(monitor.as_ref())?,
            debugger: Line::port(debugger.as_ref())?,
        };
        let mut command = match self {
            Self::Bochs => bochs::command(spec, ports)?,
            Self::Qemu => qemu::command(spec, ports)?,
            Self::Kvm => kvm::command(spec, ports)?,
            Self::KvmInQemu => nested::in_qemu(spec, ports)?,
            Self::KvmInBochs => nested::in_bochs(spec, ports)?,
        };
        command.current_dir(&dir);
        let output = fs::File::create(dir.join(OUTPUT))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // Ctrl-C at the terminal is ours to act on, not the emulator's.
        command.process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.name()))?;
        let ended_well = match self {
            Self::Bochs => bochs::ended_well,
            Self::Qemu | Self::Kvm => qemu::ended_well,
            Self::KvmInQemu | Self::KvmInBochs => nested::ended_well,
        };
        // From here on it ends if something goes wrong.
        let mut running = Running { child, serial: None, monitor: None, debugger: None, dir, ended_well };
        running.serial = serial.map(|line| line.accept(&mut running.child, &spec.dir)).transpose()?;
        running.monitor = monitor.map(|line| line.accept(&mut running.child, &spec.dir)).transpose()?;
        running.debugger = debugger.map(|line| line.accept(&mut running.child, &spec.dir)).transpose()?;
        Ok(running)
    }
}

impl Running {
    /// A handle to its serial port. It ends when the machine does.
    pub fn serial(&self) -> Result<TcpStream> {
        let serial = self.serial.as_ref().context("this machine has no serial port")?;
        serial.try_clone().context("cannot share the serial port")
    }

    /// Its monitor, which there is once, and in the QEMU of this host alone.
    pub fn monitor(&mut self) -> Result<Monitor> {
        let stream = self.monitor.take().context("this machine has no monitor, or it is in use")?;
        Monitor::new(stream, &self.dir)
    }

    /// What the emulator has printed so far.
    pub fn emulator_output(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join(OUTPUT)).unwrap_or_default()).into_owned()
    }

    /// Its debugger, which there is once, if it was asked for.
    pub fn debugger(&mut self, patience: Duration) -> Result<Debugger> {
        let stream = self.debugger.take().context("this machine has no debugger, or it is in use")?;
        Debugger::new(stream, patience)
    }

    /// What the emulator has said so far, in its log and else, and the Linux around a nested KVM.
    pub fn emulator_log(&self) -> String {
        let read = |name| fs::read(self.dir.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&[read(LOG), read(OUTPUT), read(LINUX_LOG)].concat()).into_owned()
    }

    /// Waits for the machine to end by itself: whether it was powered off, or `None` if it runs on.
    pub fn ended(&mut self, within: Duration) -> Result<Option<bool>> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some((self.ended_well)(status, &self.emulator_log())));
            }
            if begun.elapsed() >= within {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where we wait for an emulator to connect to us: so no port can be taken by another in between, and no byte is early.
struct Line {
    listener: TcpListener,
    what: &'static str,
}

/// The ports of the lines that there are.
#[derive(Debug, Clone, Copy)]
struct Ports {
    serial: Option<u16>,
    monitor: Option<u16>,
    debugger: Option<u16>,
}

impl Line {
    fn open(what: &'static str) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0));
        Ok(Self { listener: listener.with_context(|| format!("cannot open a socket for the {what}"))?, what })
    }

    fn port(line: Option<&Self>) -> Result<Option<u16>> {
        Ok(line.map(|line| line.listener.local_addr()).transpose()?.map(|address| address.port()))
    }

    /// Waits for the emulator to connect.
    fn accept(self, child: &mut Child, dir: &Path) -> Result<TcpStream> {
        let what = self.what;
        self.listener.set_nonblocking(true)?;
        let begun = Instant::now();
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).with_context(|| format!("the emulator's {what}")),
            }
            if let Some(status) = child.try_wait()? {
                bail!("the emulator ended at once ({status}); it says why in {}", dir.display());
            }
            if begun.elapsed() > Duration::from_secs(60) {
                bail!("the emulator did not open its {what}; see {}", dir.display());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}
