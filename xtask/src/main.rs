//! `cargo xtask`: all work on the project.

mod archive;
mod attack;
mod bench;
mod build;
mod build_id;
mod cargo_tools;
mod checks;
mod cli;
mod cmdline;
mod console;
mod dist;
mod distribution;
mod dump;
mod emulators;
mod grub;
mod guest_args;
mod guests;
mod initramfs;
mod initrds;
mod iso;
mod kernel_file;
mod linked_crates;
mod machine;
mod manifest;
mod modules;
mod package;
mod packages;
mod paths;
mod prefixes;
mod probe_image;
mod progress;
mod remote;
mod run;
mod setup;
mod source;
mod strip;
mod symbolize;
mod symbols;
mod terminal;
mod test;
mod tidy;
mod usb;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::cli::{Card, Cli, IsoArgs, RunArgs, Task, UsbArgs};
use crate::machine::disk::DiskArgument;
use crate::machine::{Choice, Machine, Network, Spec};

fn main() -> ExitCode {
    match perform(Cli::parse().task) {
        Ok(true) => ExitCode::SUCCESS,
        // Tests and measurements have already reported what failed, and the counts have to be the last line.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the task. Returns false if tests failed or measurements exceed their limits.
fn perform(task: Task) -> Result<bool> {
    match task {
        Task::Setup => setup::all()?,
        Task::Build => {
            setup::tools()?;
            build::print_sizes(&build::all()?)?;
        }
        Task::Iso(args) => drop(iso(args)?),
        Task::Usb(args) => usb(args)?,
        Task::Deb { package_version } => package::run(package_version.as_deref())?,
        Task::Dist => dist::run()?,
        Task::Run(args) => run(args)?,
        Task::Symbols { guest } => {
            let guest = guest_named(guest)?;
            let (file, count) = symbols_of(&guest)?;
            println!("{}: {count} symbols", file.display());
        }
        Task::Dump { gdb, file } => dump::run(&gdb, &file)?,
        Task::Test {
            list,
            filter,
            distribution,
            lost_machine,
            newest_kernels,
            nested,
            reproducible,
            dump,
            rounds,
            emulators,
            inside,
            option,
            repeat,
            load,
        } => {
            grub::add_options(option)?;
            let extent = test::Extent {
                distribution,
                lost_machine,
                newest_kernels,
                nested,
                reproducible,
                dump,
                rounds,
                load,
            };
            if let Some(suite) = emulators {
                if !inside && !list {
                    return test::run_with(&suite);
                }
                paths::run_in(suite);
            }
            if !list {
                return Ok(test::run(filter.as_deref(), extent, repeat));
            }
            test::list(filter.as_deref(), extent);
        }
        Task::Symbolize { file } => symbolize::run(file.as_deref())?,
        Task::Bench { picture: true, .. } => bench::picture()?,
        Task::Bench { exits: true, .. } => return bench::exits(),
        Task::Bench { trace: true, .. } => bench::trace()?,
        Task::Bench { guard: true, .. } => bench::guard()?,
        Task::Bench { .. } => return bench::run(),
        Task::Tidy => tidy::run()?,
        Task::Robust { filter, inputs } => checks::robust::run(inputs, filter.as_deref())?,
        Task::Coverage => checks::coverage::run()?,
        Task::Miri { filter } => checks::miri::run(filter.as_deref())?,
        Task::Deny => checks::deny::run()?,
        Task::Clean { guests, emulators } => {
            paths::clean(guests)?;
            if emulators {
                emulators::clean()?;
            }
        }
    }
    Ok(true)
}

/// Makes an ISO. Returns its path.
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
    let programs = build::all()?;
    let output = args.output.unwrap_or_else(paths::default_iso);
    let recipe = iso::Recipe {
        guests,
        menu,
        hypervisor: Some(programs.hypervisor),
        vidarctl: Some(programs.vidarctl),
    };
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

/// Returns the guest with this name, or the first.
fn guest_named(name: Option<String>) -> Result<manifest::Guest> {
    let mut guests = manifest::load()?;
    let names: Vec<_> = guests.iter().map(|guest| guest.name.clone()).collect();
    let at = match &name {
        Some(name) => names.iter().position(|other| other == name),
        None => Some(0),
    };
    let at = at.with_context(|| format!("there is no such guest: name one of {}", names.join(", ")))?;
    Ok(guests.swap_remove(at))
}

/// Makes the file with the symbols of a guest's kernel. Returns its path and the number of symbols.
fn symbols_of(guest: &manifest::Guest) -> Result<(PathBuf, usize)> {
    symbols::make(&guests::kernel(guest, guests::Freshness::Any)?, &guest.name)
}

fn run(args: RunArgs) -> Result<()> {
    let guests = manifest::load()?;
    let names: Vec<_> = guests.iter().map(|guest| guest.name.clone()).collect();
    let guest = args.guest.unwrap_or_else(|| names[0].clone());
    anyhow::ensure!(
        names.contains(&guest),
        "there is no guest \"{guest}\": name one of {}",
        names.join(", ")
    );
    let bochs = matches!(args.machine, Choice::Bochs);
    anyhow::ensure!(args.disk.is_empty() || !bochs, "--disk is not possible in Bochs: use --machine qemu");
    let disks = args.disk.iter().map(DiskArgument::open).collect::<Result<_>>()?;
    // An obstacle is reported before anything is fetched or built.
    let machine = args.machine.decide(Machine::kvm_obstacle, setup::missing)?;
    setup::missing()?;
    let hypervisor = if args.bare { None } else { Some(build::all()?.hypervisor) };
    let vidarctl = Some(build::vidarctl()?);
    let default = Some(if args.bare { grub::bare(&guest) } else { guest });
    // Two seconds are enough to choose another entry when the guest reboots.
    let mut menu = grub::Menu { default, timeout: 2, ..grub::Menu::default() };
    if args.cpus.get() > 1 {
        menu.options = machine.option_for_cpus().to_owned();
    }
    let mut gdb = None;
    if args.gdb {
        menu.options = format!("{} gdb=com2,wait", menu.options);
        gdb = Some(symbols_of(&guest_named(menu.default.clone())?)?.0);
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
        gdb.as_deref(),
        Spec {
            second_serial: args.gdb,
            memory: args.memory,
            cpus: Some(args.cpus),
            uefi: args.uefi,
            disks,
            networks,
            ..Spec::default()
        },
    )
}
