//! The tables of requirements and lessons: complete, and each row that is said to hold names tests that exist.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::documents::{read, table};

/// The last number.
const LAST: u32 = 285;
/// What the foundation has to hold: first and last of each range.
const FOUNDATION: [(u32, u32); 11] =
    [(1, 3), (11, 11), (13, 13), (30, 38), (66, 66), (69, 69), (74, 74), (78, 78), (103, 103), (105, 105), (237, 237)];
const FOUNDATION_THREADS: (u32, u32) = (243, 247);

/// Lessons about what this tree holds: replay to signals, sessions, configuration.
const LESSONS: [std::ops::RangeInclusive<u32>; 3] = [1..=100, 122..=127, 135..=139];

/// Number of a row to its status and its last cell.
fn rows() -> BTreeMap<u32, (String, String)> {
    let text = read("docs/REQUIREMENTS.md");
    let mut rows = BTreeMap::new();
    for row in table(&text, &["id", "what", "status", "tests, or what it waits for"]) {
        let number = row[0].strip_prefix("R-").and_then(|digits| digits.parse().ok());
        let number = number.unwrap_or_else(|| panic!("no number: {row:?}"));
        assert_eq!(row[0], format!("R-{number:03}"));
        assert!(!row[1].is_empty(), "R-{number:03} says nothing");
        let before = rows.insert(number, (row[2].clone(), row[3].clone()));
        assert!(before.is_none(), "R-{number:03} is there twice");
    }
    rows
}

/// Whether `path::name` is a test of the tree: a Rust function, or the title of a test of the page.
fn exists(test: &str) -> Result<(), String> {
    let (path, name) = test.split_once("::").ok_or("not of the form path::name")?;
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).map_err(|e| format!("{path}: {e}"))?;
    let found = match path.ends_with(".rs") {
        true => text.contains(&format!("fn {name}(")),
        false => text.contains(&format!("\"{name}\"")),
    };
    if found { Ok(()) } else { Err(format!("{path} has no test `{name}`")) }
}

#[test]
fn every_lesson_is_there_once_with_tests_that_exist_or_a_reason() {
    let text = read("docs/LESSONS.md");
    let rows = table(&text, &["id", "mistake", "tests, or why there is none"]);
    let found: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    let wanted: Vec<String> = LESSONS.into_iter().flatten().map(|number| format!("L-{number:03}")).collect();
    assert_eq!(found, wanted);
    let mut wrong = Vec::new();
    for row in &rows {
        let tests = row[2].split('`').skip(1).step_by(2);
        wrong.extend(tests.filter_map(|test| exists(test).err()).map(|error| format!("{}: {error}", row[0])));
        if row[1].is_empty() || row[2].is_empty() {
            wrong.push(format!("{} says nothing", row[0]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_requirement_is_there_once() {
    let rows = rows();
    let missing: Vec<u32> = (1..=LAST).filter(|number| !rows.contains_key(number)).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    assert_eq!(rows.len(), LAST as usize, "{:?}", rows.keys().next_back());
}

#[test]
fn what_holds_names_tests_that_exist() {
    let mut wrong = Vec::new();
    for (number, (status, last)) in rows() {
        let tests: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
        match status.as_str() {
            "holds" if tests.is_empty() => wrong.push(format!("R-{number:03} holds without a test")),
            "holds" => {
                wrong.extend(
                    tests.into_iter().filter_map(|test| exists(test).err()).map(|e| format!("R-{number:03}: {e}")),
                );
            }
            "open" if last.is_empty() => wrong.push(format!("R-{number:03} waits for nothing")),
            "open" => {}
            other => wrong.push(format!("R-{number:03}: unknown status {other}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_foundation_holds() {
    let rows = rows();
    let ranges = FOUNDATION.into_iter().chain([FOUNDATION_THREADS]);
    let open: Vec<u32> = ranges.flat_map(|(first, last)| first..=last).filter(|n| rows[n].0 != "holds").collect();
    assert!(open.is_empty(), "open: {open:?}");
}
