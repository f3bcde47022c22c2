//! Symbols by their addresses and by their names.

use crate::kernel;
use crate::kernel_image::symbols::{LONG_NAME, all};
use crate::kernel_image::{Addresses, ERAS, FUNCTION, FUNCTIONS, NAMED, TEXT, function};

#[test]
fn each_address_of_a_function_has_its_name() {
    for era in NAMED {
        let (memory, kernel) = kernel(era);
        let symbol = |address| {
            let (name, distance) = kernel.symbol(&memory, address)?;
            Some((name.as_str().to_owned(), distance))
        };
        for (name, _) in &FUNCTIONS[1..] {
            for distance in [0, 1, FUNCTION - 1] {
                let expected = Some(((*name).to_owned(), distance));
                assert_eq!(symbol(function(name) + distance), expected, "{}", era.release);
            }
        }
        // Several symbols are at the first address.
        assert_eq!(symbol(TEXT + 3), Some(("_stext".to_owned(), 3)));
        let long = kernel.address(&memory, LONG_NAME).unwrap();
        assert_eq!(symbol(long + 1), Some((LONG_NAME.to_owned(), 1)));
        let end = kernel.address(&memory, "_end").unwrap();
        for nowhere in [0, 0x100, TEXT - 1, end, u64::MAX] {
            assert_eq!(symbol(nowhere), None, "{nowhere:#x} {}", era.release);
        }
    }
}

#[test]
fn each_name_has_its_address() {
    for era in NAMED {
        let (memory, kernel) = kernel(era);
        for (name, _) in &FUNCTIONS {
            assert_eq!(kernel.address(&memory, name), Some(function(name)), "{name} {}", era.release);
        }
        let per_cpu = (era.addresses == Addresses::Signed).then_some(0x1_5000);
        assert_eq!(kernel.address(&memory, "current_task"), per_cpu, "{}", era.release);
        for nothing in ["", "pani", "panics", "T", "Tpanic", "sys", "vfs", "no_such_symbol"] {
            assert_eq!(kernel.address(&memory, nothing), None, "{nothing} {}", era.release);
        }
    }
}

#[test]
fn all_symbols_are_listed_until_the_caller_has_enough() {
    for era in NAMED {
        let (memory, kernel) = kernel(era);
        let mut listed = Vec::new();
        kernel.symbols(&memory, &mut |symbol| {
            listed.push((symbol.address, char::from(symbol.kind), symbol.name.as_str().to_owned()));
            true
        });
        let place = |name| (name, kernel.address(&memory, name).unwrap());
        let orc = ["__start_orc_unwind_ip", "__stop_orc_unwind_ip", "__start_orc_unwind"].map(place);
        assert_eq!(listed, all(era, &orc), "{}", era.release);

        let mut count = 0;
        kernel.symbols(&memory, &mut |_| {
            count += 1;
            count < 3
        });
        assert_eq!(count, 3);
    }
}

#[test]
fn a_kernel_that_does_not_say_where_its_symbols_are_has_none() {
    let (memory, kernel) = kernel(&ERAS[0]);
    assert_eq!((kernel.symbol(&memory, TEXT), kernel.address(&memory, "panic")), (None, None));
    kernel.symbols(&memory, &mut |_| panic!("a symbol"));
}
