//! The modules of `src` use each other in one direction only, and no two files use each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Which layers each layer may use, beside itself and the ground floor. Files that are not in a directory
/// are the ground floor, except `lib.rs` and `cli.rs`.
const LAYERS: [(&str, &[&str]); 12] = [
    ("lib", &["cli", "commands", "relay", "session", "console", "process", "locks"]),
    ("properties", &["cli", "relay", "session", "console", "process", "locks"]),
    ("cli", &["commands", "relay", "claim", "locks"]),
    ("commands", &["claim", "guard", "session", "locks", "console", "process", "status", "relay"]),
    ("status", &["session", "locks", "console", "process"]),
    ("relay", &["console"]),
    ("claim", &["guard", "session", "locks", "console", "process"]),
    ("guard", &["session", "locks", "console", "process"]),
    ("session", &["locks", "console", "process"]),
    ("locks", &["console", "process"]),
    ("console", &["process"]),
    ("process", &[]),
];

const GROUND: &str = "ground floor";

/// The source files by their module path: `["locks", "names"]` for `src/locks/names.rs`.
type Sources = BTreeMap<Vec<String>, String>;

/// For each file the files that it uses.
type Edges = BTreeMap<Vec<String>, BTreeSet<Vec<String>>>;

#[test]
fn modules_use_only_the_layers_below_them_and_no_two_files_use_each_other() {
    let mut sources = Sources::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut Vec::new(), &mut sources);
    assert!(sources.len() > 60, "{:?}", sources.keys());
    let edges = edges(&sources);
    let count: usize = edges.values().map(BTreeSet::len).sum();
    assert!(count > 300, "only {count} uses were found");
    assert_eq!(wrong_edges(&edges), [""; 0]);
    assert_eq!(circle(&edges), None);
}

fn sources(files: &[(&str, &str)]) -> Sources {
    let module = |name: &str| name.split("::").map(str::to_owned).collect();
    files.iter().map(|(name, text)| (module(name), (*text).to_owned())).collect()
}

#[test]
fn a_use_of_a_higher_layer_is_found_however_it_is_written() {
    for text in [
        "use crate::claim::Claim;",
        "use crate::{poll, claim::{Claim, error}};",
        "use super::super::claim;",
        "fn f() { crate::claim::f() }",
        "pub(crate) use crate::claim::Claim;",
    ] {
        let edges = edges(&sources(&[("locks::names", text), ("claim", ""), ("poll", "")]));
        assert_eq!(wrong_edges(&edges), ["locks::names uses claim"], "{text}");
    }
    for text in [
        "// crate::claim",
        "\"crate::claim\"",
        "use self::tests;",
        "use std::fmt;",
        "mod tests { use super::*; use super::claim; }",
    ] {
        let edges = edges(&sources(&[("locks::names", text), ("claim", "")]));
        assert_eq!(wrong_edges(&edges), [""; 0], "{text}");
    }
    let relay = edges(&sources(&[("relay::pump", "use crate::locks::file;"), ("locks::file", "")]));
    assert_eq!(wrong_edges(&relay), ["relay::pump uses locks::file"]);
}

#[test]
fn a_circle_is_found_also_through_a_re_export() {
    let names = "use super::file::File;";
    let file = "use crate::locks::names::Name;";
    let found = edges(&sources(&[("locks::names", names), ("locks::file", file)]));
    let found = circle(&found).unwrap();
    assert!(found.contains("locks::names") && found.contains("locks::file"), "{found}");
    let (module, user) = ("pub(crate) use names::Name;", "use crate::locks::Name;");
    let files = [("locks", module), ("locks::names", "use crate::poll;"), ("poll", user)];
    let found = circle(&edges(&sources(&files))).unwrap();
    assert!(found.contains("poll") && found.contains("locks::names"), "{found}");
}

fn read(directory: &Path, module: &mut Vec<String>, sources: &mut Sources) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            module.push(name);
            read(&path, module, sources);
            module.pop();
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "main" {
            let own = (name != "mod").then_some(name);
            let module = module.iter().cloned().chain(own).collect();
            sources.insert(module, fs::read_to_string(path).unwrap());
        }
    }
}

/// The code of a file: without comments, strings and characters.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['/', '"', '\'']) {
        code.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = if rest.starts_with("//") {
            rest.find('\n')
        } else if rest.starts_with('"') {
            let raw = code.ends_with("r#");
            if raw { rest.find("\"#").map(|end| end + 2) } else { end_of_string(rest) }
        } else if let Some(escaped) = rest.strip_prefix("'\\") {
            escaped.find('\'').map(|end| end + 3)
        } else if rest.starts_with('\'') && rest.chars().nth(2) == Some('\'') {
            Some(2 + rest.chars().nth(1).unwrap().len_utf8())
        } else {
            code.push_str(&rest[..1]);
            Some(1)
        };
        rest = &rest[length.unwrap_or(rest.len())..];
    }
    code + rest
}

fn end_of_string(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            '"' if !escaped => return Some(at + 1),
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}

/// Every path in a file that begins with `crate`, `self` or `super`, with nested uses written out.
fn paths(text: &str) -> Vec<Vec<String>> {
    let code = code(text);
    let mut paths = Vec::new();
    for start in ["crate::", "self::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if before.is_none_or(|it| !it.is_alphanumeric() && it != '_' && it != ':') {
                expand(&code[at..], &mut inline_modules(&code[..at]), &mut paths);
            }
        }
    }
    paths
}

/// The modules in the file that are open at the end of this code, outermost first, as in `mod tests {`.
fn inline_modules(code: &str) -> Vec<String> {
    let mut open = Vec::new();
    for (at, brace) in code.match_indices(['{', '}']) {
        if brace == "}" {
            open.pop();
            continue;
        }
        let mut words = code[..at].split_whitespace().rev();
        let name = words.next().filter(|_| words.next() == Some("mod"));
        open.push(name.map(str::to_owned));
    }
    open.into_iter().flatten().collect()
}

/// Reads one path or brace of paths. Returns what comes after it.
fn expand<'a>(text: &'a str, prefix: &mut Vec<String>, paths: &mut Vec<Vec<String>>) -> &'a str {
    let mut rest = text.trim_start();
    let depth = prefix.len();
    loop {
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner;
            while !rest.trim_start().starts_with('}') && !rest.trim_start().is_empty() {
                rest = expand(rest, prefix, paths).trim_start();
                rest = rest.strip_prefix(',').unwrap_or(rest);
            }
            rest = rest.trim_start().strip_prefix('}').unwrap_or("");
            break;
        }
        let length = rest.find(|it: char| !it.is_alphanumeric() && it != '_').unwrap_or(rest.len());
        prefix.push(rest[..length].to_owned());
        rest = &rest[length..];
        if let Some(after) = rest.strip_prefix("::") {
            rest = after.trim_start();
        } else {
            paths.push(prefix.clone());
            break;
        }
    }
    prefix.truncate(depth);
    // An alias is part of the use.
    match rest.trim_start().strip_prefix("as ") {
        Some(alias) => alias.trim_start_matches(|it: char| it.is_alphanumeric() || it == '_'),
        None => rest,
    }
}

/// The re-exports of a file: the name, and the path behind it.
fn re_exports(text: &str) -> Vec<Vec<String>> {
    let code = code(text);
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("pub(crate) use ") {
        expand(&code[at + "pub(crate) use ".len()..], &mut Vec::new(), &mut paths);
    }
    paths
}

fn edges(sources: &Sources) -> Edges {
    let uses = |(module, text): (&Vec<String>, &String)| {
        let mut used: BTreeSet<_> = paths(text)
            .into_iter()
            .filter_map(|path| resolve(&absolute(&path, module), sources))
            .collect();
        used.extend(re_exports(text).into_iter().filter_map(|path| {
            let below = [module.clone(), path.clone()].concat();
            let below = resolve(&below, sources).filter(|found| found.starts_with(module));
            below.or_else(|| resolve(&absolute(&path, module), sources))
        }));
        used.remove(module);
        (module.clone(), used)
    };
    sources.iter().map(uses).collect()
}

/// A path from the root, seen from a file.
fn absolute(path: &[String], module: &[String]) -> Vec<String> {
    let mut absolute = module.to_vec();
    for name in path {
        match name.as_str() {
            "crate" => absolute.clear(),
            "self" => {}
            "super" => drop(absolute.pop()),
            _ => absolute.push(name.clone()),
        }
    }
    absolute
}

/// The file that defines what a path names, behind re-exports.
fn resolve(path: &[String], sources: &Sources) -> Option<Vec<String>> {
    let module = (0..=path.len()).rev().map(|length| &path[..length]);
    let module = module.into_iter().find(|module| sources.contains_key(*module))?;
    let Some(item) = path.get(module.len()) else { return Some(module.to_vec()) };
    let exported = re_exports(&sources[module]).into_iter().find(|path| path.last() == Some(item));
    match exported {
        Some(behind) if behind.len() > 1 => {
            let below = [module.to_vec(), behind.clone()].concat();
            let known = behind[0] != "crate" && behind[0] != "self" && behind[0] != "super";
            resolve(&if known { below } else { absolute(&behind, module) }, sources)
        }
        _ => Some(module.to_vec()),
    }
}

fn layer(module: &[String]) -> &str {
    let first = module.first().map_or("lib", String::as_str);
    LAYERS.iter().find(|(layer, _)| *layer == first).map_or(GROUND, |(layer, _)| layer)
}

fn name(module: &[String]) -> String {
    module.join("::")
}

fn wrong_edges(edges: &Edges) -> Vec<String> {
    let mut wrong = Vec::new();
    for (module, used) in edges {
        let from = layer(module);
        let allowed = LAYERS.iter().find(|(layer, _)| *layer == from).map_or(&[][..], |it| it.1);
        for used in used {
            let to = layer(used);
            if to != from && to != GROUND && !allowed.contains(&to) {
                wrong.push(format!("{} uses {}", name(module), name(used)));
            }
        }
    }
    wrong
}

/// Files that use each other, if there are any: a path that comes back to its beginning.
fn circle(edges: &Edges) -> Option<String> {
    fn visit<'a>(
        module: &'a Vec<String>,
        edges: &'a Edges,
        path: &mut Vec<&'a Vec<String>>,
        done: &mut BTreeSet<&'a Vec<String>>,
    ) -> Option<String> {
        if let Some(start) = path.iter().position(|it| *it == module) {
            let names = path[start..].iter().chain([&module]).map(|module| name(module));
            return Some(names.collect::<Vec<_>>().join(" -> "));
        }
        if !done.insert(module) {
            return None;
        }
        path.push(module);
        let found = edges[module].iter().find_map(|used| {
            let (used, _) = edges.get_key_value(used)?;
            visit(used, edges, path, done)
        });
        path.pop();
        found
    }
    let mut done = BTreeSet::new();
    edges.keys().find_map(|module| visit(module, edges, &mut Vec::new(), &mut done))
}
