//! Checks a value against a JSON Schema, as far as the schemas of this project go.

use serde_json::Value;

/// The first place where a value is not what the schema says.
pub fn check(schema: &Value, value: &Value) -> Result<(), String> {
    at("", schema, value, schema)
}

fn at(place: &str, schema: &Value, value: &Value, root: &Value) -> Result<(), String> {
    if let Some(pointer) = schema.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#')) {
        let named = root.pointer(pointer).unwrap_or_else(|| panic!("the schema has no {pointer}"));
        return at(place, named, value, root);
    }
    if let Some(ways) = schema.get("anyOf").and_then(Value::as_array) {
        let tried: Vec<_> = ways.iter().map(|way| at(place, way, value, root)).collect();
        if !tried.iter().any(Result::is_ok) {
            return Err(tried.into_iter().filter_map(Result::err).collect::<Vec<_>>().join("; or "));
        }
    }
    let one_or_many = |allowed: &Value| match allowed {
        Value::Array(all) => all.clone(),
        one => vec![one.clone()],
    };
    if let Some(allowed) = schema.get("type").map(one_or_many)
        && !allowed.iter().any(|kind| is(kind, value))
    {
        return Err(format!("{place}: {value} is none of {allowed:?}"));
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        return Err(format!("{place}: {value} is none of {allowed:?}"));
    }
    if let (Some(least), Some(number)) = (schema.get("minimum").and_then(Value::as_i64), value.as_i64())
        && number < least
    {
        return Err(format!("{place}: {number} is below {least}"));
    }
    if let (Some(items), Value::Array(values)) = (schema.get("items"), value) {
        for (index, value) in values.iter().enumerate() {
            at(&format!("{place}/{index}"), items, value, root)?;
        }
    }
    if let Value::Object(fields) = value {
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            if !fields.contains_key(name.as_str().expect("a name")) {
                return Err(format!("{place}: {name} is missing"));
            }
        }
        for (name, value) in fields {
            let place = format!("{place}/{name}");
            match (&schema["properties"][name], &schema["additionalProperties"]) {
                (Value::Null, Value::Bool(false)) => return Err(format!("{place} is not in the schema")),
                (Value::Null, others @ Value::Object(_)) => at(&place, others, value, root)?,
                (Value::Null, _) => {}
                (known, _) => at(&place, known, value, root)?,
            }
        }
    }
    Ok(())
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().expect("a type") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the checker does not know the type {other}"),
    }
}
