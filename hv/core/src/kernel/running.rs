//! A running kernel: finds it in memory, and answers all questions about it.

use super::chain::{self, End, Frame};
use super::kallsyms::{Addresses, Symbol, Symbols};
use super::modules::{self, Modules};
use super::name::Name;
use super::orc::{self, Kind, Rule, Table};
use super::printk::Layout;
use super::view::{Translation, View, locate};
use super::vmcoreinfo::{self, Note, decimal, hexadecimal};
use crate::mem::addr::Gpa;
use crate::mem::ranges::RangeSet;
use crate::mem::walk::ReadGuest;
use crate::policy::control::Controls;
use crate::vmm::cpu_state::CpuState;

/// The most bytes of a release. Linux 6.1, include/uapi/linux/utsname.h, `__NEW_UTS_LEN`.
const MAX_RELEASE: usize = 64;
/// The distance of the release from the start of `struct new_utsname`: two fields are before it.
const RELEASE: u64 = 2 * (MAX_RELEASE as u64 + 1);
/// The bits of a physical address that memory has. A bit above them selects how memory is encrypted.
const PLAIN: u64 = (1 << 46) - 1;

/// A running kernel. It has no more than addresses and offsets, so it can be kept and copied.
///
/// Each method that takes `memory` reads it anew, and so works as well on a kernel that runs on meanwhile. What it
/// returns is then of no one moment.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    release: Release,
    offset: u64,
    text: u64,
    translation: Translation,
    symbols: Option<Symbols>,
    orc: Option<Table>,
    modules: Option<Modules>,
    log: Layout,
}

impl Kernel {
    /// Finds a kernel whose image is in `ram`. If another kernel ran on this machine before and was not ended by a
    /// power-off, this may be that one: with a CPU's state at hand, use [`find_running`](Self::find_running).
    #[cold]
    pub fn find(memory: &dyn ReadGuest, ram: &RangeSet) -> Option<Self> {
        Self::find_with(memory, ram, |_| true)
    }

    /// Finds the kernel that runs on a CPU with these control registers.
    #[cold]
    pub fn find_running(memory: &dyn ReadGuest, ram: &RangeSet, controls: &Controls) -> Option<Self> {
        Self::find_with(memory, ram, |kernel| kernel.runs(memory, controls))
    }

    fn find_with(memory: &dyn ReadGuest, ram: &RangeSet, accept: impl Fn(&Self) -> bool) -> Option<Self> {
        let found = vmcoreinfo::search(memory, ram, |note| {
            let facts = Facts::read(memory, note);
            let kernel = facts.kernel()?;
            (kernel.has_its_release(memory, &facts) && accept(&kernel)).then_some((kernel, facts.symbols))
        });
        let (mut kernel, addresses) = found?;
        // Two changes of layout cannot be seen in the tables, so the release decides.
        let version = kernel.release.version();
        let view = kernel.view(memory);
        kernel.symbols = Symbols::new(view, &addresses, kernel.text, version >= (6, 1));
        if let Some(symbols) = &kernel.symbols {
            let ([start, stop, entries], [head, types]) = (orc::SYMBOLS, modules::SYMBOLS);
            let found = symbols.find_all(view, [start, stop, entries, head, types]).unwrap_or_default();
            if let [Some(start), Some(stop), Some(entries), ..] = found {
                kernel.orc = Table::new(view, [start, stop, entries], version < (6, 3));
            }
            if let [.., Some(head), Some(types)] = found {
                kernel.modules = Modules::new(view, [head, types]);
            }
        }
        Some(kernel)
    }

    /// Returns true if a CPU with these control registers has this kernel's image where the kernel says that it is.
    pub fn runs(&self, memory: &dyn ReadGuest, controls: &Controls) -> bool {
        // With page-table isolation, the start of the image is not in the tables of user mode.
        let there = locate(memory, controls, self.text).map(|address| address.0 & PLAIN);
        there.is_some() && there == self.translation.in_image(self.text).map(|address| address.0 & PLAIN)
    }

    /// Returns true if the release of the note is also in the kernel's data. In a copy of the note it need not be.
    fn has_its_release(&self, memory: &dyn ReadGuest, facts: &Facts) -> bool {
        let Some(names) = facts.names.and_then(|names| names.checked_add(facts.names_offset + RELEASE))
        else {
            return false;
        };
        let mut stream = self.view(memory).stream(names);
        self.release.bytes().iter().chain(&[0]).all(|byte| stream.byte() == Some(*byte))
    }

    fn view<'a>(&self, memory: &'a dyn ReadGuest) -> View<'a> {
        View::new(memory, self.translation)
    }

    /// Returns the release, such as `6.1.0-48-amd64`.
    pub fn release(&self) -> &str {
        core::str::from_utf8(self.release.bytes()).unwrap_or_default()
    }

    /// Returns how far address space layout randomization has moved the image from the addresses at which it was
    /// linked.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns true if the kernel has names for addresses. Linux 6.0 and later say where these are.
    pub const fn has_symbols(&self) -> bool {
        self.symbols.is_some()
    }

    /// Returns the symbol that holds `address`, and the distance from its start. A module's has the module's name
    /// before it, as in `ext4:ext4_map_blocks`.
    pub fn symbol(&self, memory: &dyn ReadGuest, address: u64) -> Option<(Name, u64)> {
        let view = self.view(memory);
        let in_module = || self.modules?.symbol(view, address);
        self.symbols.as_ref()?.symbol(view, address).or_else(in_module)
    }

    /// Returns the function of a call chain's frame, and the distance of the frame's address from its start.
    pub fn function(&self, memory: &dyn ReadGuest, frame: Frame) -> Option<(Name, u64)> {
        let (name, distance) = self.symbol(memory, frame.within())?;
        Some((name, distance + frame.address.wrapping_sub(frame.within())))
    }

    /// Returns the address of the first symbol with this name.
    pub fn address(&self, memory: &dyn ReadGuest, name: &str) -> Option<u64> {
        self.symbols.as_ref()?.find(self.view(memory), name)
    }

    /// Returns the addresses of the first symbols with these names, in one pass over all symbols. `None` if the kernel
    /// has no symbols that can be read.
    pub fn addresses<const N: usize>(
        &self,
        memory: &dyn ReadGuest,
        names: [&str; N],
    ) -> Option<[Option<u64>; N]> {
        self.symbols.as_ref()?.find_all(self.view(memory), names)
    }

    /// Returns the physical address of `address`; `None` if it is not in the mapping of the image.
    pub fn place_in_image(&self, address: u64) -> Option<Gpa> {
        self.translation.in_image(address)
    }

    /// Calls `each` with all symbols but those of modules, in the order of their addresses, until it returns false.
    pub fn symbols(&self, memory: &dyn ReadGuest, each: &mut dyn FnMut(Symbol<'_>) -> bool) {
        if let Some(symbols) = &self.symbols {
            symbols.each(self.view(memory), each);
        }
    }

    /// Calls `frame` for each step of the call chain of a CPU in this state, the innermost first, and returns why the
    /// chain ends. There are at most [`MAX_FRAMES`](chain::MAX_FRAMES) and one.
    pub fn chain(&self, memory: &dyn ReadGuest, state: &CpuState, frame: &mut dyn FnMut(Frame)) -> End {
        let view = self.view(memory);
        let rules = |address| self.rule(view, address);
        let rules: &dyn Fn(u64) -> Option<Rule> = &rules;
        chain::chain(view, self.orc.is_some().then_some(rules), state, frame)
    }

    /// Returns the rule for the instruction at `address`.
    fn rule(&self, view: View<'_>, address: u64) -> Option<Rule> {
        let table = self.orc.as_ref()?;
        let own = table.rule(view, address).filter(|rule| rule.kind != Kind::Undefined);
        own.or_else(|| self.modules?.rule(view, table, address))
    }

    /// Calls `line` with each of the last `lines` lines of the kernel's log, the oldest first. The bytes are those of
    /// the guest: they may be anything but a line's end, so they must not go to a terminal as they are.
    pub fn log(&self, memory: &dyn ReadGuest, lines: usize, line: &mut dyn FnMut(&[u8])) {
        self.log.lines(self.view(memory), lines, line);
    }
}

/// What a note says.
#[derive(Default)]
struct Facts {
    release: Release,
    offset: u64,
    text: Option<u64>,
    phys_base: Option<u64>,
    tables: Option<u64>,
    five_levels: bool,
    names: Option<u64>,
    names_offset: u64,
    symbols: Addresses,
    log: Layout,
}

impl Facts {
    fn read(memory: &dyn ReadGuest, note: Note) -> Self {
        let mut facts = Self::default();
        note.lines(memory, &mut |key, value| facts.take(key, value));
        facts
    }

    fn take(&mut self, key: &[u8], value: &[u8]) {
        match key {
            b"OSRELEASE" => self.release = Release::new(value),
            b"KERNELOFFSET" => self.offset = hexadecimal(value).unwrap_or_default(),
            b"SYMBOL(_stext)" => self.text = hexadecimal(value),
            b"NUMBER(phys_base)" => self.phys_base = decimal(value),
            b"SYMBOL(swapper_pg_dir)" => self.tables = hexadecimal(value),
            b"NUMBER(pgtable_l5_enabled)" => self.five_levels = value == b"1",
            b"SYMBOL(init_uts_ns)" => self.names = hexadecimal(value),
            b"OFFSET(uts_namespace.name)" => {
                self.names_offset = decimal(value).filter(|offset| *offset < 4096).unwrap_or_default();
            }
            _ => {
                self.symbols.take(key, value);
                self.log.take(key, value);
            }
        }
    }

    fn kernel(&self) -> Option<Kernel> {
        let translation =
            Translation::new(self.phys_base?, self.tables?, if self.five_levels { 5 } else { 4 })?;
        let (release, offset, text, log) = (self.release, self.offset, self.text?, self.log);
        Some(Kernel { release, offset, text, translation, symbols: None, orc: None, modules: None, log })
    }
}

/// A release, as `uname -r` has it.
#[derive(Debug, Clone, Copy)]
struct Release {
    bytes: [u8; MAX_RELEASE],
    length: u8,
}

impl Release {
    /// Returns the release with these bytes. It is empty if they are too many, or not printable ASCII.
    fn new(text: &[u8]) -> Self {
        let mut release = Self::default();
        if let Some(slots) = release.bytes.get_mut(..text.len())
            && text.iter().all(u8::is_ascii_graphic)
        {
            slots.copy_from_slice(text);
            release.length = text.len() as u8;
        }
        release
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// Returns the first two numbers; 0 stands for what is not a number.
    fn version(&self) -> (u32, u32) {
        let text = core::str::from_utf8(self.bytes()).unwrap_or_default();
        let mut numbers = text.split(|character: char| !character.is_ascii_digit()).map(str::parse);
        let mut next = || numbers.next().and_then(Result::ok).unwrap_or_default();
        (next(), next())
    }
}

impl Default for Release {
    fn default() -> Self {
        Self { bytes: [0; MAX_RELEASE], length: 0 }
    }
}
