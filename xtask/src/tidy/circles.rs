//! No circle among the files of a crate: files that use each other, directly or over others, can only be understood
//! together. [`super::modules`] says what counts as a use.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::modules::Graph;

/// A circle of files in order. Each has the line that uses the next, and the last one uses the first.
type Circle = Vec<(String, usize)>;

/// Returns the folder of the file's crate and the path of the file in the crate's `src` folder. Returns `None` if the
/// file is not one of Rust in such a folder.
pub fn place(file: &str) -> Option<(&str, &str)> {
    let (folder, place) = file.split_once("/src/")?;
    file.ends_with(".rs").then_some((folder, place))
}

/// Checks the uses among the files of one crate. Each finding is a file, a line and a sentence. If several circles
/// share files, only the shortest of them is reported.
pub fn check(graph: &Graph) -> Vec<(String, usize, String)> {
    let mut broken = Vec::new();
    let mut reported = BTreeSet::new();
    for file in graph.keys() {
        if reported.contains(file) {
            continue;
        }
        let together = same_circles(graph, file);
        let shortest = together.iter().filter_map(|file| circle(graph, file)).min_by_key(Vec::len);
        if let Some(circle) = shortest {
            let (first, line) = circle[0].clone();
            broken.push((first, line, sentence(&circle)));
        }
        reported.extend(together);
    }
    broken
}

fn sentence(circle: &Circle) -> String {
    let mut text = "a circle of files: this".to_owned();
    for (index, (_, line)) in circle.iter().enumerate() {
        let (next, _) = &circle[(index + 1) % circle.len()];
        text += &match index {
            0 => format!(" uses {next}"),
            _ => format!(", which uses {next} (line {line})"),
        };
    }
    text + ": move what both need to a file that uses neither"
}

/// Returns the files that use `file` and are used by it, directly or over others.
fn same_circles(graph: &Graph, file: &str) -> BTreeSet<String> {
    let reached = reach(graph, file);
    reached.keys().filter(|other| reach(graph, other).contains_key(file)).cloned().collect()
}

/// Returns the shortest circle through `file`, if there is one.
fn circle(graph: &Graph, file: &str) -> Option<Circle> {
    let reached = reach(graph, file);
    let mut circle = Circle::new();
    let mut next = file;
    loop {
        let user = reached.get(next)?;
        circle.push((user.clone(), graph[user][next]));
        if user == file {
            break;
        }
        next = user;
    }
    circle.reverse();
    Some(circle)
}

/// Returns all files that `file` uses, directly or over others. Each has the file before it on a shortest path.
fn reach(graph: &Graph, file: &str) -> BTreeMap<String, String> {
    let mut reached = BTreeMap::new();
    let mut open = VecDeque::from([file]);
    while let Some(user) = open.pop_front() {
        for next in graph.get(user).into_iter().flat_map(BTreeMap::keys) {
            if !reached.contains_key(next) {
                reached.insert(next.clone(), user.to_owned());
                open.push_back(next);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::super::modules::Crate;
    use super::*;

    fn broken(files: &[(&str, &str)]) -> Vec<(String, usize, String)> {
        let mut all = Crate::default();
        for (place, text) in files {
            all.add(place, place, text);
        }
        check(&all.graph())
    }

    #[test]
    fn a_tree_has_no_circle() {
        let files = [
            ("main.rs", "mod a;\nmod b;\nfn main() { a::f(); b::g() }"),
            ("a.rs", "use crate::b::g;"),
            ("b.rs", "pub fn g() {}"),
        ];
        assert_eq!(broken(&files), []);
    }

    #[test]
    fn two_files_that_use_each_other_are_a_circle() {
        let files =
            [("a.rs", "\nuse crate::b::B;\npub struct A;"), ("b.rs", "use crate::a::A;\npub struct B;")];
        let sentence = "a circle of files: this uses b.rs, which uses a.rs (line 1): \
                        move what both need to a file that uses neither";
        assert_eq!(broken(&files), [("a.rs".into(), 2, sentence.into())]);
    }

    #[test]
    fn a_parent_and_its_child_can_be_a_circle() {
        let files = [
            ("main.rs", "mod a;\ntype Result = ();\nfn main() { a::f() }"),
            ("a.rs", "use crate::Result;\npub fn f() -> Result {}"),
        ];
        assert_eq!(broken(&files).len(), 1);
        let declares = [("main.rs", "mod a;\npub use a::f;\ntype Result = ();"), files[1]];
        assert_eq!(broken(&declares), [], "declarations and re-exports do not count");
    }

    #[test]
    fn a_circle_over_others_is_named_file_by_file() {
        let files = [
            ("a.rs", "use crate::b::B;\npub struct A;"),
            ("b.rs", "use crate::c::C;\npub struct B;"),
            ("c.rs", "\n\nuse crate::a::A;\nuse crate::d::D;\npub struct C;"),
            ("d.rs", "pub struct D;"),
        ];
        let broken = broken(&files);
        assert_eq!(broken.len(), 1);
        assert!(
            broken[0].2.starts_with(
                "a circle of files: this uses b.rs, which uses c.rs (line 1), which uses a.rs (line 3): "
            ),
            "{}",
            broken[0].2
        );
    }

    #[test]
    fn of_several_circles_the_shortest_is_reported() {
        let files = [
            ("a.rs", "use crate::b::B;\npub struct A;"),
            ("b.rs", "use crate::c::C;\npub struct B;"),
            ("c.rs", "use crate::a::A;\nuse crate::b::B;\npub struct C;"),
            ("d.rs", "use crate::e::E;\npub struct D;"),
            ("e.rs", "use crate::d::D;\npub struct E;"),
        ];
        let files: Vec<_> = broken(&files).into_iter().map(|(file, ..)| file).collect();
        assert_eq!(files, ["b.rs", "d.rs"]);
    }

    #[test]
    fn only_source_files_of_crates_are_read() {
        assert_eq!(place("iso/vidarctl/src/main.rs"), Some(("iso/vidarctl", "main.rs")));
        assert_eq!(place("xtask/probe/src/scenarios/mod.rs"), Some(("xtask/probe", "scenarios/mod.rs")));
        for file in ["xtask/probe/src/entry.S", "xtask/probe/build.rs", "hv/tests/run_loop/any.rs"] {
            assert_eq!(place(file), None, "{file}");
        }
    }
}
