//! What is wrong with a configuration, in words for the one who must mend it.

use std::path::PathBuf;

use serde::{Serialize, Serializer};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A file, and the line in it, counted from 1.
    File(PathBuf, Option<usize>),
    /// An environment variable.
    Variable(String),
    /// An option of the command line.
    Flag(&'static str),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(file, Some(line)) => write!(f, "{}, line {line}", file.display()),
            Self::File(file, None) => write!(f, "{}", file.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(name) => write!(f, "option {name}"),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The setting, variable or file at fault.
    pub key: String,
    /// Its value, when there is one and it may be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Where it came from.
    pub source: Origin,
    /// What is wrong and what would be right.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} = {value} ({}): {}", self.key, self.source, self.message),
            None => write!(f, "{} ({}): {}", self.key, self.source, self.message),
        }
    }
}

impl Problem {
    /// A problem without a value to show.
    pub fn new(key: impl Into<String>, source: Origin, message: impl Into<String>) -> Self {
        Self { key: key.into(), value: None, source, message: message.into() }
    }

    /// A name that means nothing, and the one that was perhaps meant.
    pub fn unknown(key: &str, source: Origin, what: &str, meant: Option<&str>) -> Self {
        let message = match meant {
            Some(meant) => format!("there is no such {what}; did you mean {meant}?"),
            None => format!("there is no such {what}"),
        };
        Self::new(super::setting::cut(key), source, message)
    }
}

/// Why the configuration cannot be used: everything that was found, not only the first.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration cannot be used{}\n`dashstream default-config` shows every setting with its range", list(.problems))]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

/// The candidate that looks most like `name`, if one looks like it at all. A prefix that many share counts for nothing.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let own = |name: &'a str| name.strip_prefix(super::table::OWN_PREFIX).unwrap_or(name);
    let name = name.strip_prefix(super::table::OWN_PREFIX).unwrap_or(name);
    let scored = candidates.map(|candidate| (strsim::jaro_winkler(name, own(candidate)), candidate));
    scored.filter(|(score, _)| *score > 0.85).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}
