//! `cargo xtask test`: runs the tests on the host, and then those in emulators.
// tidy: long because it is the table of all tests in machines

mod acpi;
mod added_cpu;
mod boots;
mod crash;
mod devices;
mod distribution;
mod dma;
mod doctor;
mod entry_rules;
pub mod facts;
mod faults;
mod folders;
mod gdb;
mod given;
mod guard;
mod guarded;
mod host;
mod hot_memory;
mod job;
mod kept_log;
pub mod lane;
mod linux;
mod linux_machine;
mod locks;
mod menu;
mod nested;
mod no_serial;
mod obstacles;
mod out_of_reach;
mod package;
mod pairs;
mod power;
mod probes;
#[cfg(test)]
mod readme;
mod refusals;
mod refused_entry;
mod report;
mod reproducible;
mod scenario;
mod screen;
mod singles;
pub mod small;
pub mod smp;
mod startup;
mod tools;
pub mod trace;
mod transparency;
mod usb;
mod vidarctl;
pub mod work;

use std::env;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

use self::folders::folder;
pub use self::folders::test_dir;
use self::job::Job;
use self::lane::Lane;
use self::linux::{Course, FactStore};
pub use self::linux_machine::LinuxMachine;
use self::report::Report;
pub use self::tools::Tools;
use crate::machine::abilities::Ability;
use crate::{build, distribution as disks, emulators, paths, probe_image, setup};

/// Which of the longer tests are run, and how long they take.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// True if a whole Debian is also built and booted.
    pub distribution: bool,
    /// True if Debian's newest kernels are also booted.
    pub newest_kernels: bool,
    /// True if QEMU is also shown to lose a machine.
    pub lost_machine: bool,
    /// True if the VT-x of a nested KVM is also tested.
    pub nested: bool,
    /// True if a release is also made twice.
    pub reproducible: bool,
    /// True if a kernel is also dumped.
    pub dump: bool,
    /// How often the debugger also stops a guest under load and has it go on.
    pub rounds: u32,
    /// The seconds for which machines with several CPUs are under load.
    pub load: u64,
}

/// The reason why the VT-x of a nested KVM is not tested.
const WITHOUT_NESTED: &str = "it takes 10 to 20 minutes; `cargo xtask test --nested` runs it";

/// The reason why no release is made.
const WITHOUT_RELEASES: &str =
    "it makes two releases, which takes 3 to 5 minutes; `cargo xtask test --reproducible` runs it";

/// The reason why Linux is not guarded on VT-x.
const WITHOUT_GUARD: &str = "it takes some minutes in Bochs; `cargo xtask test --distribution` runs it, and the probe attacks the guard in any case";

/// The reason why no kernel is dumped.
const WITHOUT_DUMP: &str = "it takes 4 minutes; `cargo xtask test --dump --filter gdb/dump` runs it";

/// The reason why no guest is stopped many times.
const WITHOUT_ROUNDS: &str = "1,000 rounds take 15 minutes in Bochs and 9 in QEMU; `cargo xtask test --rounds 1000 --filter gdb/rounds` runs them";

/// The number of emulators that run at once, if the host has as many CPUs.
const AT_ONCE: usize = 2;

/// Prints the names of all tests that contain `filter`, and why a test is left out, if it is.
pub fn list(filter: Option<&str>, extent: Extent) {
    let wanted = |name: &str| filter.is_none_or(|filter| name.contains(filter));
    for (name, left_out) in names(extent).into_iter().filter(|(name, _)| wanted(name)) {
        match left_out {
            Some(why) => println!("{}", report::skipped(&name, why)),
            None => println!("{}", report::shown(&name)),
        }
    }
}

/// Returns the names of all tests, and the reason why a test is left out, if it is.
fn names(extent: Extent) -> Vec<(String, Option<&'static str>)> {
    let tools = Tools::new();
    let (found, smp_found, report) = (FactStore::default(), smp::FactStore::default(), Report::default());
    let nested_found = nested::FactStore::default();
    let jobs = jobs(&tools, &found, &report, &smp_found, &nested_found, extent);
    // These tests do not depend on the emulators, so they are not run with those of another suite.
    let on_the_host: &[&str] = if paths::suite().is_none() { &[host::NAME, "tidy"] } else { &[] };
    let compared = Course::all(extent.newest_kernels)
        .into_iter()
        .flat_map(Course::comparison_names)
        .chain(smp::setups(extent.newest_kernels).into_iter().flat_map(smp::Setup::comparison_names))
        .chain(nested::comparison_names());
    let jobs = jobs.iter().flat_map(|job| job.names.iter().map(|name| (name.clone(), job.left_out)));
    let made = |name| (name, None);
    on_the_host.iter().map(|name| made((*name).to_owned())).chain(jobs).chain(compared.map(made)).collect()
}

/// Runs the tests that this command asks for with the emulators of Debian's `suite`. Returns true if all passed. What
/// cannot be built in the suite's tree is built before.
pub fn run_with(suite: &str) -> Result<bool> {
    setup::rust_targets()?;
    build::all()?;
    build::trial()?;
    ["stress", "mutate"].iter().try_for_each(|program| build::guest_program(program).map(drop))?;
    probe_image::build()?;
    let tree = emulators::get(suite)?;
    let asked = env::args_os().skip(1).map(|argument| {
        argument.into_string().map_err(|argument| anyhow!("{} is not UTF-8", argument.display()))
    });
    emulators::run(&tree, &asked.chain([Ok("--inside".to_owned())]).collect::<Result<Vec<_>>>()?)
}

/// Runs the tests of `extent`, `times` times. With a `filter`, these are the tests whose names contain it, and those
/// that they depend on. Returns true if all passed.
pub fn run(filter: Option<&str>, extent: Extent, times: NonZeroU32) -> bool {
    let report = Report::default();
    for _ in 0..times.get() {
        once(filter, extent, &report);
    }
    report.finish()
}

fn once(filter: Option<&str>, extent: Extent, report: &Report) {
    // These tests do not depend on the emulators, so they are not run with those of another suite.
    if paths::suite().is_none() {
        host::run(filter, report);
    }

    let wanted =
        |names: &[String]| filter.is_none_or(|filter| names.iter().any(|name| name.contains(filter)));
    let courses = Course::all(extent.newest_kernels);
    let compared: Vec<_> = courses.into_iter().filter(|course| wanted(&course.comparison_names())).collect();
    let tools = Tools::new();
    let (found, smp_found, nested_found) =
        (FactStore::default(), smp::FactStore::default(), nested::FactStore::default());
    let is_journey = |job: &Job| {
        let journeys =
            |course: &Course| course.sides().iter().any(|side| job.names == course.journey_names(*side));
        compared.iter().any(journeys)
    };
    let mut queue: Vec<_> = jobs(&tools, &found, report, &smp_found, &nested_found, extent);
    let setups = smp::setups(extent.newest_kernels).into_iter();
    let smp_compared: Vec<_> = setups.filter(|setup| wanted(&setup.comparison_names())).collect();
    let is_smp = |job: &Job| {
        smp_compared.iter().any(|setup| [true, false].iter().any(|side| job.names == setup.names(*side)))
    };
    let nested_compared = wanted(&nested::comparison_names());
    let is_nested = |job: &Job| nested_compared && job.names.iter().any(|name| nested::makes_facts(name));
    queue.retain(|job| wanted(&job.names) || is_journey(job) || is_smp(job) || is_nested(job));
    // Nothing has to be built for tests that are left out.
    queue.extract_if(.., |job| job.left_out.is_some()).for_each(|job| job.run(report));
    if !queue.is_empty() {
        let begun = Instant::now();
        let ready = || -> Result<()> {
            setup::missing()?;
            build::all()?;
            if extent.newest_kernels {
                linux::fetch_newest()?;
            }
            if extent.distribution { disks::get() } else { Ok(()) }
        };
        match ready() {
            Ok(()) => in_machines(queue, report),
            Err(error) => report.fail("build", begun.elapsed(), &error, None),
        }
    }
    for course in compared {
        let compare = || course.compare(&found, report);
        compare_or_skip(course.comparison_names(), course.needs(), report, compare);
    }
    for setup in smp_compared {
        let compare = || setup.compare(&smp_found, report);
        compare_or_skip(setup.comparison_names(), setup.needs(), report, compare);
    }
    if nested_compared {
        nested::compare(&nested_found, report);
    }
}

/// Compares what was collected in two machines, unless the emulator lacks what these need.
fn compare_or_skip(names: Vec<String>, needs: Vec<Ability>, report: &Report, compare: impl FnOnce() + Send) {
    let compare = || {
        compare();
        Ok(())
    };
    Job::new(names, compare).needing(needs).run(report);
}

/// Runs the jobs, as many at once as the host has CPUs, but at most [`AT_ONCE`].
fn in_machines(mut queue: Vec<Job<'_>>, report: &Report) {
    let at_once = thread::available_parallelism().map_or(1, usize::from).min(AT_ONCE);
    // The longest jobs come first in the list, and jobs are taken from the end of the queue.
    queue.reverse();
    let queue = Mutex::new(queue);
    let next = || queue.lock().expect("no thread panics while it holds the lock").pop();
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(job) = next() {
                    job.run(report);
                }
            });
        }
    });
}

/// Returns the table of all jobs in machines, the longest first.
fn jobs<'a>(
    tools: &'a Tools,
    found: &'a FactStore,
    report: &'a Report,
    smp_found: &'a smp::FactStore,
    nested_found: &'a nested::FactStore,
    extent: Extent,
) -> Vec<Job<'a>> {
    let mut jobs = Vec::new();
    // The tests of VT-x on a nested KVM take longest by far.
    let nested = (!extent.nested).then_some(WITHOUT_NESTED);
    let vmx = Lane::VmxKvm;
    let probe_run = probes::probe_run(vmx);
    let probe = Job::new(probe_run.names(), move || probe_run.run(tools, report));
    let single = |lane: Lane, wanted| {
        singles::SINGLES.iter().filter(move |single| single.name == wanted).map(move |single| {
            let run = move || single.run(lane, tools);
            one(lane.test(single.name), lane.folder(single.name), report, run).needing(lane.needs())
        })
    };
    let probe = probe.needing(vmx.needs());
    let probes = [probe].into_iter().chain(single(vmx, singles::RESET));
    let nested_jobs = in_nested_kvm(vmx, tools, nested_found, report).chain(probes);
    jobs.extend(nested_jobs.map(|job| job.left_out(nested)));
    if extent.distribution {
        jobs.extend(distribution::COURSES.map(|course| {
            let run = move || course.run(Lane::Svm, tools, report);
            Job::new(course.names(Lane::Svm), run).needing(vec![Ability::QemuNestedRealMode])
        }));
    }
    // In a tree of emulators there is no Rust.
    if paths::suite().is_none() {
        let releases = Job::new(reproducible::names(), || reproducible::all(report));
        jobs.push(releases.left_out((!extent.reproducible).then_some(WITHOUT_RELEASES)));
    }
    let courses = Course::all(extent.newest_kernels).into_iter();
    jobs.extend(courses.flat_map(|course| journeys(course, tools, found, report)));
    jobs.extend(Lane::ALL.into_iter().chain(Lane::MORE).map(|lane| {
        let probe_run = probes::probe_run(lane);
        Job::new(probe_run.names(), move || probe_run.run(tools, report)).needing(lane.needs())
    }));
    jobs.extend(Lane::ALL.map(|lane| {
        let probe_run = probes::checked_run(lane);
        Job::new(probe_run.names(), move || probe_run.run(tools, report)).needing(lane.needs())
    }));
    jobs.extend(pairs::PAIRS.map(|pair| {
        let probe_run = pair.probe_run();
        Job::new(probe_run.names(), move || probe_run.run(tools, report)).needing(pair.needs())
    }));
    jobs.extend(Lane::ALL.map(|lane| {
        let needs = if lane == Lane::Svm { vec![Ability::QemuNestedRealMode] } else { linux::needs(lane) };
        let left_out = lane == Lane::Vmx && !extent.distribution;
        one(lane.test(guard::NAME), lane.folder(guard::NAME), report, move || guard::run(lane, tools))
            .needing(needs)
            .left_out(left_out.then_some(WITHOUT_GUARD))
    }));
    jobs.extend(guarded::GUARDED.map(|machine| {
        let probe_run = machine.probe_run();
        Job::new(probe_run.names(), move || probe_run.run(tools, report)).needing(machine.needs())
    }));
    jobs.extend(in_nested_kvm(Lane::SvmKvm, tools, nested_found, report));
    jobs.extend(single(Lane::SvmKvm, singles::CRASH_OF_ANOTHER_CPU));
    jobs.extend(startup::IN_KVM.iter().map(|test| {
        let lane = Lane::SvmKvm;
        one(lane.test(test.name), lane.folder(test.name), report, move || test.run(lane, tools))
            .needing(lane.needs())
    }));
    for setup in smp::setups(extent.newest_kernels) {
        let load = Duration::from_secs(extent.load);
        jobs.extend([true, false].map(|under_vidar| {
            let run = move || setup.run(under_vidar, load, tools, smp_found, report);
            Job::new(setup.names(under_vidar), run).needing(setup.needs())
        }));
    }
    if extent.lost_machine {
        let name = startup::LOST_MACHINE;
        let check = move || startup::lost_machine(tools);
        jobs.push(one(Lane::Svm.test(name), Lane::Svm.folder(name), report, check));
    }
    let dump = &gdb::DUMP;
    jobs.extend(dump.lanes.iter().map(|&lane| {
        let run = move || dump.run(lane, tools);
        let dump = one(lane.test(dump.name), lane.folder(dump.name), report, run);
        dump.left_out((!extent.dump).then_some(WITHOUT_DUMP))
    }));
    jobs.extend(gdb::ROUNDS.iter().flat_map(|&(name, check)| {
        Lane::ALL.map(|lane| {
            let rounds = move || check(lane, extent.rounds, tools);
            let rounds = one(lane.test(name), lane.folder(name), report, rounds);
            rounds.left_out((extent.rounds == 0).then_some(WITHOUT_ROUNDS))
        })
    }));
    // These devices are not available in Bochs.
    jobs.extend(devices::Side::ALL.map(|side| {
        let all = move || devices::all(Lane::Svm, side, tools, report);
        Job::new(devices::names(Lane::Svm, side), all)
    }));
    jobs.extend(Lane::ALL.into_iter().flat_map(|lane| {
        crash::tests(extent.newest_kernels).into_iter().map(move |(name, suite, check)| {
            let run = move |name: &str| crash::run(name, suite, check, lane, tools);
            one(lane.test(&name), lane.folder(&name), report, move || run(&name))
        })
    }));
    jobs.extend(Lane::ALL.into_iter().flat_map(|lane| short(lane, tools, report)));
    jobs.extend(
        menu::TESTS
            .map(|(name, check)| one(name.to_owned(), name.replace('/', "-"), report, move || check(tools))),
    );
    jobs.extend(
        boots::BOOTS.iter().map(|boot| one(boot.test(), boot.folder(), report, move || boot.run(tools))),
    );
    jobs.extend(hot_memory::SETUPS.map(|setup| {
        // Bochs cannot add memory to a running machine, so this is for QEMU only.
        one(setup.test(), setup.folder(), report, move || setup.run(tools))
            .needing(vec![Ability::QemuNestedRealMode])
    }));
    jobs.extend(added_cpu::TESTS.map(|(name, under_vidar)| {
        let check = move || added_cpu::run(name, under_vidar, tools);
        one(Lane::Svm.test(name), Lane::Svm.folder(name), report, check)
            .needing(vec![Ability::QemuNestedRealMode])
    }));
    jobs.extend(entry_rules::LANES.map(|lane| {
        let name = entry_rules::NAME;
        one(lane.test(name), lane.folder(name), report, move || entry_rules::run(lane)).needing(lane.needs())
    }));
    jobs.extend(trace::SETUPS.map(|setup| {
        one(setup.test(), setup.folder(), report, move || setup.run(tools)).needing(setup.needs())
    }));
    jobs.extend(locks::SETUPS.map(|setup| {
        let left_out = setup.is_in(Lane::Vmx) && !extent.distribution;
        one(setup.test(), setup.folder(), report, move || setup.run(tools))
            .needing(setup.needs())
            .left_out(left_out.then_some(WITHOUT_GUARD))
    }));
    jobs.extend(doctor::PATIENTS.iter().map(|patient| {
        let folder = Lane::Svm.folder(patient.name);
        one(Lane::Svm.test(patient.name), folder, report, move || patient.run(tools))
    }));
    jobs.extend(
        faults::FAULTS
            .iter()
            .map(|fault| one(Lane::Svm.test(fault.name), fault.folder(), report, move || fault.run(tools))),
    );
    jobs.extend(dma::TESTS.map(|(name, check)| {
        one(Lane::Svm.test(name), Lane::Svm.folder(name), report, move || check(name, tools))
    }));
    jobs.extend(given::TESTS.map(|(name, check)| {
        one(Lane::Svm.test(name), Lane::Svm.folder(name), report, move || check(tools))
    }));
    jobs.extend(kept_log::jobs(tools, report));
    jobs.extend(power::RESETS.map(|reset| {
        let name = reset.name();
        one(Lane::Svm.test(&name), Lane::Svm.folder(&name), report, move || reset.run(Lane::Svm, tools))
            .needing(reset.needs())
    }));
    jobs.extend(
        power::guarded::SETUPS
            .map(|setup| Job::new(setup.names(Lane::Svm), move || setup.all(Lane::Svm, tools, report))),
    );
    jobs.extend([true, false].map(|under_vidar| {
        let all = move || power::all(Lane::Svm, under_vidar, tools, report);
        Job::new(power::names(Lane::Svm, under_vidar), all)
    }));
    jobs.push(Job::new(usb::names(), move || usb::all(tools, report)));
    // This test does not depend on the emulators, so it is not run with those of another suite.
    if paths::suite().is_none() {
        let check = move || {
            report.result(package::NAME, Instant::now(), package::lintian(tools), None);
            Ok(())
        };
        jobs.push(Job::new(vec![package::NAME.to_owned()], check).left_out(package::left_out()));
    }
    jobs.extend(
        no_serial::DESKTOPS
            .iter()
            .map(|desktop| Job::new(desktop.names(Lane::Svm), move || desktop.all(Lane::Svm, tools, report))),
    );
    jobs.extend(out_of_reach::all().map(|(name, obstacle)| {
        Job::new(vec![name], || bail!("no emulator can run this test")).needing(vec![obstacle])
    }));
    jobs
}

/// Returns the jobs for the journeys of a course.
fn journeys<'a>(course: Course, tools: &'a Tools, found: &'a FactStore, report: &'a Report) -> Vec<Job<'a>> {
    let job = |&side| {
        let journey = move || course.journey(side, tools, found, report);
        Job::new(course.journey_names(side), journey).needing(course.needs())
    };
    course.sides().iter().map(job).collect()
}

/// Returns the jobs for Linux and for xtask itself in a lane with a nested KVM.
fn in_nested_kvm<'a>(
    lane: Lane,
    tools: &'a Tools,
    found: &'a nested::FactStore,
    report: &'a Report,
) -> impl Iterator<Item = Job<'a>> {
    let linux = nested::machines(lane)
        .map(move |machine| Job::new(machine.names(), move || machine.run(tools, found, report)));
    let obstacles = Job::new(obstacles::names(lane), move || obstacles::all(lane, report));
    linux.chain([obstacles]).map(move |job| job.needing(lane.needs()))
}

/// Returns the jobs of a lane that consist of one test.
fn short<'a>(lane: Lane, tools: &'a Tools, report: &'a Report) -> Vec<Job<'a>> {
    let singles = singles::SINGLES.iter().filter(move |single| single.is_in(lane)).map(move |single| {
        one(lane.test(single.name), lane.folder(single.name), report, move || single.run(lane, tools))
            .needing(single.needs.to_vec())
    });
    let refusals = refusals::cases(lane).map(|case| {
        one(lane.test(&case.name()), lane.folder(&case.name()), report, move || case.check(tools))
    });
    let startups = startup::STARTUPS.iter().filter(move |startup| startup.is_in(lane)).map(|startup| {
        let needs = if lane == Lane::Svm { vec![Ability::QemuNestedRealMode] } else { vec![] };
        one(lane.test(startup.name), lane.folder(startup.name), report, move || startup.run(lane, tools))
            .needing(needs)
    });
    let debugged = gdb::TESTS.iter().filter(move |test| test.lanes.contains(&lane)).map(move |test| {
        one(lane.test(test.name), lane.folder(test.name), report, move || test.run(lane, tools))
    });
    singles.chain(startups).chain(refusals).chain(debugged).collect()
}

/// A job that consists of one test, with a folder of its own.
fn one<'a>(
    name: String,
    folder: String,
    report: &'a Report,
    check: impl FnOnce() -> Result<()> + Send + 'a,
) -> Job<'a> {
    Job::new(vec![name.clone()], move || {
        report.result(&name, Instant::now(), check(), Some(&small::log(&folder)));
        Ok(())
    })
}
