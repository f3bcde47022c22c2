//! The kernel file, and the place that is chosen for a kernel by what its header says.

use vidar_core::linux::bzimage::{BzImage, release};
use vidar_core::linux::placement::{Request, place};
use vidar_core::mem::addr::Hpa;
use vidar_core::mem::map::{MemoryKind, MemoryMap, MemoryRegion};

use crate::target::{Target, bounded};

const TARGET: Target = Target { mend, ..Target::new("bzimage", check) };

const MIB: u64 = 1 << 20;

/// Makes the size of the code that of the input.
fn mend(bytes: &mut [u8]) {
    let sectors = bytes.get(0x1f1).map_or(0, |sectors| usize::from(*sectors));
    let code = bytes.len().saturating_sub((1 + if sectors == 0 { 4 } else { sectors }) * 512);
    let paragraphs = code.div_ceil(16) as u32;
    bytes.iter_mut().skip(0x1f4).zip(paragraphs.to_le_bytes()).for_each(|(old, new)| *old = new);
}

fn check(file: &[u8]) {
    assert!(release(file).is_none_or(|release| release.len() < 256));
    match BzImage::parse(file) {
        Ok(image) => {
            assert!(image.version >= 0x020a);
            assert!(image.payload.start < image.payload.end && image.payload.end <= file.len());
            assert!(image.init_size >= image.payload.len() as u64);
            assert!(image.alignment.is_power_of_two() && image.alignment >= 4096);
            assert_eq!(Some(image.header.bytes()), file.get(0x1f1..0x1f1 + image.header.bytes().len()));
            check_place(&image, file.len() as u64);
        }
        Err(error) => check_sentence(&error.to_string()),
    }
}

/// A place for the kernel, on a machine of 6 GiB with a hole, is in memory; or a sentence says why there is none.
fn check_place(kernel: &BzImage, size: u64) {
    let usable =
        |start: u64, end: u64| MemoryRegion { range: Hpa(start)..Hpa(end), kind: MemoryKind::Usable };
    let map = MemoryMap::from_regions([
        usable(0, 0x9_fc00),
        usable(MIB, 3072 * MIB),
        usable(4096 * MIB, 7168 * MIB),
    ]);
    let module = |at: u64, size: u64| Hpa(at)..Hpa(at + size);
    let request = Request {
        map: &map,
        hidden: Hpa(2 * MIB)..Hpa(4 * MIB),
        keep: [].into_iter(),
        information: module(8 * MIB, 4096),
        kernel,
        kernel_module: module(16 * MIB, size),
        initrds: [module(32 * MIB, 5 * MIB)].into_iter(),
        handover_size: 0x4000,
    };
    match place(&request) {
        Ok(placement) => {
            let mut usable = map.usable();
            usable.remove(&request.hidden);
            assert!(usable.covers(&placement.kernel_run) && placement.kernel == placement.kernel_run.start);
            assert!(placement.initrd.as_ref().is_none_or(|initrd| usable.covers(initrd)));
            for step in bounded(placement.moves(request.initrds.clone()), 2) {
                let length = step.from.end.0 - step.from.start.0 + step.zeros;
                assert!(usable.covers(&(step.to..step.to + length)));
            }
        }
        Err(error) => check_sentence(&error.to_string()),
    }
}

/// A refusal says what is wrong and what to do.
fn check_sentence(sentence: &str) {
    let begins = ["the kernel ", "too little memory "].iter().any(|words| sentence.starts_with(words));
    assert!(begins && sentence.contains(": "), "{sentence}");
}

#[test]
fn kernel_files() {
    TARGET.run();
}
