//! The guest's Linux kernel as it runs, read from outside: names of addresses, call chains, and the kernel's log.
//!
//! Everything that is needed lies in the guest's own memory, also where the kernel is stripped and no debug package is
//! installed. The guest owns these tables and may be hostile, so no address, length or count of theirs is trusted: each
//! read can fail, each loop has a bound of its own, and nothing is allocated. The host's tools use the same code on a
//! file or a debugger's connection, since all that it needs is a [`ReadGuest`](crate::mem::walk::ReadGuest). It reads
//! word by word, so a reader over a slow line should fetch whole pages and keep them.
//!
//! | file | what it is for |
//! |---|---|
//! | [`running`] | A running kernel: finds it in memory, and answers all questions about it. |
//! | [`vmcoreinfo`] | Finds and reads the note in which the kernel says where its tables are. |
//! | [`view`] | Reads memory by the kernel's virtual addresses. |
//! | [`name`] | The name of a symbol. |
//! | [`kallsyms`] | The kernel's symbols: from an address to a name, and from a name to an address. |
//! | [`orc`] | The table that says where a function keeps its return address. |
//! | [`btf`] | The kernel's description of its types: where in a structure a member is. |
//! | [`modules`] | The kernel's modules: their symbols and their tables of call frames. |
//! | [`chain`] | The call chain of a CPU, by that table alone. |
//! | [`known`] | The kernel that the guest runs, as the guard knows it. |
//! | [`guarded`] | What the guard locks of a kernel. |
//! | [`printk`] | The last lines of the kernel's log. |

pub mod btf;
pub mod chain;
pub mod guarded;
pub mod kallsyms;
pub mod known;
pub mod modules;
pub mod name;
pub mod orc;
pub mod printk;
pub mod running;
pub mod view;
pub mod vmcoreinfo;

pub use running::Kernel;
