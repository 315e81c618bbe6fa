//! Puts the layers together: defaults, file, environment, flags.
//!
//! Every value of every layer is checked, also one that a later layer replaces, and everything that is wrong is reported
//! at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map};
use figment::{Figment, Metadata, Profile, Provider};

use super::environment::Environment;
use super::file::{self, FileLayer, insert};
use super::problem::{ConfigError, Origin, Problem};
use super::sections::Config;
use super::setting::Setting;
use super::{table, validate};

/// A value from the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The option, such as `--port`.
    pub name: &'static str,
    /// Path of the setting that it sets.
    pub path: &'static str,
    /// The value, as a variable would hold it.
    pub value: String,
}

/// A configuration that can be used, and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file, if one was read.
    pub file: Option<PathBuf>,
    /// What an operator should know, such as a variable without effect.
    pub warnings: Vec<String>,
    origins: BTreeMap<&'static str, Origin>,
}

/// One setting of the configuration in use.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Effective {
    /// Its path.
    pub key: &'static str,
    /// Its value, secrets hidden.
    pub value: serde_json::Value,
    /// Where it came from.
    pub source: Origin,
}

/// Loads the configuration.
///
/// The file is `file`, else the one that `DASHSTREAM_CONFIG` names, else none: what runs does not depend on the directory
/// that it was started in.
///
/// # Errors
/// Everything that is wrong, each with key, value, allowed range and source.
pub fn load(file: Option<&Path>, environment: &Environment, flags: &[Flag]) -> Result<Loaded, ConfigError> {
    let mut problems = Vec::new();
    let (path, file_layer) = file_layer(file, environment);
    problems.extend(file_layer.problems);
    let variables = environment_layer(environment, &mut problems);
    problems.extend(environment.unknown());
    let options = flag_layer(flags, &mut problems);
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }

    let figment = Figment::from(Layer::new(DEFAULT, default_layer()))
        .merge(Layer::new(FILE, file_layer.values))
        .merge(Layer::new(ENVIRONMENT, variables))
        .merge(Layer::new(FLAGS, options));
    let config: Config = figment.extract().map_err(|error| internal(&error))?;

    let mut origins = BTreeMap::new();
    for setting in table::settings() {
        let origin = match figment.find_metadata(setting.path).map_or(DEFAULT, |metadata| &metadata.name) {
            FILE => Origin::File(path.clone().unwrap_or_default(), file_layer.lines.get(setting.path).copied()),
            ENVIRONMENT => Origin::Variable(setting.variable.to_owned()),
            FLAGS => Origin::Flag(flags.iter().rfind(|flag| flag.path == setting.path).map_or("", |flag| flag.name)),
            _ => Origin::Default,
        };
        origins.insert(setting.path, origin);
    }
    let conflicts = validate::check(&config);
    if !conflicts.is_empty() {
        let problems = conflicts.into_iter().map(|conflict| conflict.into_problem(&config, &origins)).collect();
        return Err(ConfigError { problems });
    }
    let mut warnings = environment.retired();
    warnings.extend(validate::warnings(&config));
    Ok(Loaded { config, file: path, warnings, origins })
}

/// What runs when nothing is set.
pub fn defaults() -> Config {
    // The table and the types agree, or no test of this program passes.
    load(None, &Environment::default(), &[]).map(|loaded| loaded.config).unwrap_or_else(|error| unreachable!("{error}"))
}

impl Loaded {
    /// Every setting with its value and source, in the order of the table; secrets hidden.
    pub fn effective(&self) -> Vec<Effective> {
        let values = serde_json::to_value(&self.config).unwrap_or_default();
        let origin = |path| self.origins.get(path).cloned().unwrap_or(Origin::Default);
        table::settings()
            .map(|setting| Effective {
                key: setting.path,
                value: at_path(&values, setting.path),
                source: origin(setting.path),
            })
            .collect()
    }
}

/// The value at a dotted path; `null` where there is none.
pub(super) fn at_path(values: &serde_json::Value, path: &str) -> serde_json::Value {
    path.split('.').try_fold(values, |value, name| value.get(name)).cloned().unwrap_or_default()
}

fn file_layer(file: Option<&Path>, environment: &Environment) -> (Option<PathBuf>, FileLayer) {
    let (path, named_by) = match (file, environment.get(table::CONFIG_VARIABLE)) {
        (Some(path), _) => (path.to_owned(), Origin::Flag("--config")),
        (None, Some(path)) => (PathBuf::from(path), Origin::Variable(table::CONFIG_VARIABLE.into())),
        (None, None) => return (None, FileLayer::default()),
    };
    if path.as_os_str().is_empty() {
        let problem = Problem::new("the configuration file", named_by, "must be a path; it is empty");
        return (None, FileLayer { problems: vec![problem], ..FileLayer::default() });
    }
    let layer = file::read(&path, named_by);
    (Some(path), layer)
}

fn default_layer() -> Dict {
    let mut values = Dict::new();
    for setting in table::settings() {
        insert(&mut values, setting.path, setting.default_value());
    }
    values
}

fn environment_layer(environment: &Environment, problems: &mut Vec<Problem>) -> Dict {
    let mut texts = Vec::new();
    for setting in table::settings() {
        let Some(value) = environment.get(setting.variable) else { continue };
        let origin = Origin::Variable(setting.variable.into());
        match value.to_str() {
            Some(text) => texts.push((setting, origin, text.to_owned())),
            None => {
                let shown = value.to_string_lossy();
                let refusal = setting.refusal(&shown, &shown, Some("it is not UTF-8 text".into()));
                problems.push(refusal.at(setting, origin));
            }
        }
    }
    text_layer(texts.into_iter(), problems)
}

fn flag_layer(flags: &[Flag], problems: &mut Vec<Problem>) -> Dict {
    let texts =
        flags.iter().filter_map(|flag| Some((table::by_path(flag.path)?, Origin::Flag(flag.name), flag.value.clone())));
    text_layer(texts, problems)
}

fn text_layer(texts: impl Iterator<Item = (&'static Setting, Origin, String)>, problems: &mut Vec<Problem>) -> Dict {
    let mut values = Dict::new();
    for (setting, origin, text) in texts {
        match setting.from_text(&text) {
            Ok(value) => insert(&mut values, setting.path, value),
            Err(refusal) => problems.push(refusal.at(setting, origin)),
        }
    }
    values
}

/// The table and the types disagree: a defect of this program, reported like any other problem.
fn internal(error: &figment::Error) -> ConfigError {
    let message = format!("the table of settings does not fit the types: {:?}", error.kind);
    ConfigError { problems: vec![Problem::new(error.path.join("."), Origin::Default, message)] }
}

const DEFAULT: &str = "default";
const FILE: &str = "file";
const ENVIRONMENT: &str = "environment";
const FLAGS: &str = "flags";

/// Checked values, handed to figment.
struct Layer {
    name: &'static str,
    values: Dict,
}

impl Layer {
    const fn new(name: &'static str, values: Dict) -> Self {
        Self { name, values }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}
