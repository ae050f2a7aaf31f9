//! The table of rooms in `ARCHITECTURE.md` is the law: a room that uses what its row does not allow
//! fails here.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Files that lie beside the rooms and that every room may use.
const COMMON: [&str; 6] = ["units", "pcm", "bars", "telemetry", "budget", "heap"];

/// The words between backticks of a cell: rooms (`engine/` or `engine`) and paths.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// From each room to those that it may use, and the paths of a room to which a permission is
/// confined.
fn table() -> HashMap<String, (Vec<String>, Vec<String>)> {
    let text = fs::read_to_string(Path::new(ROOT).join("ARCHITECTURE.md")).unwrap();
    let rooms = text.split("\n## Rooms\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut table = HashMap::new();
    for row in rooms.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let uses = cells.get(2).copied().unwrap_or_default().trim();
        let (paths, allowed): (Vec<_>, Vec<_>) = quoted(uses).partition(|word| word.contains(['/', '.']));
        let owned = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let allowed = if uses == "all" { vec!["*".to_owned()] } else { owned(allowed) };
        for room in quoted(cells[0]) {
            let name = room.trim_end_matches('/').trim_end_matches(".rs");
            table.insert(name.to_owned(), (allowed.clone(), owned(paths.clone())));
        }
    }
    table
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The names behind `crate::` in the code of a file, with their lines.
fn uses(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = text.lines().enumerate().map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default()));
    code.flat_map(|(at, line)| {
        line.split("crate::").skip(1).map(move |rest| {
            let end = rest.find(|letter: char| !letter.is_ascii_lowercase() && letter != '_').unwrap_or(rest.len());
            (at, &rest[..end])
        })
    })
}

#[test]
fn no_room_uses_what_its_row_does_not_allow() {
    let table = table();
    let src = Path::new(ROOT).join("src");
    let mut wrong = Vec::new();
    for path in sources(&src) {
        let file = path.strip_prefix(&src).unwrap();
        let room = file.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if ["lib", "main"].contains(&room) {
            continue;
        }
        let (allowed, confined) = table.get(room).unwrap_or_else(|| panic!("{room} has no row in the table of rooms"));
        let inside = file.strip_prefix(room).unwrap_or(file).to_str().unwrap();
        for (line, used) in uses(&fs::read_to_string(&path).unwrap()) {
            let known = table.contains_key(used) && used != room && !COMMON.contains(&used);
            let may = allowed.iter().any(|name| name == "*" || name == used)
                && (confined.is_empty() || confined.iter().any(|place| inside.starts_with(place.as_str())));
            if known && !may {
                wrong.push(format!("src/{}:{line} uses {used}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "against the table of rooms in ARCHITECTURE.md:\n{}", wrong.join("\n"));
}

/// The names that a file imports of `model`.
fn imported_of_model(code: &str) -> Vec<String> {
    let imports = code.split("use crate::").skip(1).filter_map(|rest| rest.split(';').next());
    let of_model = imports.filter(|import| import.starts_with("model") || import.contains(" model::"));
    let words = of_model.flat_map(|import| import.split(|letter: char| !letter.is_alphanumeric()));
    words.filter(|word| word.starts_with(char::is_uppercase)).map(str::to_owned).collect()
}

#[test]
fn the_engine_hands_out_no_type_of_a_model() {
    // Rooms that may use the engine would use the models through it.
    let mut wrong = Vec::new();
    for path in sources(&Path::new(ROOT).join("src/engine")) {
        let code = fs::read_to_string(&path).unwrap();
        let names = imported_of_model(&code);
        for line in code.lines() {
            let is_alias = line.starts_with("pub type ") && names.iter().any(|name| line.contains(name.as_str()));
            if is_alias || line.starts_with("pub use crate::model") {
                wrong.push(format!("{}: {line}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let alias = "use crate::model::melodyflow::{Edit, MelodyFlow};\n";
    assert_eq!(imported_of_model(alias), ["Edit", "MelodyFlow"]);
}

#[test]
fn the_table_names_every_room() {
    let table = table();
    for entry in fs::read_dir(Path::new(ROOT).join("src")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let room = path.file_name().unwrap().to_str().unwrap().to_owned();
            assert!(table.contains_key(&room), "{room} has no row");
        }
    }
}
