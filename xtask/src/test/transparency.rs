//! Compares what a guest sees of its machine bare and under Vidar. Each comparison is a pure function that returns an
//! error if there is an unexpected difference.

// tidy: long because every comparison has its test beside it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};

use super::facts::Facts;

/// The CPU flags that Vidar hides: those of the extensions, those that Linux derives from them, and PEBS.
const HIDDEN_FLAGS: &[&str] = &[
    // The flags of VT-x and TXT, and PEBS.
    "vmx",
    "smx",
    "tpr_shadow",
    "vnmi",
    "flexpriority",
    "ept",
    "vpid",
    "ept_ad",
    "pebs",
    // The flags of AMD-V.
    "svm",
    "skinit",
    "npt",
    "lbrv",
    "svm_lock",
    "nrip_save",
    "tsc_scale",
    "vmcb_clean",
    "flushbyasid",
    "decodeassists",
    "pausefilter",
    "pfthreshold",
    "avic",
    "v_vmsave_vmload",
    "vgif",
    "x2avic",
    "v_spec_ctrl",
];
/// The flag that is added where Vidar shows itself. It makes Linux treat the machine as virtual.
const ADDED_FLAG: &str = "hypervisor";
/// The bugs whose listing depends only on the added flag. Linux lists bhi, its and null_seg only in guests, and vmscape
/// only on hosts.
const BUGS_BY_ADDED_FLAG: &[&str] = &["bhi", "its", "null_seg", "vmscape"];
/// The flag of the core performance boost. On AMD's CPUs, where an erratum hides it, Linux adds this flag unless it
/// sees the added flag.
const FLAG_BY_NO_ADDED_FLAG: &str = "cpb";
/// The files of /sys/devices/system/cpu/vulnerabilities whose content depends on the added flag. They are about bugs
/// that Linux lists only in guests or only on hosts, mitigations that it leaves to the hypervisor, and the threads of
/// the host, of which a guest knows nothing.
const VULNERABILITIES_BY_ADDED_FLAG: &[&str] = &[
    "gather_data_sampling",
    "indirect_target_selection",
    "mds",
    "mmio_stale_data",
    "spectre_v2",
    "srbds",
    "tsa",
    "tsx_async_abort",
    "vmscape",
];
/// What Linux says about a bug of VT-x that concerns hypervisors, with and without VT-x.
const WITH_AND_WITHOUT_VTX: [&str; 2] = ["KVM: Mitigation: VMX disabled", "KVM: Mitigation: VMX unsupported"];
/// The prefixes of event sources that Linux does not look for where it sees the added flag.
const EVENT_SOURCES_BY_NO_ADDED_FLAG: &[&str] = &["uncore_", "cstate_"];
/// The message with which Linux turns the TSC deadline timer off.
const DEADLINE_OFF: &str = "TSC_DEADLINE disabled due to Errata";
/// The beginnings of the lines in which the kernel shows the registers after a warning. The lines have addresses, which
/// are random in each boot. The line with RIP is kept, since it names the function.
const REGISTERS: &[&str] = &["RSP:", "RAX:", "RDX:", "RBP:", "R10:", "R13:", "FS:", "CS:", "CR2:"];
/// The fields of /proc/cpuinfo that Linux measures in each boot.
const MEASURED: &[&str] = &["cpu MHz", "bogomips"];

/// A comparison of a bare guest with the same guest under Vidar.
pub struct Comparison {
    /// The last part of the tests' names.
    pub name: &'static str,
    /// Compares the facts of a bare guest with those of a guest under Vidar.
    pub compare: fn(&Facts, &Facts) -> Result<()>,
}

/// All comparisons.
pub const COMPARISONS: &[Comparison] = &[
    Comparison { name: "cpuinfo", compare: cpuinfo },
    Comparison { name: "clocksource", compare: |bare, vidar| same(&bare.clocksource, &vidar.clocksource) },
    Comparison {
        name: "interrupts",
        compare: |bare, vidar| same(&interrupt_names(&bare.interrupts), &interrupt_names(&vidar.interrupts)),
    },
    Comparison { name: "pci", compare: |bare, vidar| same(&bare.pci, &vidar.pci) },
    Comparison { name: "memory", compare: |bare, vidar| memory(&bare.iomem, &vidar.iomem, &vidar.hidden) },
    Comparison { name: "vulnerabilities", compare: vulnerabilities },
    Comparison { name: "event-sources", compare: event_sources },
    Comparison { name: "messages", compare: |bare, vidar| messages(&bare.messages, &vidar.messages) },
];

/// Returns an error if the texts differ, or if both are empty.
fn same(bare: &str, vidar: &str) -> Result<()> {
    ensure!(!bare.trim().is_empty(), "there is nothing to compare with");
    let (ours, theirs): (BTreeSet<_>, BTreeSet<_>) = (vidar.lines().collect(), bare.lines().collect());
    let join = |lines: Vec<&&str>| lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join("; ");
    let (added, missing) =
        (join(ours.difference(&theirs).collect()), join(theirs.difference(&ours).collect()));
    ensure!(added.is_empty() && missing.is_empty(), "only under Vidar: [{added}]; only bare: [{missing}]");
    ensure!(bare == vidar, "the lines are the same, but their order is not");
    Ok(())
}

/// Compares /proc/cpuinfo, in which only the hidden flags and the added flag may differ.
///
/// The added flag has further effects: Linux lists other bugs, and keeps the TSC deadline timer, which it otherwise
/// turns off because of the microcode's version. These differences are allowed only where Vidar shows itself.
fn cpuinfo(bare: &Facts, vidar: &Facts) -> Result<()> {
    let announced = vidar.announced;
    let mut added: Vec<&str> = Vec::new();
    if announced {
        added.push(ADDED_FLAG);
        if bare.messages.contains(DEADLINE_OFF) {
            added.push("tsc_deadline_timer");
        }
    }
    let (bare, vidar) = (fields(&bare.cpuinfo), fields(&vidar.cpuinfo));
    let keys: BTreeSet<_> = bare.keys().chain(vidar.keys()).collect();
    ensure!(!bare.is_empty(), "there is nothing to compare with");
    for key in keys {
        let (one, other) = (bare.get(key), vidar.get(key));
        let (_, name) = key;
        match name.as_str() {
            "flags" => {
                let lost: &[&str] = if announced { &[FLAG_BY_NO_ADDED_FLAG] } else { &[] };
                flags(one.map_or("", String::as_str), other.map_or("", String::as_str), &added, lost)?;
            }
            "bugs" if announced => bugs(one.map_or("", String::as_str), other.map_or("", String::as_str))?,
            "vmx flags" => ensure!(other.is_none(), "there is a line \"vmx flags\" under Vidar"),
            name if MEASURED.contains(&name) => {}
            _ => {
                ensure!(one == other, "\"{name}\" is {other:?} under Vidar, and {one:?} on the bare machine");
            }
        }
    }
    Ok(())
}

/// Returns the values in /proc/cpuinfo by processor and name.
fn fields(cpuinfo: &str) -> BTreeMap<(usize, String), String> {
    let mut processor = 0;
    let mut fields = BTreeMap::new();
    for line in cpuinfo.lines() {
        match line.split_once(':') {
            Some((name, value)) => {
                fields.insert((processor, name.trim().to_owned()), value.trim().to_owned());
            }
            None => processor += 1,
        }
    }
    fields
}

fn flags(bare: &str, vidar: &str, added: &[&str], lost: &[&str]) -> Result<()> {
    let (bare, vidar): (BTreeSet<_>, BTreeSet<_>) =
        (bare.split_whitespace().collect(), vidar.split_whitespace().collect());
    ensure!(
        bare.contains("vmx") || bare.contains("svm"),
        "the bare machine has no extension that could be hidden"
    );
    let gone = |flag: &&str| HIDDEN_FLAGS.contains(flag) || lost.contains(flag);
    let mut expected: BTreeSet<_> = bare.into_iter().filter(|flag| !gone(flag)).collect();
    expected.extend(added);
    let too_many: Vec<_> = vidar.difference(&expected).collect();
    let missing: Vec<_> = expected.difference(&vidar).collect();
    ensure!(
        too_many.is_empty() && missing.is_empty(),
        "of the flags under Vidar, {missing:?} are missing, and {too_many:?} should not be there"
    );
    Ok(())
}

fn bugs(bare: &str, vidar: &str) -> Result<()> {
    let kept = |line: &'_ str| -> Vec<String> {
        let bugs = line.split_whitespace().filter(|bug| !BUGS_BY_ADDED_FLAG.contains(bug));
        bugs.map(str::to_owned).collect()
    };
    ensure!(kept(bare) == kept(vidar), "\"bugs\" is [{vidar}] under Vidar, and [{bare}] on the bare machine");
    Ok(())
}

/// Compares what Linux says about the CPU's bugs. Only what depends on the added flag may differ, and what Linux says
/// about VT-x, which is hidden.
fn vulnerabilities(bare: &Facts, vidar: &Facts) -> Result<()> {
    let by_flag = |line: &str| {
        let name = line.split(':').next().unwrap_or(line);
        vidar.announced && VULNERABILITIES_BY_ADDED_FLAG.contains(&name)
    };
    let [with, without_it] = WITH_AND_WITHOUT_VTX;
    let bare = bare.vulnerabilities.replace(with, without_it);
    same(&without(&bare, by_flag), &without(&vidar.vulnerabilities, by_flag))
}

/// Compares the event sources of `perf`. Only those that depend on the added flag may differ.
fn event_sources(bare: &Facts, vidar: &Facts) -> Result<()> {
    let by_flag = |name: &str| {
        vidar.announced && EVENT_SOURCES_BY_NO_ADDED_FLAG.iter().any(|prefix| name.starts_with(prefix))
    };
    same(&without(&bare.event_sources, by_flag), &vidar.event_sources)
}

/// Returns the text without some of its lines.
fn without(text: &str, leave_out: impl Fn(&str) -> bool) -> String {
    text.lines().filter(|line| !leave_out(line)).flat_map(|line| [line, "\n"]).collect()
}

/// Returns the lines of /proc/interrupts without their counts.
fn interrupt_names(interrupts: &str) -> String {
    let name = |line: &str| {
        let words = line.split_whitespace();
        let words = words.enumerate().filter(|(place, word)| *place == 0 || word.parse::<u64>().is_err());
        words.map(|(_, word)| word).collect::<Vec<_>>().join(" ") + "\n"
    };
    interrupts.lines().map(name).collect()
}

/// Compares the machine's memory. Exactly the memory that Vidar keeps must be missing.
fn memory(bare: &str, vidar: &str, hidden: &[(u64, u64)]) -> Result<()> {
    ensure!(!hidden.is_empty(), "Vidar did not say which memory it keeps");
    let mut expected = ram(bare);
    ensure!(!expected.is_empty(), "there is nothing to compare with");
    for &(base, size) in hidden {
        let inside = expected.iter().any(|&(start, end)| start <= base && base + size <= end);
        ensure!(inside, "not all of Vidar's memory {base:#x}+{size:#x} is RAM on the bare machine");
        expected = expected
            .into_iter()
            .flat_map(|(start, end)| [(start, end.min(base)), (start.max(base + size), end)])
            .collect();
        expected.retain(|(start, end)| start < end);
        expected.dedup();
    }
    let found = ram(vidar);
    let show =
        |ranges: &[(u64, u64)]| ranges.iter().map(|(a, b)| format!("{a:#x}-{b:#x} ")).collect::<String>();
    ensure!(
        found == expected,
        "RAM under Vidar is {}but it should be {}(Vidar keeps {hidden:x?})",
        show(&found),
        show(&expected)
    );
    Ok(())
}

/// Returns the ranges of System RAM at the top level, joined where they touch.
fn ram(iomem: &str) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for line in
        iomem.lines().filter(|line| line.trim_end().ends_with(": System RAM") && !line.starts_with(' '))
    {
        let Some((range, _)) = line.split_once(" : ") else { continue };
        let Some((start, end)) = range.split_once('-') else { continue };
        let number = |text: &str| u64::from_str_radix(text, 16);
        if let (Ok(start), Ok(last)) = (number(start), number(end)) {
            match ranges.last_mut() {
                Some(before) if before.1 == start => before.1 = last + 1,
                _ => ranges.push((start, last + 1)),
            }
        }
    }
    ranges
}

/// Compares the kernel's warnings and errors. Under Vidar, there may be none that do not come on the bare machine as
/// well.
pub fn messages(bare: &str, vidar: &str) -> Result<()> {
    ensure!(
        bare.contains("Linux version") && vidar.contains("Linux version"),
        "the beginning of the log is missing"
    );
    let known = complaints(bare);
    let new: Vec<_> = complaints(vidar).difference(&known).cloned().collect();
    ensure!(new.is_empty(), "only under Vidar: {}", new.join("; "));
    Ok(())
}

/// Returns the kernel's messages of the level of warnings and above, without times and addresses.
fn complaints(messages: &str) -> BTreeSet<String> {
    let serious = |line: &str| {
        let (priority, text) = line.strip_prefix('<')?.split_once('>')?;
        let priority: u32 = priority.parse().ok()?;
        // Facility 0 is the kernel. Levels up to 4 are warnings and more serious messages.
        if priority > 4 {
            return None;
        }
        let text = text
            .trim_start()
            .strip_prefix('[')
            .and_then(|text| text.split_once(']'))
            .map_or(text, |(_, text)| text);
        let text = text.trim_start();
        if REGISTERS.iter().any(|register| text.starts_with(register)) {
            return None;
        }
        Some(text.split_whitespace().map(without_long_numbers).collect::<Vec<_>>().join(" "))
    };
    messages.lines().filter_map(serious).collect()
}

/// Replaces the long numbers in a word. They are addresses of the kernel, which are random in each boot, or counts of
/// ticks since power-on.
pub fn without_long_numbers(word: &str) -> String {
    let long = |part: &str| {
        let address =
            part.len() == 16 && part.starts_with("ffff") && part.bytes().all(|b| b.is_ascii_hexdigit());
        address || part.len() >= 9 && part.bytes().all(|b| b.is_ascii_digit())
    };
    let shown = |part: &str| {
        let number = part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).trim_start_matches("0x");
        if long(number) { part.replace(number, "#") } else { part.to_owned() }
    };
    word.split_inclusive(|c: char| !c.is_ascii_alphanumeric()).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: &str = "processor\t: 0\nmodel name\t: A\ncpu MHz\t\t: 20.1\nflags\t\t: fpu vmx smx ept avx\nbugs\t\t: mds vmscape\n\
                        vmx flags\t: vnmi\n\n";
    const VIDAR: &str = "processor\t: 0\nmodel name\t: A\ncpu MHz\t\t: 20.2\nflags\t\t: fpu avx hypervisor\nbugs\t\t: mds bhi\n\n";

    fn facts(cpuinfo: &str, announced: bool) -> Facts {
        Facts { cpuinfo: cpuinfo.to_owned(), announced, ..Facts::default() }
    }

    #[test]
    fn cpuinfo_may_differ_only_in_the_flags() {
        let compare = |bare: &str, vidar: &str| cpuinfo(&facts(bare, false), &facts(vidar, true));
        compare(BARE, VIDAR).unwrap();
        for (from, to) in [
            ("avx hypervisor", "hypervisor"),
            ("hypervisor", ""),
            ("avx hypervisor", "avx vmx hypervisor"),
            ("avx hypervisor", "avx sse9 hypervisor"),
            ("avx hypervisor", "avx tsc_deadline_timer hypervisor"),
            ("model name\t: A", "model name\t: B"),
            ("model name\t: A\n", ""),
            ("mds bhi", "bhi"),
            ("mds bhi", "mds bhi l1tf"),
            ("flags\t\t", "vmx flags\t: vnmi\nflags\t\t"),
        ] {
            let changed = VIDAR.replace(from, to);
            assert_ne!(changed, VIDAR);
            assert!(compare(BARE, &changed).is_err(), "{from} -> {to}");
        }
        assert!(compare("", "").is_err());
        assert!(compare(&BARE.replace("vmx smx", ""), VIDAR).is_err(), "nothing was hidden");
        let deadline = VIDAR.replace("avx", "avx tsc_deadline_timer");
        let errata = Facts { messages: DEADLINE_OFF.to_owned(), ..facts(BARE, false) };
        cpuinfo(&errata, &facts(&deadline, true)).unwrap();
    }

    #[test]
    fn nothing_is_added_where_vidar_hides_itself() {
        let hidden = VIDAR.replace(" hypervisor", "").replace("mds bhi", "mds vmscape");
        cpuinfo(&facts(BARE, false), &facts(&hidden, false)).unwrap();
        for vidar in
            [VIDAR.to_owned(), hidden.replace("vmscape", "bhi"), VIDAR.replace("mds bhi", "mds vmscape")]
        {
            assert!(cpuinfo(&facts(BARE, false), &facts(&vidar, false)).is_err(), "{vidar}");
        }
    }

    #[test]
    fn amds_boost_flag_depends_on_the_added_flag() {
        let bare = facts(&BARE.replace("vmx smx ept", "svm npt cpb"), false);
        cpuinfo(&bare, &facts(VIDAR, true)).unwrap();
        let kept = VIDAR.replace("avx", "avx cpb");
        assert!(cpuinfo(&bare, &facts(&kept, true)).is_err());
        let hides = |flags: &str| VIDAR.replace("avx hypervisor", flags).replace("mds bhi", "mds vmscape");
        assert!(cpuinfo(&bare, &facts(&hides("avx"), false)).is_err());
        cpuinfo(&bare, &facts(&hides("avx cpb"), false)).unwrap();
    }

    #[test]
    fn vulnerabilities_may_differ_only_by_the_added_flag() {
        let facts =
            |text: &str, announced| Facts { vulnerabilities: text.to_owned(), announced, ..Facts::default() };
        let bare = "l1tf: Not affected\nmds: Vulnerable; SMT disabled\n";
        let vidar = "l1tf: Not affected\nmds: Vulnerable; SMT Host state unknown\n";
        vulnerabilities(&facts(bare, false), &facts(bare, false)).unwrap();
        vulnerabilities(&facts(bare, false), &facts(vidar, true)).unwrap();
        assert!(vulnerabilities(&facts(bare, false), &facts(vidar, false)).is_err());
        let multihit = |what| facts(&format!("itlb_multihit: KVM: Mitigation: VMX {what}\n"), false);
        vulnerabilities(&multihit("disabled"), &multihit("unsupported")).unwrap();
        assert!(vulnerabilities(&multihit("disabled"), &multihit("disabled")).is_err());
        let other = bare.replace("Not affected", "Vulnerable");
        assert!(vulnerabilities(&facts(bare, false), &facts(&other, true)).is_err());
        assert!(vulnerabilities(&facts("", false), &facts("", false)).is_err());
    }

    #[test]
    fn event_sources_may_be_missing_only_by_the_added_flag() {
        let facts =
            |text: &str, announced| Facts { event_sources: text.to_owned(), announced, ..Facts::default() };
        let bare = "cpu\ncstate_core\nuncore_imc_0\n";
        event_sources(&facts(bare, false), &facts(bare, false)).unwrap();
        event_sources(&facts(bare, false), &facts("cpu\n", true)).unwrap();
        assert!(event_sources(&facts(bare, false), &facts("cpu\n", false)).is_err());
        assert!(event_sources(&facts(bare, false), &facts("breakpoint\n", true)).is_err());
    }

    #[test]
    fn interrupts_are_compared_by_name() {
        let bare = "  CPU0\n  4:   123   IO-APIC   4-edge      ttyS0\nNMI:  0  Non-maskable interrupts\n";
        let vidar = bare.replace("123", "9");
        same(&interrupt_names(bare), &interrupt_names(&vidar)).unwrap();
        let gone = bare.replace("NMI:  0  Non-maskable interrupts\n", "");
        assert!(same(&interrupt_names(bare), &interrupt_names(&gone)).is_err());
        let renamed = bare.replace("IO-APIC", "XT-PIC");
        assert!(same(&interrupt_names(bare), &interrupt_names(&renamed)).is_err());
    }

    #[test]
    fn texts_with_any_difference_are_not_the_same() {
        same("tsc hpet \ntsc\n", "tsc hpet \ntsc\n").unwrap();
        for other in ["tsc\ntsc hpet \n", "hpet \ntsc\n", "", "tsc hpet \ntsc\ntsc\n"] {
            assert!(same("tsc hpet \ntsc\n", other).is_err(), "{other}");
        }
        assert!(same("", "").is_err());
    }

    const RAM: &str = "00000000-00000fff : Reserved\n00001000-0009ffff : System RAM\n00100000-3fffffff : System RAM\n  \
                       01000000-01ffffff : Kernel code\n40000000-4fffffff : PCI Bus 0000:00\n";

    #[test]
    fn only_vidars_memory_may_be_missing() {
        let hidden = &[(0x3fc0_0000, 0x40_0000)];
        let vidar = RAM.replace("00100000-3fffffff", "00100000-3fbfffff");
        memory(RAM, &vidar, hidden).unwrap();
        let middle = RAM.replace(
            "00100000-3fffffff : System RAM",
            "00100000-0fffffff : System RAM\n10000000-103fffff : Reserved\n10400000-3fffffff : System RAM",
        );
        memory(RAM, &middle, &[(0x1000_0000, 0x40_0000)]).unwrap();
        assert!(memory(RAM, RAM, hidden).is_err(), "the region is not hidden");
        assert!(memory(RAM, &RAM.replace("3fffffff", "3f7fffff"), hidden).is_err(), "more is gone");
        assert!(memory(RAM, &vidar.replace("0009ffff", "0008ffff"), hidden).is_err(), "gone elsewhere");
        assert!(memory(RAM, &vidar, &[]).is_err());
        assert!(memory(RAM, &vidar, &[(0x4000_0000, 0x40_0000)]).is_err(), "not RAM");
        assert!(memory("", "", hidden).is_err());
    }

    #[test]
    fn new_messages_are_found() {
        let bare = "<5>[    0.000000] Linux version 6.1\n<4>[    0.500000] x86/cpu: SGX disabled at 0xffffffff81000000\n";
        messages(bare, &bare.replace("0.500000", "0.700000").replace("81000000", "92000000")).unwrap();
        messages(bare, "<5>[    0.000000] Linux version 6.1\n").unwrap();
        let adjusted = |ticks: u64| format!("{bare}<4>[    0.9] TSC ADJUST: CPU0: -{ticks} force to 0\n");
        messages(&adjusted(20_704_230_929), &adjusted(30_704_230_929)).unwrap();
        let warned = |rbx: u64| {
            let dump =
                format!("<4>[ 0.0] RIP: 0010:f+0x66/0x2d0\n<4>[ 0.0] RAX: 03 RBX: {rbx:016x} RCX: 3f\n");
            format!("{bare}{dump}<4>[ 0.0] FS:  00(0000) GS:00(0000)\n")
        };
        messages(&warned(0x1f), &warned(0x2a25_8000)).unwrap();
        assert!(messages(bare, &warned(0x1f)).is_err(), "the place of a new warning");
        messages(bare, &format!("{bare}<6>[    0.9] Hypervisor detected: x\n<12>[ 1.0] not the kernel\n"))
            .unwrap();
        for new in [
            "<3>[    0.9] unchecked MSR access\n",
            "<4>[    0.9] x86/cpu: SGX enabled at 0x0\n",
            "<0>[ 1.0] oops\n",
        ] {
            assert!(messages(bare, &format!("{bare}{new}")).is_err(), "{new}");
        }
        assert!(messages("", "").is_err());
    }
}
