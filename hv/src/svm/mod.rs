//! AMD-V on this CPU. What can be decided without the CPU is in [`vidar_core::svm`].
//!
//! | file | what it is for |
//! |---|---|
//! | [`enable`] | Finds out what the CPU can do, and switches AMD-V on. |
//! | [`vmcb`] | The page of a VMCB, which the CPU writes as well. |
//! | [`cpu`] | The virtual CPU: it implements [`Vcpu`](vidar_core::vmm::vcpu::Vcpu). |
//! | `nmi` | NMIs that exit, so that one CPU can call another out of the guest. |
//! | `controls` | The exits of writes to control registers, with the boot option `guard` alone. |
//! | [`debug`] | What a debugger asks of the virtual CPU. |
//! | `entry.S` | VMRUN as a function that returns. |
//! | [`entry`] | Includes the assembly, and defines the block that it uses. |
//! | `trial` | Tries the rules of VMRUN on the CPU, in the image for that test alone. |
//! | [`instructions`] | The SVM instructions outside of the entry. |

mod controls;
pub mod cpu;
pub mod debug;
pub mod enable;
pub mod entry;
pub mod instructions;
mod nmi;
#[cfg(feature = "trial")]
mod trial;
pub mod vmcb;
