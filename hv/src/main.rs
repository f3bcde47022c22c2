//! The image that GRUB loads: it adds the global allocator and the panic handler to the library, which has everything
//! else.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod image {
    use core::panic::PanicInfo;

    use vidar::host::heap::GlobalHeap;

    #[global_allocator]
    static HEAP: GlobalHeap = GlobalHeap;

    #[panic_handler]
    fn panic(info: &PanicInfo<'_>) -> ! {
        vidar::debug::panic::report(info)
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is a hypervisor for the bare machine: `cargo xtask run` boots it");
}
