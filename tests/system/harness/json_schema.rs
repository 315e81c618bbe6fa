//! Checks a value against a JSON Schema: by the keywords that the schemas of this project use, and refuses any other.

use serde_json::{Map, Value};

/// The first place where a value is not what the schema says, or what in the schema is not understood.
pub fn check(schema: &Value, value: &Value) -> Result<(), String> {
    understood(schema)?;
    Seen { place: "", schema, root: schema }.fits(value)
}

/// Whether every keyword is known, also of parts that no value has come to.
fn understood(schema: &Value) -> Result<(), String> {
    for (keyword, wanted) in keywords(schema)? {
        rule(keyword).ok_or_else(|| format!("the checker does not know the keyword {keyword}"))?;
        match (keyword.as_str(), wanted) {
            ("$defs" | "properties", Value::Object(parts)) => parts.values().try_for_each(understood)?,
            ("anyOf" | "oneOf", Value::Array(parts)) => parts.iter().try_for_each(understood)?,
            ("items", part) | ("additionalProperties", part @ Value::Object(_)) => understood(part)?,
            _ => {}
        }
    }
    Ok(())
}

fn keywords(schema: &Value) -> Result<&Map<String, Value>, String> {
    schema.as_object().ok_or_else(|| format!("{schema} is no schema that the checker knows"))
}

/// What a keyword asks of a value.
type Rule = fn(Seen<'_>, &Value, &Value) -> Result<(), String>;

fn rule(keyword: &str) -> Option<Rule> {
    Some(match keyword {
        "$schema" | "$defs" | "title" | "description" => |_, _, _| Ok(()),
        "$ref" => reference,
        "anyOf" => any_of,
        "oneOf" => one_of,
        "type" => kind,
        "const" => |seen, wanted, value| seen.expect(value == wanted, value, wanted),
        "enum" => |seen, wanted, value| seen.expect(list(wanted).contains(value), value, wanted),
        "format" => format_of_number,
        "minimum" => |seen, least, value| seen.expect(value.as_f64().is_none_or(|n| n >= number(least)), value, least),
        "items" => items,
        "required" => required,
        "properties" => properties,
        "additionalProperties" => additional_properties,
        _ => return None,
    })
}

/// A part of a schema, and the place of the value that it is about.
#[derive(Clone, Copy)]
struct Seen<'a> {
    place: &'a str,
    schema: &'a Value,
    root: &'a Value,
}

impl Seen<'_> {
    fn fits(self, value: &Value) -> Result<(), String> {
        for (keyword, wanted) in keywords(self.schema)? {
            let rule = rule(keyword).expect("every keyword is known: it was looked at before");
            rule(self, wanted, value)?;
        }
        Ok(())
    }

    fn with(self, schema: &Value, value: &Value) -> Result<(), String> {
        Seen { place: self.place, schema, root: self.root }.fits(value)
    }

    fn below(self, name: &str, schema: &Value, value: &Value) -> Result<(), String> {
        Seen { place: &format!("{}/{name}", self.place), schema, root: self.root }.fits(value)
    }

    fn expect(self, holds: bool, value: &Value, wanted: &Value) -> Result<(), String> {
        if holds { Ok(()) } else { Err(format!("{}: {value} is not {wanted}", self.place)) }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn reference(seen: Seen<'_>, wanted: &Value, value: &Value) -> Result<(), String> {
    let pointer = text(wanted).strip_prefix('#').expect("a reference into the same schema");
    let named = seen.root.pointer(pointer).ok_or_else(|| format!("the schema has no {pointer}"))?;
    seen.with(named, value)
}

fn any_of(seen: Seen<'_>, wanted: &Value, value: &Value) -> Result<(), String> {
    alternatives(seen, wanted, value).map(|_| ())
}

fn one_of(seen: Seen<'_>, wanted: &Value, value: &Value) -> Result<(), String> {
    match alternatives(seen, wanted, value)? {
        1 => Ok(()),
        several => Err(format!("{}: {value} is {several} alternatives at once", seen.place)),
    }
}

/// How many alternatives the value fits: at least one.
fn alternatives(seen: Seen<'_>, wanted: &Value, value: &Value) -> Result<usize, String> {
    let tried: Vec<_> = list(wanted).iter().map(|way| seen.with(way, value)).collect();
    match tried.iter().filter(|way| way.is_ok()).count() {
        0 => Err(tried.into_iter().filter_map(Result::err).collect::<Vec<_>>().join("; or ")),
        fit => Ok(fit),
    }
}

fn kind(seen: Seen<'_>, wanted: &Value, value: &Value) -> Result<(), String> {
    let allowed = if let Value::Array(several) = wanted { several } else { std::slice::from_ref(wanted) };
    let is = |kind: &Value| match text(kind) {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the checker does not know the type {other}"),
    };
    seen.expect(allowed.iter().any(is), value, wanted)
}

fn format_of_number(seen: Seen<'_>, wanted: &Value, value: &Value) -> Result<(), String> {
    let within = match text(wanted) {
        "uint" | "uint64" => value.is_u64(),
        "int64" => value.is_i64(),
        "int32" => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        other => panic!("the checker does not know the format {other}"),
    };
    seen.expect(within || !value.is_number(), value, wanted)
}

fn items(seen: Seen<'_>, wanted: &Value, value: &Value) -> Result<(), String> {
    let values = value.as_array().into_iter().flatten().enumerate();
    values.into_iter().try_for_each(|(index, value)| seen.below(&index.to_string(), wanted, value))
}

fn required(seen: Seen<'_>, wanted: &Value, value: &Value) -> Result<(), String> {
    let Value::Object(fields) = value else { return Ok(()) };
    match list(wanted).iter().find(|name| !fields.contains_key(text(name))) {
        Some(name) => Err(format!("{}: {name} is missing", seen.place)),
        None => Ok(()),
    }
}

fn properties(seen: Seen<'_>, wanted: &Value, value: &Value) -> Result<(), String> {
    let fields = value.as_object().into_iter().flatten();
    fields
        .filter_map(|(name, value)| Some((name, wanted.get(name)?, value)))
        .try_for_each(|(name, wanted, value)| seen.below(name, wanted, value))
}

fn additional_properties(seen: Seen<'_>, wanted: &Value, value: &Value) -> Result<(), String> {
    let fields = value.as_object().into_iter().flatten();
    let mut others = fields.filter(|(name, _)| seen.schema["properties"].get(name).is_none());
    others.try_for_each(|(name, value)| match wanted {
        Value::Bool(true) => Ok(()),
        Value::Bool(false) => Err(format!("{}/{name} is not in the schema", seen.place)),
        others => seen.below(name, others, value),
    })
}
