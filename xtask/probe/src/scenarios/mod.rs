//! The scenarios. Each is a function that does one thing to the machine, and reports the outcome in a line.

use crate::line::Line;

mod bench;
mod cet;
mod control;
mod counted;
mod debug;
mod delivery;
mod dma;
mod edge;
mod efer;
mod firmware;
mod five_levels;
mod gdb_port;
mod guard;
mod hypercall;
mod identity;
mod keys;
mod lass;
mod lengths;
mod machine_check;
mod memory;
mod modes;
mod msrs;
mod nmi;
mod no_execute;
mod other_init;
mod preserved;
mod priority;
mod quiet;
mod requested;
mod reset;
mod rules;
mod startup;
mod step;
mod supervisor_state;
mod user_interrupts;
mod virtualization;
mod waiting;
mod x2apic;
mod xstate;

/// A scenario.
pub struct Scenario {
    /// The name of the scenario on the command line.
    pub name: &'static str,
    /// The function that runs it.
    pub run: fn(&mut Line),
    /// True if no other scenario can follow. `all` leaves these out.
    pub ends_the_machine: bool,
}

const fn scenario(name: &'static str, run: fn(&mut Line)) -> Scenario {
    Scenario { name, run, ends_the_machine: false }
}

const fn last(name: &'static str, run: fn(&mut Line)) -> Scenario {
    Scenario { name, run, ends_the_machine: true }
}

/// All scenarios.
pub const ALL: &[Scenario] = &[
    scenario("cpuid", identity::cpuid),
    scenario("vmx", virtualization::vmx),
    scenario("svm", virtualization::svm),
    scenario("vmx-msrs", msrs::vmx),
    scenario("unknown-msrs", msrs::unknown),
    scenario("msrs", msrs::own),
    scenario("svm-msrs", msrs::svm),
    scenario("efer", efer::efer),
    scenario("xd-disable", no_execute::disable),
    scenario("cr4", control::cr4_bits),
    scenario("cr4-refused", control::cr4_refused),
    scenario("cr0", control::cr0_bits),
    scenario("cr0-refused", control::cr0_refused),
    scenario("xsetbv", xstate::xsetbv),
    scenario("invd", memory::invd),
    scenario("microcode", firmware::microcode),
    scenario("mtrr", firmware::mtrr),
    scenario("apicbase", firmware::apicbase),
    scenario("apicbase-vidar", firmware::apic_onto_vidar),
    scenario("hypercall", hypercall::hypercall),
    scenario("step-hypercall", step::hypercall),
    scenario("touch", memory::touch),
    scenario("far", memory::far),
    scenario("quiet", quiet::quiet),
    scenario("interrupts", quiet::interrupts),
    scenario("modes", modes::modes),
    scenario("edge", edge::edge),
    scenario("step", step::step),
    scenario("lengths", lengths::lengths),
    scenario("locked", lengths::locked),
    scenario("hidden", lengths::hidden),
    scenario("shadow", step::shadow),
    scenario("rf", step::rf),
    scenario("int3", debug::int3),
    scenario("int1", debug::int1),
    scenario("flags", debug::flags),
    scenario("general-detect", debug::general_detect),
    scenario("nmi", nmi::nmi),
    scenario("priority", priority::priority),
    scenario("delivery", delivery::delivery),
    scenario("regs", preserved::regs),
    scenario("debugregs", preserved::debugregs),
    scenario("fpu", xstate::fpu),
    scenario("cet", cet::registers),
    scenario("shadow-stack", cet::shadow_stack),
    scenario("branches", cet::branches),
    scenario("supervisor-state", supervisor_state::supervisor_state),
    scenario("keys", keys::keys),
    scenario("waiting", waiting::waiting),
    scenario("lass", lass::lass),
    scenario("user-interrupts", user_interrupts::user_interrupts),
    scenario("five-levels", five_levels::five_levels),
    last("other-wherever", other_init::wherever),
    last("other-registers", other_init::registers),
    last("other-cet", other_init::cet),
    last("other-apic", other_init::apic),
    last("other-guard", guard::other),
    last("other-requested", requested::requested),
    last("x2apic", x2apic::commands),
    last("x2apic-start-up", x2apic::start_up),
    last("counted", counted::counted),
    last("gdb-port", gdb_port::gdb_port),
    last("dma", dma::dma),
    last("machine-check", machine_check::machine_check),
    last("sipi", startup::sipi),
    last("init-sipi", startup::init_sipi),
    last("init-sipi-x2apic", startup::by_x2apic),
    last("first-page", startup::first_page),
    last("first-vectors", startup::first_vectors),
    last("start-up-messages", startup::start_up_messages),
    last("triple-other", startup::triple),
    last("crash-while-other-hangs", startup::hangs),
    last("fpu-loads", startup::fpu_loads),
    scenario("rules", rules::rules),
    scenario("bench", bench::bench),
    last("price", bench::price),
    last("guard", guard::guard),
    last("crash", hypercall::crash),
    last("triple", reset::triple),
    last("init", reset::init),
    last("reset-keyboard", reset::keyboard),
    last("reset-fast", reset::fast),
    last("reset-cf9", reset::chip_set),
];
