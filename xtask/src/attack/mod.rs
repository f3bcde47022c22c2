//! Makes kernel modules that attack, without the headers of the kernel: what ties a module to its kernel is taken from
//! another module of the same package.

#![expect(unsafe_code, reason = "the code of the module is in the assembly of this program")]

use std::arch::global_asm;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use object::Endianness;
use object::elf::{self, FileHeader64, SectionFlags, SectionType};
use object::read::elf::{FileHeader, Rela, SectionHeader, Sym};

use crate::manifest::Guest;
use crate::modules;

global_asm!(include_str!("attack.S"));

/// The module that others are made like. It needs no other module.
pub const DONOR: &str = "dummy";

/// The offset of the code in the file.
const CODE_AT: usize = 64;
/// The flags of a section that is not loaded.
const NONE: SectionFlags = SectionFlags(0);
/// The most bytes of a module's name.
const NAME: usize = 16;

/// What the module does. If it succeeds, the module can be inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Kind {
    /// It writes a byte.
    Write = 0,
    /// It writes a byte, at its address in the direct map.
    WriteDirect = 1,
    /// It clears bits of CR0.
    ClearCr0 = 2,
    /// It clears bits of CR4.
    ClearCr4 = 3,
    /// It has code that leads system calls to their target, and does nothing.
    Hook = 4,
}

/// What the module is to do.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    /// What it does.
    pub kind: Kind,
    /// The linear address of the byte, or where system calls lead to.
    pub target: u64,
    /// The address of the kernel's variable `page_offset_base`.
    pub base: u64,
    /// The byte, or the bits.
    pub value: u64,
}

impl Attack {
    /// Returns the shell command that writes the attack into the file of a module.
    pub fn into(self, file: &str) -> String {
        let words = [self.target, self.base, self.value, self.kind as u64];
        let bytes = words.into_iter().flat_map(u64::to_le_bytes);
        let text = bytes.fold(String::new(), |mut text, byte| {
            let _ = write!(text, "\\{byte:03o}");
            text
        });
        format!("printf '{text}' | dd of={file} bs=1 seek={CODE_AT} conv=notrunc 2>/dev/null")
    }
}

/// The code.
struct Code {
    bytes: &'static [u8],
    /// The offset of its entry.
    init: usize,
    /// The offset of the code for [`Kind::Hook`].
    hook: usize,
}

/// Returns the code.
fn code() -> Code {
    unsafe extern "C" {
        static attack_begin: u8;
        static attack_init: u8;
        static attack_hook: u8;
        static attack_end: u8;
    }
    // SAFETY: the assembly defines these symbols in this order, in one section that nothing changes.
    unsafe {
        let begin = &raw const attack_begin;
        let offset = |symbol: *const u8| symbol.offset_from_unsigned(begin);
        let [init, hook, length] =
            [&raw const attack_init, &raw const attack_hook, &raw const attack_end].map(offset);
        Code { bytes: std::slice::from_raw_parts(begin, length), init, hook }
    }
}

/// Returns the offset in the module's code to which the MSR LSTAR can point with [`Kind::Hook`].
pub fn hook() -> u64 {
    code().hook as u64
}

/// Returns an archive for tests, with modules of these names that attack the kernel of `guest`, and one that does not,
/// in its first folder.
pub fn archive(guest: &Guest, names: &[String]) -> Result<PathBuf> {
    let version = version();
    let wanted: Vec<_> = names.iter().map(String::as_str).chain([version.as_str()]).collect();
    modules::get(guest, "attacks", &wanted, |package| {
        let donor = package.read(DONOR)?;
        let file = |name: &String| Ok((format!("{name}.ko"), module(&donor, name)?));
        let mut files = names.iter().map(file).collect::<Result<Vec<_>>>()?;
        files.push((format!("{DONOR}.ko"), donor));
        Ok((Vec::new(), files))
    })
}

/// Returns a text that changes with the code.
fn version() -> String {
    let mut hasher = DefaultHasher::new();
    code().bytes.hash(&mut hasher);
    format!("{:x}", hasher.finish())
}

/// What ties a module to its kernel.
struct Ties {
    /// `struct module` of the donor, with the donor's name in it.
    this_module: Vec<u8>,
    /// The offset in it of the pointer to the function that starts the module.
    init: u64,
    /// The donor's row for `module_layout` in the table of checksums.
    versions: Vec<u8>,
    /// The line of the module's information that names the kernel.
    vermagic: Vec<u8>,
}

impl Ties {
    fn of(donor: &[u8]) -> Result<Self> {
        let header = FileHeader64::<Endianness>::parse(donor)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, donor)?;
        let data = |name: &str| -> Result<&[u8]> {
            let (_, section) = sections
                .section_by_name(endian, name.as_bytes())
                .with_context(|| format!("a module of the kernel has no section {name}"))?;
            Ok(section.data(endian, donor)?)
        };
        let symbols = sections.symbols(endian, donor, elf::SHT_SYMTAB)?;
        let (_, relocations) = sections
            .section_by_name(endian, b".rela.gnu.linkonce.this_module")
            .context("a module of the kernel starts no function")?;
        let (relocations, _) =
            relocations.rela(endian, donor)?.context("a module's relocations are no Rela")?;
        let mut init = None;
        for relocation in relocations {
            let symbol = symbols.symbol(relocation.symbol(endian, false).context("no symbol")?)?;
            if symbol.name(endian, symbols.strings())? == b"init_module" {
                init = Some(relocation.r_offset(endian));
            }
        }
        let row = data("__versions")?.chunks_exact(64).find(|row| row[8..].starts_with(b"module_layout\0"));
        let vermagic = data(".modinfo")?.split(|byte| *byte == 0).find(|line| line.starts_with(b"vermagic="));
        Ok(Self {
            this_module: data(".gnu.linkonce.this_module")?.to_vec(),
            init: init.context("a module of the kernel does not start init_module")?,
            versions: row.context("a module has no checksum of module_layout")?.to_vec(),
            vermagic: vermagic.context("a module does not name its kernel")?.to_vec(),
        })
    }
}

/// Returns a module with this name for the kernel of the module `donor`. It does nothing useful until an [`Attack`] is
/// written into its file.
pub fn module(donor: &[u8], name: &str) -> Result<Vec<u8>> {
    ensure!(name.len() < NAME, "the name {name} is too long");
    let Ties { mut this_module, init, versions, vermagic } = Ties::of(donor)?;
    let at = this_module.windows(DONOR.len()).position(|bytes| bytes == DONOR.as_bytes());
    let at = at.context("a module does not have its own name")?;
    this_module[at..at + DONOR.len()].fill(0);
    this_module[at..at + name.len()].copy_from_slice(name.as_bytes());
    let information =
        [b"license=GPL\0depends=\0retpoline=Y\0name=", name.as_bytes(), b"\0", &vermagic, b"\0"].concat();
    let Code { bytes: code, init: entry, .. } = code();
    let relocation = [init, 1 << 32 | u64::from(elf::R_X86_64_64.0), 0].map(u64::to_le_bytes).concat();
    // A symbol: its name, then type and section, its value and its size.
    let symbol = |name: u32, kind: u8, section: u16, value: u64| {
        let head = [&name.to_le_bytes()[..], &[kind, 0], &section.to_le_bytes()].concat();
        [head, [value, 0].map(u64::to_le_bytes).concat()].concat()
    };
    let symbols =
        [symbol(0, 0, 0, 0), symbol(1, elf::STB_GLOBAL.0 << 4 | elf::STT_FUNC.0, 1, entry as u64)].concat();
    let (alloc, write, execute) = (elf::SHF_ALLOC, elf::SHF_WRITE, elf::SHF_EXECINSTR);
    let sections = [
        Section::new(".text", elf::SHT_PROGBITS, alloc | execute, code.to_vec()),
        Section::new(".modinfo", elf::SHT_PROGBITS, alloc, information),
        Section::new("__versions", elf::SHT_PROGBITS, alloc, versions),
        Section::new(".gnu.linkonce.this_module", elf::SHT_PROGBITS, alloc | write, this_module),
        Section {
            link: 6,
            info: 4,
            entry: 24,
            ..Section::new(".rela.gnu.linkonce.this_module", elf::SHT_RELA, elf::SHF_INFO_LINK, relocation)
        },
        Section { link: 7, info: 1, entry: 24, ..Section::new(".symtab", elf::SHT_SYMTAB, NONE, symbols) },
        Section::new(".strtab", elf::SHT_STRTAB, NONE, b"\0init_module\0".to_vec()),
    ];
    Ok(file(sections.to_vec()))
}

/// A section of the file.
#[derive(Clone)]
struct Section {
    name: &'static str,
    kind: SectionType,
    flags: SectionFlags,
    link: u32,
    info: u32,
    entry: u64,
    data: Vec<u8>,
}

impl Section {
    fn new(name: &'static str, kind: SectionType, flags: SectionFlags, data: Vec<u8>) -> Self {
        Self { name, kind, flags, link: 0, info: 0, entry: 0, data }
    }
}

/// Returns a relocatable file with these sections and one that has their names. The first is at [`CODE_AT`].
fn file(mut sections: Vec<Section>) -> Vec<u8> {
    sections.push(Section::new(".shstrtab", elf::SHT_STRTAB, NONE, Vec::new()));
    let (mut names, mut name_at) = (vec![0], Vec::new());
    for section in &sections {
        name_at.push(names.len() as u32);
        names.extend(section.name.bytes().chain([0]));
    }
    if let Some(last) = sections.last_mut() {
        last.data = names;
    }
    let mut file = vec![0; CODE_AT];
    let mut table = vec![0; 64];
    for (section, name) in sections.iter().zip(name_at) {
        file.resize(file.len().next_multiple_of(64), 0);
        let offset = file.len() as u64;
        file.extend(&section.data);
        table.extend([name, section.kind.0].map(u32::to_le_bytes).concat());
        table.extend([section.flags.0, 0, offset, section.data.len() as u64].map(u64::to_le_bytes).concat());
        table.extend([section.link, section.info].map(u32::to_le_bytes).concat());
        table.extend([64, section.entry].map(u64::to_le_bytes).concat());
    }
    file.resize(file.len().next_multiple_of(64), 0);
    let table_at = file.len() as u64;
    file.extend(table);
    // Relocatable, x86-64, version 1; no entry and no program headers.
    let header = [
        &b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0\x01\0\0\0"[..],
        &[0; 16],
        &table_at.to_le_bytes(),
        &[0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0],
        &(sections.len() as u16 + 1).to_le_bytes(),
        &(sections.len() as u16).to_le_bytes(),
    ]
    .concat();
    file[..header.len()].copy_from_slice(&header);
    file
}
