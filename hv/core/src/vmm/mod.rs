//! The virtual machine: exits, the answers to them, and the loop between them. Nothing here names a vendor.
//!
//! | file | what it is for |
//! |---|---|
//! | [`run`] | The loop: runs the guest, answers its exit, and applies the answer. |
//! | [`exit`] | The reasons for which the guest leaves, the same for both vendors. |
//! | [`outcome`] | What a handler wants done about an exit. |
//! | [`vcpu`] | The seam between vendors: what a virtual CPU can do. |
//! | [`processor`] | The seam to the physical CPU: the instructions that Vidar executes for the guest. |
//! | [`percpu`] | The block that each CPU has for itself. |
//! | [`machine`] | What all CPUs of the guest have in common. |
//! | [`memory`] | The guest's memory: it maps a page on its first touch, shows the decoy, and follows the MTRRs. |
//! | [`entry`] | How each of the guest's CPUs begins. |
//! | [`startup`] | Whether a CPU waits for a start-up IPI, where Vidar starts CPUs. |
//! | [`ipi`] | Sends INIT and start-up IPIs on behalf of the guest, where Vidar starts CPUs. |
//! | [`apic`] | Executes the guest's stores to a watched local APIC. |
//! | [`store`] | Decodes such a store. |
//! | [`fetch`] | Reads the bytes of the guest's next instruction. |
//! | [`doubt`] | Answers exits at an instruction that is not the one in memory. |
//! | [`msr`] | Executes RDMSR and WRMSR as the policy says. |
//! | [`microcode`] | Loads the microcode updates that the guest asks for. |
//! | [`update`] | Such an update, as it is handed to what loads it. |
//! | [`hypercall`] | Answers the calls of the crate `vidar_abi`. |
//! | [`cpu_state`] | The state of a CPU: after INIT, at the kernel's entry, and in a crash report. |
//! | [`crash`] | Puts the guest's state into words, for a crash report. |

pub mod apic;
pub mod cpu_state;
pub mod crash;
pub mod doubt;
pub mod entry;
pub mod exit;
pub mod fetch;
pub mod hypercall;
pub mod ipi;
pub mod machine;
pub mod memory;
pub mod microcode;
pub mod msr;
pub mod outcome;
pub mod percpu;
pub mod processor;
pub mod run;
pub mod startup;
pub mod store;
pub mod update;
pub mod vcpu;
