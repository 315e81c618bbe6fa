//! One setting: its names, its default, and which values it takes.
//!
//! It must not know which settings exist or where values come from.

use figment::value::{Empty, Tag, Value};

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Place in the file, such as `kafka.brokers`.
    pub path: &'static str,
    /// Environment variable.
    pub variable: &'static str,
    /// Value when nothing is set.
    pub default: Literal,
    /// Which values it takes.
    pub kind: Kind,
    /// One or more sentences.
    pub doc: &'static str,
}

/// A default.
#[derive(Clone, Copy, Debug)]
pub enum Literal {
    /// A whole number.
    Integer(u64),
    /// A truth value.
    Boolean(bool),
    /// A text.
    Text(&'static str),
    /// A list without elements.
    EmptyList,
}

/// Which values a setting takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A whole number.
    Integer {
        /// The smallest.
        min: u64,
        /// The largest; at most `i64::MAX`, the largest number of a TOML file.
        max: u64,
        /// What is counted; empty for a bare number.
        unit: &'static str,
    },
    /// `true` or `false`.
    Boolean,
    /// One of these names, in any case; an empty name stands for "none".
    Choice(&'static [&'static str]),
    /// A text of a certain form.
    Text(Form),
    /// The same, never shown.
    Secret(Form),
    /// A list of texts of a certain form; comma separated in a variable.
    List(Form),
}

/// The form of a text.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// What is allowed, as a noun phrase.
    pub allowed: &'static str,
    /// Whether the text may be empty, and what that means.
    pub empty: Option<&'static str>,
    /// Checks a text that is not empty and gives its normal form, or a remark on what is wrong.
    pub check: fn(&str) -> Result<String, String>,
}

/// Most elements of a list.
const MAX_LIST: usize = 1_024;

/// Most characters of a refused value that an error shows.
const MAX_SHOWN: usize = 80;

/// Why a value was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The value as it may be shown.
    pub shown: String,
    /// What would be allowed, and a remark where there is one.
    pub message: String,
}

impl Setting {
    /// What is allowed, as a noun phrase.
    pub fn allowed(&self) -> String {
        let or_empty = |form: &Form| match form.empty {
            Some(meaning) => format!("{}; empty: {meaning}", form.allowed),
            None => form.allowed.to_owned(),
        };
        match &self.kind {
            Kind::Integer { min, max, unit: "" } => format!("a whole number from {min} to {max}"),
            Kind::Integer { min, max, unit } => format!("a whole number of {unit} from {min} to {max}"),
            Kind::Boolean => "true or false".into(),
            Kind::Choice(names) => {
                let shown: Vec<_> = names.iter().map(|name| if name.is_empty() { "empty" } else { name }).collect();
                match shown.split_last() {
                    Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
                    _ => shown.concat(),
                }
            }
            Kind::Text(form) | Kind::Secret(form) => or_empty(form),
            Kind::List(form) => format!("a list of {}", form.allowed),
        }
    }

    /// The value that `text` of a variable or flag stands for.
    ///
    /// # Errors
    /// When it stands for none that is allowed.
    pub fn from_text(&self, text: &str) -> Result<Value, Refusal> {
        let refuse = |remark: Option<String>| Err(self.refusal(&format!("{text:?}"), text, remark));
        match &self.kind {
            Kind::Integer { .. } => {
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                match text.parse::<u64>() {
                    Ok(number) if digits => self.integer(number).ok_or_else(|| self.refusal(text, text, None)),
                    _ => refuse(service_link_remark(text)),
                }
            }
            Kind::Boolean => match text.to_ascii_lowercase().as_str() {
                "true" | "1" => Ok(Value::from(true)),
                "false" | "0" => Ok(Value::from(false)),
                _ => refuse(None),
            },
            Kind::List(_) => {
                let elements = if text.is_empty() { Vec::new() } else { text.split(',').map(str::trim).collect() };
                self.list(&elements).or_else(refuse)
            }
            Kind::Choice(_) | Kind::Text(_) | Kind::Secret(_) => self.text(text).or_else(refuse),
        }
    }

    /// The value that `item` of a file stands for.
    ///
    /// # Errors
    /// When it stands for none that is allowed.
    pub fn from_toml(&self, item: &toml_edit::Value) -> Result<Value, Refusal> {
        use toml_edit::Value as Toml;
        let refuse = |remark: Option<String>| {
            let raw = toml_text(item);
            let (shown, raw) = match item.as_str() {
                Some(text) => (format!("{text:?}"), text),
                None => (raw.clone(), raw.as_str()),
            };
            Err(self.refusal(&shown, raw, remark))
        };
        match (&self.kind, item) {
            (Kind::Integer { .. }, Toml::Integer(number)) => u64::try_from(*number.value())
                .ok()
                .and_then(|number| self.integer(number))
                .map_or_else(|| refuse(None), Ok),
            (Kind::Boolean, Toml::Boolean(boolean)) => Ok(Value::from(*boolean.value())),
            (Kind::List(_), Toml::Array(array)) => match array.iter().map(Toml::as_str).collect::<Option<Vec<_>>>() {
                Some(elements) => self.list(&elements).or_else(refuse),
                None => refuse(None),
            },
            (Kind::Choice(_) | Kind::Text(_) | Kind::Secret(_), Toml::String(text)) => {
                self.text(text.value()).or_else(refuse)
            }
            _ => refuse(None),
        }
    }

    /// The value of the default.
    pub fn default_value(&self) -> Value {
        match self.default {
            Literal::Integer(number) => Value::from(number),
            Literal::Boolean(boolean) => Value::from(boolean),
            Literal::Text("") if matches!(self.kind, Kind::Choice(_)) => Value::Empty(Tag::Default, Empty::None),
            Literal::Text(text) => Value::from(text),
            Literal::EmptyList => Value::Array(Tag::Default, Vec::new()),
        }
    }

    /// A refusal of a value, with what may be shown of it.
    pub fn refusal(&self, shown: &str, raw: &str, remark: Option<String>) -> Refusal {
        let allowed = self.allowed();
        let message = match remark {
            Some(remark) => format!("must be {allowed} ({remark})"),
            None => format!("must be {allowed}"),
        };
        // A password easily ends up in a neighbouring setting: in front of an `@`, it is hidden there too.
        let hidden = matches!(self.kind, Kind::Secret(_)) || raw.contains('@');
        let shown = if hidden && !raw.is_empty() { "***".into() } else { cut(shown) };
        Refusal { shown, message }
    }

    fn integer(&self, number: u64) -> Option<Value> {
        match self.kind {
            Kind::Integer { min, max, .. } if (min..=max).contains(&number) => Some(Value::from(number)),
            _ => None,
        }
    }

    fn text(&self, text: &str) -> Result<Value, Option<String>> {
        match &self.kind {
            Kind::Choice(names) => match names.iter().find(|name| name.eq_ignore_ascii_case(text)) {
                Some(&"") => Ok(Value::Empty(Tag::Default, Empty::None)),
                Some(name) => Ok(Value::from(*name)),
                None => Err(None),
            },
            Kind::Text(form) | Kind::Secret(form) => form.apply(text).map(Value::from),
            Kind::Integer { .. } | Kind::Boolean | Kind::List(_) => Err(None),
        }
    }

    fn list(&self, elements: &[&str]) -> Result<Value, Option<String>> {
        let Kind::List(form) = &self.kind else { return Err(None) };
        if elements.len() > MAX_LIST {
            return Err(Some(format!("at most {MAX_LIST} elements")));
        }
        let elements = elements.iter().map(|element| form.apply(element)).collect::<Result<Vec<_>, _>>()?;
        Ok(Value::from(elements))
    }
}

impl Form {
    fn apply(&self, text: &str) -> Result<String, Option<String>> {
        match (text.is_empty(), self.empty) {
            (true, Some(_)) => Ok(String::new()),
            (true, None) => Err(None),
            (false, _) => (self.check)(text).map_err(Some),
        }
    }
}

/// Kubernetes puts `<SERVICE>_PORT=tcp://…` into every pod, and a service may happen to be named like our variable.
fn service_link_remark(text: &str) -> Option<String> {
    let link = text.starts_with("tcp://") || text.starts_with("udp://");
    link.then(|| "this looks like a Kubernetes service link: set enableServiceLinks to false".to_owned())
}

/// A value that is not a text, on one line.
fn toml_text(item: &toml_edit::Value) -> String {
    use toml_edit::Value as Toml;
    match item {
        Toml::Integer(number) => number.value().to_string(),
        Toml::Float(number) => number.value().to_string(),
        Toml::Boolean(boolean) => boolean.value().to_string(),
        Toml::String(text) => text.value().clone(),
        Toml::Datetime(_) => "a date".into(),
        Toml::InlineTable(_) => "a table".into(),
        Toml::Array(array) => {
            let elements: Vec<_> = array.iter().take(8).map(toml_text).collect();
            format!("[{}]", elements.join(", "))
        }
    }
}

/// At most [`MAX_SHOWN`] characters, on one line.
pub fn cut(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut shown: String = text.chars().take(MAX_SHOWN).map(clean).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

impl Refusal {
    /// The problem that this refusal is, for a value of `setting` that came from `source`.
    pub fn at(self, setting: &Setting, source: super::problem::Origin) -> super::problem::Problem {
        super::problem::Problem { key: setting.path.into(), value: Some(self.shown), source, message: self.message }
    }
}
