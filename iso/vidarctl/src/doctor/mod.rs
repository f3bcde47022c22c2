//! Says whether this machine can run Vidar, before it is tried: `vidarctl doctor`. Under Vidar it says what is seen
//! there.
//!
//! Each check is a function of a [`Machine`], which a test can make up. Where Vidar itself decides, the check asks the
//! same code of `vidar-core`, so that both decide alike and print the same sentence.
//!
//! | file | what it is for |
//! |---|---|
//! | [`machine`] | what can be asked of a machine |
//! | [`linux`] | the machine that this program runs on |
//! | [`finding`] | what a check has found |
//! | [`verdict`] | what follows from all findings: the text, the JSON and the exit status |
//! | [`cpu`] | the CPU's name and extension, and no-execute pages |
//! | [`extension`] | what the extension can do, and if all CPUs are alike |
//! | [`lock`] | if firmware has switched the extension off |
//! | [`hypervisor`] | another hypervisor below |
//! | [`memory`] | room for Vidar, and the memory map |
//! | [`firmware`] | the width of UEFI, and Secure Boot |
//! | [`messages`] | serial lines and the screen |
//! | [`grub`] | GRUB's version and modules, and the menu |
//! | [`kernels`] | the kernels in /boot |
//! | [`losses`] | what Linux loses under Vidar |
//! | [`guest`] | what is seen under Vidar |

mod cpu;
mod extension;
#[cfg(test)]
mod fake;
mod finding;
mod firmware;
mod grub;
mod guest;
mod hypervisor;
mod kernels;
mod linux;
mod lock;
mod losses;
mod machine;
mod memory;
mod messages;
mod verdict;

use self::finding::{Finding, State};
use self::linux::Linux;
use self::machine::Machine;
pub use self::verdict::Verdict;
use crate::failure::Failure;
use crate::hypercall::{Answer, Request};
use crate::query::Vidar;

/// A check of a machine on which Vidar does not run. Its name is that of its finding in JSON.
struct Check {
    id: &'static str,
    /// True if Vidar cannot run where the check finds a problem, so that nothing is known as long as its result is not.
    decides: bool,
    find: fn(&dyn Machine) -> Finding,
}

const fn check(id: &'static str, decides: bool, find: fn(&dyn Machine) -> Finding) -> Check {
    Check { id, decides, find }
}

/// The table of checks.
const CHECKS: [Check; 17] = [
    check("cpu", true, cpu::check),
    check("extension", true, extension::capabilities),
    check("firmware-lock", true, lock::check),
    check("no-execute", true, cpu::no_execute),
    check("cpus", true, extension::alike),
    check("hypervisor", false, hypervisor::check),
    check("memory", true, memory::check),
    check("uefi", true, firmware::width),
    check("secure-boot", true, firmware::secure_boot),
    check("messages", false, messages::check),
    check("grub", true, grub::loader),
    check("menu", false, grub::entry),
    check("kernels", true, kernels::check),
    check("virtual-machines", false, losses::virtual_machines),
    check("sleep", false, losses::sleep),
    check("encryption", false, losses::encryption),
    check("features", false, losses::features),
];

/// Examines this machine. `call` makes a hypercall, and `hypervisor` is the signature that CPUID shows, if it shows
/// one.
///
/// # Errors
/// [`Failure`] if Vidar runs, and this program does not understand it.
pub fn examine(call: impl Fn(Request) -> Answer, hypervisor: Option<[u8; 12]>) -> Result<Verdict, Failure> {
    let machine = Linux::new();
    match Vidar::find(call, hypervisor) {
        Ok(vidar) => {
            let log = match vidar.log() {
                Ok(log) => Some(log),
                Err(Failure::NotPermitted(_)) => None,
                Err(failure) => return Err(failure),
            };
            Ok(Verdict::under_vidar(guest::checks(&machine, &vidar.status()?, log.as_ref())))
        }
        Err(Failure::NotUnderVidar) => Ok(bare(&machine)),
        Err(failure) => Err(failure),
    }
}

/// Examines a machine on which Vidar does not run.
fn bare(machine: &dyn Machine) -> Verdict {
    let findings: Vec<_> = CHECKS.iter().map(|check| (check.id, (check.find)(machine))).collect();
    let states = CHECKS
        .iter()
        .zip(&findings)
        .filter(|(check, _)| check.decides)
        .map(|(_, (_, finding))| finding.state);
    Verdict::bare(states.max().unwrap_or(State::Ok), findings)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::fake::Fake;
    use super::*;

    /// Returns the machine with all else than the CPU as Vidar needs it.
    fn complete(machine: Fake) -> Fake {
        machine.with("/proc/iomem", "00100000-3fffffff : System RAM\n")
    }

    #[test]
    fn a_machine_with_all_that_vidar_needs_can_run_it() {
        for machine in [complete(fake::intel()), complete(fake::amd())] {
            let verdict = bare(&machine);
            assert_eq!(verdict.exit_status(), 0, "{}", verdict.text());
        }
    }

    #[test]
    fn one_problem_decides_and_else_one_thing_that_is_not_known() {
        let unknown = complete(fake::amd()).without_msrs();
        assert_eq!(bare(&unknown).exit_status(), 3);
        let mut problem = unknown.clone();
        problem.change(0x8000_000a, |leaf| leaf.edx = 0);
        assert_eq!(bare(&problem).exit_status(), 1);
        // What Linux loses decides nothing.
        let warning = complete(fake::amd()).with("/sys/power/mem_sleep", "[deep]");
        assert_eq!(bare(&warning).exit_status(), 0);
    }

    #[test]
    fn each_check_has_a_name_of_its_own() {
        let mut ids: Vec<_> = CHECKS.iter().map(|check| check.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), CHECKS.len());
    }

    /// The files that the checks read.
    const FILES: [&str; 22] = [
        "/proc/cpuinfo",
        "/proc/iomem",
        "/proc/cmdline",
        "/sys/devices/system/cpu/online",
        "/sys/firmware/memmap/0/start",
        "/sys/firmware/memmap/0/end",
        "/sys/firmware/memmap/0/type",
        "/sys/firmware/efi/fw_platform_size",
        "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
        "/sys/kernel/boot_params/data",
        "/sys/class/tty/ttyS0/type",
        "/sys/class/tty/ttyS0/port",
        "/sys/class/graphics/fb0/name",
        "/boot/grub/grub.cfg",
        "/boot/grub/i386-pc/multiboot2.mod",
        "/boot/vmlinuz-6.1",
        "/boot/initrd.img-6.1",
        "/sys/module/kvm_intel/refcnt",
        "/sys/power/mem_sleep",
        "/sys/power/resume",
        "/sys/module/kvm_amd/parameters/sev",
        "/sys/devices/virtual/misc/kvm/dev",
    ];

    /// Returns bytes of all kinds, and texts that resemble those of Linux.
    fn content() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            any::<Vec<u8>>(),
            "(0x)?[0-9a-f]{0,17}\n?".prop_map(String::into_bytes),
            "([0-9]{0,11}[-,]){0,4}".prop_map(String::into_bytes),
            "([0-9a-f]{0,17}-[0-9a-f]{0,17} : System RAM\n){0,3}".prop_map(String::into_bytes),
            "(vmx )?flags ?: ?(vmx|svm|ept|pebs| ){0,4}\n".prop_map(String::into_bytes),
            "(multiboot2? ?|/vidar.elf|module2|\n| ){0,6}".prop_map(String::into_bytes),
            Just(b"System RAM\n".to_vec()),
        ]
    }

    proptest! {
        #[test]
        fn no_machine_makes_the_checks_panic(
            contents in prop::collection::vec(prop::option::of(content()), FILES.len()),
            leaves in prop::collection::vec(any::<(u32, u32, u32)>(), 12),
            msrs in prop::option::of(any::<[u64; 12]>()),
            printed in "(grub )?[0-9.]{0,24}[-a-z]*\n?",
        ) {
            let mut machine = fake::intel();
            for (path, content) in FILES.iter().zip(&contents) {
                machine = match content {
                    Some(content) => machine.with(path, content),
                    None => machine.without(path, machine::Unreadable::Forbidden),
                };
            }
            let numbers = [0, 1, 0x8000_0000, 0x8000_0001, 0x8000_0002, 0x8000_000a, 0x4000_0000];
            for (number, (a, b, c)) in numbers.into_iter().zip(leaves) {
                machine.change(number, |leaf| (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (a, b, c, a ^ b));
            }
            machine = match msrs {
                None => machine.without_msrs(),
                Some(values) => (0x480..).zip(values).fold(machine, |machine, (index, value)| machine.with_msr(index, value)),
            };
            let verdict = bare(&machine.printing("grub-install", &printed));
            prop_assert!(matches!(verdict.exit_status(), 0 | 1 | 3));
            let whole = !verdict.text().is_empty() && verdict.json().ends_with("]}\n");
            prop_assert!(whole);
        }
    }
}
