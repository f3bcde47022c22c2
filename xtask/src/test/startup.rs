//! Boots small guests on machines with several CPUs, or whose firmware lists several: checks how CPUs are started, and
//! what Vidar says about CPUs that it cannot use.
// tidy: long because the table of these tests is in one place.

use std::thread;

use anyhow::{Result, ensure};

use super::Tools;
use super::acpi::{self, CPU_0};
use super::lane::Lane;
use super::probes::UNDER_VIDAR;
use super::small::{GUEST, Small};
use crate::console::{ANSWER, BOOT};
use crate::grub::{self, Menu};
use crate::machine::Threads;
use crate::machine::monitor::Monitor;

/// A test with a machine of its own.
pub struct Startup {
    /// The test's name.
    pub name: &'static str,
    /// The only lane in which the test runs; `None` means all.
    lane: Option<Lane>,
    cpus: u32,
    /// True if the guest runs without Vidar.
    bare: bool,
    options: &'static str,
    /// The structures of an MADT that replaces the firmware's, and true if its checksum is right. `None` keeps the
    /// firmware's MADT.
    madt: Option<(&'static [&'static [u8]], bool)>,
    /// True if GRUB gives the boot CPU's local APIC the ID 16, as the firmware of some machines does. CPUID still has
    /// the old ID.
    renamed: bool,
    scenario: &'static str,
    /// True if the machine's clock is the host's. When the clock counts instructions, QEMU runs all CPUs in one thread.
    clock_of_host: bool,
    /// What Vidar must print before the guest does, in this order.
    says: &'static [&'static str],
    /// What the guest must print.
    words: &'static str,
    /// True if the second CPU must be waiting for a start-up IPI at the end.
    waits: bool,
}

const USUAL: Startup = Startup {
    name: "",
    lane: None,
    cpus: 2,
    bare: false,
    options: "",
    madt: None,
    renamed: false,
    scenario: "cpuid",
    clock_of_host: false,
    says: &[],
    words: UNDER_VIDAR,
    waits: false,
};

/// The revision of ACPI 3.0.
const REVISION: u8 = 3;
/// Structures of the MADT: CPUs with these APIC IDs, a CPU that is disabled, and a structure with the length 0.
const CPU_1: &[u8] = &[0, 8, 1, 1, 1, 0, 0, 0];
const CPU_2: &[u8] = &[0, 8, 2, 2, 1, 0, 0, 0];
const X2_CPU_1: &[u8] = &[9, 16, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0];
const X2_CPU_256: &[u8] = &[9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0];
const CPU_9: &[u8] = &[0, 8, 2, 9, 1, 0, 0, 0];
const CPU_16: &[u8] = &[0, 8, 0, 16, 1, 0, 0, 0];
const CPU_10_OFF: &[u8] = &[0, 8, 3, 10, 0, 0, 0, 0];
const NO_LENGTH: &[u8] = &[0, 0, 0, 0];

/// Two CPUs, and so many CPUs that do not exist that Vidar's region is too small for them.
const CROWD: &[&[u8]] = &[CPU_0, CPU_1, MANY.as_flattened()];
const MANY: [[u8; 8]; 90] = {
    let mut many = [[0, 8, 0, 0, 1, 0, 0, 0]; 90];
    let mut index = 0;
    while index < many.len() {
        many[index][3] = 100 + index as u8;
        index += 1;
    }
    many
};

const COUNTED_ONCE: &str = "first=1 second=1 cs=0x700";
const NEVER_COUNTED: &str = "started=0 still=0 started=0 still=0 started=0 still=0 cs=0x0";
const COUNTED_SILENTLY: &str = "started=1 still=1 started=2 still=2 started=3 still=3 cs=0x700 exits=0";
const COUNTED_THRICE: &str = "started=1 still=1 started=2 still=2 started=3 still=3 cs=0x700";

const VECTORS_ARE_VIDARS: &str = "away=0 started=1 away=0 again=2 nmis=1 exits-counted=true";
const NO_MESSAGE_STARTS: &str = "by-device=0 by-pin=0 started=1";
const FIRST_PAGE_IS_THE_GUESTS: &str = "started=1 exits-counted=true";

/// The table of tests.
pub const STARTUPS: &[Startup] = &[
    Startup {
        name: "smp/wait-for-sipi",
        lane: Some(Lane::Vmx),
        scenario: "sipi",
        says: &["2 CPUs\r\n"],
        words: COUNTED_ONCE,
        ..USUAL
    },
    Startup {
        name: "smp/start-up-leads-to-vidar",
        lane: Some(Lane::Svm),
        scenario: "sipi",
        says: &["2 CPUs\r\n"],
        words: COUNTED_ONCE,
        ..USUAL
    },
    Startup {
        name: "smp/init-and-start-up-lead-to-vidar",
        lane: Some(Lane::Svm),
        scenario: "init-sipi",
        says: &["2 CPUs\r\n"],
        words: COUNTED_SILENTLY,
        ..USUAL
    },
    // Vidar cannot replace the first page. With `guard=data` it watches the messages instead.
    Startup {
        name: "smp/first-page-leads-away",
        lane: Some(Lane::Svm),
        scenario: "first-page",
        says: &["2 CPUs\r\n"],
        words: "started=1 exits-counted=false",
        ..USUAL
    },
    Startup {
        name: "smp/first-page-with-guard",
        lane: Some(Lane::Svm),
        options: "guard=data",
        scenario: "first-page",
        says: &["2 CPUs, started by Vidar\r\n"],
        words: FIRST_PAGE_IS_THE_GUESTS,
        ..USUAL
    },
    // In Bochs 2.7 a CPU that has waited for its start-up IPI in the guest cannot exit and enter again.
    Startup {
        name: "smp/first-page-started-by-vidar",
        lane: Some(Lane::Vmx),
        options: "guard=data cpu-startup=emulated",
        scenario: "first-page",
        says: &["2 CPUs, started by Vidar\r\n"],
        words: FIRST_PAGE_IS_THE_GUESTS,
        ..USUAL
    },
    // An NMI in real mode is taken by the table of vectors in the first page.
    Startup {
        name: "smp/vectors-lead-away",
        lane: Some(Lane::Svm),
        scenario: "first-vectors",
        says: &["2 CPUs\r\n"],
        words: "away=1 started=",
        ..USUAL
    },
    Startup {
        name: "smp/vectors-with-guard",
        lane: Some(Lane::Svm),
        options: "guard=data",
        scenario: "first-vectors",
        says: &["2 CPUs, started by Vidar\r\n"],
        words: VECTORS_ARE_VIDARS,
        ..USUAL
    },
    Startup {
        name: "smp/vectors-started-by-vidar",
        lane: Some(Lane::Vmx),
        options: "guard=data cpu-startup=emulated",
        scenario: "first-vectors",
        says: &["2 CPUs, started by Vidar\r\n"],
        words: VECTORS_ARE_VIDARS,
        ..USUAL
    },
    // A start-up message that no local APIC sends.
    Startup {
        name: "smp/start-up-message-starts",
        lane: Some(Lane::Vmx),
        bare: true,
        scenario: "start-up-messages",
        words: "by-device=0 by-pin=1",
        ..USUAL
    },
    Startup {
        name: "smp/start-up-message-with-guard",
        lane: Some(Lane::Vmx),
        options: "guard=data cpu-startup=emulated",
        scenario: "start-up-messages",
        says: &["2 CPUs, started by Vidar\r\n"],
        words: NO_MESSAGE_STARTS,
        ..USUAL
    },
    // The second CPU exists, but the firmware does not list it.
    Startup {
        name: "smp/cpu-that-nobody-lists",
        lane: Some(Lane::Svm),
        madt: Some((&[CPU_0], true)),
        scenario: "init-sipi",
        words: NEVER_COUNTED,
        waits: true,
        ..USUAL
    },
    Startup {
        name: "smp/cpu-that-nobody-lists-beside-others",
        lane: Some(Lane::Svm),
        cpus: 3,
        madt: Some((&[CPU_0, CPU_2], true)),
        scenario: "init-sipi",
        says: &["2 CPUs\r\n"],
        words: NEVER_COUNTED,
        waits: true,
        ..USUAL
    },
    Startup {
        name: "smp/started-by-vidar",
        options: "cpu-startup=emulated",
        scenario: "sipi",
        says: &["2 CPUs, started by Vidar\r\n"],
        words: COUNTED_ONCE,
        ..USUAL
    },
    Startup {
        name: "smp/init-and-sipi",
        options: "cpu-startup=emulated",
        scenario: "init-sipi",
        says: &["2 CPUs, started by Vidar\r\n"],
        words: COUNTED_THRICE,
        ..USUAL
    },
    // This is not for QEMU, since QEMU 7.2 does not emulate x2APIC mode.
    Startup {
        name: "smp/init-and-sipi-by-x2apic",
        lane: Some(Lane::Vmx),
        options: "cpu-startup=emulated",
        scenario: "init-sipi-x2apic",
        words: COUNTED_THRICE,
        ..USUAL
    },
    Startup {
        name: "smp/x2apic-entries",
        madt: Some((&[CPU_0, X2_CPU_1], true)),
        says: &["2 CPUs"],
        ..USUAL
    },
    Startup {
        name: "smp/cpu-does-not-answer",
        madt: Some((&[CPU_0, CPU_1, CPU_9, CPU_10_OFF], true)),
        scenario: "init-sipi",
        says: &[
            "warning: CPU 2 (APIC ID 9) does not answer; the guest runs without it: look for a setting of it in the \
             firmware's setup\r\n",
            "2 CPUs",
        ],
        words: COUNTED_THRICE,
        ..USUAL
    },
    Startup {
        name: "smp/more-cpus-than-the-region-holds",
        madt: Some((CROWD, true)),
        scenario: "init-sipi",
        says: &[
            " as well, for all CPUs and all memory\r\n",
            "warning: CPU 91 (APIC ID 189) does not answer; the guest runs without it: look for a setting of it in the \
             firmware's setup\r\n",
            "2 CPUs",
        ],
        words: COUNTED_THRICE,
        ..USUAL
    },
    Startup {
        name: "smp/madt-with-a-wrong-checksum",
        madt: Some((&[CPU_0, CPU_1], false)),
        says: &[
            "warning: the firmware's list of CPUs (ACPI table MADT) has a wrong checksum; it is taken as it is, as Linux takes \
             it: update the firmware\r\n",
            "2 CPUs",
        ],
        ..USUAL
    },
    Startup {
        name: "smp/madt-without-the-boot-cpu",
        madt: Some((&[CPU_1, CPU_9], true)),
        says: &[
            "warning: the firmware's list of CPUs (ACPI table MADT) lacks the one that has booted (APIC ID 0), so that the \
             others cannot be told from it; the guest gets no other: update the firmware\r\n",
        ],
        ..USUAL
    },
    Startup {
        name: "smp/boot-cpu-with-another-apic-id",
        lane: Some(Lane::Svm),
        madt: Some((&[CPU_16, CPU_1], true)),
        renamed: true,
        scenario: "init-sipi",
        says: &["2 CPUs\r\n"],
        words: COUNTED_SILENTLY,
        ..USUAL
    },
    Startup {
        name: "smp/cpu-out-of-reach",
        madt: Some((&[CPU_0, CPU_1, X2_CPU_256], true)),
        scenario: "init-sipi",
        says: &[
            "warning: the CPU with APIC ID 256 cannot be started, since the local APICs are in xAPIC mode, which reaches IDs \
             up to 254; the guest runs without it: enable x2APIC in the firmware's setup\r\n",
            "2 CPUs",
        ],
        words: COUNTED_THRICE,
        ..USUAL
    },
    Startup {
        name: "smp/madt-without-an-end",
        madt: Some((&[CPU_0, CPU_1, NO_LENGTH, CPU_9], true)),
        scenario: "init-sipi",
        says: &[
            "warning: the firmware's list of CPUs (ACPI table MADT) is damaged: a structure in it has a wrong length; the \
             guest gets 2 of them: update the firmware\r\n",
        ],
        words: COUNTED_THRICE,
        ..USUAL
    },
    FPU_LOADS,
];

/// The tests on a KVM that nests, which takes a store beside the local APIC's page for a message of a device.
pub const IN_KVM: [Startup; 2] = [
    Startup {
        name: "smp/start-up-message-starts",
        lane: Some(Lane::SvmKvm),
        scenario: "start-up-messages",
        says: &["2 CPUs\r\n"],
        words: "by-device=1",
        ..USUAL
    },
    Startup {
        name: "smp/start-up-message-with-guard",
        lane: Some(Lane::SvmKvm),
        options: "guard=data",
        scenario: "start-up-messages",
        says: &["2 CPUs, started by Vidar\r\n"],
        words: NO_MESSAGE_STARTS,
        ..USUAL
    },
];

/// A CPU exits while another one loads the state of its FPU. [`Threads`] says how QEMU can lose a machine by this.
const FPU_LOADS: Startup = Startup {
    name: "smp/fpu-loads-beside-exits",
    lane: Some(Lane::Svm),
    scenario: "fpu-loads",
    clock_of_host: true,
    words: "loads=1 cpuids=200000",
    ..USUAL
};

/// GRUB commands that replace the firmware's MADT by the file of the initrd.
const REPLACE: &[&str] = &["acpi --exclude=APIC /boot/guests/probe/initrd"];

/// The same commands, and one that writes to the ID register of the local APIC.
const REPLACE_AND_RENAME: &[&str] =
    &["acpi --exclude=APIC /boot/guests/probe/initrd", "write_dword 0xfee00020 0x10000000"];

impl Startup {
    /// Returns true if the test runs in `lane`.
    pub fn is_in(&self, lane: Lane) -> bool {
        self.lane.is_none_or(|only| only == lane.usual())
    }

    /// Runs the test.
    pub fn run(&self, lane: Lane, tools: &Tools) -> Result<()> {
        let mut booted = self.small(lane, tools)?.boot(tools)?;
        for words in self.says {
            booted.console.expect(words, BOOT)?;
        }
        booted.console.expect(&format!("probe {}: ", self.scenario), BOOT)?;
        let said = booted.console.expect("\r\n", ANSWER)?;
        ensure!(said.contains(self.words), "{} should be in: {said}", self.words);
        if self.waits {
            waits_for_startup(&mut booted.running.monitor()?)?;
        }
        Ok(())
    }

    fn small(&self, lane: Lane, tools: &Tools) -> Result<Small> {
        let last = match self.madt {
            Some(_) if self.renamed => REPLACE_AND_RENAME,
            Some(_) => REPLACE,
            None => &[],
        };
        let menu = Menu {
            default: Some(if self.bare { grub::bare(GUEST) } else { GUEST.to_owned() }),
            options: self.options.to_owned(),
            last,
            ..Menu::default()
        };
        Ok(Small {
            name: lane.folder(self.name),
            lane,
            kernel: tools.probe()?.to_vec(),
            cmdline: format!("probe={}", self.scenario),
            initrd: self
                .madt
                .map(|(structures, good)| acpi::madt(REVISION, structures, good))
                .unwrap_or_default(),
            menu,
            memory: 256,
            cpus: self.cpus,
            clock_of_host: self.clock_of_host,
            cpu: lane.cpu(),
            ..Small::default()
        })
    }
}

/// Returns an error unless the second CPU is in the state in which an INIT leaves a CPU. In it, the CPU accepts no
/// interrupt and no NMI.
pub fn waits_for_startup(monitor: &mut Monitor) -> Result<()> {
    let registers = monitor.registers(1)?;
    let registers: Vec<_> =
        registers.lines().filter(|line| line.contains("IP=") || line.starts_with("CS =")).collect();
    let registers = registers.join(", ");
    for after_init in ["EIP=0000fff0", "CS =f000 ffff0000", "HLT=1"] {
        ensure!(
            registers.contains(after_init),
            "the second CPU does not wait for a start-up IPI: {after_init} should be in {registers}"
        );
    }
    Ok(())
}

/// The name of the test [`lost_machine`].
pub const LOST_MACHINE: &str = "smp/machine-lost-by-threads";

/// Shows that QEMU loses the machine if each CPU has a thread of its own. The guest seems to crash, with Vidar's
/// registers. For this, two threads have to run at the same time.
pub fn lost_machine(tools: &Tools) -> Result<()> {
    let host_cpus = thread::available_parallelism().map_or(1, usize::from);
    ensure!(
        host_cpus > 1,
        "on a single CPU QEMU does not lose the machine: run this test on a host with two CPUs"
    );
    let small = FPU_LOADS.small(Lane::Svm, tools)?;
    let small = Small { name: Lane::Svm.folder(LOST_MACHINE), threads: Threads::OneForEach, ..small };
    let mut booted = small.boot(tools)?;
    booted.console.expect("the guest has stopped on CPU 0", BOOT)?;
    booted.console.expect("rip ffffffff80", ANSWER)?;
    booted.console.expect("the guest's CR3 is Vidar's own: ", ANSWER)?;
    Ok(())
}
