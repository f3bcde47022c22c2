//! The rules for entering the guest, tried on the emulators' CPUs. In an image of its own Vidar breaks each rule on
//! purpose, asks its tables which rules are broken, and enters the guest. The emulator must refuse what breaks a rule,
//! for the same reason, and nothing else. Where it does otherwise, [`known`] says who is right by the manual.

mod attempt;
mod known;
mod words;

use anyhow::{Context, Result, ensure};

use self::attempt::{Answer, Attempt};
use self::known::Known;
use super::Tools;
use super::lane::Lane;
use super::small::{GUEST, Small};
use crate::console::{ANSWER, BOOT};
use crate::grub::Menu;
use crate::{build, paths};

/// The name of the test in its lanes.
pub const NAME: &str = "entry-rules";

/// The lanes of the test: each emulator, and in Bochs the models whose VT-x has more. The AMD-V of Bochs is left out,
/// since Bochs panics on a guest in long mode without CR0.PE, which it has to refuse.
pub const LANES: [Lane; 4] = [Lane::Vmx, Lane::VmxTigerLake, Lane::VmxArrowLake, Lane::Svm];

/// Runs the test.
pub fn run(lane: Lane) -> Result<()> {
    build::trial()?;
    let tools = Tools::with(paths::trial());
    let small = Small {
        name: lane.folder(NAME),
        lane,
        kernel: tools.probe()?.to_vec(),
        cmdline: "probe=cpuid".to_owned(),
        menu: Menu { default: Some(GUEST.to_owned()), ..Menu::default() },
        memory: 256,
        cpu: lane.cpu(),
        // A guest whose events are injected has no handlers.
        survives_triple_fault: true,
        ..Small::default()
    };
    let mut booted = small.boot(&tools)?;
    booted.console.expect("vidar: trial: begins\r\n", BOOT)?;
    let said = booted.console.expect("vidar: trial: done", ANSWER)?;
    let attempts = attempt::parse(&said)?;
    judge(lane, &attempts)?;
    if lane.usual() == Lane::Vmx {
        words::compare(&attempts, &booted.running.emulator_log())?;
    }
    Ok(())
}

/// Returns an error if the emulator has answered otherwise than the tables say, where that is not known, or if what is
/// known has not been seen.
fn judge(lane: Lane, attempts: &[Attempt]) -> Result<()> {
    let (first, last) = attempts.first().zip(attempts.last()).context("nothing was tried")?;
    ensure!(
        first == last && first.answer == Answer::Entered,
        "the guest without a change is not entered at the beginning and at the end: {first:?}, {last:?}"
    );
    ensure!(attempts.iter().filter(|attempt| attempt.is_alone()).count() > 20, "few rules were broken alone");
    let mut wrong: Vec<_> = attempts
        .iter()
        .filter(|attempt| !attempt.agrees() && !known::of(lane).any(|known| known.is(attempt)))
        .map(|attempt| {
            format!("{}: the tables say {:?}, the emulator {}", attempt.what, attempt.broken, attempt.answer)
        })
        .collect();
    let seen = |known: &&Known| attempts.iter().any(|attempt| known.is(attempt) && !attempt.agrees());
    let gone = known::of(lane).filter(|known| !seen(known));
    wrong.extend(gone.map(|known| format!("this is not so any more: {known}")));
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}
