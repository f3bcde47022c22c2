//! Modules of a guest's kernel, out of the package that the kernel came in, as an archive to put behind an initrd.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, SectionHeader};

use crate::guests::{self, Freshness};
use crate::manifest::Guest;
use crate::{initramfs, packages, progress};

/// Where the modules are in the guest.
pub const FOLDER: &str = "lib/modules";
/// Beside them, a file with their names, each after those that it depends on.
pub const ORDER: &str = "order";

/// An archive with the modules `wanted` of the kernel of `guest` and all that they depend on.
pub fn archive(guest: &Guest, wanted: &[&str]) -> Result<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
    let kernel = guests::kernel(guest, Freshness::Any)?;
    let home = kernel.parent().context("the kernel is in no folder")?;
    let source = fs::read_to_string(home.join("source"));
    let source = source.context("the kernel came in no package, so there are no modules to it")?;
    let name = format!("modules-{}", wanted.join("-"));
    let (archive, note) = (home.join(format!("{name}.cpio.gz")), home.join(name));
    let made_of = format!("{source}{}\n", wanted.join(" "));
    if archive.is_file() && fs::read_to_string(&note).is_ok_and(|old| old == made_of) {
        return Ok(archive);
    }
    let (package, version) =
        source.trim_end().split_once(' ').context("the kernel's package is not known")?;
    let dir = tempfile::tempdir()?;
    progress::step(&format!("fetching the modules of {package}"), || {
        packages::unpack(&format!("{package}={version}"), "./*lib/modules/*", dir.path())
    })?;
    let mut files = BTreeMap::new();
    collect(dir.path(), &mut files)?;
    let order = closure(wanted, |name| {
        let file = files.get(name).with_context(|| format!("{package} has no module {name}"))?;
        dependencies(&read(file)?)
    })?;
    let mut content = Vec::new();
    for name in &order {
        content.push((format!("{FOLDER}/{name}.ko"), read(&files[name])?));
    }
    content.push((format!("{FOLDER}/{ORDER}"), (order.join("\n") + "\n").into_bytes()));
    let new = tempfile::NamedTempFile::new_in(home)?;
    fs::write(&new, initramfs::pack_files(&["lib", FOLDER], &content)?)?;
    new.persist(&archive).with_context(|| format!("cannot write {}", archive.display()))?;
    fs::write(note, made_of)?;
    Ok(archive)
}

/// All modules below `folder`, by name.
fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if entry.file_type()?.is_dir() {
            collect(&path, files)?;
        } else if let Some((name, _)) = name.split_once(".ko") {
            // Names of modules and of their files differ in this.
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// The module in the file, which may be compressed.
fn read(file: &Path) -> Result<Vec<u8>> {
    let tool = match file.extension().and_then(|end| end.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(file).with_context(|| format!("cannot read {}", file.display())),
    };
    let output = Command::new(tool).args(["-d", "-c"]).arg(file).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot start {tool}, which the kernel's modules need"))?;
    ensure!(output.status.success(), "{tool} cannot read {}", file.display());
    Ok(output.stdout)
}

/// The names behind `depends=` in the module's information.
fn dependencies(module: &[u8]) -> Result<Vec<String>> {
    let header = FileHeader64::<Endianness>::parse(module).context("a module is no ELF file")?;
    let endian = header.endian()?;
    let sections = header.sections(endian, module)?;
    let (_, section) = sections.section_by_name(endian, b".modinfo").context("a module says nothing")?;
    let words = section.data(endian, module)?.split(|byte| *byte == 0);
    let depends = words.filter_map(|word| str::from_utf8(word).ok()?.strip_prefix("depends=")).next();
    Ok(depends
        .unwrap_or("")
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect())
}

/// `wanted` and all that they depend on, each after its own dependencies.
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
            bail!("the module {name} depends on itself");
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
