//! The choice of a machine for `cargo xtask run`.

use anyhow::{Result, bail};
use clap::ValueEnum;

use super::{Machine, Obstacle};

/// The machine that the user asks for.
#[derive(Clone, Copy, ValueEnum)]
pub enum Choice {
    /// KVM where its guests can use VT-x or AMD-V, else QEMU.
    Auto,
    /// Bochs, which emulates VT-x, slowly.
    Bochs,
    /// QEMU, which emulates AMD-V.
    Qemu,
    /// QEMU with KVM.
    Kvm,
}

impl Choice {
    /// Decides which machine to run. `obstacle` returns the reason why KVM cannot be used, if there is one. If it
    /// cannot be asked because there is no QEMU, `fetch` installs QEMU first.
    pub fn decide(
        self,
        mut obstacle: impl FnMut() -> Option<Obstacle>,
        fetch: impl FnOnce() -> Result<()>,
    ) -> Result<Machine> {
        let wants_kvm = match self {
            Choice::Bochs => return Ok(Machine::Bochs),
            Choice::Qemu => return Ok(Machine::Qemu),
            Choice::Auto => false,
            Choice::Kvm => true,
        };
        let mut found = obstacle();
        if found == Some(Obstacle::NoQemu) {
            fetch()?;
            found = obstacle();
        }
        match found {
            None => Ok(Machine::Kvm),
            Some(obstacle) if wants_kvm => bail!("{obstacle}; or use --machine qemu"),
            Some(Obstacle::NoExtension) => Ok(Machine::Qemu),
            Some(obstacle) => {
                eprintln!("QEMU emulates AMD-V, since KVM cannot be used: {obstacle}");
                Ok(Machine::Qemu)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing_is_fetched() -> Result<()> {
        panic!("nothing must be fetched here")
    }

    #[test]
    fn an_obstacle_to_kvm_is_named_before_anything_is_fetched() {
        let chosen = |choice: Choice| choice.decide(|| Some(Obstacle::NoRight), nothing_is_fetched);
        let error = chosen(Choice::Kvm).unwrap_err().to_string();
        assert!(
            error.starts_with("you have no right to use /dev/kvm: ")
                && error.ends_with("; or use --machine qemu")
        );
        assert_eq!(chosen(Choice::Auto).unwrap(), Machine::Qemu);
        let free = |choice: Choice| choice.decide(|| None, nothing_is_fetched);
        assert_eq!(free(Choice::Kvm).unwrap(), Machine::Kvm);
        assert_eq!(free(Choice::Auto).unwrap(), Machine::Kvm);
        let unasked = || panic!("KVM must not be asked about here");
        assert_eq!(Choice::Bochs.decide(unasked, nothing_is_fetched).unwrap(), Machine::Bochs);
        assert_eq!(Choice::Qemu.decide(unasked, nothing_is_fetched).unwrap(), Machine::Qemu);
    }

    #[test]
    fn qemu_is_fetched_where_it_is_missing() {
        let mut answers = [Some(Obstacle::NoQemu), None].into_iter();
        let mut fetched = false;
        let fetch = || {
            fetched = true;
            Ok(())
        };
        let machine = Choice::Auto.decide(|| answers.next().unwrap(), fetch).unwrap();
        assert!(machine == Machine::Kvm && fetched);
    }
}
