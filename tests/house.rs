//! The shape of the code: each room of `src/` and `core/src/` uses others in one direction, so that
//! nobody has to understand all of a folder in order to change one file of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Modules by their paths, `store::direct::table` say, with their texts.
type Modules = BTreeMap<String, String>;
/// Who uses whom.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// What a folder of `src/` may not use.
const FORBIDDEN: [(&str, &[&str]); 4] = [
    ("store", &["api", "worker", "feed"]),
    ("feed", &["api", "worker"]),
    ("worker", &["api"]),
    ("api", &["worker"]),
];

fn modules(folder: &Path) -> Modules {
    let mut found = Modules::new();
    collect(folder, "", &mut found);
    found
}

fn collect(folder: &Path, name: &str, found: &mut Modules) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let file = entry.file_name().into_string().unwrap();
        let inside =
            |part: &str| if name.is_empty() { part.to_owned() } else { format!("{name}::{part}") };
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &inside(&file), found);
        } else if let Some(part) = file.strip_suffix(".rs") {
            let path = if matches!(part, "mod" | "lib") { name.to_owned() } else { inside(part) };
            found.insert(path, code(&fs::read_to_string(entry.path()).unwrap()));
        }
    }
}

/// The text without comments, which may speak of anything.
fn code(text: &str) -> String {
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The paths that a text names from `crate` or `super` on, with braces taken apart.
fn paths(text: &str) -> Vec<String> {
    let begins = ["crate::", "super::", "self::"].iter().flat_map(|root| text.match_indices(root));
    let is_begin = |at: usize| {
        !text[..at]
            .ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':')
    };
    let mut found = Vec::new();
    for (at, _) in begins.filter(|(at, _)| is_begin(*at)) {
        expand(&text[at..], "", &mut found);
    }
    found
}

/// Takes `a::{b, c::d}` apart into `a::b` and `a::c::d`; says how much of the text it was.
fn expand(text: &str, before: &str, found: &mut Vec<String>) -> usize {
    let plain = text
        .find(|letter: char| !(letter.is_alphanumeric() || "_:".contains(letter)))
        .unwrap_or(text.len());
    let path = format!("{before}{}", &text[..plain]);
    if !(path.ends_with("::") && text[plain..].starts_with('{')) {
        found.push(path);
        return plain;
    }
    let mut at = plain + 1;
    while let Some(letter) = text[at..].chars().next() {
        at += match letter {
            '}' => return at + 1,
            letter if letter.is_alphanumeric() || letter == '_' => {
                expand(&text[at..], &path, found)
            }
            letter => letter.len_utf8(),
        };
    }
    at
}

/// The module that a path leads to, seen from another one.
fn resolve(from: &str, path: &str, modules: &Modules) -> String {
    let mut parts = path.split("::").peekable();
    let mut place: Vec<&str> = from.split("::").filter(|part| !part.is_empty()).collect();
    match parts.next() {
        Some("crate") => place.clear(),
        Some("super") => drop(place.pop()),
        _ => {}
    }
    while parts.next_if_eq(&"super").is_some() {
        place.pop();
    }
    place.extend(parts.filter(|part| !part.is_empty()));
    while !place.is_empty() && !modules.contains_key(&place.join("::")) {
        place.pop();
    }
    place.join("::")
}

fn uses(modules: &Modules) -> Uses {
    let of = |(name, text): (&String, &String)| {
        let found = paths(text)
            .iter()
            .map(|path| resolve(name, path, modules))
            .filter(|used| used != name)
            .collect();
        (name.clone(), found)
    };
    modules.iter().map(of).collect()
}

/// The part of a folder that a module lies in.
fn part_of<'m>(folder: &str, module: &'m str) -> Option<&'m str> {
    let inside =
        if folder.is_empty() { module } else { module.strip_prefix(folder)?.strip_prefix("::")? };
    Some(inside.split("::").next().unwrap_or(inside)).filter(|part| !part.is_empty())
}

/// Who uses whom among the parts of a folder.
fn among(folder: &str, uses: &Uses) -> Uses {
    let mut found = Uses::new();
    for (module, used) in uses {
        let Some(part) = part_of(folder, module) else { continue };
        let others =
            used.iter().filter_map(|used| part_of(folder, used)).filter(|other| *other != part);
        found.entry(part.to_owned()).or_default().extend(others.map(str::to_owned));
    }
    found
}

/// A way from a part back to itself.
fn circle(from: &str, uses: &Uses) -> Option<Vec<String>> {
    let mut ways = vec![vec![from.to_owned()]];
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop() {
        for next in uses.get(way.last()?).into_iter().flatten() {
            if next == from {
                return Some(way);
            }
            if seen.insert(next.clone()) {
                ways.push([way.as_slice(), std::slice::from_ref(next)].concat());
            }
        }
    }
    None
}

#[test]
fn no_folder_has_a_circle() {
    for root in ["../src", "../core/src", "../cache-worker/src"] {
        let modules = modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join(root));
        let uses = uses(&modules);
        let folders: BTreeSet<&str> = modules
            .keys()
            .map(|name| name.rsplit_once("::").map_or("", |(folder, _)| folder))
            .collect();
        for folder in folders {
            let parts = among(folder, &uses);
            let circles: Vec<_> = parts.keys().filter_map(|part| circle(part, &parts)).collect();
            assert_eq!(circles, Vec::<Vec<String>>::new(), "{root}/{folder}");
        }
    }
}

#[test]
fn rooms_use_each_other_in_one_direction() {
    let modules = modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../src"));
    let parts = among("", &uses(&modules));
    for (room, forbidden) in FORBIDDEN {
        let wrong: Vec<_> =
            forbidden.iter().filter(|other| parts[room].contains(**other)).collect();
        assert_eq!(wrong, Vec::<&&str>::new(), "what {room} uses");
    }
}

#[test]
fn the_core_knows_no_postgresql() {
    for (name, text) in modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/src")) {
        assert!(!text.contains("pgrx") && !text.contains("pg_sys"), "{name}");
    }
}

/// A screen has some seventy lines.
#[test]
fn functions_fit_on_a_screen() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in ["src", "core", "tests", "pgrx-tests", "cache-worker", "bench"] {
        files_in(&root.join(folder), "rs", &mut files);
    }
    let mut long = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| is_function(line)) {
            let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            let length = lines[at..].iter().position(|line| *line == end).unwrap_or(0) + 1;
            if length > 70 {
                long.push(format!("{}:{} has {length} lines", file.display(), at + 1));
            }
        }
    }
    assert_eq!(long, Vec::<String>::new());
}

fn is_function(line: &str) -> bool {
    let words = line.split_whitespace().take_while(|word| !word.contains('(')).collect::<Vec<_>>();
    line.contains("fn ")
        && line.ends_with('{')
        && words.iter().all(|word| !word.contains(['"', '=', '|']))
}

/// Tables and links in comments may be wider, and JSON, which is hard to read in pieces.
#[test]
fn code_has_at_most_a_hundred_columns() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in ["src", "core", "tests", "pgrx-tests", "cache-worker", "bench"] {
        files_in(&root.join(folder), "rs", &mut files);
    }
    for folder in ["sql", "bench/sql"] {
        files_in(&root.join(folder), "sql", &mut files);
    }
    let is_free = |line: &str| {
        let text = line.trim_start();
        let is_comment = text.starts_with("//") || text.starts_with("--");
        line.contains("\":") || is_comment && (line.contains("](") || text[3..].starts_with(" |"))
    };
    let mut wide = Vec::new();
    for file in files {
        for (number, line) in (1..).zip(fs::read_to_string(&file).unwrap().lines()) {
            if line.chars().count() > 100 && !is_free(line) {
                wide.push(format!("{}:{number}", file.display()));
            }
        }
    }
    assert_eq!(wide, Vec::<String>::new());
}

fn files_in(folder: &Path, ending: &str, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            if entry.file_name() != "target" {
                files_in(&entry.path(), ending, found);
            }
        } else if entry.path().extension().is_some_and(|its| its == ending) {
            found.push(entry.path());
        }
    }
}

/// Tables, links and blocks of code may be wider, and what the benchmark writes.
#[test]
fn documents_have_at_most_a_hundred_columns() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folders = ["", "docs", "bench", "cache-worker"].map(|folder| root.join(folder));
    let files = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path());
    let mut wide = Vec::new();
    let is_ours = |file: &Path| {
        file.extension().is_some_and(|ending| ending == "md") && !file.ends_with("RESULTS.md")
    };
    for file in files.filter(|file| is_ours(file)) {
        let mut is_code = false;
        for (number, line) in (1..).zip(fs::read_to_string(&file).unwrap().lines()) {
            is_code ^= line.trim_start().starts_with("```");
            let is_free =
                is_code || line.starts_with('|') || line.starts_with("    ") || line.contains("](");
            if line.chars().count() > 100 && !is_free {
                wide.push(format!("{}:{number}", file.display()));
            }
        }
    }
    assert_eq!(wide, Vec::<String>::new());
}

/// The test itself: it sees what it is to see.
#[test]
fn paths_are_taken_apart_and_circles_found() {
    let text =
        "use super::{a::{self, B}, c}; use crate::d; fn f() { xsuper::e(); super::super::g::h(); }";
    let mut found = paths(text);
    found.sort();
    assert_eq!(
        found,
        ["crate::d", "super::a::B", "super::a::self", "super::c", "super::super::g::h"]
    );
    let uses = |pairs: &[(&str, &str)]| -> Uses {
        pairs
            .iter()
            .map(|(one, other)| (one.to_string(), BTreeSet::from([other.to_string()])))
            .collect()
    };
    assert_eq!(
        circle("a", &uses(&[("a", "b"), ("b", "c"), ("c", "a")])),
        Some(vec!["a".into(), "b".into(), "c".into()])
    );
    assert_eq!(circle("a", &uses(&[("a", "b"), ("b", "c"), ("c", "b")])), None);
}
