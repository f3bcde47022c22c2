//! The functions of modules in call chains.

use vidar_core::kernel::Kernel;
use vidar_core::kernel::chain::End;

use crate::chains::{Guest, within};
use crate::kernel;
use crate::kernel_image::modules::{HEAD, INIT, SIZE};
use crate::kernel_image::{MODULE, NAMED};

#[test]
fn an_address_in_a_module_has_the_names_of_both() {
    for era in NAMED {
        let (memory, kernel) = kernel(era);
        for (address, name, distance) in [
            (MODULE, "ext4:ext4_read", 0),
            (MODULE + 0x3f, "ext4:ext4_read", 0x3f),
            (MODULE + SIZE, "ext4:ext4_write", 0),
            (MODULE + 0x1ff, "ext4:ext4_write", 0x1bf),
            (INIT + 0x14, "ext4:init_module", 4),
        ] {
            let expected = era.btf.then(|| (name.to_owned(), distance));
            let symbol = kernel.symbol(&memory, address).map(|(name, at)| (name.to_string(), at));
            assert_eq!(symbol, expected, "{address:#x}, {}", era.release);
        }
        for outside in [MODULE - 1, MODULE + 0x200, INIT - 1, INIT + 4, INIT + 0x100] {
            assert_eq!(kernel.symbol(&memory, outside), None, "{outside:#x}, {}", era.release);
        }
    }
}

#[test]
fn a_chain_goes_through_modules() {
    for era in NAMED {
        let mut guest = Guest::new(era, "leaf");
        guest.put(0, &[MODULE + 0x20, within("vfs_write"), INIT + 0x20, within("ret_from_fork")]);
        let all = "leaf ext4:ext4_read vfs_write ext4:init_module ret_from_fork".to_owned();
        let expected = if era.btf {
            (all, End::Bottom)
        } else {
            (format!("leaf {:x}", MODULE + 0x20), End::Unknown(MODULE + 0x20))
        };
        assert_eq!(guest.chain(), expected, "{}", era.release);

        // The module's own table says nothing about this function.
        guest.put(0, &[MODULE + SIZE + 8]);
        assert_eq!(guest.chain().1, End::Unknown(MODULE + SIZE + 8), "{}", era.release);
    }
}

#[test]
fn a_list_that_leads_back_into_itself_ends() {
    for era in NAMED.iter().filter(|era| era.btf) {
        let mut guest = Guest::new(era, "leaf");
        guest.put(0, &[MODULE + 0x20, 0]);
        // The first module's entry leads to itself.
        let first = u64::from_le_bytes(*guest.memory.bytes[HEAD as usize..].first_chunk().unwrap());
        let place = first - MODULE + 0x1_7000;
        guest.memory.set(place, first);
        guest.memory.reads.set(0);
        assert_eq!(guest.chain(), (format!("leaf {:x}", MODULE + 0x20), End::Unknown(MODULE + 0x20)));
        assert!(guest.memory.reads.get() < 200_000, "{}", guest.memory.reads.get());
    }
}

#[test]
fn types_that_lack_a_member_describe_no_module() {
    for era in NAMED.iter().filter(|era| era.btf) {
        let (mut memory, _) = kernel(era);
        let name = b"\0orc_unwind_ip\0";
        // The name is also that of a symbol, so only the part with the types is searched.
        let types = 0x1_8000;
        let at = memory.bytes[types..].windows(name.len()).position(|part| part == name).unwrap();
        memory.bytes[types + at + 1] = b'X';
        let kernel = Kernel::find(&memory, &memory.ram()).unwrap();
        assert_eq!(kernel.symbol(&memory, MODULE), None, "{}", era.release);
        assert!(kernel.symbol(&memory, within("leaf")).is_some());
    }
}
