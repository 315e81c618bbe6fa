//! The documented configuration file and the reference page, written from the table.

use std::fmt::Write;

use super::load::Effective;
use super::setting::{Literal, Setting};
use super::table::{self, SECTIONS, Section};

/// Width at which comments are broken.
const WIDTH: usize = 110;

/// The documented file: every setting at its default. It is the file `config.toml` of this project.
pub fn default_config() -> String {
    let mut out = String::from(
        "# Every setting of DashStream, at its default. Written by `dashstream default-config`.\n\
         #\n\
         # A file is read only when --config or DASHSTREAM_CONFIG names it. The environment variable of a setting, which is\n\
         # given with its range below, overrides the file. Unknown names and values out of range refuse the start.\n",
    );
    for section in SECTIONS {
        let _ = write!(out, "\n{}[{}]\n", comment(section.doc), section.name);
        for setting in section.settings {
            let _ = write!(out, "\n{}{} = {}\n", describe(setting), name(section, setting), literal(setting.default));
        }
    }
    out
}

/// The reference page: one table per section.
pub fn reference_page() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         Written by `dashstream default-config --format markdown`; [config.toml](../config.toml) is the same as a file.\n\n\
         Layers, later ones win: defaults, the file named by `--config` or `DASHSTREAM_CONFIG`, environment variables, options of\n\
         the command line. Unknown settings, unknown `DASHSTREAM_*` variables and values out of range refuse the start with exit\n\
         code 64; the message names setting, value, allowed range and source. Nothing is adjusted in silence. `dashstream\n\
         check-config` shows what would be used and where it comes from, with secrets hidden.\n",
    );
    for section in SECTIONS {
        let _ = write!(out, "\n## {}\n\n{}\n\n", section.name, section.doc);
        out.push_str("| setting | variable | default | allowed | meaning |\n|---|---|---|---|---|\n");
        for setting in section.settings {
            let _ = writeln!(
                out,
                "| `{}` | `{}` | `{}` | {} | {} |",
                name(section, setting),
                setting.variable,
                literal(setting.default),
                setting.allowed(),
                setting.doc
            );
        }
    }
    let _ = write!(
        out,
        "\n## Variables of earlier versions\n\nThey have no effect; a warning says so when one is set.\n\n"
    );
    out.push_str("| variable | instead |\n|---|---|\n");
    for (variable, advice) in table::RETIRED {
        let _ = writeln!(out, "| `{variable}` | {advice} |");
    }
    out
}

/// A configuration in use, as a TOML file with the source of each value.
pub fn effective_config(settings: &[Effective]) -> String {
    let mut out = String::new();
    for section in SECTIONS {
        let blank_line = if out.is_empty() { "" } else { "\n" };
        let _ = writeln!(out, "{blank_line}[{}]", section.name);
        for setting in section.settings {
            if let Some(effective) = settings.iter().find(|effective| effective.key == setting.path) {
                let value = match &effective.value {
                    serde_json::Value::Null => "\"\"".into(),
                    value => value.to_string(),
                };
                let _ = writeln!(out, "{} = {value} # {}", name(section, setting), effective.source);
            }
        }
    }
    out
}

fn name<'a>(section: &Section, setting: &'a Setting) -> &'a str {
    setting.path.strip_prefix(section.name).map_or(setting.path, |rest| rest.trim_start_matches('.'))
}

fn describe(setting: &Setting) -> String {
    format!("{}{}", comment(setting.doc), comment(&format!("{}: {}", setting.variable, setting.allowed())))
}

/// The text as comment lines.
fn comment(text: &str) -> String {
    let mut out = String::new();
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
    out
}

/// JSON texts are also TOML texts.
fn literal(literal: Literal) -> String {
    match literal {
        Literal::Integer(number) => number.to_string(),
        Literal::Boolean(boolean) => boolean.to_string(),
        Literal::Text(text) => serde_json::Value::from(text).to_string(),
        Literal::EmptyList => "[]".into(),
    }
}
