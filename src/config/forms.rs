//! The forms that texts in the configuration may have.
//!
//! Each check takes a text that is not empty and gives its normal form, or a remark on what is wrong. A remark never
//! repeats the text, which may be a secret.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::setting::Form;

/// Kafka bootstrap addresses.
pub const BROKERS: Form = Form { allowed: "host:port, several separated by commas", empty: None, check: check_brokers };

/// A Kafka topic.
pub const TOPIC: Form = Form { allowed: KAFKA_NAME, empty: None, check: check_kafka_name };

/// The topic of dead letters.
pub const DLQ_TOPIC: Form =
    Form { allowed: KAFKA_NAME, empty: Some("the source topic with -dlq appended"), check: check_kafka_name };

/// A consumer group.
pub const GROUP: Form = Form { allowed: "1 to 255 printable characters", empty: None, check: check_label };

/// A static member id.
pub const MEMBER: Form =
    Form { allowed: KAFKA_NAME, empty: Some("derived from host and port"), check: check_kafka_name };

/// Any short text; empty: not used.
pub const LABEL: Form = Form { allowed: "1 to 255 printable characters", empty: Some("not used"), check: check_label };

/// A file; empty: not used.
pub const FILE: Form = Form { allowed: "the path of a readable file", empty: Some("not used"), check: check_path };

/// A password; empty: none.
pub const PASSWORD: Form = Form { allowed: "a text of at most 4096 bytes", empty: Some("none"), check: check_password };

/// What is shown in an `Authorization` header.
pub const TOKEN: Form = Form {
    allowed: "16 to 4096 characters without spaces, as in a bearer token",
    empty: Some("none"),
    check: check_token,
};

/// Secret of signed tokens.
pub const JWT_SECRET: Form = Form {
    allowed: "32 to 4096 characters without spaces, as random as a key",
    empty: Some("none"),
    check: check_jwt_secret,
};

/// Public keys of tokens.
pub const JWKS: Form = Form {
    allowed: "the path of a file, https://host[:port]/path, or http:// to this machine",
    empty: Some("none"),
    check: check_jwks,
};

/// The name of a claim.
pub const CLAIM: Form = Form { allowed: "1 to 255 printable characters", empty: None, check: check_label };

/// The origin of a page.
pub const ORIGIN: Form = Form { allowed: "origins such as https://host[:port]", empty: None, check: check_origin };

/// A second address to listen on.
pub const LISTEN: Form =
    Form { allowed: "host:port or [IPv6 address]:port", empty: Some("not used"), check: check_listen };

/// A place in a message.
pub const FIELD_PATH: Form = Form {
    allowed: "field names separated by dots, such as event.attributes.api_key or **.stack_trace",
    empty: None,
    check: check_field_path,
};

/// A regular expression.
pub const PATTERN: Form =
    Form { allowed: "regular expressions that match at least one character", empty: None, check: check_pattern };

/// An address to listen on.
pub const HOST: Form = Form { allowed: "an IP address or a host name", empty: None, check: check_host };

/// An address range.
pub const NETWORK: Form =
    Form { allowed: "IP addresses or address ranges such as 10.0.0.0/8", empty: None, check: check_network };

/// A Redis server.
pub const REDIS: Form = Form {
    allowed: "redis://[user:password@]host[:port][/database] or rediss://…",
    empty: Some("no Redis"),
    check: check_redis,
};

/// A Sentinel, or a node of a cluster.
pub const NODE: Form = Form { allowed: "addresses of the form host:port", empty: None, check: check_node };

/// What others call something.
pub const NAME: Form =
    Form { allowed: "1 to 64 letters, digits, dots, hyphens, underscores and colons", empty: None, check: check_name };

/// An OTLP collector.
pub const OTLP: Form =
    Form { allowed: "http://host[:port][/path] or https://…", empty: Some("no export"), check: check_otlp };

/// A log filter.
pub const LOG_FILTER: Form = Form {
    allowed: "a level (off, error, warn, info, debug, trace), or target=level pairs separated by commas",
    empty: None,
    check: check_log_filter,
};

/// Bounds of a histogram.
pub const BUCKETS: Form = Form {
    allowed: "1 to 64 numbers from 0 on, each larger than the one before, separated by commas",
    empty: None,
    check: check_buckets,
};

const KAFKA_NAME: &str = "1 to 249 letters, digits, dots, hyphens and underscores";

fn check_brokers(text: &str) -> Result<String, String> {
    let mut brokers = Vec::new();
    for broker in text.split(',').map(str::trim) {
        if broker.contains("://") {
            return Err("without a scheme; security is set by kafka.security.protocol".into());
        }
        let (host, port) = match broker.rsplit_once(':') {
            // The colons of a bare IPv6 address separate no port.
            Some((host, _)) if host.contains(':') && !host.starts_with('[') => {
                return Err("an IPv6 address needs brackets".into());
            }
            Some((host, port)) if !broker.ends_with(']') => (host, Some(port)),
            _ => (broker, None),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match bare {
            Some(address) => drop(std::net::Ipv6Addr::from_str(address).map_err(|_| "a broken IPv6 address")?),
            None => drop(check_host(host).map_err(|_| "a broken host name")?),
        }
        if let Some(port) = port {
            check_port(port)?;
        }
        brokers.push(broker);
    }
    Ok(brokers.join(","))
}

fn check_port(port: &str) -> Result<(), String> {
    match port.parse::<u16>() {
        Ok(1..) if port.bytes().all(|byte| byte.is_ascii_digit()) => Ok(()),
        _ => Err("a port is a number from 1 to 65535".into()),
    }
}

/// The rule of Kafka for topics, which it also applies to static member ids.
fn check_kafka_name(text: &str) -> Result<String, String> {
    if text == "." || text == ".." {
        return Err("not . or ..".into());
    }
    if text.len() > 249 {
        return Err("too long".into());
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if text.bytes().all(legal) { Ok(text.into()) } else { Err("another character is in it".into()) }
}

fn check_label(text: &str) -> Result<String, String> {
    if text.chars().count() > 255 {
        return Err("too long".into());
    }
    if text.chars().any(char::is_control) {
        return Err("a control character is in it".into());
    }
    if text.trim() == text { Ok(text.into()) } else { Err("blanks at an end".into()) }
}

fn check_path(text: &str) -> Result<String, String> {
    if text.contains('\0') || text.len() > 4_096 { Err("not a path".into()) } else { Ok(text.into()) }
}

fn check_password(text: &str) -> Result<String, String> {
    if text.contains('\0') || text.len() > 4_096 { Err("not a password".into()) } else { Ok(text.into()) }
}

fn check_token(text: &str) -> Result<String, String> {
    let fits = (16..=4_096).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(text.into()) } else { Err("not a token".into()) }
}

fn check_jwt_secret(text: &str) -> Result<String, String> {
    let fits = (32..=4_096).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(text.into()) } else { Err("too short for a key, or with other characters".into()) }
}

fn check_jwks(text: &str) -> Result<String, String> {
    if !text.contains("://") {
        return check_path(text);
    }
    // Also where an address parser would not look for them: what was meant as a password must not be shown as a path.
    if text.contains('@') {
        return Err("without user and password: public keys are no secret".into());
    }
    let url = check_url(text, &["http", "https"])?;
    let near = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if url.scheme() == "http" && !near {
        return Err("keys that come without TLS could be anybody's".into());
    }
    Ok(text.into())
}

fn check_origin(text: &str) -> Result<String, String> {
    let url = check_url(text, &["http", "https"])?;
    match url.origin().ascii_serialization() {
        origin if origin == text.to_ascii_lowercase() => Ok(origin),
        origin => Err(format!("an origin is scheme, host and port alone, perhaps {origin} was meant")),
    }
}

fn check_listen(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => std::net::Ipv6Addr::from_str(address).map_err(|_| "a broken IPv6 address")?.to_string(),
        None if host.contains(':') => return Err("an IPv6 address needs brackets".into()),
        None => check_host(host)?,
    };
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(port) if digits && host.contains(':') => Ok(format!("[{host}]:{port}")),
        Ok(port) if digits => Ok(format!("{host}:{port}")),
        _ => Err("a port is a number from 0 to 65535".into()),
    }
}

fn check_field_path(text: &str) -> Result<String, String> {
    if text.len() > 1_024 || text.chars().any(char::is_control) {
        return Err("too long, or a control character is in it".into());
    }
    if text.split('.').any(str::is_empty) { Err("a name is missing between two dots".into()) } else { Ok(text.into()) }
}

fn check_pattern(text: &str) -> Result<String, String> {
    if text.len() > 4_096 {
        return Err("too long".into());
    }
    let pattern = regex::Regex::new(text).map_err(|_| "it cannot be read")?;
    if pattern.is_match("") { Err("it matches where nothing is".into()) } else { Ok(text.into()) }
}

fn check_host(text: &str) -> Result<String, String> {
    if IpAddr::from_str(text).is_ok() {
        return Ok(text.into());
    }
    if text.starts_with('[') {
        return Err("without brackets".into());
    }
    let legal = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    // A name of digits only is a mistyped address, and would be looked up in vain.
    let digits = name.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    if text.len() <= 253 && !digits && name.split('.').all(legal) { Ok(text.into()) } else { Err("neither".into()) }
}

fn check_network(text: &str) -> Result<String, String> {
    if let Ok(address) = IpAddr::from_str(text) {
        return Ok(IpNet::from(address).to_string());
    }
    let network = IpNet::from_str(text).map_err(|_| "neither an address nor a range")?;
    // Guessing which part of 10.1.2.3/8 was meant would trust the wrong proxies.
    if network.addr() == network.network() {
        Ok(network.to_string())
    } else {
        Err(format!("the range has bits beyond its prefix, perhaps {} was meant", network.trunc()))
    }
}

fn check_redis(text: &str) -> Result<String, String> {
    let url = check_url(text, &["redis", "rediss"])?;
    let database = url.path().trim_start_matches('/');
    if !database.is_empty() && database.parse::<u16>().is_err() {
        return Err("the database is a number".into());
    }
    Ok(text.into())
}

fn check_node(text: &str) -> Result<String, String> {
    let node = check_brokers(text)?;
    if node.contains(',') { Err("several in one".into()) } else { require_port(node) }
}

fn require_port(node: String) -> Result<String, String> {
    match node.rsplit_once(':') {
        Some((_, port)) if check_port(port).is_ok() => Ok(node),
        _ => Err("the port is missing".into()),
    }
}

fn check_name(text: &str) -> Result<String, String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    if text.len() <= 64 && text.bytes().all(legal) {
        Ok(text.into())
    } else {
        Err("too long, or another character".into())
    }
}

fn check_buckets(text: &str) -> Result<String, String> {
    let bounds: Vec<&str> = text.split(',').map(str::trim).collect();
    if bounds.len() > 64 {
        return Err("more than 64".into());
    }
    let mut before = None;
    for bound in &bounds {
        let number = bound.parse::<f64>().ok().filter(|number| number.is_finite() && !number.is_sign_negative());
        let number = number.ok_or("one of them is no number, or below 0")?;
        if before.is_some_and(|before| number <= before) {
            return Err("they do not ascend".into());
        }
        before = Some(number);
    }
    Ok(bounds.join(","))
}

fn check_otlp(text: &str) -> Result<String, String> {
    check_url(text, &["http", "https"]).map(|_| text.into())
}

fn check_url(text: &str, schemes: &[&str]) -> Result<url::Url, String> {
    if text.len() > 4_096 || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("blanks or control characters are in it, or it is too long".into());
    }
    let url = url::Url::parse(text).map_err(|error| error.to_string())?;
    if !schemes.contains(&url.scheme()) {
        return Err("another scheme".into());
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("the host is missing".into());
    }
    if url.port() == Some(0) {
        return Err("a port is a number from 1 to 65535".into());
    }
    Ok(url)
}

fn check_log_filter(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for directive in text.split(',').map(str::trim) {
        let is_level = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(directive));
        // The filter would take a mistyped level for the name of a target, and silence everything else.
        let is_target = directive.starts_with("dashstream") || directive.contains(['=', '[', ':', '_']);
        if !is_level && !is_target {
            return Err("a word that is no level; for a target write target=level".into());
        }
    }
    // The library that reads directives cuts them at bytes.
    if !text.is_ascii() {
        return Err("a directive holds a character that is not ASCII".into());
    }
    crate::telemetry::filter(text).map(|_| text.into()).map_err(|_| "a directive cannot be read".into())
}
