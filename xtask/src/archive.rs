//! Downloads packages without installing them, and extracts files from them. They come from the suite that this machine
//! follows, or from another suite of Debian. For another suite apt works in folders of its own, and the machine's stay
//! as they are.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::{packages, paths, progress};

/// The keys by which Debian signs its suites, as Debian systems have them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A source of packages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Archive {
    /// A suite of Debian, by its codename or by its class (`trixie`, `stable`). `None` stands for what this machine
    /// follows.
    suite: Option<String>,
}

impl Archive {
    /// The archive of Debian's suite `suite`, or that of this machine.
    pub fn new(suite: Option<&str>) -> Self {
        Self { suite: suite.map(str::to_owned) }
    }

    /// The name of the archive in messages.
    fn name(&self) -> String {
        self.suite.as_ref().map_or_else(|| "apt".to_owned(), |suite| format!("Debian {suite}"))
    }

    /// The folder within `home` for files from this archive.
    pub fn folder(&self, home: &Path) -> PathBuf {
        self.suite.as_ref().map_or_else(|| home.to_owned(), |suite| home.join(suite))
    }

    /// Fetches the package lists again.
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
            // If apt cannot fetch a list, it prints a warning, succeeds, and keeps the old list.
            let trouble = said.lines().find(|line| line.starts_with("E:") || line.starts_with("W: Failed"));
            ensure!(output.status.success() && trouble.is_none(), "apt-get update failed: {}", said.trim());
            Ok(())
        })
        .with_context(|| format!("cannot fetch the package lists of Debian {suite}"))
    }

    /// The options that make apt use this archive only.
    fn options(&self) -> Vec<String> {
        let Some(suite) = &self.suite else { return Vec::new() };
        let home = home(suite);
        let option = |name: &str, value: &Path| format!("--option={name}={}", value.display());
        vec![
            option("Dir::Etc::SourceList", &home.join(LIST)),
            option("Dir::Etc::SourceParts", Path::new("/dev/null")),
            option("Dir::State::Lists", &home.join("lists")),
            option("Dir::Cache", &home.join("cache")),
            // The folders belong to the user, and apt's own user may not be able to enter them.
            "--option=APT::Sandbox::User=root".to_owned(),
        ]
    }

    /// Finds the newest kernel. `names` are packages that depend on the newest kernel's package; the first that apt
    /// offers counts. If apt offers none, the package lists are fetched again.
    pub fn newest_kernel(&self, names: &[String]) -> Result<String> {
        if !packages::have_apt() {
            bail!("This system has no apt, which is needed to fetch {}.", names.join(" or "));
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
        // On some releases, Ubuntu's linux-image-virtual depends on linux-image-generic.
        for _ in 0..4 {
            match kernel_dependency(&self.show(&name)?) {
                Some(next) => name = next,
                None => return Some(name),
            }
        }
        None
    }

    /// The version of `package` that apt would download. If apt knows none, the package lists are fetched again.
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

    /// What apt knows about the version of `package` that it would install.
    fn show(&self, package: &str) -> Option<String> {
        let (options, shell) = (self.options(), Shell::new().ok()?);
        let show = cmd!(shell, "apt-cache {options...} show --no-all-versions {package}");
        known(show.quiet().ignore_stderr().read().ok()?)
    }

    /// Downloads `package`, and writes the file in it whose path matches `pattern` to `to`.
    pub fn extract(&self, package: &str, pattern: &str, to: &Path) -> Result<()> {
        ensure!(self.try_extract(package, pattern, to)?, "the package {package} does not contain {pattern}");
        Ok(())
    }

    /// Downloads the kernel of `package`, whose name contains a version, and writes it to `to`. Newer Debians have the
    /// kernel in a package `linux-binary-*`, on which the package `linux-image-*` depends.
    pub fn extract_kernel(&self, package: &str, to: &Path) -> Result<()> {
        let binary = package.replacen("linux-image-", "linux-binary-", 1);
        if self.try_extract(package, "./boot/vmlinuz-*", to)? {
            return Ok(());
        }
        self.extract(&binary, "./usr/lib/modules/*/vmlinuz", to)
            .with_context(|| format!("the package {package} does not contain ./boot/vmlinuz-*"))
    }

    /// Does the same as [`Archive::extract`], but returns false if there is no such file in the package.
    fn try_extract(&self, package: &str, pattern: &str, to: &Path) -> Result<bool> {
        let mut take = Command::new("tar");
        take.args(["--extract", "--to-stdout", "--wildcards", pattern]).stdout(File::create(to)?);
        Ok(self.through_tar(package, take)? && fs::metadata(to)?.len() > 0)
    }

    /// Downloads `package`, and unpacks the files in it whose paths match `pattern` into the folder `to`.
    pub fn unpack(&self, package: &str, pattern: &str, to: &Path) -> Result<()> {
        let mut take = Command::new("tar");
        // The folder comes first, since it applies to the names that follow.
        take.arg("--directory").arg(to).args(["--extract", "--no-same-owner", "--wildcards", pattern]);
        if !self.through_tar(package, take)? {
            bail!("the package {package} does not contain {pattern}");
        }
        Ok(())
    }

    /// Downloads `package` and pipes its content into `tar`. Returns true if dpkg-deb and `tar` both succeeded.
    fn through_tar(&self, package: &str, mut tar: Command) -> Result<bool> {
        let archive = self.download(package)?;
        let mut unpack =
            Command::new("dpkg-deb").arg("--fsys-tarfile").arg(archive).stdout(Stdio::piped()).spawn()?;
        tar.stderr(Stdio::null()).stdin(unpack.stdout.take().expect("stdout is piped"));
        let taken = tar.status()?.success();
        // This closes our end of the pipe, so that dpkg-deb does not wait for a tar that has ended.
        drop(tar);
        Ok(unpack.wait()?.success() && taken)
    }

    /// Downloads `package`, unless the same version has been downloaded before. A kernel and its modules are extracted
    /// from the same package, one after the other.
    pub fn download(&self, package: &str) -> Result<PathBuf> {
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
        download.run().with_context(|| format!("{} does not offer {package}", self.name()))?;
        let archive = fs::read_dir(dir.path())?.flatten().map(|entry| entry.path());
        let archive = archive.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb"));
        let archive = archive.with_context(|| format!("apt downloaded nothing for {package}"))?;
        fs::rename(&archive, &kept).with_context(|| format!("cannot write {}", kept.display()))?;
        Ok(kept)
    }
}

/// The file in a suite's folder that tells apt where the suite is.
const LIST: &str = "sources.list";

/// The folder in which apt works for a suite that is not the machine's own.
fn home(suite: &str) -> PathBuf {
    paths::packages().join("suites").join(suite)
}

/// The line of a sources.list for `suite`.
fn source(mirror: &str, suite: &str) -> String {
    let signed = if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
    format!("deb {signed}{mirror} {suite} main\n")
}

/// The Debian mirror that this machine's apt uses.
fn debian_mirror() -> Result<String> {
    let shell = Shell::new()?;
    let (format, filters) = ("$(RELEASE) $(REPO_URI)", ["Created-By: Packages", "Origin: Debian"]);
    let lines = cmd!(shell, "apt-get indextargets --format {format} {filters...}").quiet().read()?;
    // The suite itself has the shortest name. Its updates have longer ones, and may be on another mirror.
    let lines = lines.lines().filter_map(|line| line.split_once(' '));
    let (_, mirror) = lines.min_by_key(|(suite, _)| suite.len()).context("apt knows no Debian here")?;
    Ok(mirror.to_owned())
}

/// Returns what `apt-cache show` has printed if it describes a package. For a package that it knows only from the
/// dependencies of others, it succeeds and prints nothing; on Ubuntu this is so for Debian's kernels.
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
    fn a_package_that_is_only_a_dependency_is_not_offered() {
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
