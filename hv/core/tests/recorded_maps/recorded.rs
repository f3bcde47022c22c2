//! Reads the maps of `tests/maps`, and makes MTRRs for them.
//!
//! The first line of a file names the machine. Each other line has a start, an end and a kind; the numbers are
//! hexadecimal. The kind tells an entry of e820 (`usable`, `reserved`, `acpi`, `nvs`, `unusable`), a descriptor of EFI
//! (`efi-` and its type) or a `window` of a PCI root bus. A line whose kind is `mtrr-` and a type has the base and the
//! mask of a variable MTRR. The lines have the firmware's order.

use std::fs;
use std::ops::Range;
use std::path::Path;

use vidar_core::firmware::efi_map;
use vidar_core::mem::addr::{Hpa, PAGE_SIZE};
use vidar_core::mem::map::{MemoryKind, MemoryMap, MemoryRegion};
use vidar_core::mem::mtrr::{IA32_MTRR_DEF_TYPE, IA32_MTRRCAP, Mtrrs};

pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;
pub const BELOW_4G: Range<Hpa> = Hpa(0)..Hpa(4 * GIB);

/// The size in bytes of a descriptor. It is larger than the fields that are known, as in real firmware.
pub const DESCRIPTOR: u32 = 48;

/// A descriptor of an EFI memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    pub kind: u32,
    pub start: u64,
    pub end: u64,
    pub attributes: u64,
}

/// A variable MTRR: its base, its mask and its type.
type Pair = (u64, u64, u64);

/// A machine.
#[derive(Debug, Clone)]
pub struct Machine {
    pub name: String,
    regions: Vec<MemoryRegion>,
    pub descriptors: Vec<Descriptor>,
    pub windows: Vec<Range<Hpa>>,
    pairs: Vec<Pair>,
}

impl Machine {
    fn read(name: &str, text: &str) -> Self {
        let mut machine = Self {
            name: name.into(),
            regions: Vec::new(),
            descriptors: Vec::new(),
            windows: Vec::new(),
            pairs: Vec::new(),
        };
        let mut lines = text.lines();
        assert!(lines.next().is_some_and(|line| line.starts_with("# ")), "{name} does not say what it is");
        for line in lines {
            let [start, end, kind] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{name}: {line}")
            };
            let [start, end] = [start, end].map(|number| u64::from_str_radix(number, 16).unwrap());
            let mut region = |kind| machine.regions.push(MemoryRegion { range: Hpa(start)..Hpa(end), kind });
            match kind.split_once('-').unwrap_or((kind, "")) {
                ("usable", _) => region(MemoryKind::Usable),
                ("reserved", _) => region(MemoryKind::Reserved),
                ("acpi", _) => region(MemoryKind::AcpiReclaimable),
                ("nvs", _) => region(MemoryKind::AcpiNvs),
                ("unusable", _) => region(MemoryKind::Unusable),
                ("window", _) => machine.windows.push(Hpa(start)..Hpa(end)),
                ("mtrr", memory_type) => machine.pairs.push((start, end, memory_type.parse().unwrap())),
                ("efi", kind) => {
                    let attributes = 0xf;
                    machine.descriptors.push(Descriptor {
                        kind: kind.parse().unwrap(),
                        start,
                        end,
                        attributes,
                    });
                }
                _ => panic!("{name}: {line}"),
            }
        }
        machine
    }

    /// Returns the machine's memory regions as Vidar reads them.
    pub fn regions(&self) -> Vec<MemoryRegion> {
        if self.descriptors.is_empty() {
            self.regions.clone()
        } else {
            efi_map::memory_map(&encode(&self.descriptors), DESCRIPTOR).iter().collect()
        }
    }

    pub fn map(&self) -> MemoryMap<'static> {
        MemoryMap::from_regions(self.regions())
    }

    /// Returns every address at which an entry begins or ends.
    pub fn edges(&self) -> Vec<Hpa> {
        let windows = self.windows.iter().flat_map(|window| [window.start, window.end]);
        self.regions()
            .iter()
            .flat_map(|region| [region.range.start, region.range.end])
            .chain(windows)
            .collect()
    }

    /// Returns regions of Vidar's size: at the address that it is linked to, at the kernel's preferred address, and as
    /// high as possible below 4 GiB. Only regions in RAM are returned.
    pub fn places_of_vidar(&self) -> Vec<Range<Hpa>> {
        let usable = self.map().usable();
        let top = usable.highest_fit(2 * MIB, 2 * MIB, &BELOW_4G);
        [Some(Hpa(2 * MIB)), Some(Hpa(16 * MIB)), top]
            .into_iter()
            .flatten()
            .map(|start| start..start + 2 * MIB)
            .filter(|region| usable.covers(region))
            .collect()
    }

    /// Returns the MTRRs that the machine has, if they are known, and some that it could have: one set that makes RAM
    /// write-back, one that makes all else uncacheable, and none, as on AMD-V.
    pub fn mtrrs(&self) -> Vec<(&'static str, Mtrrs)> {
        let (wb, uc) = (6, 0);
        let usable = self.map().usable();
        let low = usable.iter().map(|range| range.end).filter(|end| BELOW_4G.contains(end)).max();
        let low = Hpa(low.map_or(0, |end| end.0.next_multiple_of(16 * MIB)));
        let top = Hpa(self.map().ram_top().0.next_multiple_of(256 * MIB)).max(BELOW_4G.end);
        let hole = || blocks(low..BELOW_4G.end).map(move |(base, mask)| (base, mask, uc));
        let all = blocks(Hpa(0)..top).map(|(base, mask)| (base, mask, wb));
        let high = self.windows.iter().filter(|window| window.start >= BELOW_4G.end);
        let devices = high.flat_map(|window| blocks(window.clone())).map(|(base, mask)| (base, mask, uc));
        let mut found = vec![
            ("named RAM", registers(52, uc, &all.chain(hole()).collect::<Vec<_>>())),
            ("named devices", registers(52, wb, &hole().chain(devices).collect::<Vec<_>>())),
            ("none", Mtrrs::write_back()),
        ];
        if !self.pairs.is_empty() {
            let bits = self.pairs.iter().map(|(_, mask, _)| u64::BITS - mask.leading_zeros()).max();
            found.push(("its own", registers(bits.unwrap_or(36), uc, &self.pairs)));
        }
        found
    }
}

/// Divides a range into naturally aligned powers of two, and returns the base and the mask of each.
fn blocks(range: Range<Hpa>) -> impl Iterator<Item = (u64, u64)> {
    let (mut at, end) = (range.start.0, range.end.0);
    std::iter::from_fn(move || {
        let size = |left: u64| (1 << at.trailing_zeros().min(51)).min(1 << left.ilog2());
        let size: u64 = end.checked_sub(at).filter(|left| *left > 0).map(size)?;
        let block = (at, !(size - 1) & ((1 << 52) - 1));
        at += size;
        Some(block)
    })
}

fn registers(bits: u32, default: u64, pairs: &[Pair]) -> Mtrrs {
    assert!(pairs.len() <= 40, "{} pairs", pairs.len());
    Mtrrs::read(bits, |index| match index {
        IA32_MTRRCAP => 0x500 | pairs.len() as u64,
        IA32_MTRR_DEF_TYPE => 0xc00 | default,
        0x250 | 0x258 => 0x0606_0606_0606_0606,
        0x259..=0x26f => 0,
        _ => {
            let (base, mask, memory_type) = pairs[(index as usize - 0x200) / 2];
            if index % 2 == 0 { base | memory_type } else { mask | 0x800 }
        }
    })
}

/// Returns the descriptors as firmware gives them: UEFI Specification 2.10, 7.2.3 "EFI_BOOT_SERVICES.GetMemoryMap()".
pub fn encode(descriptors: &[Descriptor]) -> Vec<u8> {
    let one = |one: &Descriptor| {
        let (kind, pages) = (u64::from(one.kind), (one.end - one.start) / PAGE_SIZE);
        [kind, one.start, 0, pages, one.attributes, 0].map(u64::to_le_bytes).concat()
    };
    descriptors.iter().flat_map(one).collect()
}

/// Returns all machines, in the order of their names.
pub fn all() -> Vec<Machine> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/maps");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        Machine::read(path.file_stem().unwrap().to_str().unwrap(), &fs::read_to_string(path).unwrap())
    };
    let machines: Vec<_> = paths.iter().map(read).collect();
    assert!(machines.len() >= 10, "only {} maps", machines.len());
    machines
}
