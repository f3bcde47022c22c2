//! `cargo xtask bench`: what Vidar costs, bare beside Vidar, in one run.

mod linux;
mod probe;
mod table;

use std::thread;

use anyhow::Result;

use self::table::{Row, Table};
use crate::test::Tools;
use crate::{build, setup};

/// Measures everything and prints it as Markdown; whether all is as it must be.
pub fn run() -> Result<bool> {
    setup::missing()?;
    build::all()?;
    let tools = Tools::new();
    // Bochs counts instructions, so two machines at once do not disturb each other.
    let (bare, vidar) = thread::scope(|scope| {
        let bare = scope.spawn(|| Ok((linux::measure(false, &tools)?, probe::measure(false, &tools)?)));
        let vidar = scope.spawn(|| Ok((linux::measure(true, &tools)?, probe::measure(true, &tools)?)));
        let join =
            |measured: thread::ScopedJoinHandle<'_, Result<_>>| measured.join().expect("it does not panic");
        (join(bare), join(vidar))
    });
    let ((bare, bare_probe), (vidar, vidar_probe)) = (bare?, vidar?);
    let image = build::size(&tools.hypervisor)?;
    let table = table(&bare, &vidar, &bare_probe, &vidar_probe, image)?;
    println!("{table}");
    println!("Exits up to the shell:\n\n{}", linux::kinds(&vidar));
    Ok(table.holds())
}

fn table(
    bare: &linux::Boot,
    vidar: &linux::Boot,
    bare_probe: &probe::Answers,
    vidar_probe: &probe::Answers,
    image: u64,
) -> Result<Table> {
    let mut table = Table::default();
    for (what, key, must, aim) in
        [("CPUID", "cpuid", 150.0, 100.0), ("VMCALL that does nothing", "vmcall", 120.0, 80.0)]
    {
        let Some(round) = vidar_probe.round(key) else { anyhow::bail!("the probe did not measure {key}") };
        let bare = bare_probe.round(key).map_or_else(|| "none".to_owned(), |round| round.to_string());
        table.add(Row::at_most(
            format!("{what}, ticks (min / mean)"),
            &bare,
            round.mean,
            &round.to_string(),
            must,
            aim,
        ));
    }
    for (what, key) in [("port IN", "port"), ("CR3 load", "cr3"), ("system call and return", "syscall")] {
        let (Some(bare), Some(round), Some(exits)) =
            (bare_probe.round(key), vidar_probe.round(key), vidar_probe.exits(key))
        else {
            anyhow::bail!("the probe did not measure {key}")
        };
        table.add(Row::yes_or_no(
            format!("{what}, ticks (min / mean)"),
            &bare.to_string(),
            &format!("{round}, {exits} exits"),
            "no exit",
            exits == 0,
        ));
    }
    table.add(timer(bare_probe, vidar_probe)?);
    let ticks = |ticks: u64| format!("{:.1} million", ticks as f64 / 1e6);
    for (what, bare, vidar) in [
        ("the kernel's first instruction to the shell, ticks", bare.from_kernel, vidar.from_kernel),
        ("GRUB's last command to the shell, ticks", bare.from_grub, vidar.from_grub),
    ] {
        let ratio = vidar as f64 / bare as f64;
        let shown = format!("{}, bare x {ratio:.4}", ticks(vidar));
        table.add(Row::at_most(what.to_owned(), &ticks(bare), ratio, &shown, 1.01, 1.002));
    }
    let exits = vidar.exits_but_cpuid() as f64;
    table.add(Row::at_most(
        "exits to the shell, CPUID aside".to_owned(),
        "",
        exits,
        &exits.to_string(),
        100.0,
        20.0,
    ));
    let idle = vidar.idle_per_second;
    table.add(Row::at_most(
        "exits per second at an idle shell".to_owned(),
        "",
        idle,
        &format!("{idle:.2}"),
        1.0,
        0.0,
    ));
    let memory = vidar.memory as f64 / f64::from(1 << 20);
    table.add(Row::at_most("memory taken, MiB".to_owned(), "", memory, &format!("{memory:.2}"), 8.0, 4.0));
    table.add(Row::plain("size of the image, KiB".to_owned(), &image.div_ceil(1024).to_string()));
    Ok(table)
}

/// The row of the timer's interrupts: all must come, and none must be an exit.
fn timer(bare: &probe::Answers, vidar: &probe::Answers) -> Result<Row> {
    let (Some(bare), Some((taken, all)), Some(exits)) =
        (bare.taken("timer"), vidar.taken("timer"), vidar.exits("timer"))
    else {
        anyhow::bail!("the probe took no interrupts of the timer")
    };
    Ok(Row::yes_or_no(
        "timer interrupt, how many came".to_owned(),
        &format!("{} of {}", bare.0, bare.1),
        &format!("{taken} of {all}, {exits} exits"),
        "no exit",
        taken == all && exits == 0,
    ))
}
