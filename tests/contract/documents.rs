//! Documents say what the code says: the picture of the architecture, the table of requirements, links.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use dashstream::actors::topology::{EDGES, HISTORY_CONCURRENCY};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

pub(crate) fn read(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Compares a generated page with its file; with `UPDATE_DOCS` set it writes the file.
pub(crate) fn same_or_written(name: &str, page: &str) {
    let path = Path::new(ROOT).join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, page).unwrap();
    }
    let file = fs::read_to_string(&path).unwrap_or_default();
    assert!(file == page, "{name} differs from the code; run: UPDATE_DOCS=1 cargo test --test contract");
}

/// The texts between backquotes.
pub(crate) fn code_spans(text: &str) -> Vec<String> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// The cells of the rows of every table whose head has these columns.
pub(crate) fn table(text: &str, head: &[&str]) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Option<Vec<String>> {
        let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
        Some(inner.split('|').map(|cell| cell.trim().to_owned()).collect())
    };
    let mut rows = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match cells(line) {
            Some(found) if found == head => inside = true,
            Some(found) if inside && !found.iter().all(|cell| cell.starts_with("---")) => rows.push(found),
            Some(_) => {}
            None => inside = false,
        }
    }
    rows
}

/// Markdown files of the project.
fn pages() -> Vec<String> {
    let mut pages: Vec<String> = ["README.md", "CONTRIBUTING.md", "benches/README.md"].map(str::to_owned).into();
    for folder in ["docs", "docs/adr"] {
        for entry in fs::read_dir(Path::new(ROOT).join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                pages.push(format!("{folder}/{name}"));
            }
        }
    }
    pages
}

#[test]
fn the_architecture_shows_the_edges_that_are_spawned() {
    let shown = table(&read("docs/ARCHITECTURE.md"), &["from", "to", "message", "bound"]);
    let spawned: Vec<_> = EDGES.iter().map(|edge| [edge.from, edge.to, edge.message, edge.bound]).collect();
    assert_eq!(shown, spawned, "docs/ARCHITECTURE.md differs from EDGES in src/actors/topology.rs");
    let history: Vec<_> = EDGES.iter().filter(|edge| edge.to == "History" && edge.message == "pages").collect();
    assert_eq!(history.len(), 2);
    assert!(history.iter().all(|edge| edge.bound.contains(&HISTORY_CONCURRENCY.to_string())));
}

#[test]
fn the_code_map_names_every_module() {
    let map: BTreeSet<String> = table(&read("docs/ARCHITECTURE.md"), &["path", "job", "must not know"])
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    for line in read("src/lib.rs").lines() {
        let Some(module) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) else { continue };
        let found = map.contains(&format!("`src/{module}`")) || map.contains(&format!("`src/{module}.rs`"));
        assert!(found, "docs/ARCHITECTURE.md does not say what {module} is for");
    }
    for path in map {
        assert!(Path::new(ROOT).join(path.trim_matches('`')).exists(), "{path} is not there");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for page in pages() {
        let folder = Path::new(ROOT).join(&page).parent().unwrap().to_owned();
        for rest in read(&page).split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap_or_default();
            let local = !target.is_empty() && !target.contains("://");
            assert!(!local || folder.join(target).exists(), "{page}: no {target}");
        }
    }
}

#[test]
fn the_trade_offs_of_every_bound_of_history_are_told() {
    let page = read("docs/OBSERVABILITY_INFRASTRUCTURE.md");
    let section = page.split("## How much history to keep").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<&str> =
        section.lines().filter(|line| line.starts_with("| `") || line.starts_with("| the topic")).collect();
    for setting in [
        "REPLAY_BUFFER_MEMORY_SIZE",
        "REDIS_MAX_SEQUENCES",
        "REDIS_MESSAGE_TTL_SECS",
        "REPLAY_MAX_TOTAL",
        "retention.ms",
    ] {
        let row = rows.iter().find(|row| row.contains(setting)).unwrap_or_else(|| panic!("{setting} is not there"));
        let told = row.trim_matches('|').split('|').filter(|cell| cell.trim().len() > 20).count();
        assert!(told >= 2, "{setting}: what more of it costs, and how too little of it shows");
    }
}

#[test]
fn every_decision_is_in_the_list() {
    let list = read("docs/adr/README.md");
    for entry in fs::read_dir(Path::new(ROOT).join("docs/adr")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || list.contains(&format!("({name})")), "docs/adr/README.md does not list {name}");
        let text = read(&format!("docs/adr/{name}"));
        let parts = ["**Context.**", "**Decision.**", "**Consequences.**"];
        assert!(name == "README.md" || parts.iter().all(|part| text.contains(part)), "{name} lacks a part");
    }
}

#[test]
fn the_readme_names_every_endpoint_and_exit_code() {
    let readme = read("README.md");
    let routes = read("src/web/server.rs");
    for (at, _) in routes.match_indices(".route(\"/") {
        let path: String = routes[at + 8..].chars().take_while(|c| *c != '"').collect();
        assert!(path.starts_with("/test/") || readme.contains(&format!("| `{path}` |")), "README.md: {path}");
    }
    let codes: Vec<String> = table(&readme, &["exit code", "meaning", "what the platform should do"])
        .iter()
        .map(|row| row[0].clone())
        .collect();
    assert_eq!(codes, ["0", "1", "64", "70"]);
}
