//! Finds out what the installed emulators can do, by asking the programs themselves, once. What an emulator lacks is
//! described in a sentence, as the reason why a test is skipped.

use std::fmt;
use std::io::Write;
use std::ops::RangeInclusive;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::tie::tied_to_us;

/// The name of QEMU's program.
pub const QEMU: &str = "qemu-system-x86_64";

/// A capability of an emulator that a test needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// Bochs has this CPU model.
    BochsCpu(&'static str),
    /// Linux boots in Bochs.
    BochsLinux,
    /// KVM runs guests in Bochs.
    BochsKvm,
    /// Bochs clears a pending INIT after the VM exit that it causes. Linux can then start that CPU, if its two start-up
    /// IPIs are far enough apart.
    BochsInit,
    /// Bochs was built with its debugger.
    BochsDebugger,
    /// QEMU has this CPU model.
    QemuCpu(&'static str),
    /// QEMU emulates this CPU feature, by its name in `-cpu`.
    QemuFeature(&'static str),
    /// QEMU applies AMD-V's nested paging to a guest whose own paging is off. A further CPU starts in that state.
    QemuNestedRealMode,
    /// No known emulator can do it. The reason is a whole sentence without its full stop.
    Nowhere(&'static str),
}

/// The first two numbers of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

/// What Bochs says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bochs {
    version: Version,
    cpus: Vec<String>,
    debugger: Debugger,
}

/// The debugger that Bochs was built with, by when it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Debugger {
    /// There is none.
    Absent,
    /// It runs always, and stops the machine at a prompt before the first instruction and at each reset.
    Always,
    /// It runs only with an option. Bochs 3.0 is like that.
    OnDemand,
}

/// What QEMU says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Qemu {
    version: Version,
    cpus: Vec<String>,
    features: Vec<String>,
}

/// CPU models and features that QEMU 10.0 of Debian 13 has, and QEMU 7.2 does not.
const TRIXIE: [&str; 2] = ["EPYC-Genoa", "x2apic"];
/// The first version of Bochs that clears a pending INIT after the VM exit that it causes.
const CLEARS_INIT: Version = Version(2, 8);
/// The first version of QEMU that sets the right flags after CMPXCHG16B.
const KEEPS_FLAGS: Version = Version(8, 0);
/// The major version of QEMU that does not apply nested paging while a guest's paging is off. Ubuntu 24.04's 8.2.2 does
/// not; Debian's 7.2 and 10.0 do. Later versions of 8.2 may do so as well.
const IGNORES_NESTED_PAGES: u32 = 8;
/// The versions of Bochs that refuse a VM entry unless the posted-interrupt descriptor is aligned to a page. It only
/// has to be aligned to 64 bytes (Intel SDM Vol. 3C, 27.2.1.1 "VM-Execution Control Fields"), as KVM's is. Bochs 2.7
/// does not check it.
const REFUSES_KVM: RangeInclusive<Version> = Version(2, 8)..=Version(3, 0);
/// The version of Bochs that is miscompiled in Debian unstable.
const MISCOMPILED: Version = Version(3, 1);

impl Ability {
    /// Returns true if Debian 13's emulators can do it.
    pub fn is_in_trixie(self) -> bool {
        match self {
            Self::BochsCpu(_)
            | Self::BochsInit
            | Self::BochsLinux
            | Self::BochsDebugger
            | Self::QemuNestedRealMode => true,
            Self::QemuCpu(name) => TRIXIE.contains(&name),
            Self::QemuFeature(name) => TRIXIE.contains(&name),
            Self::BochsKvm | Self::Nowhere(_) => false,
        }
    }

    /// Returns the reason why the installed emulators cannot do it, if they cannot: a sentence without its full stop.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::BochsCpu(_) | Self::BochsLinux | Self::BochsKvm | Self::BochsInit | Self::BochsDebugger => {
                match bochs() {
                    Some(bochs) => bochs.lacks(self),
                    None => Some("there is no Bochs here".to_owned()),
                }
            }
            Self::QemuCpu(_) | Self::QemuFeature(_) | Self::QemuNestedRealMode => match qemu() {
                Some(qemu) => qemu.lacks(self),
                None => Some("there is no QEMU here".to_owned()),
            },
            Self::Nowhere(why) => Some(why.to_owned()),
        }
    }
}

impl Bochs {
    fn lacks(&self, ability: Ability) -> Option<String> {
        let version = self.version;
        match ability {
            Ability::BochsCpu(model) if !self.cpus.iter().any(|name| name == model) => {
                Some(format!("Bochs {version} has no CPU model {model}"))
            }
            Ability::BochsInit if version < CLEARS_INIT => Some(format!(
                "Bochs {version} keeps an INIT pending after the VM exit that it causes, so that Linux cannot start the CPU"
            )),
            Ability::BochsDebugger if self.debugger == Debugger::Absent => {
                Some(format!("Bochs {version} was built without its debugger"))
            }
            Ability::BochsKvm if REFUSES_KVM.contains(&version) => Some(format!(
                "Bochs {version} refuses KVM's VM entries, since it demands that the posted-interrupt descriptor begins at a page"
            )),
            Ability::BochsLinux if version == MISCOMPILED => Some(format!(
                "Bochs {version} of Debian divides 128-bit numbers wrongly, and so Linux does not boot in it"
            )),
            _ => None,
        }
    }
}

impl Qemu {
    fn lacks(&self, ability: Ability) -> Option<String> {
        let version = self.version;
        let knows = |names: &[String], wanted: &str| names.iter().any(|name| name == wanted);
        match ability {
            Ability::QemuCpu(model) if !knows(&self.cpus, model) => {
                Some(format!("QEMU {version} has no CPU model {model}"))
            }
            Ability::QemuFeature(name) if !knows(&self.features, name) => {
                Some(format!("QEMU {version} does not emulate {name}"))
            }
            Ability::QemuNestedRealMode if version.0 == IGNORES_NESTED_PAGES => Some(format!(
                "QEMU {version} ignores nested paging while a guest's paging is off, so that a further CPU starts in Vidar's memory"
            )),
            _ => None,
        }
    }
}

/// Returns true if this QEMU sets wrong flags after CMPXCHG16B, as versions before 8.0 do.
pub fn qemu_spoils_flags() -> bool {
    qemu().is_some_and(|qemu| qemu.version < KEEPS_FLAGS)
}

/// Returns which debugger Bochs was built with.
pub fn bochs_debugger() -> Debugger {
    bochs().map_or(Debugger::Absent, |bochs| bochs.debugger)
}

fn bochs() -> Option<&'static Bochs> {
    static BOCHS: OnceLock<Option<Bochs>> = OnceLock::new();
    let ask = || -> Option<Bochs> {
        let [options, cpus] = [&["--help"][..], &["--help", "cpu"]].map(|arguments| {
            let output = Command::new("bochs").args(arguments).stdin(Stdio::null()).output().ok()?;
            Some(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
        });
        read_bochs(&options?, &cpus?)
    };
    BOCHS.get_or_init(ask).as_ref()
}

/// Reads the lists of options and of CPU models that Bochs prints. Both also contain its log, and the banner with the
/// version.
fn read_bochs(options: &str, cpus: &str) -> Option<Bochs> {
    let version = options.lines().find_map(|line| line.trim().strip_prefix("Bochs x86 Emulator "))?;
    let models = cpus.lines().skip_while(|line| !line.starts_with("Supported CPU models")).skip(2);
    let debugger = match (options.contains("-rc "), options.contains("-debugger ")) {
        (false, _) => Debugger::Absent,
        (true, false) => Debugger::Always,
        (true, true) => Debugger::OnDemand,
    };
    Some(Bochs {
        version: Version::read(version)?,
        cpus: models.take_while(|line| !line.is_empty()).map(str::to_owned).collect(),
        debugger,
    })
}

fn qemu() -> Option<&'static Qemu> {
    static QEMU_HERE: OnceLock<Option<Qemu>> = OnceLock::new();
    let ask = || -> Option<Qemu> {
        let mut command = tied_to_us(QEMU);
        command.args([
            "-machine",
            "none",
            "-accel",
            "tcg",
            "-display",
            "none",
            "-nodefaults",
            "-qmp",
            "stdio",
        ]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().ok()?;
        let all = json!({ "type": "full", "model": { "name": "max" } });
        let mut commands = child.stdin.take()?;
        for asked in [
            json!({ "execute": "qmp_capabilities" }),
            json!({ "execute": "query-cpu-definitions" }),
            json!({ "execute": "query-cpu-model-expansion", "arguments": all }),
            json!({ "execute": "quit" }),
        ] {
            // If QEMU has already ended, its output says enough.
            let _ = writeln!(commands, "{asked}");
        }
        let said = child.wait_with_output().ok()?.stdout;
        read_qemu(&String::from_utf8_lossy(&said))
    };
    QEMU_HERE.get_or_init(ask).as_ref()
}

/// Reads what QEMU's monitor says: the greeting, the list of CPU models, and the features of the model `max`, which has
/// all that QEMU emulates.
fn read_qemu(said: &str) -> Option<Qemu> {
    let said: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let version = &said.first()?["QMP"]["version"]["qemu"];
    let number = |name: &str| u32::try_from(version[name].as_u64()?).ok();
    let cpus = said.iter().find_map(|line| line["return"].as_array())?;
    let features = said.iter().find_map(|line| line["return"]["model"]["props"].as_object())?;
    Some(Qemu {
        version: Version(number("major")?, number("minor")?),
        cpus: cpus.iter().filter_map(|cpu| cpu["name"].as_str()).map(str::to_owned).collect(),
        features: features
            .iter()
            .filter(|(_, on)| **on == Value::Bool(true))
            .map(|(name, _)| name.clone())
            .collect(),
    })
}

impl Version {
    /// Reads the first two numbers of a version. A missing second number is taken as 0.
    fn read(text: &str) -> Option<Self> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some(Self(numbers.next()?.ok()?, numbers.next().and_then(Result::ok).unwrap_or(0)))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BANNER: &str = "========================================================================\n";

    /// Returns the Bochs of Debian 12, with most of its CPU models left out.
    fn bochs_2_7() -> Bochs {
        let log = "00000000000i[      ] LTDL_LIBRARY_PATH not set. using compile time default '/x'\n";
        let version = "                        Bochs x86 Emulator 2.7\n              Built from SVN snapshot on August  1, 2021\n";
        let banner = format!("{BANNER}{version}{BANNER}");
        let options = format!(
            "{log}Usage: bochs [flags] [bochsrc options]\n\n  -n               no configuration file\n  \
             -rc filename     execute debugger commands stored in file\n{banner}"
        );
        let cpus = format!(
            "{banner}{log}Supported CPU models:\n\nbx_generic\ncorei7_haswell_4770\ntigerlake\n\n\
             00000000000i[SIM   ] quit_sim called with exit code 0\n"
        );
        read_bochs(&options, &cpus).unwrap()
    }

    /// Returns the Bochs of Debian 13, with most of its CPU models left out.
    fn bochs_3_0() -> Bochs {
        let banner = format!(
            "{BANNER}                        Bochs x86 Emulator 3.0\n            Built from GitHub snapshot on February 16, 2025\n\
             {BANNER}"
        );
        let cpus = "Supported CPU models:\n\ni386\ntigerlake\nsapphire_rapids\narrow_lake\n\n00000000000i[SIM   ] quit_sim\n";
        let options = "  -debugger        start Bochs internal debugger on startup\n  \
                       -rc filename     execute debugger commands stored in file\n";
        read_bochs(&format!("{banner}{options}"), &format!("{banner}{cpus}")).unwrap()
    }

    #[test]
    fn version_and_cpu_models_of_bochs_are_read() {
        let (old, new) = (bochs_2_7(), bochs_3_0());
        assert_eq!((old.version, old.debugger), (Version(2, 7), Debugger::Always));
        assert_eq!(old.cpus, ["bx_generic", "corei7_haswell_4770", "tigerlake"]);
        assert_eq!((new.version, new.debugger), (Version(3, 0), Debugger::OnDemand));
        assert_eq!(new.cpus.last().map(String::as_str), Some("arrow_lake"));
        assert_eq!(read_bochs("sh: bochs: not found", ""), None);
    }

    #[test]
    fn what_bochs_lacks_is_named() {
        let (old, new) = (bochs_2_7(), bochs_3_0());
        let arrow_lake = Ability::BochsCpu("arrow_lake");
        assert_eq!(old.lacks(arrow_lake).as_deref(), Some("Bochs 2.7 has no CPU model arrow_lake"));
        assert_eq!(new.lacks(arrow_lake), None);
        assert_eq!(old.lacks(Ability::BochsCpu("tigerlake")), None);
        assert!(old.lacks(Ability::BochsInit).unwrap().starts_with("Bochs 2.7 keeps an INIT pending "));
        assert_eq!(new.lacks(Ability::BochsInit), None);
        let both = (old.lacks(Ability::BochsDebugger), new.lacks(Ability::BochsDebugger));
        assert_eq!(both, (None, None));
        let without = Bochs { debugger: Debugger::Absent, ..bochs_3_0() };
        let reason = without.lacks(Ability::BochsDebugger).unwrap();
        assert_eq!(reason, "Bochs 3.0 was built without its debugger");
        assert_eq!((old.lacks(Ability::BochsLinux), new.lacks(Ability::BochsLinux)), (None, None));
        assert_eq!(old.lacks(Ability::BochsKvm), None);
        assert!(new.lacks(Ability::BochsKvm).unwrap().starts_with("Bochs 3.0 refuses KVM's VM entries, "));
        let unstable = Bochs { version: Version::read("3.1.devel").unwrap(), ..new };
        assert!(unstable.lacks(Ability::BochsLinux).unwrap().starts_with("Bochs 3.1 of Debian divides "));
        assert_eq!(Bochs { version: Version(10, 0), ..unstable }.lacks(Ability::BochsInit), None);
    }

    /// Returns a QEMU of this version, with most of its CPU models and features left out.
    fn qemu(major: u32, minor: u32, model: &str, x2apic: bool) -> Qemu {
        let said = format!(
            "{{\"QMP\": {{\"version\": {{\"qemu\": {{\"micro\": 22, \"minor\": {minor}, \"major\": {major}}}, \"package\": \
             \"Debian\"}}, \"capabilities\": [\"oob\"]}}}}\n{{\"return\": {{}}}}\n\
             {{\"return\": [{{\"name\": \"max\", \"static\": false}}, {{\"name\": \"{model}\"}}]}}\n\
             {{\"return\": {{\"model\": {{\"name\": \"max\", \"props\": {{\"x2apic\": {x2apic}, \"la57\": true, \"phys-bits\": 0}}}}}}}}\n\
             {{\"return\": {{}}}}\n{{\"timestamp\": {{\"seconds\": 1}}, \"event\": \"SHUTDOWN\"}}\n"
        );
        read_qemu(&said).unwrap()
    }

    #[test]
    fn what_qemu_lacks_is_named() {
        let (old, new) = (qemu(7, 2, "EPYC-Milan", false), qemu(10, 0, "EPYC-Genoa", true));
        let (x2apic, genoa) = (Ability::QemuFeature("x2apic"), Ability::QemuCpu("EPYC-Genoa"));
        assert_eq!(old.lacks(x2apic).as_deref(), Some("QEMU 7.2 does not emulate x2apic"));
        assert_eq!(old.lacks(genoa).as_deref(), Some("QEMU 7.2 has no CPU model EPYC-Genoa"));
        assert_eq!((new.lacks(x2apic), new.lacks(genoa)), (None, None));
        assert_eq!(old.lacks(Ability::QemuFeature("la57")), None);
        assert!(new.lacks(Ability::QemuFeature("phys-bits")).is_some(), "phys-bits is not a feature");
        assert_eq!(read_qemu("qemu-system-x86_64: cannot start\n"), None);
    }

    #[test]
    fn nested_real_mode_depends_on_the_version_of_qemu() {
        let qemu = |version| Qemu { version, cpus: Vec::new(), features: Vec::new() };
        for right in [Version(7, 2), Version(9, 0), Version(10, 0)] {
            assert_eq!(qemu(right).lacks(Ability::QemuNestedRealMode), None);
        }
        assert!(
            qemu(Version(8, 2)).lacks(Ability::QemuNestedRealMode).unwrap().starts_with("QEMU 8.2 ignores ")
        );
        assert_eq!(Ability::Nowhere("nobody does it").missing().as_deref(), Some("nobody does it"));
    }
}
