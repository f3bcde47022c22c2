//! The scenarios: each a function that does one thing to the machine and says in a line what came of it.

use crate::line::Line;

mod bench;
mod control;
mod hypercall;
mod identity;
mod msrs;
mod reset;
mod virtualization;

/// A scenario.
pub struct Scenario {
    /// What the command line calls it.
    pub name: &'static str,
    /// What it does.
    pub run: fn(&mut Line),
    /// Whether nothing can come after it; `all` leaves it out.
    pub ends_the_machine: bool,
}

const fn scenario(name: &'static str, run: fn(&mut Line)) -> Scenario {
    Scenario { name, run, ends_the_machine: false }
}

const fn last(name: &'static str, run: fn(&mut Line)) -> Scenario {
    Scenario { name, run, ends_the_machine: true }
}

/// All of them.
pub const ALL: &[Scenario] = &[
    scenario("cpuid", identity::cpuid),
    scenario("vmx", virtualization::vmx),
    scenario("svm", virtualization::svm),
    scenario("vmx-msrs", msrs::vmx),
    scenario("unknown-msrs", msrs::unknown),
    scenario("cr4", control::cr4_bits),
    scenario("cr0", control::cr0_bits),
    scenario("hypercall", hypercall::hypercall),
    scenario("bench", bench::bench),
    last("triple", reset::triple),
];
