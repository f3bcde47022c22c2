//! Measures the heap that the boot order needs, as far as it runs on the host, on the recorded machines and on
//! synthetic giants. The need stays below one bound, whatever firmware, the loader and the user hand over. `cargo test
//! -p vidar-core --test recorded_maps heap -- --nocapture` prints the peaks.

use std::ops::Range;

use vidar_core::boot::annex::{self, Need};
use vidar_core::boot::landing;
use vidar_core::boot::memory_plan::MemoryPlan;
use vidar_core::boot::options::Options;
use vidar_core::firmware::{acpi, dmar, efi_map, ivrs, madt, sleep};
use vidar_core::linux::boot_params;
use vidar_core::linux::bzimage::BzImage;
use vidar_core::linux::handover::{Layout, Sizes};
use vidar_core::linux::placement::{Request, place};
use vidar_core::loader::info::BootInfo;
use vidar_core::loader::multiboot2;
use vidar_core::mem::addr::{Hpa, PageSize};
use vidar_core::mem::identity::Identity;
use vidar_core::mem::layout::HEAP_BYTES;
use vidar_core::mem::locks::Locks;
use vidar_core::mem::map::MemoryKind;
use vidar_core::mem::moved::MovedPages;
use vidar_core::mem::mtrr::Mtrrs;
use vidar_core::mem::stage2::{Table, TableMemory};
use vidar_core::vmm::memory::GuestMemory;
use vidar_core::vmx::ept::Ept;

use crate::boot_information::information;
use crate::counting::{peak, uncounted};
use crate::placing::DEBIAN;
use crate::recorded::{self, DESCRIPTOR, Descriptor, GIB, MIB, Machine, encode};
use crate::tables::Tables;

/// The largest amount of heap that the boot order may use: half of it, so that the CPUs in Vidar's region have the
/// rest.
const BOUND: isize = (HEAP_BYTES / 2) as isize;

/// The data that a machine hands to Vidar.
#[derive(Default)]
struct Given {
    /// The boot information.
    words: Vec<u64>,
    /// Memory with ACPI tables, beginning at address 0, and the address of the root pointer.
    tables: Vec<u8>,
    rsdp: Vec<u8>,
}

/// Returns the tags of a memory map, of e820 or of EFI.
fn map_tag(machine: &Machine) -> Vec<(u32, Vec<u8>)> {
    if machine.descriptors.is_empty() {
        let entry = |region: &vidar_core::mem::map::MemoryRegion| {
            let (start, end) = (region.range.start.0, region.range.end.0);
            [start, end.saturating_sub(start), region.kind.to_raw().into()].map(u64::to_le_bytes).concat()
        };
        let entries: Vec<u8> = machine.regions().iter().flat_map(entry).collect();
        vec![(6, [&[24, 0, 0, 0, 0, 0, 0, 0][..], &entries].concat())]
    } else {
        let head = [&DESCRIPTOR.to_le_bytes()[..], &1u32.to_le_bytes()].concat();
        vec![(12, 0x7f00_0000u64.to_le_bytes().to_vec()), (17, [head, encode(&machine.descriptors)].concat())]
    }
}

/// Returns the tag of a module.
fn module(range: Range<u64>, command_line: &[u8]) -> (u32, Vec<u8>) {
    let words = [range.start as u32, range.end as u32].map(u32::to_le_bytes).concat();
    (3, [&words[..], command_line, &[0]].concat())
}

/// Returns an ACPI table with its header. ACPI Specification 6.5, 5.2.6 "System Description Table Header".
fn table(signature: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let mut table = signature.to_vec();
    table.extend_from_slice(&(36 + content.len() as u32).to_le_bytes());
    table.resize(36, 0);
    table.extend_from_slice(content);
    table[9] = table.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
    table
}

/// Returns the structures of `count` IOMMUs of Intel's and as many regions that firmware's devices need, and those of
/// `count` IOMMUs of AMD's.
fn iommus(count: u32) -> [Vec<u8>; 2] {
    let one = |kind: u8, at: u32| {
        let mut structure = vec![kind, 0, 24, 0, 1, 0, 0, 0];
        let words = [at << 12, at >> 20, at << 12 | 0xfff, at >> 20];
        structure.extend(words.map(u32::to_le_bytes).concat());
        structure
    };
    let dmar = (1..=count).flat_map(|at| [one(0, at), one(1, at)].concat());
    [dmar.collect(), (1..=count).flat_map(|at| one(0x10, at)).collect()]
}

/// Returns memory with a DSDT of `dsdt` bytes, `ssdts` SSDTs of the same size with sleep states in them, a MADT with
/// `cpus` CPUs, and a DMAR and an IVRS with as many IOMMUs; and the root pointer.
fn acpi_tables(dsdt: usize, ssdts: usize, cpus: u32) -> (Vec<u8>, Vec<u8>) {
    let mut memory = vec![0; 0x1000];
    let mut put = |table: Vec<u8>| {
        let at = memory.len() as u64;
        memory.extend_from_slice(&table);
        memory.resize(memory.len().next_multiple_of(16), 0);
        at
    };
    let code = || b"\x08_S3_\x12\x04\x01\x0a\x05".iter().copied().cycle().take(dsdt).collect::<Vec<_>>();
    let dsdt = put(table(b"DSDT", &code()));
    let mut fadt = vec![0; 232];
    fadt[140 - 36..148 - 36].copy_from_slice(&dsdt.to_le_bytes());
    let mut entries = vec![put(table(b"FACP", &fadt))];
    entries.extend((0..ssdts).map(|_| put(table(b"SSDT", &code()))));
    let cpu = |id: u32| [[9, 16, 0, 0].map(u8::from), id.to_le_bytes(), [1, 0, 0, 0], [0; 4]].concat();
    let list: Vec<u8> = (0..cpus).flat_map(cpu).collect();
    entries.push(put(table(b"APIC", &[vec![0; 8], list].concat())));
    for (signature, list) in [b"DMAR", b"IVRS"].into_iter().zip(iommus(cpus)) {
        entries.push(put(table(signature, &[vec![0; 12], list].concat())));
    }
    let root = put(table(b"XSDT", &entries.iter().flat_map(|entry| entry.to_le_bytes()).collect::<Vec<_>>()));
    let mut rsdp = vec![0; 36];
    rsdp[15] = 2;
    rsdp[24..32].copy_from_slice(&root.to_le_bytes());
    (memory, rsdp)
}

/// Returns one of the tables in `memory`.
struct InMemory<'a>(&'a mut [u8]);

impl acpi::Table for InMemory<'_> {
    fn bytes(&self) -> &[u8] {
        self.0
    }

    fn put(&mut self, at: usize, byte: u8) -> bool {
        self.0[at] = byte;
        true
    }
}

/// Returns the steps of the boot order, each with the heap that it uses in addition to the steps before it.
fn boot(given: &mut Given, kernel: &BzImage) {
    let bytes = zerocopy::IntoBytes::as_bytes(&given.words[..]);
    let info = multiboot2::parse(bytes, Hpa(0x2_0000)).expect("well formed");
    let _ = Options::parse(info.command_line);
    assert!(Options::warnings(info.command_line).count() < 1 << 20);
    assert!(info.memory.usable_bytes() > 0);

    let covered = info.memory.memory();
    let cpus = walk_tables(&mut given.tables, &given.rsdp);
    let usable = info.memory.usable();
    let region = usable.lowest_fit(2 * MIB, 2 * MIB, &(Hpa(2 * MIB)..Hpa(4 * GIB))).expect("room for Vidar");
    let region = region..region + 2 * MIB;
    let mut plan = MemoryPlan::new(&info.memory, region.clone());
    let need = Need {
        cpus: cpus.len() as u64,
        frames_per_cpu: 16,
        tables: Need::tables(&info.memory, PageSize::Size2M),
        low_memory: 0,
        frames_per_ring: 0,
    };
    if let Some((heap, rest)) = need.beyond(350) {
        let taken = info.occupied().chain(info.boot_services()).chain([region]);
        if let Some(place) = annex::place(&info.memory, taken, heap + rest, annex::UNIT) {
            plan.keep(place, "for all CPUs and all memory");
        }
    }
    drop(usable);
    linux(&info, &plan, kernel);

    let ram = plan.guest_ram();
    let high = ram.clone();
    let hidden = plan.kept().iter().cloned().collect();
    let moved = Some(MovedPages::new(&ram, &landing::WINDOW, Hpa(0x30_0000)));
    let identity = Identity {
        mtrrs: Mtrrs::write_back(),
        hidden,
        watched: None,
        moved: moved.clone(),
        locks: Locks::default(),
        alias: 0,
    };
    let memory = GuestMemory::<Ept, _>::new(
        Frames(Tables::with_limit(1 << 20)),
        PageSize::Size1G,
        identity,
        ram,
        true,
    );
    assert!(memory.is_ok());
    drop((memory, high, covered, cpus, moved));
}

/// Reads the ACPI tables and changes them.
fn walk_tables(memory: &mut [u8], rsdp: &[u8]) -> Vec<madt::LocalApic> {
    let find = |memory: &[u8], signature: &[u8; 4], nth: usize| {
        let read = |from: Hpa, to: &mut [u8]| {
            let bytes = memory.get(from.0 as usize..).and_then(|rest| rest.get(..to.len()));
            bytes.is_some_and(|bytes| {
                to.copy_from_slice(bytes);
                true
            })
        };
        let found = if signature == b"DSDT" {
            let fadt = acpi::find(rsdp, *b"FACP", read).next();
            fadt.and_then(|fadt| acpi::dsdt(&memory[fadt.start.0 as usize..fadt.end.0 as usize], read))
        } else {
            acpi::find(rsdp, *signature, read).nth(nth)
        };
        found.map(|table| table.start.0 as usize..table.end.0 as usize)
    };
    let madt = find(memory, b"APIC", 0);
    let cpus = madt.clone().map(|at| madt::parse(&memory[at])).unwrap_or_default();
    if let Some(at) = madt {
        madt::withdraw(&mut InMemory(&mut memory[at]), |id| id > 1).expect("the table is in RAM");
    }
    let intel = find(memory, b"DMAR", 0).map(|at| dmar::parse(&memory[at])).expect("a DMAR");
    let amd = find(memory, b"IVRS", 0).map(|at| ivrs::parse(&memory[at])).expect("an IVRS");
    assert!(intel.units.len() >= 4 && amd.units.len() >= 4, "IOMMUs are found");
    if let Some(at) = find(memory, b"DSDT", 0) {
        sleep::withdraw(&mut InMemory(&mut memory[at])).expect("the table is in RAM");
    }
    let mut nth = 0;
    while let Some(at) = find(memory, b"SSDT", nth) {
        sleep::withdraw(&mut InMemory(&mut memory[at])).expect("the table is in RAM");
        nth += 1;
    }
    cpus.cpus
}

/// Places the kernel and describes the machine to it.
fn linux(info: &BootInfo<'_>, plan: &MemoryPlan<'_>, kernel: &BzImage) {
    let first = info.modules.clone().next().expect("a kernel");
    let told = plan.guest_map();
    let mut efi_bytes = 0;
    let kept: Vec<_> = plan.kept().to_vec();
    if let Some(efi) = &info.efi {
        efi_map::hide(efi.memory_map, efi.descriptor_size, &kept, |bytes| efi_bytes += bytes.len());
    }
    let sizes = Sizes {
        command_line: first.command_line.0.len(),
        efi_map: efi_bytes,
        setup_data: boot_params::more_regions_size(&told),
    };
    let request = Request {
        map: plan.beside_region(),
        hidden: plan.kept()[0].clone(),
        keep: info.boot_services(),
        information: info.place.clone(),
        kernel,
        kernel_module: first.range,
        initrds: info.initrds(),
        handover_size: Layout::new(Hpa(0), sizes).size(),
    };
    let Ok(placement) = place(&request) else { return };
    let layout = Layout::new(placement.handover, sizes);
    let mut page = Box::new([0; boot_params::SIZE]);
    let told = boot_params::Contents {
        header: &kernel.header,
        kernel: placement.kernel,
        command_line: layout.command_line(),
        initrd: placement.initrd.clone(),
        map: &told,
        setup_data: layout.setup_data(),
        rsdp: None,
        screen: info.screen,
        efi: None,
    };
    boot_params::fill(&mut page, &told);
    let mut written = 0;
    layout.write(first.command_line.0, |_, bytes| written += bytes.len());
    boot_params::more_regions(told.map, |bytes| written += bytes.len());
    assert!(written + efi_bytes <= layout.size() as usize);
    assert!(placement.moves(info.initrds()).count() > 0);
}

/// Frames for tables. They are not part of the heap.
struct Frames(Tables);

impl TableMemory for Frames {
    fn allocate(&mut self) -> Option<Hpa> {
        uncounted(|| self.0.allocate())
    }

    fn free(&mut self, table: Table) {
        uncounted(|| self.0.free(table));
    }

    fn read(&self, table: Table, index: usize) -> u64 {
        self.0.read(table, index)
    }

    fn write(&mut self, table: Table, index: usize, entry: u64) {
        self.0.write(table, index, entry);
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        uncounted(|| drop(std::mem::replace(&mut self.0, Tables::with_limit(0))));
    }
}

/// Checks the peak of heap use for a machine that hands over these tags and tables.
fn check(name: &str, tags: Vec<(u32, Vec<u8>)>, tables: (Vec<u8>, Vec<u8>)) {
    let (tables, rsdp) = tables;
    let mut given = Given { words: information(&tags), tables, rsdp };
    let kernel = DEBIAN.clone();
    let peak = peak(|| boot(&mut given, &kernel));
    println!("{name:28} {:4} KiB of {:4} KiB", peak / 1024, BOUND / 1024);
    assert!(peak <= BOUND, "{name} takes {peak} bytes of heap, and the bound is {BOUND}");
}

const KERNEL: Range<u64> = 32 * MIB..40 * MIB;

#[test]
fn heap_of_recorded_machines() {
    for machine in recorded::all() {
        let tags = [map_tag(&machine), vec![module(KERNEL, b"quiet"), module(48 * MIB..64 * MIB, b"")]];
        if machine.map().usable().lowest_fit(2 * MIB, 2 * MIB, &(Hpa(2 * MIB)..Hpa(4 * GIB))).is_some() {
            check(&machine.name, tags.concat(), acpi_tables(64 << 10, 12, 32));
        }
    }
}

/// Returns a map with `count` entries: 1 GiB of RAM in one piece, then small entries, of which every other is usable
/// RAM.
fn scattered(count: u64, kind: MemoryKind) -> Vec<(Range<u64>, MemoryKind)> {
    let small = (1..count).map(|at| {
        let start = GIB + at * 0x10_0000;
        (start..start + 0x8_0000, if at % 2 == 0 { kind } else { MemoryKind::Usable })
    });
    std::iter::once((MIB..GIB, MemoryKind::Usable)).chain(small).collect()
}

fn e820_tag(regions: &[(Range<u64>, MemoryKind)]) -> (u32, Vec<u8>) {
    let entry = |(range, kind): &(Range<u64>, MemoryKind)| {
        [range.start, range.end - range.start, kind.to_raw().into()].map(u64::to_le_bytes).concat()
    };
    let entries: Vec<u8> = regions.iter().flat_map(entry).collect();
    (6, [&[24, 0, 0, 0, 0, 0, 0, 0][..], &entries].concat())
}

fn efi_tags(regions: &[(Range<u64>, MemoryKind)]) -> Vec<(u32, Vec<u8>)> {
    let one = |(range, kind): &(Range<u64>, MemoryKind)| Descriptor {
        // Data of boot services, or conventional memory.
        kind: if *kind == MemoryKind::Usable { 7 } else { 4 },
        start: range.start,
        end: range.end,
        attributes: 0xf,
    };
    let descriptors: Vec<_> = regions.iter().map(one).collect();
    let head = [&DESCRIPTOR.to_le_bytes()[..], &1u32.to_le_bytes()].concat();
    vec![(12, 0x7f00_0000u64.to_le_bytes().to_vec()), (17, [head, encode(&descriptors)].concat())]
}

#[test]
fn heap_of_giants() {
    let usual = || vec![e820_tag(&scattered(2, MemoryKind::Reserved)), module(KERNEL, b"quiet")];
    let small = || acpi_tables(1 << 10, 1, 4);
    check("a DSDT of 1 MiB", usual(), acpi_tables(1 << 20, 0, 4));
    check("40 SSDTs of 512 KiB", usual(), acpi_tables(512 << 10, 40, 4));
    check("512 CPUs", usual(), acpi_tables(1 << 10, 1, 512));
    check("20,000 CPUs and IOMMUs", usual(), acpi_tables(1 << 10, 1, 20_000));
    let kernel = || vec![module(KERNEL, b"quiet")];
    for count in [300, 1_000, 3_000] {
        let e820 = vec![e820_tag(&scattered(count, MemoryKind::Reserved))];
        check(&format!("{count} entries of e820"), [e820, kernel()].concat(), small());
        let efi = efi_tags(&scattered(count, MemoryKind::Reserved));
        check(&format!("{count} descriptors of EFI"), [efi, kernel()].concat(), small());
    }
    let modules =
        (0..64).map(|at| module(64 * MIB + at * MIB..64 * MIB + at * MIB + 0x1234, b"part of an initrd"));
    check("64 modules", [usual(), modules.collect()].concat(), small());
    let long = b"word ".repeat((64 << 10) / 5);
    let tags = vec![(1, long.clone()), e820_tag(&scattered(2, MemoryKind::Reserved)), module(KERNEL, &long)];
    check("command lines of 64 KiB", tags, small());
}
