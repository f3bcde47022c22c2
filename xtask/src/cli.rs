//! The table of all commands and options, with their help.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::grub::DebugConsole;
use crate::guest_args::GuestArgs;
use crate::machine::Choice;
use crate::machine::disk::DiskArgument;

/// Builds, boots, tests and measures Vidar.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub task: Task,
}

#[derive(Subcommand)]
pub enum Task {
    /// Get what is missing: Rust targets, packages, the guests' newest kernels, busybox
    ///
    /// Packages are installed by apt, with sudo unless you are root. On systems without apt you are told what to
    /// install. The other tasks get what they need themselves, but only this one looks for newer kernels.
    Setup,
    /// Build the hypervisor and the guest's tool, and print their sizes
    Build,
    /// Make a hybrid ISO that boots from CD and USB
    ///
    /// It contains the guests of iso/guests.toml and your own. GRUB's menu, on the screen and on the serial port, has
    /// two entries for each guest: under Vidar, and bare.
    Iso(IsoArgs),
    /// Write the ISO to a USB stick, and read it back
    ///
    /// The ISO is made first, by the options of `iso`, unless --iso names one. Everything on the stick is lost, so you
    /// are asked before. A file may stand for the stick.
    Usb(UsbArgs),
    /// Make the package for Debian and Ubuntu, target/vidar_VERSION_amd64.deb
    ///
    /// It has the hypervisor, `vidarctl` and their manuals, and adds entries to the GRUB of the system that it is
    /// installed on: `apt install ./target/vidar_VERSION_amd64.deb`.
    Deb {
        /// The package's version [default: Vidar's own]
        #[arg(long, value_name = "VERSION")]
        package_version: Option<String>,
    },
    /// Make all files of a release in target/dist
    ///
    /// These are the ISO, the package, the hypervisor, `vidarctl`, lists of the crates that both are made of, with
    /// versions and licences, and the checksums of all. From the same commit and packages everybody makes the same
    /// files. It builds cargo-cyclonedx under target/tools where that is missing.
    Dist,
    /// Boot a guest and make this terminal its console
    ///
    /// Ctrl-A x quits, and `poweroff` in the guest ends it as well. Bochs shows the guest's screen by VNC, on port 5900
    /// or the next free one, without a password: everyone who can reach this machine can see it.
    Run(RunArgs),
    /// Make a file with the symbols of a guest's kernel, for gdb
    ///
    /// A distribution's kernel is stripped, but it has tables of its symbols for its own stack traces. The file has
    /// these, at the addresses at which the kernel was linked; gdb asks Vidar how far the kernel was moved.
    Symbols {
        /// The guest [default: the first of iso/guests.toml]
        #[arg(long, value_name = "NAME")]
        guest: Option<String>,
    },
    /// Dump what matters of a guest's kernel over the line to Vidar's debugger, as an ELF core that drgn opens
    ///
    /// Vidar must have been booted with gdb=com2, and no gdb may be connected. The guest is stopped meanwhile and goes
    /// on afterwards. The core has the kernel's symbols, log and variables, those of each CPU, and the stacks of the
    /// CPUs. These are about 15 MiB, for which a serial line of 115200 baud takes up to three quarters of an hour.
    Dump {
        /// The line: HOST:PORT, as `cargo xtask run --gdb` prints it, or a serial device such as /dev/ttyUSB0
        #[arg(long, value_name = "LINE")]
        gdb: String,
        /// The file to write
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Run all tests: those of the host, the project's own rules, and those in emulators
    ///
    /// Each test has a line when it ends, and the last line has the counts. Logs are under target/machines.
    Test {
        /// Run only tests whose names contain this, and the tests that they depend on
        #[arg(long, value_name = "TEXT")]
        filter: Option<String>,
        /// Print the names and run nothing
        #[arg(long)]
        list: bool,
        /// Also install Vidar's package in whole Debians on disks, which are built first, and attack a guarded Linux on
        /// VT-x; this takes 40 minutes and 3 GiB
        #[arg(long)]
        distribution: bool,
        /// Also show that QEMU loses a machine of several CPUs if each of them has a thread of its own
        #[arg(long)]
        lost_machine: bool,
        /// Also boot the newest kernels of Debian stable and unstable, which are fetched first
        #[arg(long)]
        newest_kernels: bool,
        /// Run the tests in emulators with the emulators and the GRUB of another Debian, such as trixie, in place of
        /// this system's, which must not be newer; they are fetched first, which takes some minutes and 500 MiB
        #[arg(long, value_name = "SUITE")]
        emulators: Option<String>,
        /// Set if this process runs in the tree of that suite's emulators, and everything was built outside of it
        #[arg(long, hide = true, requires = "emulators")]
        inside: bool,
        /// Also test Vidar on the VT-x of a nested KVM, which runs in Bochs; this takes 10 to 20 minutes
        #[arg(long)]
        nested: bool,
        /// Also make a release twice, in two clones of this checkout, and compare the files; this takes 3 to 5 minutes
        #[arg(long)]
        reproducible: bool,
        /// Also dump a kernel over the line to Vidar's debugger, which takes 4 minutes
        #[arg(long)]
        dump: bool,
        /// Also stop a guest N times as gdb does, and have it go on, while two CPUs take interrupts
        #[arg(long, value_name = "N", default_value_t = 0)]
        rounds: u32,
        /// Give Vidar these boot options in each test, besides the test's own; with check=on the probe's runs and
        /// Linux's also fail if the state breaks a rule before an entry
        #[arg(long, value_name = "TEXT", default_value = "")]
        option: String,
        /// Run the tests N times, one after the other
        #[arg(long, value_name = "N", default_value = "1")]
        repeat: NonZeroU32,
        /// Put guests with several CPUs under load for S seconds, by their own clock
        #[arg(long, value_name = "S", default_value_t = 10)]
        load: u64,
    },
    /// Name the functions and lines in a report of Vidar's about itself, such as a panic's
    ///
    /// It prints the report again, with a line for each function after each address. The report names the build that it
    /// is of, and must be of the one that was built last.
    Symbolize {
        /// The file with the report; without it, paste the report and press Ctrl-D
        file: Option<PathBuf>,
    },
    /// Measure what Vidar costs, bare and under Vidar, and print the table
    ///
    /// This counts instructions, in Bochs for VT-x and in QEMU for AMD-V, so that a run can be repeated.
    Bench {
        /// Only draw the picture of the exits over the time of a boot
        #[arg(long)]
        picture: bool,
        /// Only draw the trace of a boot's last exits
        #[arg(long, conflicts_with_all = ["picture", "exits"])]
        trace: bool,
        /// Only measure the round trips of CPUID and of a hypercall, in the tiny guest
        #[arg(long, conflicts_with = "picture")]
        exits: bool,
        /// Only count the exits of a Linux with two CPUs with each value of guard=: in a boot, in an administrator's
        /// work, and while it idles; this takes 10 to 20 minutes
        #[arg(long, conflicts_with_all = ["picture", "exits", "trace"])]
        guard: bool,
    },
    /// Check the project's own rules
    Tidy,
    /// Try each parser with a million inputs: mutations of valid ones, and noise
    ///
    /// The tests try some thousand. An input that a parser fails with is written to hv/core/tests/robust/corpus.
    Robust {
        /// Try only parsers whose names contain this
        #[arg(long, value_name = "TEXT")]
        filter: Option<String>,
        /// How many inputs each parser is given
        #[arg(long, value_name = "N", default_value = "1000000")]
        inputs: NonZeroU32,
    },
    /// Print which lines of hv/core the tests of the host execute
    ///
    /// It adds Rust's component llvm-tools where that is missing.
    Coverage,
    /// Run the unit tests of hv/core under Miri, which finds undefined behaviour
    ///
    /// It adds Miri to the nightly toolchain of rustup, or installs that, where it is missing.
    Miri {
        /// Run only tests whose names contain this
        #[arg(long, value_name = "TEXT")]
        filter: Option<String>,
    },
    /// Check licences, duplicates, sources and known faults of the crates in use
    ///
    /// It builds cargo-deny under target/tools where that is missing. Known faults are checked where their list can be
    /// fetched.
    Deny,
    /// Remove ISOs, packages, releases, logs and what the emulators left; `cargo clean` removes what was built
    Clean {
        /// Also remove the guests' kernels; the next task fetches them again
        #[arg(long)]
        guests: bool,
        /// Also remove the trees of `test --emulators`, with the guests' kernels in them
        #[arg(long)]
        emulators: bool,
    },
}

#[derive(Args)]
pub struct IsoArgs {
    /// The path of the ISO [default: target/vidar.iso]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The menu entry that boots by default [default: the first]
    #[arg(long, value_name = "NAME[:bare]")]
    pub default: Option<String>,
    /// The seconds that the menu waits before it boots
    #[arg(long, value_name = "S", default_value_t = 5)]
    pub menu_timeout: u32,
    /// Vidar's boot options
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub options: String,
    /// The console for Vidar's messages, and for GRUB's menu besides the screen [default: com1, and the screen]
    #[arg(long, value_enum, value_name = "WHERE")]
    pub debug_console: Option<DebugConsole>,
    #[command(flatten)]
    pub own: GuestArgs,
}

#[derive(Args)]
pub struct UsbArgs {
    /// The stick: a whole disk, such as /dev/sdX (`lsblk` lists them)
    #[arg(value_name = "DEVICE")]
    pub target: PathBuf,
    /// An existing ISO to write, in place of a new one
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["output", "default", "menu_timeout", "options", "debug_console", "guest"]
    )]
    pub iso: Option<PathBuf>,
    /// Also accept a disk that is neither at USB nor removable, such as one of this machine's own or a loop device
    #[arg(long)]
    pub any_disk: bool,
    /// Do not ask before writing
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub new: IsoArgs,
}

#[derive(Args)]
pub struct RunArgs {
    /// The guest to boot [default: the first of iso/guests.toml]
    #[arg(long, value_name = "NAME")]
    pub guest: Option<String>,
    /// Boot the guest without Vidar
    #[arg(long)]
    pub bare: bool,
    /// The machine to boot in
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    pub machine: Choice,
    /// The machine's memory in MiB
    #[arg(long, value_name = "M", default_value_t = 1024)]
    pub memory: u32,
    /// The number of the machine's CPUs
    #[arg(long, value_name = "N", default_value = "1")]
    pub cpus: NonZeroU32,
    /// Use UEFI firmware in place of a BIOS
    #[arg(long)]
    pub uefi: bool,
    /// A disk that the guest can write to; only in qemu and kvm. Repeatable
    #[arg(long, value_name = "FILE[:virtio|:ahci]")]
    pub disk: Vec<DiskArgument>,
    /// Have the guest wait for gdb before the kernel's first instruction, and print how gdb is started
    #[arg(long, conflicts_with = "bare")]
    pub gdb: bool,
    /// The network card, by which the guest can make connections but not receive them; only in qemu and kvm
    #[arg(long, value_enum, default_value_t = Card::Virtio)]
    pub net: Card,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Card {
    None,
    Virtio,
    E1000,
}
