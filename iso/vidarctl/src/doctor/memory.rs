//! Memory: a page for Vidar, and what its tables can hold.

use vidar_core::mem::addr::{Hpa, PageSize};
use vidar_core::mem::map::{MemoryKind, MemoryMap, MemoryRegion, RAM_END};
use vidar_core::mem::ranges::MAX_RANGES;

use super::cpu::BOOT;
use super::finding::Finding;
use super::machine::{Machine, Unreadable, text};
use crate::numbers;

/// The size of Vidar's region, and its alignment.
pub const REGION: u64 = PageSize::Size2M.bytes();
/// Where GRUB may load Vidar.
const FROM: Hpa = Hpa(1 << 20);
const BELOW_4G: Hpa = Hpa(1 << 32);
/// On a CPU without pages of 1 GiB, each GiB of addresses takes a page of Vidar's region, which has a few hundred.
const MOST_WITHOUT_LARGE_PAGES: u64 = 256 << 30;

/// The memory map that firmware has given, with a folder for each entry.
const FIRMWARE_MAP: &str = "/sys/firmware/memmap";
/// Where Linux lists memory. Without rights all addresses in it are 0.
const IOMEM: &str = "/proc/iomem";

/// Checks that Vidar fits into memory, and memory into its tables.
pub fn check(machine: &dyn Machine) -> Finding {
    let map = match map(machine) {
        Ok(map) => map,
        Err(Unreadable::Forbidden) => {
            return Finding::unknown("the memory map cannot be read", "run `vidarctl doctor` as root");
        }
        Err(_) => {
            return Finding::unknown(
                "Linux shows no memory map",
                "look whether at least 2 MiB of memory are free below 4 GiB once GRUB has loaded kernel and initrd",
            );
        }
    };
    let usable = map.usable();
    if usable.lowest_fit(REGION, REGION, &(FROM..BELOW_4G)).is_none() {
        return Finding::problem(
            "no page of 2 MiB is free below 4 GiB, where Vidar has to be",
            "give the machine more memory",
        );
    }
    let size = numbers::memory(map.usable_bytes());
    if map.iter().any(|region| region.kind == MemoryKind::Usable && region.range.end > RAM_END) {
        return Finding::warning(
            format!("{size} of memory are below 64 TiB, and there is more above"),
            "go without what lies above 64 TiB: Vidar ignores it",
        );
    }
    if map.iter().filter(|region| region.kind == MemoryKind::Usable).count() > MAX_RANGES {
        return Finding::warning(
            format!("memory consists of more than {MAX_RANGES} pieces"),
            "nothing: Linux gets all of them, and Vidar itself uses the largest",
        );
    }
    let large_pages = machine.cpuid(BOOT, 0x8000_0001, 0).is_none_or(|leaf| leaf.edx & 1 << 26 != 0);
    if !large_pages && map.ram_top().0 > MOST_WITHOUT_LARGE_PAGES {
        return Finding::warning(
            format!("memory reaches up to {}, and the CPU has no pages of 1 GiB", map.ram_top()),
            "keep the bare entry at hand: Vidar refuses to start if its tables cannot hold all memory",
        );
    }
    Finding::ok(format!("{size} of memory, of which Vidar takes 2 MiB below 4 GiB"))
}

/// Returns the memory map, as firmware has given it or else as Linux lists it.
pub fn map(machine: &dyn Machine) -> Result<MemoryMap<'static>, Unreadable> {
    let regions = of_firmware(machine);
    let regions = if regions.is_empty() { of_linux(&text(machine, IOMEM)?)? } else { regions };
    Ok(MemoryMap::from_regions(regions))
}

fn of_firmware(machine: &dyn Machine) -> Vec<MemoryRegion> {
    let entry = |name: &String| {
        let field = |field| text(machine, &format!("{FIRMWARE_MAP}/{name}/{field}")).ok();
        let number = |name| u64::from_str_radix(field(name)?.strip_prefix("0x")?, 16).ok();
        region(number("start")?, number("end")?, &field("type")?)
    };
    machine.names(FIRMWARE_MAP).unwrap_or_default().iter().filter_map(entry).collect()
}

fn of_linux(list: &str) -> Result<Vec<MemoryRegion>, Unreadable> {
    let line = |line: &str| {
        let (range, name) = line.split_once(" : ")?;
        // What is indented is part of an entry above it.
        let (start, last) = range.split_once('-').filter(|_| !line.starts_with(' '))?;
        let number = |digits| u64::from_str_radix(digits, 16).ok();
        region(number(start)?, number(last)?, name)
    };
    let regions: Vec<_> = list.lines().filter_map(line).collect();
    if !regions.is_empty() && regions.iter().all(|region| region.range.start.0 == 0) {
        return Err(Unreadable::Forbidden);
    }
    if regions.is_empty() { Err(Unreadable::Absent) } else { Ok(regions) }
}

/// Returns the region from `start` to `last` that Linux describes by this name.
fn region(start: u64, last: u64, name: &str) -> Option<MemoryRegion> {
    let kind = if name == "System RAM" { MemoryKind::Usable } else { MemoryKind::Reserved };
    Some(MemoryRegion::new(Hpa(start), last.checked_sub(start)?.saturating_add(1), kind))
}

#[cfg(test)]
mod tests {
    use super::super::fake::{self, Fake};
    use super::super::finding::State;
    use super::*;

    fn with_map(machine: Fake, entries: &[(u64, u64, &str)]) -> Fake {
        entries.iter().enumerate().fold(machine, |machine, (index, (start, last, kind))| {
            let file = |name: &str| format!("{FIRMWARE_MAP}/{index}/{name}");
            let machine = machine.with(&file("start"), format!("{start:#x}\n"));
            machine.with(&file("end"), format!("{last:#x}\n")).with(&file("type"), format!("{kind}\n"))
        })
    }

    const LOW: (u64, u64, &str) = (0, 0x9_fbff, "System RAM");

    #[test]
    fn a_usual_machine_is_fine() {
        let map = [LOW, (0xf_0000, 0xf_ffff, "Reserved"), (0x10_0000, 0x3ffd_ffff, "System RAM")];
        let finding = check(&with_map(fake::amd(), &map));
        assert_eq!(
            (finding.state, finding.text.as_str()),
            (State::Ok, "1023.5 MiB of memory, of which Vidar takes 2 MiB below 4 GiB")
        );
        let iomem = "00001000-0009fbff : System RAM\n000a0000-000bffff : PCI Bus\n00100000-3ffdffff : System RAM\n  \
                     01000000-01c00fff : Kernel code\n";
        assert_eq!(check(&fake::amd().with(IOMEM, iomem)).state, State::Ok);
    }

    #[test]
    fn a_machine_without_room_for_vidar_is_refused() {
        let state = |entries: &[_]| check(&with_map(fake::amd(), entries)).state;
        assert_eq!(state(&[LOW]), State::Problem);
        // Room, but none that is aligned.
        assert_eq!(state(&[LOW, (0x10_0000, 0x2f_ffff, "System RAM")]), State::Problem);
        assert_eq!(state(&[LOW, (0x20_0000, 0x3f_ffff, "System RAM")]), State::Ok);
        assert_eq!(
            state(&[LOW, (0x20_0000, 0x3f_ffff, "System RAM"), (0x30_0000, 0x30_0fff, "ACPI Tables")]),
            State::Problem
        );
        assert_eq!(state(&[LOW, (1 << 32, (1 << 33) - 1, "System RAM")]), State::Problem);
    }

    #[test]
    fn memory_that_vidar_does_not_use_in_full_is_a_warning() {
        let most = |top: u64| [(0x10_0000, top - 1, "System RAM")];
        assert_eq!(check(&with_map(fake::amd(), &most(1 << 47))).state, State::Warning);
        let mut small = with_map(fake::amd(), &most(300 << 30));
        assert_eq!(check(&small).state, State::Ok);
        small.change(0x8000_0001, |leaf| leaf.edx &= !(1 << 26));
        assert_eq!(check(&small).state, State::Warning);
        let pieces: Vec<_> = (1..=513).map(|at| (at << 22, (at << 22) + REGION - 1, "System RAM")).collect();
        assert_eq!(check(&with_map(fake::amd(), &pieces)).state, State::Warning);
    }

    #[test]
    fn a_map_that_linux_hides_is_unknown() {
        let hidden =
            fake::amd().with(IOMEM, "00000000-00000000 : System RAM\n00000000-00000000 : Reserved\n");
        assert_eq!(check(&hidden).state, State::Unknown);
        assert!(check(&hidden).advice.is_some_and(|advice| advice.contains("root")));
        assert_eq!(check(&fake::amd()).state, State::Unknown);
    }
}
