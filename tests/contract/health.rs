//! The schema of `/health` is written from the types that are sent there; and operators find each reason explained.

use std::collections::BTreeSet;

use dashstream::metrics::Values;
use dashstream::pipeline::verdict::{Code, Status};
use dashstream::web::health::{Brief, Health};
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{Schema, schema_for};
use serde_json::{Value, json};

use crate::documents::{code_spans, read, same_or_written, table};
use crate::json_schema::check;
use crate::metrics::declared;

const FILE: &str = "docs/health.schema.json";

/// The schema of what is written: every field is there, and none besides.
fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with_transform(RecursiveTransform(no_other_field));
    settings.into_generator().into_root_schema_for::<Health>().to_value()
}

fn no_other_field(schema: &mut Schema) {
    if schema.get("properties").is_some() {
        schema.insert("additionalProperties".to_owned(), false.into());
    }
    // Where a comment is broken is the source's business.
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.replace('\n', " ");
    }
}

/// The names of a closed set.
fn named(schema: &Value) -> BTreeSet<String> {
    let one = |variant: &Value| variant["const"].as_str().expect("each name with its meaning").to_owned();
    schema["oneOf"].as_array().expect("a closed set").iter().map(one).collect()
}

#[test]
fn the_schema_is_that_of_the_types() {
    same_or_written(FILE, &format!("{:#}\n", schema()));
}

#[test]
fn the_schema_names_actors_as_metrics_do() {
    let actors = named(&schema()["$defs"]["ActorName"]);
    let [(_, Values::Closed(labels))] = declared("dashstream_actor_up").labels else { panic!("one label") };
    assert_eq!(actors, labels.iter().map(|&label| label.to_owned()).collect());
}

#[test]
fn operators_find_every_reason_explained() {
    let overview = read("docs/OBSERVABILITY_INFRASTRUCTURE.md");
    let rows = table(&overview, &["reason", "status", "look at"]);
    let explained: BTreeSet<String> = rows.iter().flat_map(|row| code_spans(&row[0])).collect();
    assert_eq!(explained, named(schema_for!(Code).as_value()));
}

#[test]
fn what_is_not_as_the_schema_says_is_found() {
    let brief = serde_json::to_value(Health::Brief(Brief { status: Status::Degraded })).unwrap();
    assert_eq!((check(&schema(), &brief), &brief), (Ok(()), &json!({"status": "degraded"})));
    for other in [json!({}), json!({"status": "fine"}), json!({"status": "degraded", "more": 1}), json!("degraded")] {
        assert!(check(&schema(), &other).is_err(), "{other}");
    }
    let of = |value: Value| {
        let part = json!({"type": ["integer", "null"], "format": "int32", "minimum": 0});
        check(&json!({"type": "object", "additionalProperties": {"type": "array", "items": part}}), &value)
    };
    assert_eq!(of(json!({"a": [0, null], "b": []})), Ok(()));
    assert_eq!(of(json!({"a": [0, -1]})), Err("/a/1: -1 is not 0".to_owned()));
    for other in [json!({"a": [0.5]}), json!({"a": [1_u64 << 31]}), json!({"a": 0}), json!([])] {
        assert!(of(other.clone()).is_err(), "{other}");
    }
    let both = json!({"oneOf": [{"type": "string"}, {"enum": ["a", 1]}]});
    let fits = [json!("b"), json!(1), json!("a"), json!(2)].map(|value| check(&both, &value).is_ok());
    assert_eq!(fits, [true, true, false, false]);
}

#[test]
fn a_keyword_that_is_not_checked_is_refused_wherever_it_stands() {
    let unknown = json!({"maxLength": 3});
    for schema in [
        unknown.clone(),
        json!({"$defs": {"a": unknown}}),
        json!({"properties": {"a": unknown}}),
        json!({"items": {"anyOf": [unknown]}}),
        json!({"additionalProperties": unknown}),
        json!({"items": true}),
    ] {
        assert!(check(&schema, &json!("a")).is_err(), "{schema}");
    }
}
