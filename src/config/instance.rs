//! Who this process is among the instances of its group.

use super::sections::Config;

/// The static member id: the configured one, else one that is stable over restarts and differs by host and port.
///
/// `port` is the bound port, so that two processes on any free port differ too.
pub fn instance_id(config: &Config, host_name: &str, port: u16) -> String {
    if !config.kafka.group_instance_id.is_empty() {
        return config.kafka.group_instance_id.clone();
    }
    // Kafka allows what it allows in topic names, at most 249 characters.
    let legal = |c: char| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '-' };
    let host: String = host_name.trim().chars().take(200).map(legal).collect();
    format!("dashstream-{}-{port}", if host.is_empty() { "localhost" } else { &host })
}

/// The name of this machine; `localhost` when it has none.
pub fn host_name() -> String {
    // Linux tells it here; elsewhere the system call behind `hostname` would need a dependency of its own.
    let name =
        std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::fs::read_to_string("/etc/hostname"));
    let name = name.unwrap_or_default().trim().to_owned();
    if name.is_empty() { "localhost".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_member_id_is_legal_for_every_host_name() {
        let config = Config::default();
        assert_eq!(instance_id(&config, "web-1.example\n", 3002), "dashstream-web-1.example-3002");
        assert_eq!(instance_id(&config, "", 1), "dashstream-localhost-1");
        let id = instance_id(&config, &"ä/ ".repeat(300), u16::MAX);
        assert!(id.len() <= 249 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)), "{id}");
    }

    #[test]
    fn a_configured_member_id_is_used_as_it_is() {
        let mut config = Config::default();
        config.kafka.group_instance_id = "a".into();
        assert_eq!(instance_id(&config, "host", 1), "a");
    }
}
