//! The kernels in /boot: which of them Vidar can start, as its own reader of kernel files says.

use std::iter;

use vidar_core::boot::refusal::Refusal;
use vidar_core::linux::bzimage::BzImage;
use vidar_core::linux::placement::{self, Request};
use vidar_core::mem::addr::{Hpa, PAGE_SIZE};
use vidar_core::mem::map::MemoryMap;

use super::finding::{Finding, State};
use super::machine::{Machine, Unreadable, text};
use super::memory::{self, REGION};

/// The folder of kernels.
const FOLDER: &str = "/boot";
/// What the names of kernels begin with, before a hyphen and the release.
const NAMES: [&str; 3] = ["vmlinuz", "kernel", "bzImage"];
/// What comes before and after the release in the names of initrds.
const INITRDS: [(&str, &str); 3] = [("initrd.img-", ""), ("initramfs-", ".img"), ("initrd-", "")];
/// The size of the block that the kernel is handed at its start, in bytes, as a good estimate.
const HANDOVER: u64 = 4 * PAGE_SIZE;

/// Checks that the kernels in /boot can be started.
pub fn check(machine: &dyn Machine) -> Finding {
    let names = machine.names(FOLDER).unwrap_or_default();
    let release = |name: &'_ str| {
        let (first, release) = name.split_once('-')?;
        NAMES.contains(&first).then(|| release.to_owned())
    };
    let kernels: Vec<_> = names.iter().filter_map(|name| Some((name, release(name)?))).collect();
    let map = memory::map(machine).ok();
    let looked = kernels.iter().map(|(name, release)| (*name, look(machine, name, release, map.as_ref())));
    let looked: Vec<_> = looked.collect();
    let of = |state| looked.iter().filter(move |(_, finding)| finding.state == state);
    let good = of(State::Ok).count();
    let said = |name: &str, finding: &Finding| format!("{FOLDER}/{name}: {}", finding.text);
    let advice = |finding: &Finding| finding.advice.clone().unwrap_or_default();
    if let Some((name, bad)) = of(State::Problem).next() {
        return if good > 0 {
            let others = if good == 1 {
                "another kernel is fine".to_owned()
            } else {
                format!("{good} other kernels are fine")
            };
            Finding::warning(said(name, bad), format!("{}; {others}", advice(bad)))
        } else {
            Finding::problem(said(name, bad), advice(bad))
        };
    }
    if let (0, Some((name, unread))) = (good, of(State::Unknown).next()) {
        return Finding::unknown(said(name, unread), advice(unread));
    }
    match good {
        0 => Finding::warning(
            format!("no kernel was found in {FOLDER}"),
            "give Vidar a kernel with boot protocol 2.10 or later, which is Linux 2.6.31 or newer",
        ),
        1 => Finding::ok(format!("Vidar can start the kernel in {FOLDER}")),
        more => Finding::ok(format!("Vidar can start the {more} kernels in {FOLDER}")),
    }
}

/// Looks at one kernel.
fn look(machine: &dyn Machine, name: &str, release: &str, map: Option<&MemoryMap<'_>>) -> Finding {
    let file = match machine.file(&format!("{FOLDER}/{name}")) {
        Ok(file) => file,
        Err(Unreadable::Forbidden) => {
            return Finding::unknown("it cannot be read", "run `vidarctl doctor` as root");
        }
        Err(_) => return Finding::unknown("it cannot be read", "look whether the file is there and whole"),
    };
    let image = match BzImage::parse(&file) {
        Ok(image) => image,
        Err(error) => return Refusal::Kernel(error).into(),
    };
    let (length, limit) =
        (text(machine, "/proc/cmdline").unwrap_or_default().len(), image.cmdline_size as usize);
    if length > limit {
        return Refusal::CommandLine { length, limit }.into();
    }
    let initrds = INITRDS.map(|(before, after)| format!("{FOLDER}/{before}{release}{after}"));
    let initrd = initrds.iter().find_map(|path| machine.size(path)).unwrap_or(0);
    match map.map(|map| fits(&image, file.len() as u64, initrd, map)) {
        None | Some(Ok(())) => Finding::ok("it is fine"),
        Some(Err(finding)) => finding,
    }
}

/// Checks that the kernel and its initrd have room beside Vidar, if the loader puts all as far up as it can.
fn fits(image: &BzImage, kernel: u64, initrd: u64, map: &MemoryMap<'_>) -> Result<(), Finding> {
    let mut free = map.usable();
    let low = Hpa(1 << 20)..Hpa(1 << 32);
    let out_of_memory = || {
        Finding::problem(
            format!(
                "GRUB has no room for it and its initrd, which have {} MiB",
                (kernel + initrd).div_ceil(1 << 20)
            ),
            "give the machine more memory",
        )
    };
    let region = free.lowest_fit(REGION, REGION, &low).ok_or_else(out_of_memory)?;
    let hidden = region..region + REGION;
    free.remove(&hidden);
    let mut put = |size: u64| {
        let start = free.highest_fit(size.max(1), PAGE_SIZE, &low)?;
        free.remove(&(start..start + size));
        Some(start..start + size)
    };
    let initrd = put(initrd).ok_or_else(out_of_memory)?;
    let kernel_module = put(kernel).ok_or_else(out_of_memory)?;
    let request = Request {
        map,
        hidden,
        keep: iter::empty(),
        information: Hpa(0)..Hpa(0),
        kernel: image,
        kernel_module,
        initrds: iter::once(initrd),
        handover_size: HANDOVER,
    };
    placement::place(&request).map(drop).map_err(|error| Refusal::Placement(error).into())
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::*;

    /// Returns a kernel that needs 32 MiB, with its fields at the offsets in Linux, Documentation/arch/x86/boot.rst.
    fn kernel() -> Vec<u8> {
        let mut file = vec![0; 0x600 + 0x1000];
        let mut put = |offset: usize, bytes: &[u8]| file[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(0x1f1, &[2]);
        put(0x1f4, &0x100u32.to_le_bytes());
        put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
        put(0x202, b"HdrS\x0f\x02");
        put(0x211, &[1]);
        put(0x22c, &0x7fff_ffffu32.to_le_bytes());
        put(0x230, &0x20_0000u32.to_le_bytes());
        put(0x234, &[1, 0, 0, 0, 0xff, 7]);
        put(0x258, &0x100_0000u64.to_le_bytes());
        put(0x260, &0x200_0000u32.to_le_bytes());
        file
    }

    fn old() -> Vec<u8> {
        let mut file = kernel();
        file[0x206] = 9;
        file
    }

    fn memory(machine: Fake, mib: u64) -> Fake {
        machine.with(
            "/proc/iomem",
            format!("00001000-0009ffff : System RAM\n00100000-{:08x} : System RAM\n", (mib << 20) - 1),
        )
    }

    #[test]
    fn kernels_are_counted() {
        let one = Fake::default().with("/boot/vmlinuz-6.1.0-1-amd64", kernel());
        assert_eq!(check(&one), Finding::ok("Vidar can start the kernel in /boot"));
        let two = memory(one.with("/boot/vmlinuz-6.12", kernel()).with("/boot/System.map-6.12", ""), 256);
        assert_eq!(check(&two), Finding::ok("Vidar can start the 2 kernels in /boot"));
        assert_eq!(check(&Fake::default()).state, State::Warning);
    }

    #[test]
    fn a_kernel_that_cannot_be_started_is_a_problem_unless_another_can() {
        let bad = Fake::default().with("/boot/vmlinuz-2.6.30", old());
        let finding = check(&bad);
        assert_eq!(finding.state, State::Problem);
        assert_eq!(
            finding.text,
            "/boot/vmlinuz-2.6.30: the kernel speaks boot protocol 2.09 and Vidar needs 2.10 or later"
        );
        assert_eq!(check(&bad.with("/boot/vmlinuz-6.1", kernel())).state, State::Warning);
        assert_eq!(check(&Fake::default().with("/boot/vmlinuz-1", "")).state, State::Problem);
    }

    #[test]
    fn kernels_that_cannot_be_read_are_unknown() {
        let hidden = Fake::default().without("/boot/vmlinuz-6.1", Unreadable::Forbidden);
        assert_eq!(check(&hidden).state, State::Unknown);
        assert_eq!(check(&hidden.with("/boot/vmlinuz-6.2", kernel())).state, State::Ok);
    }

    #[test]
    fn kernel_and_initrd_need_room() {
        let one = Fake::default().with("/boot/vmlinuz-6.1", kernel());
        assert_eq!(check(&memory(one.clone(), 64)).state, State::Ok);
        let small = check(&memory(one.clone(), 40));
        assert_eq!(small.state, State::Problem);
        assert!(small.text.contains("too little memory for the kernel: it needs 32 MiB"), "{}", small.text);
        let large = one.clone().with("/boot/initrd.img-6.1", vec![0; 20 << 20]);
        assert_eq!(check(&memory(large.clone(), 64)).state, State::Problem);
        assert_eq!(check(&memory(large, 128)).state, State::Ok);
        let long = one.with("/proc/cmdline", "x".repeat(3000));
        assert!(check(&long).text.contains("the kernel's command line has 3000 bytes"));
    }
}
