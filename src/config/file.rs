//! Reads the TOML file into values that remember their lines.
//!
//! An error shows a line number and never the line: it may hold a password.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use figment::value::Dict;
use toml_edit::{ImDocument, Item, TableLike};

use super::problem::{Origin, Problem, nearest};
use super::setting::{Kind, Setting};
use super::table;

/// Far above any sensible file; keeps a wrong path from filling the memory.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What a file sets.
#[derive(Debug, Default)]
pub(super) struct FileLayer {
    /// The values, nested as in the file.
    pub values: Dict,
    /// The line of each value.
    pub lines: BTreeMap<&'static str, usize>,
    /// What cannot be used.
    pub problems: Vec<Problem>,
}

/// Reads and checks a file. `named_by` says who asked for it.
pub(super) fn read(file: &Path, named_by: Origin) -> FileLayer {
    let unreadable = |message: String| FileLayer {
        problems: vec![Problem::new(file.display().to_string(), named_by.clone(), message)],
        ..FileLayer::default()
    };
    let mut bytes = Vec::new();
    let read = std::fs::File::open(file).and_then(|opened| opened.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => unreadable(format!("the file cannot be read: {error}")),
        Ok(length) if length as u64 > MAX_FILE_BYTES => unreadable("the file is larger than 1 MiB".into()),
        Ok(_) => match String::from_utf8(bytes) {
            Ok(text) => parse(file, &text),
            Err(_) => unreadable("the file is not UTF-8 text".into()),
        },
    }
}

/// Checks the text of a file.
pub(super) fn parse(file: &Path, text: &str) -> FileLayer {
    let mut walk = Walk { file, text, layer: FileLayer::default() };
    match ImDocument::parse(text) {
        Ok(document) => walk.table("", document.as_table()),
        Err(error) => walk.syntax(&error),
    }
    walk.layer
}

struct Walk<'a> {
    file: &'a Path,
    text: &'a str,
    layer: FileLayer,
}

impl Walk<'_> {
    fn table(&mut self, prefix: &str, table: &dyn TableLike) {
        for (name, item) in table.iter() {
            let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
            let line =
                table.key(name).and_then(toml_edit::Key::span).or_else(|| item.span()).map(|span| self.line(span));
            let origin = Origin::File(self.file.to_owned(), line);
            match (table::by_path(&path), item) {
                (Some(setting), Item::Value(value)) => match setting.from_toml(value) {
                    Ok(value) => {
                        insert(&mut self.layer.values, setting.path, value);
                        self.layer.lines.extend(line.map(|line| (setting.path, line)));
                    }
                    Err(refusal) => self.layer.problems.push(refusal.at(setting, origin)),
                },
                (Some(setting), _) => {
                    self.layer.problems.push(setting.refusal("a table", "", None).at(setting, origin));
                }
                (None, item) if table::is_section(&path) => match item.as_table_like() {
                    Some(table) => self.table(&path, table),
                    None => self.layer.problems.push(Problem::new(path, origin, "must be a table of settings")),
                },
                (None, _) => {
                    let meant = nearest(&path, table::settings().map(|setting| setting.path));
                    self.layer.problems.push(Problem::unknown(&path, origin, "setting", meant));
                }
            }
        }
    }

    fn syntax(&mut self, error: &toml_edit::TomlError) {
        let span = error.span().unwrap_or(0..0);
        let origin = Origin::File(self.file.to_owned(), Some(self.line(span.clone())));
        // A number that no TOML integer can hold is a bad value like any other, not a matter of syntax.
        let problem = match self.number_at(span.start) {
            Some((setting, raw)) => setting.refusal(raw, raw, None).at(setting, origin),
            None => Problem::new("syntax", origin, one_line(error.message())),
        };
        self.layer.problems.push(problem);
    }

    /// The numeric setting on the line at `position`, and what stands there for its value.
    fn number_at(&self, position: usize) -> Option<(&'static Setting, &str)> {
        let before = self.text.get(..position)?;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text.get(start..)?.lines().next()?;
        let (key, raw) = line.split_once('=')?;
        let header = before.lines().rev().find_map(|line| line.trim().strip_prefix('[')?.split_once(']'));
        let section = header.map_or("", |(name, _)| name.trim());
        let path = if section.is_empty() { key.trim().to_owned() } else { format!("{section}.{}", key.trim()) };
        let setting = table::by_path(&path).filter(|setting| matches!(setting.kind, Kind::Integer { .. }))?;
        let raw = raw.split('#').next()?.trim();
        raw.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+').then_some((setting, raw))
    }

    fn line(&self, span: Range<usize>) -> usize {
        self.text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1
    }
}

/// Puts a value at its dotted path.
pub(super) fn insert(dict: &mut Dict, path: &str, value: figment::value::Value) {
    use figment::value::{Tag, Value};
    match path.split_once('.') {
        None => drop(dict.insert(path.to_owned(), value)),
        Some((section, rest)) => {
            let inner = dict.entry(section.to_owned()).or_insert_with(|| Value::Dict(Tag::Default, Dict::new()));
            if let Value::Dict(_, inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        parse(Path::new("c.toml"), text).problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_problem_names_key_value_range_and_line() {
        let text =
            "# comment\n[web]\nport = 70000\n\nhots = \"x\"\n[kafka]\nbatch_max_records = 0\nauto_offset_reset = 5\n";
        assert_eq!(
            problems(text),
            [
                "web.port = 70000 (c.toml, line 3): must be a whole number from 0 to 65535",
                "web.hots (c.toml, line 5): there is no such setting; did you mean web.host?",
                "kafka.batch_max_records = 0 (c.toml, line 7): must be a whole number of records from 1 to 100000",
                "kafka.auto_offset_reset = 5 (c.toml, line 8): must be earliest or latest",
            ]
        );
    }

    #[test]
    fn dotted_keys_and_inline_tables_have_lines_too() {
        assert_eq!(
            problems("\nweb.port = -1\n\nkafka = { security = { protocol = \"tls\" } }\n"),
            [
                "web.port = -1 (c.toml, line 2): must be a whole number from 0 to 65535",
                "kafka.security.protocol = \"tls\" (c.toml, line 4): must be plaintext, ssl, sasl_plaintext or sasl_ssl",
            ]
        );
        assert_eq!(problems("web = 1"), ["web (c.toml, line 1): must be a table of settings"]);
        assert_eq!(problems("[[web]]\nport = 1"), ["web (c.toml, line 1): must be a table of settings"]);
        assert_eq!(
            problems("[web.port]\na = 1"),
            ["web.port = a table (c.toml, line 1): must be a whole number from 0 to 65535"]
        );
        assert_eq!(problems("[nothing]\na = 1"), ["nothing (c.toml, line 1): there is no such setting"]);
    }

    #[test]
    fn a_number_beyond_64_bits_is_a_bad_value_with_its_line() {
        assert_eq!(
            problems("[kafka]\n[web]\nhost = \"h\"\nport = 18446744073709551616 # big\n"),
            ["web.port = 18446744073709551616 (c.toml, line 4): must be a whole number from 0 to 65535"]
        );
    }

    #[test]
    fn broken_syntax_names_the_line_and_shows_nothing_of_it() {
        let text = problems("[kafka.security]\nsasl_password = hunter2\n").concat();
        assert!(text.starts_with("syntax (c.toml, line 2): "), "{text}");
        assert!(!text.contains("hunter"), "{text}");
    }
}
