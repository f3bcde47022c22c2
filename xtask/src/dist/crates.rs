//! The crates that a program is made of: a list for people and tools in the format CycloneDX, by cargo-cyclonedx.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::programs::Program;
use crate::{cargo_tools, linked_crates, paths, source};

/// The version that is built where there is no cargo-cyclonedx.
const VERSION: &str = "0.5.9";

/// The beginning of a reference to a package in a folder.
const FOLDER: &str = "path+file://";

/// A crate's name and version.
type Crate = (String, String);

/// Writes the list of the crates of `program` to the file `to`, and checks it.
pub fn list(program: &Program, to: &Path) -> Result<()> {
    let file = format!("{}.cdx", program.package);
    // For each package of the workspace, cargo-cyclonedx writes a file into the folder of that package.
    let made: Vec<_> =
        manifests()?.iter().map(|manifest| manifest.with_file_name(format!("{file}.json"))).collect();
    let listed = generate(program, &file).and_then(|()| {
        let wanted = paths::root().join(program.folder).join(format!("{file}.json"));
        fs::read_to_string(&wanted)
            .with_context(|| format!("cargo-cyclonedx has not written {}", wanted.display()))
    });
    for file in made {
        if file.exists() {
            fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
    }
    let (linked, used) = (crates(program, LINKED)?, crates(program, USED)?);
    let list = without_others(&without_folder(&listed?, program.folder)?, &used)?;
    check(&list, &linked, &used, &paths::root())
        .with_context(|| format!("in the list of the crates of {}", program.package))?;
    fs::write(to, list).with_context(|| format!("cannot write {}", to.display()))
}

/// Returns cargo-cyclonedx, which is built if it is missing.
pub fn tool() -> Result<PathBuf> {
    cargo_tools::get("cargo-cyclonedx", VERSION)
}

fn generate(program: &Program, file: &str) -> Result<()> {
    let mut tool = Command::new(tool()?);
    tool.args(["cyclonedx", "--quiet", "--format", "json", "--spec-version", "1.5", "--no-build-deps"]);
    tool.args(["--target", program.target, "--override-filename", file]);
    tool.arg("--manifest-path").arg(paths::root().join(program.folder).join("Cargo.toml"));
    // With a date the list has no random number either.
    tool.env(source::DATE_VARIABLE, source::date()?.to_string()).current_dir(paths::root());
    let output = tool.output().context("cannot run cargo-cyclonedx")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo-cyclonedx failed: {}", said.trim());
    Ok(())
}

/// Returns the list without the folder of the checkout, by which cargo tells the project's own packages from others.
/// The folder is a part of a URL there, which encodes some characters, so it is taken from the reference to the program
/// itself.
fn without_folder(list: &str, folder: &str) -> Result<String> {
    let value: Value = serde_json::from_str(list)?;
    let own = value["metadata"]["component"]["bom-ref"].as_str().unwrap_or_default();
    let root = own.split_once(&format!("/{folder}#")).filter(|(root, _)| root.starts_with(FOLDER));
    let (root, _) = root.with_context(|| format!("cargo-cyclonedx calls the program {own:?}"))?;
    Ok(list.replace(&format!("{root}/"), &format!("{FOLDER}/")))
}

/// Returns the list without crates that are not `used`. cargo-cyclonedx asks cargo for the crates with the features
/// that any package of the workspace enables, so the list of one program has crates that only another program is made
/// of.
fn without_others(list: &str, used: &BTreeSet<Crate>) -> Result<String> {
    let mut list: Value = serde_json::from_str(list)?;
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let mut others = BTreeSet::new();
    array(&mut list["components"]).retain(|part| {
        let keep = used.contains(&(text(part, "name"), text(part, "version")));
        if !keep {
            others.insert(text(part, "bom-ref"));
        }
        keep
    });
    array(&mut list["dependencies"]).retain(|edges| !others.contains(&text(edges, "ref")));
    for edges in array(&mut list["dependencies"]) {
        array(&mut edges["dependsOn"]).retain(|to| !others.contains(to.as_str().unwrap_or_default()));
    }
    Ok(serde_json::to_string_pretty(&list)? + "\n")
}

/// Returns the array that `value` is, which may be left out where it is empty.
fn array(value: &mut Value) -> &mut Vec<Value> {
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut().expect("it is an array")
}

/// Returns the manifests of the workspace's packages.
fn manifests() -> Result<Vec<PathBuf>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        manifest_path: PathBuf,
    }
    let text = linked_crates::cargo(&["metadata", "--format-version", "1", "--no-deps", "--locked"])?;
    let metadata: Metadata = serde_json::from_str(&text)?;
    Ok(metadata.packages.into_iter().map(|package| package.manifest_path).collect())
}

/// The dependencies that are linked into a program. Macros only run while it is built.
const LINKED: &str = "normal,no-proc-macro";
/// The dependencies that are linked into a program, and the macros that it is built with.
const USED: &str = "normal";

/// Returns the dependencies of `program` that cargo calls `edges`.
fn crates(program: &Program, edges: &str) -> Result<BTreeSet<Crate>> {
    let tree = linked_crates::tree(program.package, program.target, edges)?;
    Ok(tree.into_iter().filter(|(name, _)| name != program.package).collect())
}

/// A list of CycloneDX, as far as it is checked.
#[derive(Deserialize)]
struct List {
    #[serde(rename = "serialNumber")]
    serial_number: Option<String>,
    components: Vec<Component>,
}

/// A crate in the list.
#[derive(Deserialize)]
struct Component {
    name: String,
    version: String,
    #[serde(default)]
    licenses: Vec<Value>,
}

/// Checks that the list has each crate that is `linked`, and beside these only some that are `used` to build, each with
/// a licence. Neither a random number nor a folder outside of the checkout `root` may be in it.
fn check(list: &str, linked: &BTreeSet<Crate>, used: &BTreeSet<Crate>, root: &Path) -> Result<()> {
    let List { serial_number, components } = serde_json::from_str(list)?;
    ensure!(serial_number.is_none(), "there is a random number");
    for reference in list.split(FOLDER).skip(1) {
        let folder = reference.split(['#', '"']).next().unwrap_or_default().trim_start_matches('/');
        ensure!(root.join(folder).is_dir(), "the folder {folder} is not one of the checkout");
    }
    let mut listed = BTreeSet::new();
    for Component { name, version, licenses } in components {
        ensure!(!licenses.is_empty(), "{name} {version} has no licence");
        listed.insert((name, version));
    }
    if let Some((name, version)) = linked.difference(&listed).next() {
        bail!("{name} {version} is missing");
    }
    if let Some((name, version)) = listed.difference(used).next() {
        bail!("{name} {version} is not a part of the program");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::programs::PROGRAMS;

    fn names(crates: &BTreeSet<Crate>) -> BTreeSet<&str> {
        crates.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn a_program_is_made_of_the_crates_that_are_linked_and_of_those_that_build_it() {
        for (program, has, builds) in [
            (&PROGRAMS[0], ["x86_64", "vidar-core"], "thiserror-impl"),
            (&PROGRAMS[1], ["libc", "vidar-abi"], "clap_derive"),
        ] {
            let (linked, used) = (crates(program, LINKED).unwrap(), crates(program, USED).unwrap());
            assert!(has.iter().all(|name| names(&linked).contains(name)), "{linked:?}");
            assert!(!names(&linked).contains(builds) && names(&used).contains(builds), "{used:?}");
            assert!(linked.is_subset(&used));
            for other in ["xtask", "plotters", "proptest", program.package] {
                assert!(!names(&used).contains(other), "{used:?}");
            }
        }
    }

    const LIST: &str = r#"{"components": [
        {"name": "a", "version": "1.0.0", "licenses": [{"expression": "MIT"}], "bom-ref": "path+file:///hv#1.0.0"},
        {"name": "b", "version": "2.0.0", "licenses": [{"expression": "MIT"}]}
    ]}"#;

    fn set(crates: &[(&str, &str)]) -> BTreeSet<Crate> {
        crates.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect()
    }

    #[test]
    fn a_list_that_is_not_right_is_refused() {
        let (linked, used, root) =
            (set(&[("a", "1.0.0")]), set(&[("a", "1.0.0"), ("b", "2.0.0")]), paths::root());
        let check_one = |list: &str| check(list, &linked, &used, &root).map_err(|error| error.to_string());
        check_one(LIST).unwrap();
        for (from, to, sentence) in [
            (
                r#"{"components""#,
                r#"{"serialNumber": "urn:uuid:1", "components""#,
                "there is a random number",
            ),
            ("///hv#", "///x/vidar/hv#", "the folder x/vidar/hv is not one of the checkout"),
            (r#""1.0.0""#, r#""1.0.1""#, "a 1.0.0 is missing"),
            (r#""b""#, r#""c""#, "c 2.0.0 is not a part of the program"),
            (r#""licenses": [{"expression": "MIT"}]}"#, r#""licenses": []}"#, "b 2.0.0 has no licence"),
        ] {
            assert!(LIST.contains(from), "{from}");
            assert_eq!(check_one(&LIST.replace(from, to)), Err(sentence.to_owned()));
        }
    }

    #[test]
    fn crates_of_other_programs_are_left_out() {
        let list = r#"{
            "components": [
                {"name": "a", "version": "1.0.0", "bom-ref": "r#a"},
                {"name": "a", "version": "0.9.0", "bom-ref": "r#old"},
                {"name": "b", "version": "2.0.0", "bom-ref": "r#b"}
            ],
            "dependencies": [{"ref": "r#a", "dependsOn": ["r#b", "r#old"]}, {"ref": "r#old", "dependsOn": ["r#b"]}, {"ref": "r#b"}]
        }"#;
        let list = without_others(list, &set(&[("a", "1.0.0"), ("b", "2.0.0")])).unwrap();
        let list: Value = serde_json::from_str(&list).unwrap();
        let names: Vec<_> =
            list["components"].as_array().unwrap().iter().map(|part| part["bom-ref"].clone()).collect();
        assert_eq!(names, ["r#a", "r#b"]);
        let edges = serde_json::json!([
            {"ref": "r#a", "dependsOn": ["r#b"]},
            {"ref": "r#b", "dependsOn": []}
        ]);
        assert_eq!(list["dependencies"], edges);
    }

    #[test]
    fn the_folder_of_the_checkout_is_left_out() {
        let list = r#"{"metadata": {"component": {"bom-ref": "path+file:///a%20b/iso/vidarctl#0.1.0"}}, "components": [
            {"bom-ref": "path+file:///a%20b/hv/abi#0.1.0"}, {"bom-ref": "registry+https://a%20b/hv#0.1.0"}
        ]}"#;
        let without = without_folder(list, "iso/vidarctl").unwrap();
        assert!(without.contains(r#""path+file:///iso/vidarctl#0.1.0""#), "{without}");
        assert!(without.contains(r#""path+file:///hv/abi#0.1.0""#), "{without}");
        assert!(without.contains(r#""registry+https://a%20b/hv#0.1.0""#), "{without}");
        assert!(without_folder(list, "hv").is_err());
    }
}
