//! Writes pages of memory as an ELF core, as a kernel's crash dump has them: ELF-64 Object File Format, "Program
//! Header", and Linux 6.1, fs/proc/vmcore.c.

use std::collections::BTreeMap;
use std::io::{self, Write};

use vidar_core::mem::addr::PAGE_SIZE;

use super::memory::Page;
use crate::remote::Cpu;

/// The size of the ELF header.
const HEADER: usize = 64;
/// The size of a program header.
const SEGMENT: usize = 56;
/// The size of `struct elf_prstatus`, and the places of the process and of the registers in it: Linux 6.1,
/// include/linux/elfcore.h.
const STATUS: usize = 336;
const PROCESS: usize = 32;
const REGISTERS: usize = 112;
/// NT_PRSTATUS.
const PRSTATUS: u32 = 1;

/// The most segments that the ELF header can count.
const MOST_SEGMENTS: usize = 0xfffe;

/// What a core has.
pub struct Core<'a> {
    /// The registers of the CPUs.
    pub cpus: &'a [Cpu],
    /// The text of VMCOREINFO.
    pub vmcoreinfo: &'a [u8],
    /// The pages, by their physical addresses.
    pub pages: &'a BTreeMap<u64, Box<Page>>,
    /// Where the kernel maps all of physical memory.
    pub direct: u64,
}

impl Core<'_> {
    /// Writes the core to `file`.
    pub fn write(&self, file: &mut impl Write) -> io::Result<()> {
        let mut notes = Vec::new();
        for cpu in self.cpus {
            note(&mut notes, b"CORE\0", PRSTATUS, &status(cpu));
        }
        note(&mut notes, b"VMCOREINFO\0", 0, self.vmcoreinfo);
        let runs = self.runs();
        if runs.len() > MOST_SEGMENTS {
            return Err(io::Error::other("the pages are in too many places for an ELF file"));
        }
        let at = HEADER + SEGMENT * (1 + runs.len());
        let start = (at + notes.len()).next_multiple_of(PAGE_SIZE as usize);
        let mut head = header(1 + runs.len() as u16);
        segment(&mut head, 4, at, [0, 0], notes.len());
        let mut offset = start;
        for (address, count) in &runs {
            let size = count * PAGE_SIZE as usize;
            segment(&mut head, 1, offset, [self.direct.wrapping_add(*address), *address], size);
            offset += size;
        }
        head.extend(notes);
        head.resize(start, 0);
        file.write_all(&head)?;
        self.pages.values().try_for_each(|page| file.write_all(page.as_slice()))
    }

    /// Returns the runs of adjoining pages: the address of the first one, and their number.
    fn runs(&self) -> Vec<(u64, usize)> {
        let mut runs: Vec<(u64, usize)> = Vec::new();
        for address in self.pages.keys() {
            match runs.last_mut() {
                Some((start, count)) if *start + *count as u64 * PAGE_SIZE == *address => *count += 1,
                _ => runs.push((*address, 1)),
            }
        }
        runs
    }
}

/// Returns the ELF header of a core for x86-64 with this number of segments.
fn header(segments: u16) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    let (core, x86_64) = (4u16, 62u16);
    bytes.extend([core, x86_64].map(u16::to_le_bytes).as_flattened());
    bytes.extend(1u32.to_le_bytes());
    bytes.extend([0, HEADER as u64, 0].map(u64::to_le_bytes).as_flattened());
    bytes.extend(0u32.to_le_bytes());
    bytes.extend([HEADER as u16, SEGMENT as u16, segments, 0, 0, 0].map(u16::to_le_bytes).as_flattened());
    bytes
}

/// Appends a program header: its kind, the place in the file, the virtual and the physical address, and the size.
fn segment(bytes: &mut Vec<u8>, kind: u32, offset: usize, addresses: [u64; 2], size: usize) {
    let (offset, size, [linear, physical]) = (offset as u64, size as u64, addresses);
    bytes.extend([kind, 7].map(u32::to_le_bytes).as_flattened());
    bytes.extend([offset, linear, physical, size, size, 0].map(u64::to_le_bytes).as_flattened());
}

/// Appends a note.
fn note(bytes: &mut Vec<u8>, name: &[u8], kind: u32, contents: &[u8]) {
    bytes.extend([name.len() as u32, contents.len() as u32, kind].map(u32::to_le_bytes).as_flattened());
    for part in [name, contents] {
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
}

/// Returns the registers of a CPU as a core has them: Linux 6.1, arch/x86/include/asm/user_64.h, `struct
/// user_regs_struct`.
fn status(cpu: &Cpu) -> Vec<u8> {
    let [rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, rip] = cpu.general;
    let [cs, ss, ds, es, fs, gs] = cpu.selectors.map(u64::from);
    let no_system_call = u64::MAX;
    let registers = [
        r15,
        r14,
        r13,
        r12,
        rbp,
        rbx,
        r11,
        r10,
        r9,
        r8,
        rax,
        rcx,
        rdx,
        rsi,
        rdi,
        no_system_call,
        rip,
        cs,
        cpu.flags.into(),
        rsp,
        ss,
        0,
        0,
        ds,
        es,
        fs,
        gs,
    ];
    let mut bytes = vec![0; STATUS];
    bytes[PROCESS..PROCESS + 4].copy_from_slice(&cpu.thread.to_le_bytes());
    let registers = registers.map(u64::to_le_bytes);
    bytes[REGISTERS..REGISTERS + registers.as_flattened().len()].copy_from_slice(registers.as_flattened());
    bytes
}

#[cfg(test)]
mod tests {
    use object::Endianness;
    use object::elf::{FileHeader64, NT_PRSTATUS, PT_LOAD};
    use object::read::elf::{FileHeader, ProgramHeader};

    use super::*;

    #[test]
    fn a_core_has_the_pages_at_their_addresses_and_the_notes() {
        let page = |byte| Box::new([byte; PAGE_SIZE as usize]);
        let pages = BTreeMap::from([(0x1000, page(1)), (0x2000, page(2)), (0x9000, page(3))]);
        let cpu = Cpu { thread: 1, general: [7; 17], flags: 2, selectors: [0x10; 6] };
        let mut file = Vec::new();
        let direct = 0xffff_8880_0000_0000;
        Core { cpus: &[cpu], vmcoreinfo: b"OSRELEASE=6.1\n", pages: &pages, direct }
            .write(&mut file)
            .unwrap();
        let header = FileHeader64::<Endianness>::parse(&*file).unwrap();
        let endian = header.endian().unwrap();
        let segments = header.program_headers(endian, &*file).unwrap();
        let loaded = segments.iter().filter(|segment| segment.p_type(endian) == PT_LOAD);
        let loaded: Vec<_> = loaded
            .map(|segment| {
                let bytes = segment.data(endian, &*file).unwrap();
                (segment.p_vaddr(endian) - direct, segment.p_paddr(endian), bytes.len(), bytes[0])
            })
            .collect();
        assert_eq!(loaded, [(0x1000, 0x1000, 0x2000, 1), (0x9000, 0x9000, 0x1000, 3)]);
        let mut notes = segments[0].notes(endian, &*file).unwrap().unwrap();
        let status = notes.next().unwrap().unwrap();
        assert_eq!(
            (status.name(), status.n_type(endian), status.desc().len()),
            (&b"CORE"[..], NT_PRSTATUS, STATUS)
        );
        assert_eq!(status.desc()[REGISTERS], 7);
        let info = notes.next().unwrap().unwrap();
        assert_eq!((info.name(), info.desc()), (&b"VMCOREINFO"[..], &b"OSRELEASE=6.1\n"[..]));
        assert!(notes.next().unwrap().is_none());
    }
}
