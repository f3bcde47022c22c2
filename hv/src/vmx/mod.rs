//! VT-x on this CPU. What can be decided without the CPU is in [`vidar_core::vmx`].
//!
//! | file | what it is for |
//! |---|---|
//! | [`enable`] | Finds out what the CPU can do, and switches VT-x on by VMXON. |
//! | [`vmcs`] | The VMX instructions, and the current VMCS of this CPU. |
//! | [`cpu`] | The virtual CPU: it implements [`Vcpu`](vidar_core::vmm::vcpu::Vcpu). |
//! | `controls` | What the exits of writes to control registers need of the virtual CPU. |
//! | [`debug`] | What a debugger asks of the virtual CPU. |
//! | `delivery` | Delivers pending NMIs and machine checks, and events whose delivery an exit has interrupted. |
//! | `entry.S` | VM entry and exit as a function that returns. |
//! | [`entry`] | Includes the assembly, and defines the block that it uses. |
//! | `failure` | Judges VM entries that fail. |
//! | [`physical`] | Reads the state of this CPU for a VMCS, and clears what INIT clears outside of the VMCS. |
//! | [`rules`] | Finds the rules of VM entry that the current VMCS breaks. |
//! | [`switched_msrs`] | Moves the contents of MSRs that only the guest uses into the guest, and back. |
//! | `trial` | Tries the rules of VM entry on the CPU, in the image for that test alone. |

mod controls;
pub mod cpu;
pub mod debug;
mod delivery;
pub mod enable;
pub mod entry;
mod failure;
pub mod physical;
pub mod rules;
pub mod switched_msrs;
#[cfg(feature = "trial")]
mod trial;
pub mod vmcs;
