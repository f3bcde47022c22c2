//! The decisions of the boot order. The order itself runs in the shell, in its room of the same name.
//!
//! | file | what it is for |
//! |---|---|
//! | [`annex`] | Decides how much memory Vidar takes in addition to its region, for many CPUs or for much memory in small pages. |
//! | [`conventional`] | Chooses the page below 640 KiB from which further CPUs are started. |
//! | [`landing`] | Leads the guest's start-up IPIs to Vidar on AMD-V: each page below 640 KiB begins with a stub that jumps there. |
//! | [`memory_plan`] | How the machine's memory is divided: what Vidar keeps, and what the guest gets. |
//! | [`options`] | Parses Vidar's own command line. |
//! | [`refusal`] | Says in one sentence why Vidar does not start, and what to do. |
//! | [`startup`] | Decides who starts CPUs for the guest: the hardware or Vidar. |
//! | [`wake`] | Wakes the further CPUs: the messages that the boot CPU sends them, and its pauses. |

pub mod annex;
pub mod conventional;
pub mod landing;
pub mod memory_plan;
pub mod options;
pub mod refusal;
pub mod startup;
pub mod wake;
