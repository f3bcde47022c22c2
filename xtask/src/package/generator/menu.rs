//! A naive reader of GRUB's menus: the entries, and the words of their commands.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

/// GRUB's variables.
pub type Variables = BTreeMap<String, String>;

/// An entry of a menu.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The titles of the submenus that the entry is in.
    pub submenus: Vec<String>,
    pub title: String,
    pub id: String,
    /// What else is between the title and the brace.
    pub attributes: Vec<String>,
    /// The commands, which are not taken apart yet.
    pub commands: Vec<String>,
}

/// Returns the entries of a menu that GRUB shows if its variables are these.
pub fn entries(text: &str, variables: &Variables) -> Vec<Entry> {
    let mut variables = variables.clone();
    variables.insert("menuentry_id_option".into(), "--id".into());
    let (mut entries, mut submenus) = (Vec::new(), Vec::new());
    let mut commands = taken(&commands(text), &variables).into_iter();
    while let Some(command) = commands.next() {
        let words = words(&command, &variables);
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["menuentry", title, ref rest @ .., "{"] => {
                let (id, attributes) = id(rest);
                // A condition inside of the entry is evaluated when the entry is run, so it is still there.
                let commands = commands.by_ref().take_while(|command| command != "}").collect();
                entries.push(Entry {
                    submenus: submenus.clone(),
                    title: title.into(),
                    id,
                    attributes,
                    commands,
                });
            }
            ["function", ..] => commands.by_ref().take_while(|command| command != "}").for_each(drop),
            ["submenu", title, .., "{"] => submenus.push(title.to_owned()),
            ["}"] => assert!(submenus.pop().is_some(), "a brace is too many"),
            _ => {}
        }
    }
    assert!(submenus.is_empty(), "a brace is missing");
    entries
}

/// Takes the id out of the attributes of an entry.
fn id(attributes: &[&str]) -> (String, Vec<String>) {
    let mut attributes: Vec<_> = attributes.iter().map(|word| (*word).to_owned()).collect();
    let at = attributes.iter().position(|word| word == "--id").expect("each entry has an id");
    let id = attributes.drain(at..at + 2).next_back().unwrap_or_default();
    (id, attributes)
}

/// Splits a script into its commands: lines, and what semicolons separate on them. The words `then` and `else` are
/// commands of their own.
fn commands(text: &str) -> Vec<String> {
    let mut commands = vec![String::new()];
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let command = commands.last_mut().expect("there is one from the start");
        match (quote, c) {
            (None, ';' | '\n') => commands.push(String::new()),
            (None | Some('"'), '\\') => command.extend([c].into_iter().chain(chars.next())),
            (None, '\'' | '"') => {
                quote = Some(c);
                command.push(c);
            }
            (open, _) => {
                quote = open.filter(|open| *open != c);
                command.push(c);
            }
        }
    }
    assert_eq!(quote, None, "a quote is open at the end");
    let commands = commands.iter().map(|command| command.trim());
    let split = commands.flat_map(|command| match command.split_once(' ') {
        Some((word @ ("then" | "else"), rest)) => vec![word, rest],
        _ => vec![command],
    });
    split.filter(|command| !command.is_empty()).map(str::to_owned).collect()
}

/// Returns the commands that are run when the conditions outside of entries are evaluated with these variables.
fn taken(commands: &[String], variables: &Variables) -> Vec<String> {
    let mut taken = Vec::new();
    let mut in_entry = false;
    let mut conditions = Conditions::default();
    for command in commands {
        let first = command.split_whitespace().next().unwrap_or_default();
        if !in_entry && conditions.step(command, variables) {
            continue;
        }
        in_entry = (in_entry || first == "menuentry" || first == "function") && command != "}";
        if conditions.hold() {
            taken.push(command.clone());
        }
    }
    taken
}

/// The conditions that a command is subject to, from the outermost to the innermost one.
#[derive(Default)]
pub struct Conditions(Vec<Branch>);

#[derive(Clone, Copy, PartialEq)]
enum Branch {
    /// No branch has been taken so far.
    Not,
    Taken,
    /// Another branch has been taken.
    Past,
}

impl Conditions {
    /// Returns true if all conditions hold here.
    pub fn hold(&self) -> bool {
        self.0.iter().all(|branch| *branch == Branch::Taken)
    }

    /// Returns true if the command is a part of a condition, after it has been evaluated.
    pub fn step(&mut self, command: &str, variables: &Variables) -> bool {
        let words = words(command, variables);
        let mut words = words.iter().map(String::as_str);
        match words.next() {
            Some("if") => self.0.push(branch(words.collect())),
            Some("elif") => {
                let old = self.0.pop().expect("`elif` follows `if`");
                self.0.push(if old == Branch::Not { branch(words.collect()) } else { Branch::Past });
            }
            Some("else") => {
                let old = self.0.pop().expect("`else` follows `if`");
                self.0.push(if old == Branch::Not { Branch::Taken } else { Branch::Past });
            }
            Some("then") => {}
            Some("fi") => assert!(self.0.pop().is_some(), "`fi` follows `if`"),
            _ => return false,
        }
        true
    }
}

/// Evaluates `[ A = B ]`, with several of these separated by `-o`.
fn branch(condition: Vec<&str>) -> Branch {
    let ["[", tests @ .., "]"] = &condition[..] else { panic!("{condition:?} is no test") };
    let holds = tests.split(|word| *word == "-o").any(|test| match test {
        [left, "=", right] => left == right,
        [left, "!=", right] => left != right,
        _ => panic!("{test:?} is no comparison"),
    });
    if holds { Branch::Taken } else { Branch::Not }
}

/// Returns the words of a command, as GRUB gives them to it.
pub fn words(command: &str, variables: &Variables) -> Vec<String> {
    let mut words: Vec<Option<String>> = vec![None];
    let mut quote = None;
    let mut chars = command.chars().peekable();
    while let Some(c) = chars.next() {
        let word = words.last_mut().expect("there is one from the start");
        match (quote, c) {
            (None, ' ' | '\t') => words.push(None),
            (None, '#') if word.is_none() => break,
            (None, '\\') => word.get_or_insert_default().extend(chars.next()),
            (Some('"'), '\\') => {
                let special = chars.next_if(|next| matches!(next, '$' | '"' | '\\'));
                word.get_or_insert_default().push(special.unwrap_or('\\'));
            }
            (None, '\'' | '"') => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (Some(open), _) if open == c => quote = None,
            (None | Some('"'), '$') => match (value(&mut chars, variables), quote) {
                (value, Some(_)) => word.get_or_insert_default().push_str(&value),
                // The value is several words if it has blanks, and none if it is empty.
                (value, None) => {
                    for (at, part) in value.split(' ').enumerate() {
                        if at > 0 {
                            words.push(None);
                        }
                        if !part.is_empty() {
                            words.last_mut().expect("there is one").get_or_insert_default().push_str(part);
                        }
                    }
                }
            },
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.into_iter().flatten().collect()
}

/// Takes the name of a variable from the text and returns its value.
fn value(chars: &mut Peekable<Chars<'_>>, variables: &Variables) -> String {
    let brace = chars.next_if_eq(&'{').is_some();
    let mut name = String::new();
    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(c);
    }
    assert!(!brace || chars.next() == Some('}'), "the name of a variable does not end");
    variables.get(&name).cloned().unwrap_or_default()
}
