//! `cargo xtask dump`: reads over the line to Vidar's debugger what matters of the guest's kernel, and writes it as an
//! ELF core, which drgn opens.
//!
//! A line of 115200 baud takes up to three minutes for one MiB, so the core does not have all of RAM. It has the pages
//! in which the kernel keeps its symbols, its log, its variables and those of each CPU, the stacks on which the CPUs
//! run, and the page tables by which these are found. No page is chosen by its contents, so the kernel may be in any
//! state.

mod core;
mod memory;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use vidar_core::kernel::Kernel;
use vidar_core::mem::addr::{Gpa, Hpa, PAGE_SIZE};
use vidar_core::mem::ranges::RangeSet;
use vidar_core::mem::walk::{Paging, ReadGuest, translate};

use self::core::Core;
use self::memory::{Memory, Page};
use crate::remote::{Cpu, Remote};

/// Where the kernel maps its image, and the size of that mapping: Linux 6.1, arch/x86/include/asm/page_64_types.h.
const IMAGE: u64 = 0xffff_ffff_8000_0000;
const IMAGE_BYTES: u64 = 1 << 30;
/// The lowest address of the kernel's half.
const KERNEL_HALF: u64 = 1 << 63;
/// The size of a stack, to which it is aligned as well: Linux 6.1, arch/x86/include/asm/page_64_types.h, `THREAD_SIZE`.
const STACK: u64 = 16 * 1024;
/// The size of the header of the note VMCOREINFO, with its name.
const NOTE: u64 = 24;
/// The most bytes of VMCOREINFO.
const MOST_TEXT: u64 = 2 * PAGE_SIZE;
/// The most bytes of variables in one range, which is far more than a kernel has.
const MOST_BYTES: u64 = 64 << 20;

/// The symbols at the start and the end of the kernel's variables.
const VARIABLES: [[&str; 2]; 3] =
    [["_sdata", "_edata"], ["__bss_start", "__bss_stop"], ["__start_ro_after_init", "__end_ro_after_init"]];
/// The symbols at the start and the end of the variables that each CPU has, and the table of where each CPU has them.
const PER_CPU: [&str; 3] = ["__per_cpu_start", "__per_cpu_end", "__per_cpu_offset"];
/// A constant that names the kernel.
const BANNER: &str = "linux_banner";

/// Reads the guest over `line`, and writes the core to `file`. The guest goes on afterwards.
pub fn run(line: &str, file: &Path) -> Result<()> {
    let cannot_write = || format!("cannot write {}", file.display());
    // Reading takes long, so a file that cannot be written is said before. What it has is lost only once there is a
    // dump.
    let out =
        File::options().create(true).truncate(false).write(true).open(file).with_context(cannot_write)?;
    let mut remote = Remote::open(line)?;
    let read = read(&mut remote);
    // A guest that was stopped for a dump goes on even if the dump has failed.
    let left = remote.leave();
    let dump = read?;
    left?;
    out.set_len(0).with_context(cannot_write)?;
    let mut out = BufWriter::new(out);
    dump.core().write(&mut out)?;
    out.flush()?;
    println!(
        "{}: Linux {}, the registers of {} CPU{}, {} KiB of memory",
        file.display(),
        dump.release,
        dump.cpus.len(),
        if dump.cpus.len() == 1 { "" } else { "s" },
        dump.pages.len() as u64 * (PAGE_SIZE / 1024)
    );
    Ok(())
}

/// What has been read.
struct Dump {
    release: String,
    cpus: Vec<Cpu>,
    vmcoreinfo: Vec<u8>,
    pages: BTreeMap<u64, Box<Page>>,
    direct: u64,
}

impl Dump {
    fn core(&self) -> Core<'_> {
        Core { cpus: &self.cpus, vmcoreinfo: &self.vmcoreinfo, pages: &self.pages, direct: self.direct }
    }
}

/// Reads all that the core has.
fn read(remote: &mut Remote) -> Result<Dump> {
    let cpus = remote.cpus()?;
    let direct = pointer(remote, "page_offset_base")?;
    let note = pointer(remote, "vmcoreinfo_note")?;
    ensure!(
        direct >= KERNEL_HALF && note >= direct && note.is_multiple_of(PAGE_SIZE),
        "the kernel's note VMCOREINFO is not where it should be: has the guest crashed while it started?"
    );
    let memory = Memory::new(remote, direct);
    let found = read_kernel(&memory, note - direct, &cpus);
    let pages = memory.into_pages()?;
    let (release, vmcoreinfo) = found?;
    Ok(Dump { release, cpus, vmcoreinfo, pages, direct })
}

/// Reads what matters of the kernel whose note is at this physical address. Returns the kernel's release and the note's
/// text.
fn read_kernel(memory: &Memory<'_>, note: u64, cpus: &[Cpu]) -> Result<(String, Vec<u8>)> {
    let ram = RangeSet::from([Hpa(note)..Hpa(note + PAGE_SIZE)]);
    let kernel = Kernel::find(memory, &ram).context("the kernel's note VMCOREINFO is damaged")?;
    let text = text_of_note(memory, note)?;
    let tables = Tables::new(memory, &text)?;
    ensure!(
        kernel.has_symbols(),
        "Linux {} does not say where its symbols are: it takes Linux 6.0",
        kernel.release()
    );
    let mut symbols = BTreeMap::new();
    kernel.symbols(memory, &mut |symbol| {
        symbols.entry(symbol.name.as_str().to_owned()).or_insert(symbol.address);
        true
    });
    kernel.log(memory, usize::MAX, &mut |_| ());
    let symbol = |name| symbols.get(name).copied();
    for [start, end] in VARIABLES {
        if let (Some(start), Some(end)) = (symbol(start), symbol(end)) {
            tables.read(start..end);
        }
    }
    if let Some(banner) = symbol(BANNER) {
        tables.read(banner..banner + 1);
    }
    if let [Some(start), Some(end), Some(offsets)] = PER_CPU.map(symbol) {
        for index in 0..cpus.len() as u64 {
            if let Some(offset) = tables.word(offsets + index * 8) {
                tables.read(start.wrapping_add(offset)..end.wrapping_add(offset));
            }
        }
    }
    for cpu in cpus {
        let stack = cpu.general[7] & !(STACK - 1);
        tables.read(stack..stack.saturating_add(STACK));
    }
    tables.read_own();
    Ok((kernel.release().to_owned(), text))
}

/// Returns the value of the kernel's variable `name`, which is an address.
fn pointer(remote: &mut Remote, name: &str) -> Result<u64> {
    let address = remote.symbol(name)?;
    let bytes = remote.memory(address, 8)?;
    let bytes = bytes.first_chunk().with_context(|| format!("the kernel's variable {name} is not mapped"))?;
    Ok(u64::from_le_bytes(*bytes))
}

/// Returns the text of the note at this physical address. The kernel's own reader has found it there.
fn text_of_note(memory: &Memory<'_>, note: u64) -> Result<Vec<u8>> {
    let damaged = "the kernel's note VMCOREINFO is damaged";
    let length = memory.word(Gpa(note)).context(damaged)? >> 32;
    ensure!(length <= MOST_TEXT, damaged);
    let words = (0..length.div_ceil(8)).map(|index| memory.word(Gpa(note + NOTE + index * 8)));
    let words: Vec<u64> = words.collect::<Option<_>>().context(damaged)?;
    let mut text = words.into_iter().flat_map(u64::to_le_bytes).collect::<Vec<_>>();
    text.truncate(length as usize);
    Ok(text)
}

/// The kernel's page tables.
struct Tables<'a, 'm> {
    memory: &'a Memory<'m>,
    /// What is added to the distance of an address from the start of the image's mapping, to get the physical address.
    phys_base: u64,
    /// The address of the first table.
    top: u64,
    levels: u32,
}

impl<'a, 'm> Tables<'a, 'm> {
    /// Returns the tables that VMCOREINFO names.
    fn new(memory: &'a Memory<'m>, vmcoreinfo: &[u8]) -> Result<Self> {
        let text = String::from_utf8_lossy(vmcoreinfo);
        let value = |key: &str| {
            text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).with_context(|| {
                format!("the kernel's note VMCOREINFO has no {key}: only kernels for x86-64 can be dumped")
            })
        };
        let phys_base = value("NUMBER(phys_base)")?.parse::<i64>()?.cast_unsigned();
        let top = u64::from_str_radix(value("SYMBOL(swapper_pg_dir)")?, 16)?;
        let levels = if value("NUMBER(pgtable_l5_enabled)").is_ok_and(|value| value == "1") { 5 } else { 4 };
        Ok(Self { memory, phys_base, top: top.wrapping_sub(IMAGE).wrapping_add(phys_base), levels })
    }

    /// Returns the physical address of a virtual one. The tables on the way are read, and so they are in the dump.
    fn find(&self, address: u64) -> Option<Gpa> {
        if address < KERNEL_HALF {
            return None;
        }
        translate(Paging::Long { levels: self.levels }, self.top, address, |entry| self.memory.word(entry))
    }

    /// Reads the pages of these virtual addresses, as far as they are mapped.
    fn read(&self, addresses: Range<u64>) {
        let start = addresses.start & !(PAGE_SIZE - 1);
        let end = addresses.end.min(start.saturating_add(MOST_BYTES));
        for address in (start..end).step_by(PAGE_SIZE as usize) {
            if let Some(at) = self.find(address) {
                self.memory.read(at);
            }
        }
    }

    /// Returns the word at a virtual address.
    fn word(&self, address: u64) -> Option<u64> {
        self.memory.word(self.find(address)?)
    }

    /// Reads the tables of those pages of the image that have been read without a look at the tables.
    fn read_own(&self) {
        for address in self.memory.addresses() {
            let distance = address.wrapping_sub(self.phys_base);
            if distance < IMAGE_BYTES {
                self.find(IMAGE + distance);
            }
        }
    }
}
