//! Packages that stay uninstalled: what apt offers of them, and files out of them. They come from the suite that this machine
//! follows, or from another one of Debian, for which apt gets folders of its own and the machine's are left as they are.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::{packages, paths, progress};

/// The keys that Debian signs its suites with, which its systems have.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where packages come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Archive {
    /// A suite of Debian, by its name or by what it is at present (`trixie`, `stable`); `None` is the machine's own.
    suite: Option<String>,
}

impl Archive {
    /// The packages of the suite `suite` of Debian, or those of the machine's own.
    pub fn new(suite: Option<&str>) -> Self {
        Self { suite: suite.map(str::to_owned) }
    }

    /// What it is called in messages.
    fn name(&self) -> String {
        self.suite.as_ref().map_or_else(|| "apt".to_owned(), |suite| format!("Debian {suite}"))
    }

    /// The folder within `home` for what comes from it.
    pub fn folder(&self, home: &Path) -> PathBuf {
        self.suite.as_ref().map_or_else(|| home.to_owned(), |suite| home.join(suite))
    }

    /// Gets fresh package lists.
    pub fn update(&self) -> Result<()> {
        let Some(suite) = &self.suite else { return packages::update() };
        let home = home(suite);
        for folder in ["lists/partial", "cache/archives/partial"] {
            paths::ensure(home.join(folder))?;
        }
        fs::write(home.join(LIST), source(&debian_mirror()?, suite))?;
        let (options, shell) = (self.options(), Shell::new()?);
        progress::step(&format!("fetching the package lists of Debian {suite}"), || {
            let output =
                cmd!(shell, "apt-get --quiet {options...} update").quiet().ignore_status().output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            // What it cannot fetch is a warning to it, and it goes on with what it had.
            let trouble = said.lines().find(|line| line.starts_with("E:") || line.starts_with("W: Failed"));
            ensure!(output.status.success() && trouble.is_none(), "apt-get update failed: {}", said.trim());
            Ok(())
        })
        .with_context(|| format!("cannot fetch the package lists of Debian {suite}"))
    }

    /// What apt is told, so that it looks nowhere else.
    fn options(&self) -> Vec<String> {
        let Some(suite) = &self.suite else { return Vec::new() };
        let home = home(suite);
        let option = |name: &str, value: &Path| format!("--option={name}={}", value.display());
        vec![
            option("Dir::Etc::SourceList", &home.join(LIST)),
            option("Dir::Etc::SourceParts", Path::new("/dev/null")),
            option("Dir::State::Lists", &home.join("lists")),
            option("Dir::Cache", &home.join("cache")),
            // Whoever asks owns these folders, and apt's own user may not get at them.
            "--option=APT::Sandbox::User=root".to_owned(),
        ]
    }

    /// The real package that the first of `names` which apt offers depends on, for the kernel packages that only
    /// follow the newest version; asks for fresh package lists if there is no answer.
    pub fn newest_kernel(&self, names: &[String]) -> Result<String> {
        if !packages::have_apt() {
            bail!("This system has no apt, so it cannot be asked for {}.", names.join(" or "));
        }
        let find = || names.iter().find_map(|name| self.real_kernel(name));
        if let Some(package) = find() {
            return Ok(package);
        }
        self.update()?;
        find().with_context(|| format!("{} offers no {}", self.name(), names.join(" and no ")))
    }

    fn real_kernel(&self, name: &str) -> Option<String> {
        let mut name = name.to_owned();
        // Ubuntu's linux-image-virtual follows linux-image-generic on some releases.
        for _ in 0..4 {
            match kernel_dependency(&self.show(&name)?) {
                Some(next) => name = next,
                None => return Some(name),
            }
        }
        None
    }

    /// The version of `package` that apt would download; asks for fresh package lists if there is no answer.
    pub fn candidate(&self, package: &str) -> Result<String> {
        if let Some(version) = self.version(package) {
            return Ok(version);
        }
        self.update()?;
        self.version(package).with_context(|| format!("{} offers no {package}", self.name()))
    }

    fn version(&self, package: &str) -> Option<String> {
        Some(self.show(package)?.lines().find_map(|line| line.strip_prefix("Version:"))?.trim().to_owned())
    }

    /// What apt knows of the version of `package` that it would install.
    fn show(&self, package: &str) -> Option<String> {
        let (options, shell) = (self.options(), Shell::new().ok()?);
        let show = cmd!(shell, "apt-cache {options...} show --no-all-versions {package}");
        known(show.quiet().ignore_stderr().read().ok()?)
    }

    /// Downloads `package` without installing it, and writes the file in it whose path matches `pattern` to `to`.
    pub fn extract(&self, package: &str, pattern: &str, to: &Path) -> Result<()> {
        ensure!(self.holds(package, pattern, to)?, "the package {package} holds no {pattern}");
        Ok(())
    }

    /// Downloads the kernel of `package`, which names a version, and writes it to `to`. Newer Debians have it in a package of its
    /// own, on which the one that is named after the image depends.
    pub fn extract_kernel(&self, package: &str, to: &Path) -> Result<()> {
        let binary = package.replacen("linux-image-", "linux-binary-", 1);
        if self.holds(package, "./boot/vmlinuz-*", to)? {
            return Ok(());
        }
        self.extract(&binary, "./usr/lib/modules/*/vmlinuz", to)
            .with_context(|| format!("the package {package} holds no ./boot/vmlinuz-*"))
    }

    /// As [`Archive::extract`]; returns false if there is no such file in the package.
    fn holds(&self, package: &str, pattern: &str, to: &Path) -> Result<bool> {
        let mut take = Command::new("tar");
        take.args(["--extract", "--to-stdout", "--wildcards", pattern]).stdout(File::create(to)?);
        Ok(self.through_tar(package, take)? && fs::metadata(to)?.len() > 0)
    }

    /// Downloads `package` without installing it, and unpacks what in it matches `pattern` into the folder `to`.
    pub fn unpack(&self, package: &str, pattern: &str, to: &Path) -> Result<()> {
        let mut take = Command::new("tar");
        // The folder first: it counts for what is named after it.
        take.arg("--directory").arg(to).args(["--extract", "--no-same-owner", "--wildcards", pattern]);
        if !self.through_tar(package, take)? {
            bail!("the package {package} holds no {pattern}");
        }
        Ok(())
    }

    /// Downloads `package` and gives what is in it to `tar`. Returns true if both of them succeeded.
    fn through_tar(&self, package: &str, mut tar: Command) -> Result<bool> {
        let archive = self.download(package)?;
        let mut unpack =
            Command::new("dpkg-deb").arg("--fsys-tarfile").arg(archive).stdout(Stdio::piped()).spawn()?;
        tar.stderr(Stdio::null()).stdin(unpack.stdout.take().expect("it is piped"));
        let taken = tar.status()?.success();
        // With our end of the pipe, so that dpkg-deb does not wait for a tar that gave up.
        drop(tar);
        Ok(unpack.wait()?.success() && taken)
    }

    /// Downloads `package`, or finds it where it was downloaded before with the same version: a kernel and its modules are in one
    /// package, and are asked for one after the other.
    fn download(&self, package: &str) -> Result<PathBuf> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock();
        let kept = paths::ensure(paths::packages())?.join(format!("{package}.deb"));
        if package.contains('=') && kept.is_file() {
            return Ok(kept);
        }
        let (options, shell) = (self.options(), Shell::new()?);
        let dir = tempfile::tempdir_in(paths::packages())?;
        shell.change_dir(dir.path());
        let download = cmd!(shell, "apt-get --quiet {options...} download {package}")
            .quiet()
            .ignore_stderr()
            .ignore_stdout();
        download.run().with_context(|| format!("{} does not give {package}", self.name()))?;
        let archive = fs::read_dir(dir.path())?.flatten().map(|entry| entry.path());
        let archive = archive.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb"));
        let archive = archive.with_context(|| format!("apt downloaded nothing for {package}"))?;
        fs::rename(&archive, &kept).with_context(|| format!("cannot write {}", kept.display()))?;
        Ok(kept)
    }
}

/// In the folder of a suite, the file that tells apt where it is.
const LIST: &str = "sources.list";

/// Where apt keeps what it knows of a suite that is not the machine's own.
fn home(suite: &str) -> PathBuf {
    paths::packages().join("suites").join(suite)
}

/// The line of a sources.list for `suite`.
fn source(mirror: &str, suite: &str) -> String {
    let signed = if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
    format!("deb {signed}{mirror} {suite} main\n")
}

/// The mirror of Debian that this machine's apt uses.
fn debian_mirror() -> Result<String> {
    let shell = Shell::new()?;
    let (format, filters) = ("$(RELEASE) $(REPO_URI)", ["Created-By: Packages", "Origin: Debian"]);
    let lines = cmd!(shell, "apt-get indextargets --format {format} {filters...}").quiet().read()?;
    // The updates of a suite are named after it, and may be elsewhere.
    let lines = lines.lines().filter_map(|line| line.split_once(' '));
    let (_, mirror) = lines.min_by_key(|(suite, _)| suite.len()).context("apt knows no Debian here")?;
    Ok(mirror.to_owned())
}

/// What `apt-cache show` has printed, if it knows the package. It prints nothing of one that it knows from the dependencies of
/// others alone, and does not fail: that is how Ubuntu's knows Debian's kernels.
fn known(shown: String) -> Option<String> {
    shown.contains("Package:").then_some(shown)
}

/// The kernel package among the dependencies that `apt-cache show` prints.
fn kernel_dependency(shown: &str) -> Option<String> {
    let depends = shown.lines().find_map(|line| line.strip_prefix("Depends:"))?;
    let names = depends.split([',', '|']).filter_map(|one| one.split_whitespace().next());
    names.filter(|name| name.starts_with("linux-image-")).map(str::to_owned).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_found_among_dependencies() {
        let debian = "Package: linux-image-amd64\nDepends: linux-image-6.1.0-56-amd64 (= 6.1.192-2)\n";
        assert_eq!(kernel_dependency(debian).as_deref(), Some("linux-image-6.1.0-56-amd64"));
        let ubuntu = "Depends: linux-firmware, linux-image-6.8.0-31-generic | linux-image-unsigned, x\n";
        assert_eq!(kernel_dependency(ubuntu).as_deref(), Some("linux-image-6.8.0-31-generic"));
        let real =
            "Depends: kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool\n";
        assert_eq!(kernel_dependency(real), None);
        assert_eq!(kernel_dependency("Package: x\n"), None);
    }

    #[test]
    fn a_package_that_others_name_alone_is_not_there() {
        assert_eq!(known(String::new()), None);
        assert!(
            known("Package: linux-image-generic\nDepends: linux-image-6.8.0-31-generic\n".to_owned())
                .is_some()
        );
    }

    #[test]
    fn another_suite_has_folders_of_its_own() {
        assert!(Archive::default().options().is_empty());
        let options = Archive::new(Some("trixie")).options();
        let folders = ["SourceList", "State::Lists", "Dir::Cache"];
        for folder in folders {
            let option = options.iter().find(|option| option.contains(folder)).unwrap();
            assert!(option.contains("/packages/suites/trixie/"), "{option}");
        }
        assert!(source("http://mirror/debian", "trixie").ends_with("http://mirror/debian trixie main\n"));
    }
}
