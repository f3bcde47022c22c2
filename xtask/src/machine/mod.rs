//! The machines that an ISO is booted in. They are emulators, whose first serial port, and whose monitor if they have
//! one, are connected to sockets of this program.

pub mod abilities;
mod bochs;
mod choice;
pub mod debugger;
pub mod disk;
pub mod gdb;
mod keyboard;
mod kvm;
mod line;
pub mod monitor;
mod nested;
pub mod picture;
mod qemu;
mod spec;
mod tie;

use std::fs;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use self::abilities::Ability;
pub use self::bochs::INSTRUCTIONS_PER_SECOND as BOCHS_HZ;
pub use self::choice::Choice;
use self::debugger::Debugger;
pub use self::kvm::Obstacle;
use self::line::{Line, Ports};
use self::monitor::Monitor;
pub use self::qemu::TICKS_PER_INSTRUCTION;
pub use self::spec::{Chipset, Errand, Iommu, Keyboard, Medium, Network, Spec, Threads};
use self::spec::{LINUX_LOG, LOG, OUTPUT};
use crate::paths;

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

/// A running machine. Dropping it ends it.
#[derive(Debug)]
pub struct RunningMachine {
    child: Child,
    /// `None` if the machine has no serial port.
    serial: Option<TcpStream>,
    /// `None` if the emulator has no monitor, or if it has been taken.
    monitor: Option<TcpStream>,
    /// `None` if no debugger was asked for, or if it has been taken.
    debugger: Option<TcpStream>,
    /// `None` if the machine has no second serial port, or if it has been taken.
    second_serial: Option<TcpStream>,
    dir: PathBuf,
    ended_well: fn(ExitStatus, &str) -> bool,
}

impl Machine {
    /// Returns the reason why a guest of KVM cannot use VT-x or AMD-V here as Vidar needs it, if there is one.
    pub fn kvm_obstacle() -> Option<Obstacle> {
        kvm::obstacle()
    }

    /// Returns the name of the machine in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bochs => "Bochs with emulated VT-x",
            Self::Qemu => "QEMU with emulated AMD-V",
            Self::Kvm => "QEMU/KVM with nested virtualisation",
            Self::KvmInQemu => "QEMU/KVM in a QEMU with emulated AMD-V",
            Self::KvmInBochs => "QEMU/KVM in a Bochs with emulated VT-x",
        }
    }

    /// Returns the boot option of Vidar that Linux needs to start further CPUs in this machine, if it needs one.
    pub fn option_for_cpus(self) -> &'static str {
        // Bochs keeps an INIT pending that comes while a CPU waits in a VT-x guest for its start-up IPI, and delivers
        // it after that IPI. The CPU then needs a second start-up IPI, but Linux sends it after 20 microseconds, which
        // are 400 instructions here and too early. In addition, Bochs 2.7 never clears the pending INIT.
        let starts_by_itself = match self {
            Self::Bochs => false,
            Self::Qemu => Ability::QemuNestedRealMode.missing().is_none(),
            _ => true,
        };
        if starts_by_itself { "" } else { "cpu-startup=emulated" }
    }

    /// Starts the machine, which boots the ISO at once.
    pub fn start(self, spec: &Spec) -> Result<RunningMachine> {
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

    fn try_to_start(self, spec: &Spec) -> Result<RunningMachine> {
        let dir = paths::ensure(spec.dir.clone())?;
        let serial = (!spec.no_serial).then(|| Line::open("serial port")).transpose()?;
        let has_monitor = matches!(self, Self::Qemu | Self::Kvm);
        let monitor = has_monitor.then(|| Line::open("monitor")).transpose()?;
        let debugger = spec.waits_for_debugger.then(|| Line::open("debugger")).transpose()?;
        let second = spec.second_serial.then(|| Line::open("second serial port")).transpose()?;
        let ports = Ports {
            serial: Line::port(serial.as_ref())?,
            monitor: Line::port(monitor.as_ref())?,
            debugger: Line::port(debugger.as_ref())?,
            second_serial: Line::port(second.as_ref())?,
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
        let mut running = RunningMachine {
            child,
            serial: None,
            monitor: None,
            debugger: None,
            second_serial: None,
            dir,
            ended_well,
        };
        running.serial = serial.map(|line| line.accept(&mut running.child, &spec.dir)).transpose()?;
        running.monitor = monitor.map(|line| line.accept(&mut running.child, &spec.dir)).transpose()?;
        running.debugger = debugger.map(|line| line.accept(&mut running.child, &spec.dir)).transpose()?;
        running.second_serial = second.map(|line| line.accept(&mut running.child, &spec.dir)).transpose()?;
        Ok(running)
    }
}

impl RunningMachine {
    /// Returns a handle to the serial port. It reaches its end when the machine ends.
    pub fn serial(&self) -> Result<TcpStream> {
        let serial = self.serial.as_ref().context("this machine has no serial port")?;
        serial.try_clone().context("cannot share the serial port")
    }

    /// Returns the monitor, which can be taken once. Only a QEMU that runs on this host has one.
    pub fn monitor(&mut self) -> Result<Monitor> {
        let stream = self.monitor.take().context("this machine has no monitor, or it is in use")?;
        Monitor::new(stream, &self.dir)
    }

    /// Returns the emulator's output so far.
    pub fn emulator_output(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join(OUTPUT)).unwrap_or_default()).into_owned()
    }

    /// Returns the debugger, which can be taken once, if it was asked for.
    pub fn debugger(&mut self, patience: Duration) -> Result<Debugger> {
        let stream = self.debugger.take().context("this machine has no debugger, or it is in use")?;
        Debugger::new(stream, patience)
    }

    /// Returns the second serial port, which can be taken once, if it was asked for.
    pub fn second_serial(&mut self) -> Result<TcpStream> {
        self.second_serial.take().context("this machine has no second serial port, or it is in use")
    }

    /// Returns the emulator's log and output so far, and the console of the Linux around a nested KVM.
    pub fn emulator_log(&self) -> String {
        let read = |name| fs::read(self.dir.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&[read(LOG), read(OUTPUT), read(LINUX_LOG)].concat()).into_owned()
    }

    /// Waits for the machine to end by itself. Returns whether the guest powered it off, or `None` if it is still
    /// running.
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

impl Drop for RunningMachine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
