//! The schema of `/health` names what the code can say: every status, every reason; and operators find each reason explained.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::documents::{code_spans, read, table};

fn texts(value: &Value) -> BTreeSet<String> {
    value.as_array().expect("a list").iter().map(|text| text.as_str().expect("text").to_owned()).collect()
}

/// Statuses, and codes of reasons, that the code of the verdict writes.
fn of_the_code() -> (BTreeSet<String>, BTreeSet<String>) {
    let source = read("src/pipeline/health.rs");
    let source = source.split("#[cfg(test)]").next().unwrap();
    let literal = |text: &str| text.split('"').nth(1).unwrap().to_owned();
    let as_str = source.split("fn as_str").nth(1).unwrap();
    let statuses = as_str.split("=> ").skip(1).take(6).map(literal).collect();
    let findings = source
        .match_indices("found(")
        .map(|(at, _)| &source[at..])
        .filter(|text| text.trim_start_matches("found(").trim_start().starts_with("Status::"));
    (statuses, findings.map(literal).collect())
}

#[test]
fn the_schema_names_every_status_and_every_reason_and_no_other() {
    let schema: Value = serde_json::from_str(&read("docs/health.schema.json")).unwrap();
    let (statuses, codes) = of_the_code();
    assert_eq!((statuses.len(), codes.len() > 15), (6, true), "{statuses:?} {codes:?}");
    let defined = &schema["$defs"];
    assert_eq!(texts(&defined["status"]["enum"]), statuses);
    assert_eq!(texts(&defined["full"]["properties"]["reasons"]["items"]["properties"]["code"]["enum"]), codes);
}

#[test]
fn operators_find_every_reason_explained() {
    let overview = read("docs/OBSERVABILITY_INFRASTRUCTURE.md");
    let rows = table(&overview, &["reason", "status", "look at"]);
    let explained: BTreeSet<String> = rows.iter().flat_map(|row| code_spans(&row[0])).collect();
    assert_eq!(explained, of_the_code().1);
}
