//! The machines that an ISO is booted in. They are emulators, whose first serial port, and whose monitor if they have one, are
//! connected to sockets of this program.

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

/// The file with the emulator's log.
const LOG: &str = "emulator.log";
/// The file with what the emulator prints.
const OUTPUT: &str = "emulator.out";
/// The file with the console of the Linux around a nested KVM.
const LINUX_LOG: &str = "linux.log";

/// How often an emulator is started if it finds no free port and ends before its machine runs.
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
    /// QEMU with nested KVM, on any host: its Linux runs in a QEMU that emulates AMD-V.
    KvmInQemu,
    /// QEMU with nested KVM, on any host, very slowly: its Linux runs in a Bochs that emulates VT-x.
    KvmInBochs,
}

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
    /// Each CPU has a thread of its own. QEMU then loses machines that use AMD-V, so this is for the test that shows it.
    ///
    /// FXRSTOR, XRSTOR, FLDENV and FRSTOR on *any* CPU clear a bit in the flags of *CPU 0* (`cpu_clear_ignne` in QEMU's
    /// target/i386/tcg/sysemu/fpu_helper.c), without a lock and not atomically. Another bit of the same word is set while
    /// nested paging is on. If CPU 0 leaves its guest in between, that bit is set again, and Vidar runs in the guest's memory.
    OneForEach,
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
    /// The ISO that the machine boots from.
    pub iso: PathBuf,
    /// The medium that the ISO is on.
    pub medium: Medium,
    /// Other disks, which the guest writes to. Not possible in Bochs.
    pub disks: Vec<Disk>,
    /// The network cards. Not possible in Bochs.
    pub networks: Vec<Network>,
    /// True for a Q35 with an IOMMU that remaps interrupts, and with CPUs that have x2APIC mode. Not possible in Bochs.
    pub remaps_interrupts: bool,
    /// How the keyboard is attached.
    pub keyboard: Keyboard,
    /// The size of memory in MiB.
    pub memory: u32,
    /// The size of memory in MiB up to which memory can be added while the machine runs, if it can. Not possible in Bochs.
    pub max_memory: Option<u32>,
    /// The number of CPUs; `None` means one.
    pub cpus: Option<NonZeroU32>,
    /// How QEMU runs the CPUs.
    pub threads: Threads,
    /// The number of CPUs that can be added while the machine runs. Not possible in Bochs.
    pub room_for_cpus: u32,
    /// True for a machine whose firmware is UEFI and not a BIOS.
    pub uefi: bool,
    /// The emulator's name for the CPU model; `None` means the emulator's default.
    pub cpu: Option<String>,
    /// True if the clock shall start at the same moment each time, so that runs can be compared tick by tick.
    pub fixed_clock: bool,
    /// True if time shall pass with the instructions that are executed, independently of the host. In Bochs it always does, and
    /// with KVM it cannot.
    pub counts_instructions: bool,
    /// True if the machine shall stop at a triple fault, where a real machine resets. QEMU then stops at any reset.
    pub stops_at_triple_fault: bool,
    /// True if an MSR that does not exist shall fault, as in a real machine. Otherwise Bochs ignores the access, as QEMU always
    /// does.
    pub strict_msrs: bool,
    /// Commands for the debugger of Bochs, to be executed from the machine's start. Without any, the debugger lets the machine run.
    pub debugger: Option<String>,
    /// True if the debugger of Bochs shall also stop at the guest's marks, which are XCHG BX, BX.
    pub stops_at_marks: bool,
    /// True if QEMU shall wait for a debugger before the first instruction. Bochs has a debugger of another kind.
    pub waits_for_debugger: bool,
    /// True if the emulator shall log everything unusual. This would fill the disk for a guest that idles for hours.
    pub verbose: bool,
    /// True if the machine runs a nested KVM. The console of the Linux in it then goes to a file, and its second serial port is
    /// connected to this program.
    pub runs_kvm: bool,
    /// What the Linux around a nested KVM does instead of running this machine.
    pub errand: Option<Errand>,
}

impl Spec {
    fn cpus(&self) -> u32 {
        self.cpus.map_or(1, NonZeroU32::get)
    }

    /// The path of the ISO relative to the machine's folder, in which the emulator runs. The names of folders are thus kept out of
    /// the emulator's options, where a space, a comma and a `$` have a meaning.
    fn iso_from_dir(&self) -> &Path {
        self.iso.strip_prefix(&self.dir).unwrap_or(&self.iso)
    }
}

/// A running machine. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// `None` if the machine has no serial port.
    serial: Option<TcpStream>,
    /// `None` if the emulator has no monitor, or if it has been taken.
    monitor: Option<TcpStream>,
    /// `None` if no debugger was asked for, or if it has been taken.
    debugger: Option<TcpStream>,
    dir: PathBuf,
    ended_well: fn(ExitStatus, &str) -> bool,
}

impl Machine {
    /// Returns the reason why a guest of KVM cannot use VT-x or AMD-V here as Vidar needs it, if there is one.
    pub fn kvm_obstacle() -> Option<Obstacle> {
        kvm::obstacle()
    }

    /// The name of the machine in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bochs => "Bochs with emulated VT-x",
            Self::Qemu => "QEMU with emulated AMD-V",
            Self::Kvm => "QEMU/KVM with nested virtualisation",
            Self::KvmInQemu => "QEMU/KVM in a QEMU with emulated AMD-V",
            Self::KvmInBochs => "QEMU/KVM in a Bochs with emulated VT-x",
        }
    }

    /// The boot option of Vidar that Linux needs to start further CPUs in this machine, if it needs one.
    pub fn option_for_cpus(self) -> &'static str {
        // Bochs keeps an INIT pending that comes while a CPU waits in a VT-x guest for its start-up IPI, and delivers it after that
        // IPI. The CPU then needs a second start-up IPI, but Linux sends it after 20 microseconds, which are 400 instructions here
        // and too early. In addition, Bochs 2.7 never clears the pending INIT.
        let starts_by_itself = match self {
            Self::Bochs => false,
            Self::Qemu => Ability::QemuNestedRealMode.missing().is_none(),
            _ => true,
        };
        if starts_by_itself { "" } else { "cpu-startup=emulated" }
    }

    /// Starts the machine, which boots the ISO at once.
    pub fn start(self, spec: &Spec) -> Result<Running> {
        for _ in 1..ATTEMPTS {
            let started = self.try_to_start(spec);
            let output = fs::read_to_string(spec.dir.join(OUTPUT)).unwrap_or_default();
            if started.is_ok() || !output.contains(bochs::NO_PORT) {
                return started;
            }
            eprintln!(
                "note: {} found no free port for its screen and ended before its machine ran; it is started again",
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
        // Ctrl-C at the terminal is for this program, not for the emulator.
        command.process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.name()))?;
        let ended_well = match self {
            Self::Bochs => bochs::ended_well,
            Self::Qemu | Self::Kvm => qemu::ended_well,
            Self::KvmInQemu | Self::KvmInBochs => nested::ended_well,
        };
        // From here on, an error drops this and ends the emulator.
        let mut running = Running { child, serial: None, monitor: None, debugger: None, dir, ended_well };
        running.serial = serial.map(|line| line.accept(&mut running.child, &spec.dir)).transpose()?;
        running.monitor = monitor.map(|line| line.accept(&mut running.child, &spec.dir)).transpose()?;
        running.debugger = debugger.map(|line| line.accept(&mut running.child, &spec.dir)).transpose()?;
        Ok(running)
    }
}

impl Running {
    /// A handle to the serial port. It reaches its end when the machine ends.
    pub fn serial(&self) -> Result<TcpStream> {
        let serial = self.serial.as_ref().context("this machine has no serial port")?;
        serial.try_clone().context("cannot share the serial port")
    }

    /// The monitor, which can be taken once. Only a QEMU that runs on this host has one.
    pub fn monitor(&mut self) -> Result<Monitor> {
        let stream = self.monitor.take().context("this machine has no monitor, or it is in use")?;
        Monitor::new(stream, &self.dir)
    }

    /// The emulator's output so far.
    pub fn emulator_output(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join(OUTPUT)).unwrap_or_default()).into_owned()
    }

    /// The debugger, which can be taken once, if it was asked for.
    pub fn debugger(&mut self, patience: Duration) -> Result<Debugger> {
        let stream = self.debugger.take().context("this machine has no debugger, or it is in use")?;
        Debugger::new(stream, patience)
    }

    /// The emulator's log and output so far, and the console of the Linux around a nested KVM.
    pub fn emulator_log(&self) -> String {
        let read = |name| fs::read(self.dir.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&[read(LOG), read(OUTPUT), read(LINUX_LOG)].concat()).into_owned()
    }

    /// Waits for the machine to end by itself. Returns whether the guest powered it off, or `None` if it is still running.
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

/// A socket that an emulator connects to. Since this program listens before the emulator starts, nobody else can take the port,
/// and no byte is lost.
struct Line {
    listener: TcpListener,
    what: &'static str,
}

/// The TCP ports that the emulator connects to.
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
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot connect to the emulator's {what}"));
                }
            }
            if let Some(status) = child.try_wait()? {
                bail!("the emulator ended at once ({status}); it says why in {}", dir.display());
            }
            if begun.elapsed() > Duration::from_secs(60) {
                bail!("the emulator did not connect its {what}; see {}", dir.display());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}
