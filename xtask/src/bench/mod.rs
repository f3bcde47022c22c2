//! `cargo xtask bench`: measures what Vidar costs, by the same measurements bare and under Vidar.

mod guard;
mod linux;
mod marks;
mod plot;
mod price;
mod probe;
mod smp;
mod table;
mod timeline;
mod trace;

use std::fs;
use std::thread;

use anyhow::{Context, Result};

use self::probe::Side;
use self::table::{Row, Table};
use crate::test::Tools;
use crate::test::lane::Lane;
use crate::{build, paths, setup};

/// The limits and the aims of a lane. Of each pair, the first must hold, and the second is aimed for.
struct Goals {
    /// The name of the extension's hypercall instruction.
    hypercall: &'static str,
    /// Instructions of a round trip by CPUID.
    cpuid: (f64, f64),
    /// Instructions of a round trip by a hypercall.
    hypercall_round: (f64, f64),
    /// The point from which a boot is measured, besides GRUB's last command.
    kernel: &'static str,
    /// A boot's instructions relative to bare.
    boot: (f64, f64),
}

/// How many instructions of a round trip the trace may take, and how many it should take at most. `hv/doc/inside.md`
/// counts 17, and the compiler adds some.
const TRACE: (f64, f64) = (20.0, 19.0);

impl Goals {
    /// Returns the goals of a lane. On a CPU with nrip_save, as most have it, the round trips of AMD-V have the goals
    /// of VT-x. QEMU's CPU does not say how long an instruction is, so more is allowed there: 20 to 25 instructions for
    /// each of up to five levels of the guest's page tables, 40 to compare the instruction's bytes, and 10 for VMLOAD,
    /// VMSAVE and RAX, which VT-x does by itself. The limit adds half of that as slack.
    const fn of(lane: Lane) -> Self {
        match lane {
            Lane::Vmx | Lane::VmxTigerLake | Lane::VmxArrowLake | Lane::VmxKvm => Self {
                hypercall: "VMCALL",
                cpuid: (150.0, 100.0),
                hypercall_round: (120.0, 80.0),
                kernel: "the kernel's first instruction",
                boot: (1.01, 1.002),
            },
            Lane::SvmNextRip => Self { hypercall: "VMMCALL", ..Self::of(Lane::Vmx) },
            Lane::Svm | Lane::SvmGenoa | Lane::SvmMax | Lane::SvmKvm => Self {
                hypercall: "VMMCALL",
                cpuid: (400.0, 275.0),
                hypercall_round: (370.0, 255.0),
                kernel: "the beginning of the kernel's clock",
                boot: (1.02, 1.002),
            },
        }
    }
}

/// Measures everything in every lane and prints it as Markdown. Returns false if a limit is exceeded.
pub fn run() -> Result<bool> {
    setup::missing()?;
    build::all()?;
    let tools = Tools::new();
    let image = build::size(&tools.hypervisor)?;
    let mut holds = true;
    let mut boots = Vec::new();
    for lane in Lane::ALL {
        // These emulators count instructions, so two machines at once do not disturb each other.
        let (bare, vidar) = thread::scope(|scope| {
            let measure = |under_vidar| {
                let tools = &tools;
                move || {
                    Ok((
                        linux::measure(lane, under_vidar, tools)?,
                        probe::measure(lane, if under_vidar { Side::Vidar } else { Side::Bare }, 1, tools)?,
                    ))
                }
            };
            let (bare, vidar) = (scope.spawn(measure(false)), scope.spawn(measure(true)));
            let join = |measured: thread::ScopedJoinHandle<'_, Result<_>>| {
                measured.join().expect("measuring does not panic")
            };
            (join(bare), join(vidar))
        });
        let ((bare, bare_probe), (vidar, vidar_probe)) = (bare?, vidar?);
        let mut table = table(&Goals::of(lane), &bare, &vidar, &bare_probe, &vidar_probe, image)?;
        traced_rounds(&mut table, lane, "", &vidar_probe, &tools)?;
        if lane == Lane::Svm {
            let [bare, vidar] =
                [Side::Bare, Side::Vidar].map(|side| probe::measure(Lane::SvmNextRip, side, 1, &tools));
            let (goals, on) = (Goals::of(Lane::SvmNextRip), ", with nrip_save (in Bochs)");
            let vidar = vidar?;
            rounds(&mut table, &goals, on, &bare?, &vidar)?;
            traced_rounds(&mut table, Lane::SvmNextRip, on, &vidar, &tools)?;
            price::rows(&mut table, Lane::SvmNextRip, goals.hypercall, on, &tools)?;
        } else {
            price::rows(&mut table, lane, Goals::of(lane).hypercall, "", &tools)?;
        }
        // Without `cpu-startup=emulated`, in Bochs as well, Vidar does not intercept the local APICs here.
        let [two_bare, two_vidar] =
            [Side::Bare, Side::Vidar].map(|side| probe::measure(lane, side, 2, &tools));
        table.add(timer("2 CPUs: timer interrupt, how many came", &two_bare?, &two_vidar?)?);
        cpus(&mut table, lane, &tools)?;
        println!("{} in {}:\n\n{table}", lane.extension(), lane.machine().name());
        println!("Exits up to the shell:\n\n{}", linux::kinds(&vidar));
        holds &= table.holds();
        boots.push(traced(lane, &bare, &vidar, &tools)?);
    }
    draw(&boots)?;
    draw_timeline(&tools)?;
    Ok(holds)
}

/// Draws the trace of a boot.
pub fn trace() -> Result<()> {
    setup::missing()?;
    build::all()?;
    draw_timeline(&Tools::new())
}

/// Measures the round trips of CPUID and of a hypercall and prints them as Markdown. Returns false if a limit is
/// exceeded.
pub fn exits() -> Result<bool> {
    setup::missing()?;
    build::all()?;
    let tools = Tools::new();
    let mut table = Table::default();
    for lane in [Lane::Svm, Lane::SvmNextRip, Lane::Vmx] {
        let [bare, vidar] = [Side::Bare, Side::Vidar].map(|side| probe::measure(lane, side, 1, &tools));
        let (on, vidar) = (format!(" ({})", lane.name()), vidar?);
        rounds(&mut table, &Goals::of(lane), &on, &bare?, &vidar)?;
        traced_rounds(&mut table, lane, &on, &vidar, &tools)?;
    }
    println!("{table}");
    Ok(table.holds())
}

/// Counts the exits with each value of `guard=`, and prints them as Markdown.
pub fn guard() -> Result<()> {
    setup::missing()?;
    build::all()?;
    let tools = Tools::new();
    for lane in [Lane::Svm, Lane::Vmx] {
        println!("{}", guard::measure(lane, &tools)?);
    }
    Ok(())
}

/// Measures what the picture needs, and draws it.
pub fn picture() -> Result<()> {
    setup::missing()?;
    build::all()?;
    let tools = Tools::new();
    let boot = |lane| {
        let [bare, vidar] = [false, true].map(|side| linux::measure(lane, side, &tools));
        traced(lane, &bare?, &vidar?, &tools)
    };
    draw(&Lane::ALL.into_iter().map(boot).collect::<Result<Vec<_>>>()?)
}

/// Returns the data that is drawn for a lane. It comes from a boot of its own, since reading the counters changes its
/// timing.
fn traced(lane: Lane, bare: &linux::Boot, vidar: &linux::Boot, tools: &Tools) -> Result<plot::Boot> {
    Ok(plot::Boot {
        name: lane.extension().to_owned(),
        samples: trace::record(lane, tools)?,
        instructions: (bare.from_grub, vidar.from_grub),
    })
}

fn draw(boots: &[plot::Boot]) -> Result<()> {
    let picture = paths::root().join("xtask/pictures/exits.svg");
    fs::write(&picture, plot::draw(boots)?).with_context(|| format!("cannot write {}", picture.display()))?;
    println!("The exits over time are drawn in {}.", picture.display());
    Ok(())
}

/// Draws the trace of a boot.
fn draw_timeline(tools: &Tools) -> Result<()> {
    let picture = paths::root().join("xtask/pictures/trace.svg");
    fs::write(&picture, timeline::picture(tools)?)
        .with_context(|| format!("cannot write {}", picture.display()))?;
    println!("The exits of a trace are drawn in {}.", picture.display());
    Ok(())
}

fn table(
    goals: &Goals,
    bare: &linux::Boot,
    vidar: &linux::Boot,
    bare_probe: &probe::Answers,
    vidar_probe: &probe::Answers,
    image: u64,
) -> Result<Table> {
    let mut table = Table::default();
    rounds(&mut table, goals, "", bare_probe, vidar_probe)?;
    for (what, key) in [("port IN", "port"), ("CR3 load", "cr3"), ("system call and return", "syscall")] {
        let (Some(bare), Some(round), Some(exits)) =
            (bare_probe.round(key), vidar_probe.round(key), vidar_probe.exits(key))
        else {
            anyhow::bail!("the probe did not measure {key}")
        };
        table.add(Row::yes_or_no(
            format!("{what}, instructions (min / mean)"),
            &bare.to_string(),
            &format!("{round}, {exits} exits"),
            "no exit",
            exits == 0,
        ));
    }
    table.add(timer("timer interrupt, how many came", bare_probe, vidar_probe)?);
    let millions = |count: u64| format!("{:.1} million", count as f64 / 1e6);
    for (from, bare, vidar) in [
        (goals.kernel, bare.from_kernel, vidar.from_kernel),
        ("GRUB's last command", bare.from_grub, vidar.from_grub),
    ] {
        let what = format!("{from} to the shell, instructions");
        let ratio = vidar as f64 / bare as f64;
        let shown = format!("{}, bare x {ratio:.4}", millions(vidar));
        table.add(Row::at_most(what, &millions(bare), ratio, &shown, goals.boot.0, goals.boot.1));
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

/// Adds the rows about machines with several CPUs.
fn cpus(table: &mut Table, lane: Lane, tools: &Tools) -> Result<()> {
    let one = smp::measure(lane, 1, tools)?;
    // Four CPUs would take too long in Bochs.
    let numbers: &[u32] = if lane == Lane::Svm { &[2, 4] } else { &[2] };
    for number in numbers {
        let boot = smp::measure(lane, *number, tools)?;
        let exits: Vec<_> = boot.exits.iter().map(u64::to_string).collect();
        table.add(Row::plain(
            format!("{number} CPUs: exits to the shell by CPU, CPUID aside"),
            &exits.join(", "),
        ));
        let (idle, load) = (boot.idle_per_second, boot.load);
        let timer = load.exits_per_thousand();
        for (what, number, shown) in [
            (format!("{number} CPUs: exits per second at an idle shell"), idle, format!("{idle:.2}")),
            (
                format!("{number} CPUs under load: exits for 1,000 local timer interrupts, CPUID aside"),
                timer,
                format!("{timer:.1}, {} for {}", load.exits, load.timer),
            ),
        ] {
            // Where Vidar has to start Linux' CPUs, as in Bochs 2.7, it intercepts their writes to the local APIC, so
            // there are exits and no goal for them.
            table.add(if lane.machine().option_for_cpus().is_empty() {
                Row::at_most(what, "", number, &shown, 1.0, 0.0)
            } else {
                Row::plain(what, &shown)
            });
        }
        let each = one.free.saturating_sub(boot.free) as f64 / f64::from(number - 1);
        table.add(Row::at_most(
            format!("{number} CPUs: memory taken for each further one, KiB"),
            "",
            each,
            &format!("{each:.0}"),
            256.0,
            64.0,
        ));
    }
    Ok(())
}

/// Adds the rows of the round trips. `on` is added to the name of each instruction.
fn rounds(
    table: &mut Table,
    goals: &Goals,
    on: &str,
    bare_probe: &probe::Answers,
    vidar_probe: &probe::Answers,
) -> Result<()> {
    let hypercall = format!("{} that does nothing", goals.hypercall);
    for (what, key, (must, aim)) in
        [("CPUID", "cpuid", goals.cpuid), (&hypercall, "vmcall", goals.hypercall_round)]
    {
        let Some(round) = vidar_probe.round(key) else { anyhow::bail!("the probe did not measure {key}") };
        let bare = bare_probe.round(key).map_or_else(|| "none".to_owned(), |round| round.to_string());
        table.add(Row::at_most(
            format!("{what}{on}, instructions (min / mean)"),
            &bare,
            round.mean,
            &round.to_string(),
            must,
            aim,
        ));
    }
    Ok(())
}

/// Adds the rows of the round trips with `trace=on`, which are compared with those without, as `plain` has them. `on`
/// is added to the name of each instruction.
fn traced_rounds(
    table: &mut Table,
    lane: Lane,
    on: &str,
    plain: &probe::Answers,
    tools: &Tools,
) -> Result<()> {
    let traced = probe::measure(lane, Side::Traced, 1, tools)?;
    for (what, key) in [("CPUID", "cpuid"), (Goals::of(lane).hypercall, "vmcall")] {
        let (Some(plain), Some(traced)) = (plain.round(key), traced.round(key)) else {
            anyhow::bail!("the probe did not measure {key}")
        };
        let more = traced.mean - plain.mean;
        let shown = format!("{traced}, {more:.1} more");
        let what = format!("{what}{on} with `trace=on`, instructions (min / mean)");
        // The tracer is made for CPUID, which is by far the most frequent exit.
        let (must, aim) = TRACE;
        let is_frequent = key == "cpuid";
        table.add(if is_frequent {
            Row::at_most(what, "", more, &shown, must, aim)
        } else {
            Row::plain(what, &shown)
        });
    }
    Ok(())
}

/// Returns the row of the timer's interrupts. All of them must come, and none may cause an exit.
fn timer(what: &str, bare: &probe::Answers, vidar: &probe::Answers) -> Result<Row> {
    let (Some(bare), Some((taken, all)), Some(exits)) =
        (bare.taken("timer"), vidar.taken("timer"), vidar.exits("timer"))
    else {
        anyhow::bail!("the probe took no interrupts of the timer")
    };
    Ok(Row::yes_or_no(
        what.to_owned(),
        &format!("{} of {}", bare.0, bare.1),
        &format!("{taken} of {all}, {exits} exits"),
        "no exit",
        taken == all && exits == 0,
    ))
}
