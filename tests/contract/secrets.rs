//! A secret shows nowhere, wherever somebody puts it, also by mistake.

use dashstream::config::environment::Environment;
use dashstream::config::load::load;
use dashstream::config::render::effective_config;
use proptest::prelude::*;

use crate::layers::file;

const VARIABLES: [(&str, &str); 19] = [
    ("KAFKA_SASL_PASSWORD", "{}"),
    ("KAFKA_SSL_KEY_PASSWORD", "{}"),
    ("REDIS_URL", "redis://user:{}@h:6379/0"),
    ("REDIS_URL", "redis://:{}@h"),
    ("REDIS_URL", "redis://h?password={}"),
    ("REDIS_URL", "redis:/user:{}@h"),
    ("REDIS_URL", "http://user:{}@h"),
    ("REDIS_URL", "redis://user:{}@h:x"),
    ("REDIS_URL", "{}"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://user:{}@h/path"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://h/path?key={}"),
    ("KAFKA_BROKERS", "user:{}@h:9092"),
    ("KAFKA_BROKERS", "SASL_SSL://user:{}@h:9092"),
    ("WEBSOCKET_TRUSTED_PROXY_IPS", "http://user:{}@h"),
    ("WEBSOCKET_BUFFER_SIZE", "{}"),
    ("DASHSTREAM_PASSWORD", "{}"),
    ("DASHSTREAM_WEB_ADMIN_TOKEN", "{}"),
    ("DASHSTREAM_AUTH_JWT_SECRET", "{}{}{}{}{}{}{}{}"),
    ("DASHSTREAM_AUTH_JWKS", "https://user:{}@h/keys"),
];

const FILES: [&str; 16] = [
    "[kafka.security]\nsasl_password = \"{}\"\n",
    "[kafka.security]\nsasl_password = {}\n",
    "[kafka.security]\nsasl_password = \"{}\n",
    "[kafka.security]\nsasl_password = '{}\n[web]\nport = 0\n",
    "[kafka.security]\nsasl_password = [\"{}\"]\n",
    "[kafka.security]\nsasl_password = { value = \"{}\" }\n",
    "[kafka.security]\nsasl_pasword = \"{}\"\n",
    "kafka.security.ssl_key_password = \"{}\"\n",
    "[redis]\nurl = \"redis://user:{}@h\"\n",
    "[redis]\nurl = redis://user:{}@h\n",
    "[redis]\nurl = \"user:{}@h\"\n",
    "[web]\nadmin_token = \"{}\"\n",
    "[redis]\npassword = \"{}\"\n",
    "[redis]\nurl = [\"redis://user:{}@h\"]\n",
    "[kafka]\nbrokers = \"user:{}@h:9092\"\n",
    "[kafka]\nbrokers = [\"user:{}@h:9092\"]\n",
];

/// Everything that is ever shown of a configuration, or of a failure to load it.
fn outputs(file_text: Option<&str>, variables: &[(&str, &str)]) -> String {
    let environment: Environment = variables.iter().copied().collect();
    let file = file_text.map(file);
    match load(file.as_ref().map(|file| file.path()), &environment, &[]) {
        Err(error) => format!("{error}\n{error:?}\n{}", serde_json::to_string(&error.problems).unwrap()),
        Ok(loaded) => {
            let effective = loaded.effective();
            let json = serde_json::to_string(&effective).unwrap();
            let config = serde_json::to_string(&loaded.config).unwrap();
            format!("{loaded:?}\n{environment:?}\n{effective:?}\n{json}\n{config}\n{}", effective_config(&effective))
        }
    }
}

/// Whether any part of the secret that is long enough to be no accident shows.
fn shows(output: &str, secret: &str) -> bool {
    secret.as_bytes().windows(6).any(|part| output.as_bytes().windows(6).any(|shown| shown == part))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_secret_never_shows(secret in "[A-Za-z0-9!$%^&*()_+~<>,.;:?/=#@-]{12,24}") {
        for (variable, template) in VARIABLES {
            let shown = outputs(None, &[(variable, &template.replace("{}", &secret))]);
            prop_assert!(!shows(&shown, &secret), "{variable}={template}: {shown}");
        }
        for template in FILES {
            let shown = outputs(Some(&template.replace("{}", &secret)), &[]);
            prop_assert!(!shows(&shown, &secret), "{template}: {shown}");
        }
        let complete = [
            ("KAFKA_SECURITY_PROTOCOL", "sasl_plaintext"),
            ("KAFKA_SASL_MECHANISM", "PLAIN"),
            ("KAFKA_SASL_USERNAME", "alice"),
            ("KAFKA_SASL_PASSWORD", &secret),
        ];
        let shown = outputs(None, &complete);
        prop_assert!(shown.contains("alice") && shown.contains("***") && !shows(&shown, &secret), "{shown}");
    }
}
