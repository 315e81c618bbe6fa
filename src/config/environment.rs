//! The environment of the process, read once and passed on as a value.
//!
//! Nothing else in this program reads variables, so a test can run the whole configuration with variables of its own.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use super::problem::{Origin, Problem};
use super::table;

/// Variables by name.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// The variables of this process.
    pub fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// The file of this program, to run it once more.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn program() -> std::io::Result<std::path::PathBuf> {
        std::env::current_exe()
    }

    /// The same variables and these.
    #[must_use]
    pub fn with(&self, variables: &[(&str, &str)]) -> Self {
        let mut all = self.0.clone();
        all.extend(variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))));
        Self(all)
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// The same variables without those of settings outside the given sections, without those of the settings `except`, and
    /// without a configuration file.
    #[must_use]
    pub fn only_sections(&self, sections: &[&str], except: &[&str]) -> Self {
        let wanted = |path: &str| sections.iter().any(|section| is_below(path, section)) && !except.contains(&path);
        let foreign = |name: &OsStr| {
            let setting = table::settings().find(|setting| OsStr::new(setting.variable) == name);
            name == table::CONFIG_VARIABLE || setting.is_some_and(|setting| !wanted(setting.path))
        };
        Self(self.0.iter().filter(|(name, _)| !foreign(name)).map(|(n, v)| (n.clone(), v.clone())).collect())
    }

    /// Variables that carry our prefix and mean nothing: a mistyped one must not be ignored in silence.
    pub fn unknown(&self) -> Vec<Problem> {
        let names = self.0.iter().filter_map(|(name, value)| Some((name.to_str()?, value)));
        names
            .filter(|(name, value)| {
                name.starts_with(table::OWN_PREFIX)
                    && !name.starts_with(table::TEST_PREFIX)
                    && *name != table::CONFIG_VARIABLE
                    && !table::settings().any(|setting| setting.variable == *name)
                    && !is_service_link(name, value)
            })
            .map(|(name, _)| {
                // The systematic name of a setting that has another one is the likeliest mistake.
                let systematic = table::settings().find(|setting| systematic_name(setting.path) == name);
                let known = table::settings().map(|setting| setting.variable).chain([table::CONFIG_VARIABLE]);
                let meant = systematic.map(|setting| setting.variable).or_else(|| super::problem::nearest(name, known));
                Problem::unknown(name, Origin::Variable(name.to_owned()), "variable", meant)
            })
            .collect()
    }

    /// A line for each variable of earlier versions that has no effect any more.
    pub fn retired(&self) -> Vec<String> {
        let set = table::RETIRED.iter().filter(|(name, _)| self.get(name).is_some());
        set.map(|(name, advice)| format!("the variable {name} has no effect: {advice}")).collect()
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl std::fmt::Debug for Environment {
    /// Names only: values may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The variable of a setting that has no name of its own.
pub fn systematic_name(path: &str) -> String {
    format!("{}{}", table::OWN_PREFIX, path.to_ascii_uppercase().replace('.', "_"))
}

fn is_below(path: &str, section: &str) -> bool {
    path.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'))
}

/// Kubernetes tells every pod of every service: one that is called `dashstream` gives `DASHSTREAM_SERVICE_HOST`,
/// `DASHSTREAM_PORT=tcp://…` and so on. They are nobody's mistake.
fn is_service_link(name: &str, value: &OsStr) -> bool {
    let value = value.to_string_lossy();
    let (is_link, is_address) = (value.contains("://"), value.parse::<std::net::IpAddr>().is_ok());
    let is_port = value.parse::<u16>().is_ok();
    let after_port = name.rsplit_once("_PORT_").map(|(_, rest)| rest);
    let described = after_port.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    (name.ends_with("_SERVICE_HOST") && is_address)
        || (name.contains("_SERVICE_PORT") && is_port)
        || (name.ends_with("_PORT") && is_link)
        || described
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(name: &str, value: &str) -> Vec<String> {
        let environment: Environment = [(name, value)].into_iter().collect();
        environment.unknown().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_unknown_variable_of_ours_is_named_with_the_likely_one() {
        let text = unknown("DASHSTREAM_WEB_HEARTBEET_SECS", "secret").concat();
        assert!(
            text.contains("DASHSTREAM_WEB_HEARTBEET_SECS") && text.contains("DASHSTREAM_WEB_HEARTBEAT_SECS"),
            "{text}"
        );
        assert!(!text.contains("secret"));
        assert!(unknown("DASHSTREAM_KAFKA_BROKERS", "h:1").concat().contains("KAFKA_BROKERS?"));
        assert_eq!(unknown("DASHSTREAM_", "").len(), 1);
        assert!(!unknown("DASHSTREAM_FOO", "").concat().contains("did you mean"));
    }

    #[test]
    fn what_others_put_into_the_environment_is_no_mistake() {
        for (name, value) in [
            ("DASHSTREAM_TEST_KAFKA", "127.0.0.1:9092"),
            ("DASHSTREAM_CONFIG", "x"),
            ("DASHSTREAM_SERVICE_HOST", "10.0.0.1"),
            ("DASHSTREAM_SERVICE_PORT", "3002"),
            ("DASHSTREAM_SERVICE_PORT_HTTP", "3002"),
            ("DASHSTREAM_PORT", "tcp://10.0.0.1:3002"),
            ("DASHSTREAM_PORT_3002_TCP", "tcp://10.0.0.1:3002"),
            ("DASHSTREAM_PORT_3002_TCP_ADDR", "10.0.0.1"),
            ("DASHSTREAM_METRICS_PORT_9090_TCP_PROTO", "tcp"),
            ("KAFKA_HEAP_OPTS", "-Xmx1g"),
            ("PATH", "/bin"),
        ] {
            assert_eq!(unknown(name, value), Vec::<String>::new(), "{name}");
        }
    }
}
