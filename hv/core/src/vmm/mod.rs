//! The virtual machine: exits, the answers to them, and the loop between them. Nothing here names a vendor.
//!
//! | file | what it is for |
//! |---|---|
//! | [`run`] | The loop: runs the guest, answers its exit, and applies the answer. |
//! | [`exit`] | The reasons for exits, the same for both vendors. |
//! | [`observer`] | The seam to what watches the guest. |
//! | [`check`] | Asks the rules for entering the guest: after a failure, and before each entry with `check=on`. |
//! | [`tracer`] | Writes the trace: a record for each exit. |
//! | [`outcome`] | How the guest goes on after an exit. |
//! | [`vcpu`] | The seam between vendors: what a virtual CPU can do. |
//! | [`processor`] | The seam to the physical CPU: the instructions that Vidar executes for the guest. |
//! | [`percpu`] | The block that each CPU has for itself. |
//! | [`machine`] | What all CPUs of the guest have in common. |
//! | [`memory`] | The guest's memory: it maps a page on its first touch, shows the decoy, and follows the MTRRs. |
//! | [`entry`] | The states in which the guest's CPUs start. |
//! | [`startup`] | The state of each CPU between INIT and start-up IPI, if Vidar starts CPUs. |
//! | [`waiting`] | How a CPU waits for its start-up IPI then, and is started. |
//! | [`ipi`] | Sends INITs and start-up IPIs for the guest, with emulated start-up. |
//! | [`apic`] | Emulates the guest's stores to a watched local APIC. |
//! | [`remapping`] | Emulates the guest's accesses to the registers of IOMMUs that guard Vidar's memory. |
//! | [`io_apic`] | Emulates the guest's accesses to an I/O APIC of which Vidar keeps a pin. |
//! | [`kept_pin`] | The pin, whose interrupt Vidar gets as an NMI. |
//! | [`mmio`] | Decodes and executes such instructions. |
//! | [`fetch`] | Reads the bytes of the guest's next instruction. |
//! | [`doubt`] | Bounds the exits at an instruction that Vidar does not find in memory. |
//! | [`controls`] | Answers writes to control registers, on an extension where some exit. |
//! | [`msr`] | Executes RDMSR and WRMSR as the policy says. |
//! | [`guard`] | Applies what the boot option `guard` keeps on, and reports what it refuses. |
//! | [`microcode`] | Loads the microcode updates that the guest asks for. |
//! | [`update`] | An update of microcode as the core hands it to the shell, which loads it. |
//! | [`refusals`] | What the guard has refused so far. |
//! | [`hypercall`] | Answers the calls of the crate `vidar_abi`. |
//! | [`privilege`] | Decides who may end or stop the guest by a hypercall. |
//! | [`cpu_state`] | The state of a CPU: after INIT, at the kernel's entry, and in a crash report. |
//! | [`rules`] | Rules of a manual as tables, and the report of those that are broken. |
//! | [`crash`] | What a crash report shows of a virtual CPU. |

pub mod apic;
pub mod check;
pub mod controls;
pub mod cpu_state;
pub mod crash;
pub mod doubt;
pub mod entry;
pub mod exit;
pub mod fetch;
pub mod guard;
pub mod hypercall;
pub mod io_apic;
pub mod ipi;
pub mod kept_pin;
pub mod machine;
pub mod memory;
pub mod microcode;
pub mod mmio;
pub mod msr;
pub mod observer;
pub mod outcome;
pub mod percpu;
pub mod privilege;
pub mod processor;
pub mod refusals;
pub mod remapping;
pub mod rules;
pub mod run;
pub mod startup;
pub mod tracer;
pub mod update;
pub mod vcpu;
pub mod waiting;
