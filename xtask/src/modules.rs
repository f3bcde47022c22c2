//! Packs modules of a guest's kernel into archives that can follow an initrd. The modules come from the kernel's
//! package.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, Once};

use anyhow::{Context, Result, bail, ensure};
use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, SectionHeader};
use tempfile::TempDir;

use crate::archive::Archive;
use crate::guests::{self, Freshness};
use crate::manifest::Guest;
use crate::{initramfs, progress};

/// The folder of the modules in the guest.
const FOLDER: &str = "lib/modules";
/// The file beside the modules for a test that has their names. Each name comes after those that it depends on.
const ORDER: &str = "order";
/// The file beside the drivers of the built-in initramfs that has the names of those to load.
const LOAD: &str = "load";

/// The file beside a kernel's modules that lists those that are built into the kernel.
const BUILT_IN: &str = "modules.builtin";

/// The content of an archive: the folders, and the files with their contents.
pub type Content = (Vec<String>, Vec<(String, Vec<u8>)>);

/// Returns the shell command by which the guest inserts the modules of [`archive`] that are not loaded yet.
pub fn insert() -> String {
    format!(
        "for m in $(cat /{FOLDER}/{ORDER}); do grep -q \"^$m \" /proc/modules || insmod /{FOLDER}/$m.ko || break; done"
    )
}

/// Returns an archive for tests, with the modules `wanted` of the kernel of `guest` and all modules that these depend
/// on.
pub fn archive(guest: &Guest, wanted: &[&str]) -> Result<PathBuf> {
    get(guest, &format!("modules-{}", wanted.join("-")), wanted, |package| package.flat(wanted))
}

/// Returns an archive with the drivers of `guest`, which the built-in initramfs loads by `modprobe`. `None` if the
/// guest has no drivers. If they cannot be fetched, a warning says so, and the guest has to do without them.
pub fn drivers(guest: &Guest) -> Option<PathBuf> {
    static WARNED: Once = Once::new();
    let wanted: Vec<_> = guest.drivers.iter().map(String::as_str).collect();
    if wanted.is_empty() {
        return None;
    }
    let archive = get(guest, "drivers", &wanted, |package| package.by_release(&wanted));
    archive
        .inspect_err(|error| {
        WARNED.call_once(|| {
            eprintln!(
                "warning: the built-in initramfs has no drivers for \"{}\": {error:#}: `cargo xtask setup` looks for a newer kernel",
                guest.name
            );
        });
    })
    .ok()
}

/// Returns the package of the guest's kernel and its version, as noted when the kernel was fetched.
fn source(guest: &Guest) -> Result<Option<(String, String)>> {
    let kernel = guests::kernel(guest, Freshness::Any)?;
    let note = kernel.with_file_name("source");
    let Ok(source) = fs::read_to_string(note) else { return Ok(None) };
    Ok(source.trim_end().split_once(' ').map(|(name, version)| (name.to_owned(), version.to_owned())))
}

/// Returns the archive `name` beside the guest's kernel. Unless it exists with the same modules `wanted`, `make`
/// returns its content.
pub fn get(
    guest: &Guest,
    name: &str,
    wanted: &[&str],
    make: impl FnOnce(&Package) -> Result<Content>,
) -> Result<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
    let kernel = guests::kernel(guest, Freshness::Any)?;
    let (package, version) =
        source(guest)?.with_context(|| {
        format!(
            "the kernel of the guest \"{}\" is not from a package, so there are no modules for it: give the guest packages \
             in place of a kernel",
            guest.name
        )
    })?;
    let (archive, note) = (kernel.with_file_name(format!("{name}.cpio.gz")), kernel.with_file_name(name));
    let made_of = format!("{package} {version}\n{}\n", wanted.join(" "));
    if archive.is_file() && fs::read_to_string(&note).is_ok_and(|old| old == made_of) {
        return Ok(archive);
    }
    let (folders, files) = make(&Package::fetch(&guest.archive(), &package, &version)?)?;
    let folders: Vec<_> = folders.iter().map(String::as_str).collect();
    let new = tempfile::NamedTempFile::new_in(kernel.parent().context("the kernel is in no folder")?)?;
    fs::write(&new, initramfs::pack_files(&folders, &files)?)?;
    new.persist(&archive).with_context(|| format!("cannot write {}", archive.display()))?;
    fs::write(note, made_of)?;
    Ok(archive)
}

/// A kernel's package, with its modules unpacked.
pub struct Package {
    name: String,
    /// The kernel's release, as `uname -r` prints it.
    release: String,
    files: BTreeMap<String, PathBuf>,
    /// The names of the modules that are built into the kernel.
    built_in: BTreeSet<String>,
    _dir: TempDir,
}

impl Package {
    /// Fetches the modules of a kernel from its package `name`, or from the package of modules that Ubuntu has beside
    /// it.
    fn fetch(archive: &Archive, name: &str, version: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let unpack = |package: &str| archive.unpack(package, "./*lib/modules/*", dir.path());
        progress::step(&format!("fetching the modules of {name}"), || {
            unpack(&format!("{name}={version}")).or_else(|error| match split_off(name) {
                Some(other) => unpack(&other).with_context(|| format!("{error:#}")),
                None => Err(error),
            })
        })?;
        // /lib is a link to /usr/lib on some systems.
        let homes = ["lib/modules", "usr/lib/modules"].map(|home| dir.path().join(home));
        let home = homes.iter().find(|home| home.is_dir());
        let home = home.and_then(|home| Some(fs::read_dir(home).ok()?.flatten().next()?.path()));
        let home = home.with_context(|| {
            format!("the package {name} has no modules in it: name another package of a kernel")
        })?;
        let release = home.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !home.join(BUILT_IN).exists() {
            // Newer Debians have this list in a package of its own. Without the list, a built-in module is reported as
            // missing.
            let base = format!("linux-base-{release}={version}");
            let _ = archive.unpack(&base, &format!("./*/{BUILT_IN}"), dir.path());
        }
        let built_in = built_in(&fs::read_to_string(home.join(BUILT_IN)).unwrap_or_default());
        let mut files = BTreeMap::new();
        collect(dir.path(), &mut files)?;
        Ok(Self { name: name.to_owned(), release, files, built_in, _dir: dir })
    }

    /// Returns the content of the module `name`.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let file = self.files.get(name).with_context(|| {
            format!(
                "the package {} has no module {name}: name another package, or leave the driver out of the guest",
                self.name
            )
        })?;
        read(file)
    }

    /// Returns the modules `wanted` and all that they depend on, each after its own dependencies, without those that
    /// are built into the kernel.
    fn closure(&self, wanted: &[&str]) -> Result<Vec<String>> {
        let wanted: Vec<_> = wanted.iter().copied().filter(|name| !self.built_in.contains(*name)).collect();
        closure(&wanted, |name| dependencies(&self.read(name)?))
    }

    /// Returns the modules in one folder, with a file that lists them in the order in which they can be inserted.
    fn flat(&self, wanted: &[&str]) -> Result<Content> {
        let order = self.closure(wanted)?;
        let file = |name: &String| Ok((format!("{FOLDER}/{name}.ko"), self.read(name)?));
        let mut files = order.iter().map(file).collect::<Result<Vec<_>>>()?;
        files.push((format!("{FOLDER}/{ORDER}"), lines(&order)));
        Ok((vec!["lib".to_owned(), FOLDER.to_owned()], files))
    }

    /// Returns the modules of `wanted` that the package has, in the folder where `modprobe` looks for them, with the
    /// table of dependencies. The others are built into the kernel, or it does not have them.
    fn by_release(&self, wanted: &[&str]) -> Result<Content> {
        let wanted: Vec<_> = wanted.iter().copied().filter(|name| self.files.contains_key(*name)).collect();
        let home = format!("{FOLDER}/{}", self.release);
        let order = self.closure(&wanted)?;
        let contents = order.iter().map(|name| Ok((name.as_str(), self.read(name)?)));
        let contents = contents.collect::<Result<BTreeMap<_, _>>>()?;
        let mut table = Vec::new();
        for name in &order {
            // The last of these is the module itself. In the table, the module that `modprobe` inserts first has to be
            // the last.
            let mut needs = closure(&[name], |name| dependencies(&contents[name]))?;
            needs.pop();
            let needs: String = needs.iter().rev().map(|need| format!(" {need}.ko")).collect();
            table.push(format!("{name}.ko:{needs}"));
        }
        let mut files: Vec<_> =
            contents.into_iter().map(|(name, content)| (format!("{home}/{name}.ko"), content)).collect();
        files.push((format!("{home}/modules.dep"), lines(&table)));
        files.push((format!("{home}/{LOAD}"), lines(&wanted)));
        Ok((vec!["lib".to_owned(), FOLDER.to_owned(), home], files))
    }
}

fn lines(words: &[impl AsRef<str>]) -> Vec<u8> {
    words.iter().map(|word| format!("{}\n", word.as_ref())).collect::<String>().into_bytes()
}

/// Returns the name of Ubuntu's package with the modules of the kernel in the package `name`.
fn split_off(name: &str) -> Option<String> {
    let release = name.strip_prefix("linux-image-")?;
    Some(format!("linux-modules-{}", release.strip_prefix("unsigned-").unwrap_or(release)))
}

/// Returns the names in the list of modules that are built into a kernel. Each line of the list is a path.
fn built_in(list: &str) -> BTreeSet<String> {
    let name = |line: &str| Some(line.rsplit('/').next()?.strip_suffix(".ko")?.replace('-', "_"));
    list.lines().filter_map(name).collect()
}

/// All modules below `folder`, by name.
fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if entry.file_type()?.is_dir() {
            collect(&path, files)?;
        } else if let Some((name, _)) = name.split_once(".ko") {
            // A file's name may have dashes where the module's name has underscores.
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// Reads the module in a file, which may be compressed.
fn read(file: &Path) -> Result<Vec<u8>> {
    let tool = match file.extension().and_then(|end| end.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(file).with_context(|| format!("cannot read {}", file.display())),
    };
    let output = Command::new(tool).args(["-d", "-c"]).arg(file).stdin(Stdio::null()).output();
    let output = output.with_context(|| {
        format!("cannot start {tool}, which unpacks the kernel's modules: install it by your package manager")
    })?;
    ensure!(
        output.status.success(),
        "{tool} cannot unpack {}: the kernel's package is damaged, so fetch it again",
        file.display()
    );
    Ok(output.stdout)
}

/// Returns the names after `depends=` in the module's information.
fn dependencies(module: &[u8]) -> Result<Vec<String>> {
    let header = FileHeader64::<Endianness>::parse(module)
        .context("a module of the kernel is not an ELF file: its package is damaged, so fetch it again")?;
    let endian = header.endian()?;
    let sections = header.sections(endian, module)?;
    let (_, section) = sections.section_by_name(endian, b".modinfo").context(
        "a module of the kernel has no section .modinfo: its package is damaged, so fetch it again",
    )?;
    let words = section.data(endian, module)?.split(|byte| *byte == 0);
    let depends = words.filter_map(|word| str::from_utf8(word).ok()?.strip_prefix("depends=")).next();
    Ok(depends
        .unwrap_or("")
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect())
}

/// Returns the modules `wanted` and all that they depend on, each after its own dependencies.
fn closure(wanted: &[&str], depends: impl Fn(&str) -> Result<Vec<String>>) -> Result<Vec<String>> {
    fn visit(
        name: &str,
        depends: &impl Fn(&str) -> Result<Vec<String>>,
        path: &mut Vec<String>,
        order: &mut Vec<String>,
    ) -> Result<()> {
        if order.iter().any(|other| other == name) {
            return Ok(());
        }
        if path.iter().any(|other| other == name) {
            bail!("the kernel's module {name} depends on itself: its package is damaged, so fetch it again");
        }
        path.push(name.to_owned());
        for other in depends(name)? {
            visit(&other, depends, path, order)?;
        }
        path.pop();
        order.push(name.to_owned());
        Ok(())
    }
    let mut order = Vec::new();
    for name in wanted {
        visit(name, &depends, &mut Vec::new(), &mut order)?;
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_first_and_once() {
        let depends = |name: &str| -> Result<Vec<String>> {
            let names: &[&str] = match name {
                "ext4" => &["jbd2", "mbcache"],
                "jbd2" | "sd_mod" => &["crc"],
                "mbcache" | "crc" => &[],
                "knot" => &["loop"],
                "loop" => &["knot"],
                other => bail!("no {other}"),
            };
            Ok(names.iter().map(|name| (*name).to_owned()).collect())
        };
        assert_eq!(
            closure(&["ext4", "sd_mod"], depends).unwrap(),
            ["crc", "jbd2", "mbcache", "ext4", "sd_mod"]
        );
        assert!(closure(&["none"], depends).is_err());
        assert!(closure(&["knot"], depends).is_err());
    }

    #[test]
    fn ubuntu_has_modules_in_a_package_of_their_own() {
        for name in ["linux-image-6.8.0-31-generic", "linux-image-unsigned-6.8.0-31-generic"] {
            assert_eq!(split_off(name).as_deref(), Some("linux-modules-6.8.0-31-generic"));
        }
        assert_eq!(split_off("busybox-static"), None);
    }

    #[test]
    fn drivers_come_with_a_table_that_modprobe_reads() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = BTreeMap::new();
        for (name, needs) in
            [("usbhid", "usbcore,hid"), ("usbcore", "usb_common"), ("hid", ""), ("usb_common", "")]
        {
            let path = dir.path().join(name);
            fs::write(&path, module(&format!("license=GPL\0depends={needs}\0"))).unwrap();
            files.insert(name.to_owned(), path);
        }
        let built_in = built_in("kernel/drivers/virtio/virtio-pci.ko\n");
        let package = Package { name: "linux".into(), release: "6.1".into(), files, built_in, _dir: dir };
        let (folders, files) = package.by_release(&["usbhid", "not_in_this_kernel"]).unwrap();
        assert_eq!(folders, ["lib", "lib/modules", "lib/modules/6.1"]);
        let content = |end: &str| {
            let (_, content) =
                files.iter().find(|(name, _)| name == &format!("lib/modules/6.1/{end}")).unwrap();
            String::from_utf8_lossy(content).into_owned()
        };
        assert_eq!(content("load"), "usbhid\n");
        assert_eq!(
            content("modules.dep"),
            "usb_common.ko:\nusbcore.ko: usb_common.ko\nhid.ko:\nusbhid.ko: hid.ko usbcore.ko usb_common.ko\n"
        );
        assert_eq!(files.len(), 6);
        assert!(package.flat(&["not_in_this_kernel"]).is_err());
        let (_, files) = package.flat(&["virtio_pci", "hid"]).unwrap();
        let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["lib/modules/hid.ko", "lib/modules/order"], "built-in modules are left out");
    }

    /// Returns an ELF file that has only this `.modinfo`.
    fn module(modinfo: &str) -> Vec<u8> {
        /// The names of the sections.
        const NAMES: &[u8] = b"\0.modinfo\0.shstrtab\0";
        let (info, names) = (64, 64 + modinfo.len());
        let mut elf = vec![0; names];
        elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        elf[16..21].copy_from_slice(&[1, 0, 62, 0, 1]);
        elf[40..48].copy_from_slice(&(names + NAMES.len()).to_le_bytes());
        elf[52..64].copy_from_slice(&[64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
        elf[info..].copy_from_slice(modinfo.as_bytes());
        elf.extend_from_slice(NAMES);
        // The first section header is unused. Each of the others has a name, a type, flags, an address, an offset, a
        // size, and three more fields.
        let sections = [[0; 4], [1, 1, info, modinfo.len()], [10, 3, names, NAMES.len()]];
        for [name, kind, offset, size] in sections {
            elf.extend([name as u32, kind as u32].map(u32::to_le_bytes).concat());
            elf.extend([0, 0, offset as u64, size as u64, 0, 1, 0].map(u64::to_le_bytes).concat());
        }
        elf
    }

    #[test]
    fn modules_are_found_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("kernel")).unwrap();
        for name in ["kernel/crc32c-generic.ko", "kernel/ext4.ko.xz", "modules.order"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let mut files = BTreeMap::new();
        collect(dir.path(), &mut files).unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["crc32c_generic", "ext4"]);
    }
}
