//! What the claims of a good token allow.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::Denied;
use crate::pipeline::filter::{Grant, texts};
use crate::wire::limits::MAX_PARTITIONS;

/// Names in one claim.
const MAX_NAMES: usize = 1_024;
/// Bytes of a name.
const MAX_NAME: usize = 1_024;
/// Bytes of a subject that are kept.
const MAX_SUBJECT: usize = 128;

const ALL_TENANTS: &str = "dashstream:all_tenants";
const ADMIN: &str = "dashstream:admin";
const OBSERVE: &str = "dashstream:observe";

/// Which claims are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRules {
    /// Lists tenants.
    pub tenants: String,
    /// Lists threads.
    pub threads: String,
    /// Lists partitions.
    pub partitions: String,
}

/// What somebody may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Who it is, for the log; empty when the token does not say.
    pub subject: String,
    /// Whose records may be seen. `None`: nobody's; the token is for other things.
    pub grant: Option<Grant>,
    /// May use the admin routes.
    pub admin: bool,
    /// May see health and metrics in full.
    pub observe: bool,
    /// When the token ends, in Unix seconds.
    pub expires: u64,
}

/// Reads the claims of a token whose signature and times are good.
pub(super) fn access(claims: &Map<String, Value>, rules: &ClaimRules) -> Result<Access, Denied> {
    let has_scope = |wanted: &str| ["scope", "scp"].iter().any(|name| scopes(claims.get(*name)).any(|s| s == wanted));
    let tenants = names(claims, &rules.tenants)?;
    let threads = names(claims, &rules.threads)?.map(|list| texts(list.iter().copied()));
    let partitions = partitions(claims, &rules.partitions)?;
    let grant = match tenants {
        Some(list) => Some(Grant { tenants: Some(texts(list.iter().copied())), threads, partitions }),
        None if has_scope(ALL_TENANTS) => Some(Grant { tenants: None, threads, partitions }),
        None => None,
    };
    let admin = has_scope(ADMIN);
    let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    Ok(Access {
        subject: crate::wire::control::cut(subject, MAX_SUBJECT).to_owned(),
        grant,
        admin,
        observe: admin || has_scope(OBSERVE),
        expires: claims.get("exp").and_then(seconds).ok_or(Denied::Invalid("exp is no time"))?,
    })
}

/// Whole seconds; some issuers write a fraction.
fn seconds(value: &Value) -> Option<u64> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float is cut to the range of u64")]
    value.as_u64().or_else(|| value.as_f64().filter(|seconds| *seconds >= 0.0).map(|seconds| seconds as u64))
}

/// A text with blanks between the scopes, or a list.
fn scopes(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let (text, list) = match value {
        Some(Value::String(text)) => (text.as_str(), &[][..]),
        Some(Value::Array(list)) => ("", list.as_slice()),
        _ => ("", &[][..]),
    };
    text.split_ascii_whitespace().chain(list.iter().filter_map(Value::as_str))
}

/// One text, or a list of them. A claim that is there but cannot be read must not count as absent.
fn names<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<Option<Vec<&'a str>>, Denied> {
    let names = match claims.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => Some(vec![text.as_str()]),
        Some(Value::Array(list)) if list.len() <= MAX_NAMES => list.iter().map(Value::as_str).collect(),
        Some(_) => None,
    };
    let good = |text: &&str| !text.is_empty() && text.len() <= MAX_NAME;
    match names {
        Some(names) if !names.is_empty() && names.iter().all(good) => Ok(Some(names)),
        _ => Err(Denied::Forbidden(format!("the claim {name} is neither a text nor a list of texts"))),
    }
}

/// One number, or a list of them, by the same rule.
fn partitions(claims: &Map<String, Value>, name: &str) -> Result<Option<BTreeSet<i32>>, Denied> {
    let number = |value: &Value| value.as_i64().and_then(|n| i32::try_from(n).ok()).filter(|partition| *partition >= 0);
    let partitions: Option<BTreeSet<i32>> = match claims.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) if list.len() <= MAX_PARTITIONS => list.iter().map(number).collect(),
        Some(value) => number(value).map(|partition| [partition].into()),
    };
    match partitions {
        Some(partitions) if !partitions.is_empty() => Ok(Some(partitions)),
        _ => Err(Denied::Forbidden(format!("the claim {name} is neither a partition nor a list of partitions"))),
    }
}
