//! The front door of the project: `cargo xtask`.

mod archive;
mod bench;
mod build;
mod cmdline;
mod console;
mod distribution;
mod emulators;
mod grub;
mod guest_args;
mod guests;
mod initramfs;
mod iso;
mod kernel_file;
mod machine;
mod manifest;
mod modules;
mod packages;
mod paths;
mod probe_image;
mod progress;
mod run;
mod setup;
mod terminal;
mod test;
mod tidy;
mod usb;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::grub::DebugConsole;
use crate::guest_args::GuestArgs;
use crate::machine::disk::DiskArgument;
use crate::machine::{Choice, Machine, Network, Spec};

/// Builds, boots, tests and measures Vidar.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Get what is missing: Rust targets, packages, the guests' newest kernels, busybox
    ///
    /// Packages come by apt, with sudo when not root; on other systems you are told what to install. The other
    /// tasks get what they need themselves, but only this one looks for newer kernels.
    Setup,
    /// Build the hypervisor and the guest's tool, and print their sizes
    Build,
    /// Make a hybrid ISO that boots from CD and USB
    ///
    /// It carries the guests of iso/guests.toml and your own. GRUB's menu, on screen and serial port, lists each
    /// twice: under Vidar, and bare.
    Iso(IsoArgs),
    /// Write the ISO to a USB stick, and read it back
    ///
    /// It is made first, by the options of `iso`, or named by --iso. All that is on the stick is lost; you are asked
    /// before that. A file of your own may stand for the stick.
    Usb(UsbArgs),
    /// Boot a guest and make this terminal its console
    ///
    /// Ctrl-A x quits; poweroff in the guest ends it as well. Bochs shows the guest's screen by VNC, from port 5900
    /// on, to everyone who can reach this machine: without a password.
    Run(RunArgs),
    /// Run all tests: those of the host, the project's own rules, and those in emulators
    ///
    /// A line for each test as it ends, and the count as the last line. Logs are under target/machines.
    Test {
        /// Run only tests whose names contain this, with what they build on
        #[arg(long, value_name = "TEXT")]
        filter: Option<String>,
        /// Print the names and run nothing
        #[arg(long)]
        list: bool,
        /// Also boot a whole Debian, which is built first: that takes minutes and 3 GiB
        #[arg(long)]
        distribution: bool,
        /// Also show that QEMU loses a machine of several CPUs if each of them has a thread of its own
        #[arg(long)]
        lost_machine: bool,
        /// Also boot the newest kernels of Debian stable and unstable, which are fetched first
        #[arg(long)]
        newest_kernels: bool,
        /// Run those in machines with the emulators and the GRUB of another Debian, such as trixie, in place of this
        /// system's, which must not be newer: they are fetched first, which takes some minutes and 500 MiB
        #[arg(long, value_name = "SUITE")]
        emulators: Option<String>,
        /// This process runs in the tree of that suite's emulators, and all was built outside of it
        #[arg(long, hide = true, requires = "emulators")]
        inside: bool,
        /// Also try Vidar on the VT-x of a KVM that nests: that KVM runs in Bochs, and it takes 10 to 20 minutes
        #[arg(long)]
        nested: bool,
        /// Run them so many times, one after the other
        #[arg(long, value_name = "N", default_value = "1")]
        repeat: NonZeroU32,
        /// Seconds of load that guests of several CPUs are put under, by their own clock
        #[arg(long, value_name = "S", default_value_t = 10)]
        load: u64,
    },
    /// Measure what Vidar costs, bare beside Vidar, and print the table
    ///
    /// In Bochs, where the time-stamp counter counts instructions and a run can be repeated exactly.
    Bench {
        /// Only draw the picture of exits over the time of a boot
        #[arg(long)]
        picture: bool,
    },
    /// Check the project's own rules
    Tidy,
    /// Remove ISOs, logs and what the emulators left; built programs are cargo's to clean
    Clean {
        /// Remove the guests' kernels too; the next task fetches them again
        #[arg(long)]
        guests: bool,
        /// Remove the trees of `test --emulators` too, with the guests' kernels in them
        #[arg(long)]
        emulators: bool,
    },
}

#[derive(Args)]
struct IsoArgs {
    /// Where the ISO goes [default: target/vidar.iso]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The entry that boots by itself [default: the first]
    #[arg(long, value_name = "NAME[:bare]")]
    default: Option<String>,
    /// Seconds that the menu waits
    #[arg(long, value_name = "S", default_value_t = 5)]
    menu_timeout: u32,
    /// Vidar's boot options
    #[arg(long, value_name = "TEXT", default_value = "")]
    options: String,
    /// Where Vidar writes, and GRUB's menu is besides the screen [default: com1, and the screen]
    #[arg(long, value_enum, value_name = "WHERE")]
    debug_console: Option<DebugConsole>,
    #[command(flatten)]
    own: GuestArgs,
}

#[derive(Args)]
struct UsbArgs {
    /// The stick: a whole disk, such as /dev/sdX (`lsblk` lists them)
    #[arg(value_name = "DEVICE")]
    target: PathBuf,
    /// An ISO that is there already, in place of a new one
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["output", "default", "menu_timeout", "options", "debug_console", "guest"]
    )]
    iso: Option<PathBuf>,
    /// Take a disk that is neither at USB nor removable, too, such as one of this machine's own or a loop device
    #[arg(long)]
    any_disk: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    new: IsoArgs,
}

#[derive(Args)]
struct RunArgs {
    /// The guest to boot [default: the first of iso/guests.toml]
    #[arg(long, value_name = "NAME")]
    guest: Option<String>,
    /// Boot it without Vidar
    #[arg(long)]
    bare: bool,
    /// The machine
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    machine: Choice,
    /// The machine's memory in MiB
    #[arg(long, value_name = "M", default_value_t = 1024)]
    memory: u32,
    /// The machine's CPUs
    #[arg(long, value_name = "N", default_value = "1")]
    cpus: NonZeroU32,
    /// UEFI in place of a BIOS
    #[arg(long)]
    uefi: bool,
    /// A disk for the guest to write to, as often as there are to be; in qemu and kvm
    #[arg(long, value_name = "FILE[:virtio|:ahci]")]
    disk: Vec<DiskArgument>,
    /// The network card, behind which the guest gets out and nobody in; in qemu and kvm
    #[arg(long, value_enum, default_value_t = Card::Virtio)]
    net: Card,
}

#[derive(Clone, Copy, ValueEnum)]
enum Card {
    None,
    Virtio,
    E1000,
}

fn main() -> ExitCode {
    match perform(Cli::parse().task) {
        Ok(true) => ExitCode::SUCCESS,
        // Tests and measurements have said what failed, and the count of tests stays the last line.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does it; whether the tests passed or the measurements are as they must be, if it was they.
fn perform(task: Task) -> Result<bool> {
    match task {
        Task::Setup => setup::all()?,
        Task::Build => {
            setup::tools()?;
            build::print_sizes(&build::all()?)?;
        }
        Task::Iso(args) => drop(iso(args)?),
        Task::Usb(args) => usb(args)?,
        Task::Run(args) => run(args)?,
        Task::Test {
            list,
            filter,
            distribution,
            lost_machine,
            newest_kernels,
            nested,
            emulators,
            inside,
            repeat,
            load,
        } => {
            let extent = test::Extent { distribution, lost_machine, newest_kernels, nested, load };
            if let Some(suite) = emulators {
                if !inside && !list {
                    return test::run_with(&suite);
                }
                paths::run_in(suite);
            }
            if !list {
                return Ok(test::run(filter.as_deref(), extent, repeat));
            }
            test::list(extent);
        }
        Task::Bench { picture: true } => bench::picture()?,
        Task::Bench { picture: false } => return bench::run(),
        Task::Tidy => tidy::run()?,
        Task::Clean { guests, emulators } => {
            paths::clean(guests)?;
            if emulators {
                emulators::clean()?;
            }
        }
    }
    Ok(true)
}

/// Makes an ISO; where it is.
fn iso(args: IsoArgs) -> Result<PathBuf> {
    let mut guests = manifest::load_for_iso()?;
    guests.extend(args.own.guests);
    let menu = grub::Menu {
        default: args.default,
        timeout: args.menu_timeout,
        options: args.options,
        debug_console: args.debug_console,
        ..grub::Menu::default()
    };
    iso::check(&guests, &menu, true)?;
    guests.iter().try_for_each(kernel_file::check)?;
    setup::missing()?;
    let built = build::all()?;
    let output = args.output.unwrap_or_else(paths::default_iso);
    let recipe =
        iso::Recipe { guests, menu, hypervisor: Some(built.hypervisor), vidarctl: Some(built.vidarctl) };
    iso::make_with_progress(&recipe, &output)?;
    println!("{}: {} MiB", output.display(), build::size(&output)?.div_ceil(1 << 20));
    Ok(output)
}

fn usb(args: UsbArgs) -> Result<()> {
    let UsbArgs { target, iso: made, any_disk, yes, new } = args;
    let order = usb::Order { target, iso: made, any_disk, yes };
    order.check()?;
    match &order.iso {
        Some(made) => order.write(made),
        None => order.write(&iso(new)?),
    }
}

fn run(args: RunArgs) -> Result<()> {
    let guests = manifest::load()?;
    let names: Vec<_> = guests.iter().map(|guest| guest.name.clone()).collect();
    let guest = args.guest.unwrap_or_else(|| names[0].clone());
    anyhow::ensure!(
        names.contains(&guest),
        "There is no guest \"{guest}\"; there are: {}.",
        names.join(", ")
    );
    let bochs = matches!(args.machine, Choice::Bochs);
    anyhow::ensure!(args.disk.is_empty() || !bochs, "Bochs has no disks here; use --machine qemu.");
    let disks = args.disk.iter().map(DiskArgument::open).collect::<Result<_>>()?;
    // What is in the way is told before anything is fetched or built.
    let machine = args.machine.decide(Machine::kvm_obstacle, setup::missing)?;
    setup::missing()?;
    let hypervisor = if args.bare { None } else { Some(build::all()?.hypervisor) };
    let vidarctl = Some(build::vidarctl()?);
    let default = Some(if args.bare { grub::bare(&guest) } else { guest });
    // Long enough to choose another entry when the guest reboots.
    let mut menu = grub::Menu { default, timeout: 2, ..grub::Menu::default() };
    if args.cpus.get() > 1 {
        menu.options = machine.option_for_cpus().to_owned();
    }
    let recipe = iso::Recipe { guests, menu, hypervisor, vidarctl };
    let networks = match args.net {
        Card::None => vec![],
        Card::Virtio => vec![Network::Virtio],
        Card::E1000 => vec![Network::E1000],
    };
    run::interactive(
        &recipe,
        machine,
        Spec {
            memory: args.memory,
            cpus: Some(args.cpus),
            uefi: args.uefi,
            disks,
            networks,
            ..Spec::default()
        },
    )
}
