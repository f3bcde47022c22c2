//! Whatever the first module is, reading it ends in an answer.

use proptest::prelude::*;
use vidar_core::linux::bzimage::{BzImage, release};

/// A good header in front of noise, with some bytes changed and the end cut off anywhere.
fn nearly_a_kernel() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((0x1f1usize..0x290, any::<u8>()), 0..6);
    (prop::collection::vec(any::<u8>(), 0..8192), changes).prop_map(|(mut file, changes)| {
        let mut put = |offset: usize, bytes: &[u8]| {
            for (to, from) in file.iter_mut().skip(offset).zip(bytes) {
                *to = *from;
            }
        };
        put(0x1f1, &[1]);
        put(0x1f4, &0x80u32.to_le_bytes());
        put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
        put(0x202, b"HdrS\x0f\x02");
        put(0x211, &[1]);
        put(0x230, &0x20_0000u32.to_le_bytes());
        for (offset, byte) in changes {
            put(offset, &[byte]);
        }
        file
    })
}

fn check(file: &[u8]) {
    let _ = release(file);
    match BzImage::parse(file) {
        Ok(image) => {
            assert!(image.version >= 0x020a);
            assert!(image.payload.start < image.payload.end && image.payload.end <= file.len());
            assert!(image.init_size >= image.payload.len() as u64);
            assert!(image.alignment.is_power_of_two() && image.alignment >= 4096);
            assert_eq!(Some(image.header.bytes()), file.get(0x1f1..0x1f1 + image.header.bytes().len()));
        }
        Err(error) => {
            let sentence = error.to_string();
            assert!(sentence.starts_with("the kernel ") && sentence.contains(": "), "{sentence}");
        }
    }
}

proptest! {
    #[test]
    fn noise(file in prop::collection::vec(any::<u8>(), 0..2048)) {
        check(&file);
    }

    #[test]
    fn kernels_with_a_fault(file in nearly_a_kernel()) {
        check(&file);
    }
}
