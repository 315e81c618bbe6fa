//! The rules of the tree that a compiler does not know: who may import whom, where each library may be named, how long a
//! file may be, and what has no place in it. Reads the sources as text; needs nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::string_slice,
    reason = "a test fails by panicking, and it reads sources that it belongs to"
)]
#![allow(clippy::indexing_slicing, reason = "a wrong index fails the test, which is right")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the crate, each with those that its production code may name. `a::b` allows that one module of `a`.
const LAYERS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    // Label values are closed sets, and some of them are decided there.
    ("metrics", &["quality", "runs::names"]),
    ("http_client", &[]),
    ("board", &["pipeline"]),
    ("pipeline", &["wire"]),
    ("runs", &["pipeline", "wire"]),
    ("quality", &["runs", "wire"]),
    ("generate", &["wire"]),
    // The types of the security section live with the code that hands them to librdkafka.
    ("config", &["kafka::security", "telemetry"]),
    ("telemetry", &["config::sections", "pipeline::flood"]),
    // The table that outlives the actors which stand still by it.
    ("pauses", &["pipeline"]),
    // Messages carry a handle: the queue of a session.
    ("messages", &["actors::session_queue", "board", "pipeline"]),
    ("kafka", &["board", "config::secret", "generate", "messages", "metrics", "pauses", "pipeline", "quality::lag"]),
    ("redis", &["board", "config::secret", "metrics", "pipeline", "wire"]),
    ("spans", &["config::secret", "http_client", "metrics", "pipeline", "telemetry"]),
    ("actors", &["board", "kafka", "messages", "metrics", "pauses", "pipeline", "redis", "spans", "telemetry", "wire"]),
    (
        "web",
        &[
            "actors",
            "board",
            "config::secret",
            "http_client",
            "messages",
            "metrics",
            "pauses",
            "pipeline",
            "telemetry",
            "wire",
        ],
    ),
    (
        "app",
        &[
            "actors", "board", "config", "kafka", "metrics", "pauses", "pipeline", "quality", "redis", "runs", "spans",
            "web", "wire",
        ],
    ),
    (
        "cli",
        &[
            "actors::topology",
            "app",
            "config",
            "generate",
            "http_client",
            "kafka",
            "pauses",
            "pipeline",
            "runs",
            "telemetry",
            "torture",
            "wire::telemetry",
        ],
    ),
    ("torture", &["generate", "kafka", "pipeline", "redis", "wire"]),
    ("lib", &[]),
    ("main", &[]),
];

/// Libraries, and `std` parts, that have a door: the only paths below `src` whose production code may name them.
const DOORS: &[(&str, &[&str])] = &[
    ("rdkafka", &["kafka/"]),
    ("nix", &["torture/"]),
    ("deadpool_redis", &["redis/"]),
    ("redis", &[]),
    ("rustls", &["http_client.rs", "redis/connect.rs", "web/"]),
    ("ureq", &["http_client.rs", "spans/otlp.rs"]),
    ("opentelemetry", &["spans.rs", "spans/"]),
    ("opentelemetry_sdk", &["spans/"]),
    ("opentelemetry_otlp", &["spans/"]),
    ("opentelemetry_http", &["spans/"]),
    ("actix_web", &["web/", "app.rs"]),
    ("actix_web_actors", &["web/websocket.rs", "actors/client_session"]),
    ("actix_http", &["web/websocket.rs", "web/server.rs", "actors/client_session.rs"]),
    ("actix_server", &["web/server.rs"]),
    ("actix_service", &["web/server.rs"]),
    ("actix_codec", &["web/websocket.rs"]),
    ("actix", &["actors/", "kafka/", "web/", "messages.rs", "app"]),
    (
        "tokio",
        &[
            "actors/",
            "kafka/history",
            "kafka/topics.rs",
            "kafka/resets.rs",
            "redis/",
            "spans/",
            "torture/",
            "web/",
            "app",
            "cli/",
        ],
    ),
    ("tokio_tungstenite", &["torture/"]),
    ("prost", &["wire/", "runs/item.rs", "runs/fact.rs", "generate/", "torture/"]),
    ("zstd", &["wire/", "pipeline/decode.rs", "generate/"]),
    ("prometheus", &["metrics.rs", "metrics/", "actors/decode_outcomes.rs", "spans/", "web/status.rs", "app.rs"]),
    ("tracing", &["actors/", "kafka/", "spans/", "web/", "app", "cli/", "telemetry.rs"]),
    ("tracing_subscriber", &["telemetry.rs"]),
    ("clap", &["cli/"]),
    ("crossterm", &["cli/runs/watch_screen.rs"]),
    ("anyhow", &["cli/"]),
    ("figment", &["config/"]),
    ("toml_edit", &["config/"]),
    ("socket2", &["torture/proxy", "web/"]),
    ("actix_tls", &["web/server.rs"]),
    ("ring", &["web/auth/"]),
    ("jsonwebtoken", &["web/auth.rs", "web/auth/"]),
    ("regex", &["pipeline/redact.rs", "config/forms.rs", "app.rs"]),
    ("rust_embed", &["web/assets.rs"]),
    ("schemars", &["actors/topology.rs", "pipeline/verdict.rs", "web/health.rs"]),
    ("std::env", &["config/environment.rs", "main.rs"]),
    ("std::net::TcpStream", &["actors/sessions.rs", "web/"]),
    ("std::fs", &["config/", "cli/", "kafka/identity.rs", "torture/instance.rs", "web/auth/jwks.rs", "web/tls.rs"]),
];

/// Folders of pure decisions: time and chance are arguments there.
const PURE: &[&str] = &["pipeline/", "quality/", "runs/", "wire/"];
const IMPURE: &[&str] =
    &["Instant::now", "SystemTime::now", "fastrand::", "std::thread", "std::fs", "actix", "tokio::", "tracing::"];

/// Supervised actors and the session. Only these files may name one of them: they say messages to each other, not names.
const ACTORS: &[&str] = &[
    "kafka_ingest",
    "decode_policy",
    "sequence_tracker",
    "replay_store",
    "dlq_publisher",
    "lag_monitor",
    "redis_writer",
    "client_session",
    "history",
];
const WIRING: &[&str] = &["actors/topology.rs", "app.rs", "app/redis_tier.rs", "app/settings.rs", "web/websocket.rs"];

/// Production lines of a file.
const MAX_LINES: usize = 400;
/// Longer files, with a bound of their own that only ever falls, and why they are not cut.
const LONGER: &[(&str, usize, &str)] = &[
    ("actors/session_queue.rs", 520, "one lock guards cursors and frames together: its methods are one argument"),
    ("app.rs", 600, "the composition root: it grows with what it composes, and decides nothing"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below a folder with one of these endings, as paths from the root; generated and downloaded ones are left out.
fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                let skipped = ["target", "node_modules", "dist", "corpus", "artifacts", ".git", ".cache", "golden"];
                if !skipped.contains(&name) {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The path below `src`, with slashes.
fn below_src(path: &Path) -> String {
    path.strip_prefix("src").unwrap().to_str().unwrap().to_owned()
}

fn is_test_file(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_str().unwrap();
    name == "tests.rs" || name.ends_with("_tests.rs") || name == "oracle.rs"
}

/// The lines before the tests, without comments.
fn production(text: &str) -> impl Iterator<Item = &str> {
    let is_test = |line: &&str| !line.starts_with("#[cfg(test)]");
    text.lines().take_while(is_test).filter(|line| !line.trim_start().starts_with("//"))
}

/// The production code of the library, file by file.
fn sources() -> Vec<(String, String)> {
    let kept = files("src", &[".rs"]).into_iter().filter(|path| !is_test_file(path));
    kept.map(|path| (below_src(&path), production(&read(&path)).collect::<Vec<_>>().join("\n"))).collect()
}

/// Every place where `name` stands as a path of its own: not within a longer word or path. `::name` is one as well.
fn names<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let inside = |before: &str, more: &[char]| {
        before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '"' || more.contains(&c))
    };
    text.match_indices(name).filter_map(move |(at, _)| {
        let before = &text[..at];
        let within = match before.strip_suffix("::") {
            Some(outer) => inside(outer, &['>']),
            None => inside(before, &[':', '.']),
        };
        (!within).then(|| &text[at + name.len()..])
    })
}

/// Whether a library is named, also where it gets another name first.
fn reaches(text: &str, library: &str) -> bool {
    let renamed = ["use ", "use ::", "extern crate "].map(|word| format!("{word}{library} as "));
    let path = if library.contains("::") { library.to_owned() } else { format!("{library}::") };
    names(text, &path).next().is_some() || renamed.iter().any(|form| text.contains(form))
}

/// `a::b` out of `a::b::C`: the module, and the one below it when there is one.
fn module_path(rest: &str) -> (String, String) {
    let path: String = rest.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':')).collect();
    let mut parts = path.split("::");
    let first = parts.next().unwrap_or_default().to_owned();
    let second = parts.next().unwrap_or_default();
    (first.clone(), format!("{first}::{second}"))
}

#[test]
fn modules_import_only_from_layers_below() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let module = path.split(['/', '.']).next().unwrap();
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == module) else {
            panic!("{path}: the module {module} is not in the table of layers");
        };
        for rest in names(&text, "crate::") {
            let (target, exact) = module_path(rest);
            if target.is_empty() {
                wrong.push(format!("{path}: write one path per `use`, so that this test can read it"));
            } else if target != module && !allowed.contains(&target.as_str()) && !allowed.contains(&exact.as_str()) {
                wrong.push(format!("{path}: {module} must not know {exact}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_library_is_reached_by_its_door() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        for (library, doors) in DOORS {
            if reaches(&text, library) && !doors.iter().any(|door| path.starts_with(door)) {
                wrong.push(format!("{path}: {library} is reached only through {doors:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_library_is_found_by_whatever_path_it_is_named() {
    for text in [
        "use rdkafka::X;",
        "::rdkafka::X",
        "f(&rdkafka::X)",
        "use rdkafka as k;",
        "use ::rdkafka as k;",
        "extern crate rdkafka as k;",
    ] {
        assert!(reaches(text, "rdkafka"), "{text}");
    }
    for text in ["apply_to_rdkafka::x", "\"rdkafka::x\"", "a::rdkafka::x", "<T>::rdkafka::x", "use rdkafka_like as k;"]
    {
        assert!(!reaches(text, "rdkafka"), "{text}");
    }
}

/// The one constructor of a Kafka client's configuration, and the one place that fills it in from the settings. The broker
/// of the demo is no client.
const KAFKA_CLIENTS: &[(&str, &[&str])] = &[
    ("ClientConfig::", &["kafka/connection.rs", "kafka/demo_broker.rs"]),
    ("bootstrap.servers", &["kafka/connection.rs"]),
    ("KafkaConnection {", &["app/settings.rs", "kafka/connection.rs"]),
];

#[test]
fn every_kafka_client_is_configured_in_one_place() {
    for (made, places) in KAFKA_CLIENTS {
        let found = sources().into_iter().filter(|(_, text)| text.contains(made)).map(|(path, _)| path);
        assert_eq!(found.collect::<Vec<_>>(), *places, "{made}");
    }
    for (path, text) in sources() {
        let other = ["Default::default()", "collect", "into()", "Clone", "from_iter"];
        let made =
            text.lines().find(|line| line.contains("ClientConfig") && other.iter().any(|way| line.contains(way)));
        assert_eq!(made, None, "{path}: a configuration begins with `KafkaConnection::client_config`");
    }
}

#[test]
fn redis_is_never_searched_for_keys() {
    for (path, text) in sources() {
        let search = ["\"SCAN\"", "\"KEYS\"", ".scan_match(", ".keys(\"*"].into_iter().find(|way| text.contains(way));
        assert_eq!(search, None, "{path}: a stream is found by its name, however many keys others keep there");
    }
}

#[test]
fn decisions_take_time_and_chance_as_arguments() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if PURE.iter().any(|folder| path.starts_with(folder)) {
            let found = IMPURE.iter().filter(|name| names(&text, name).next().is_some());
            wrong.extend(found.map(|name| format!("{path}: {name}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Figures over a window are differences of samples of the counters, taken by the clock: whoever counts records can
/// neither touch nor lock them.
#[test]
fn windowed_figures_are_out_of_reach_for_whoever_counts() {
    let near = ["pipeline/health.rs", "web/status.rs"];
    for (path, text) in sources() {
        assert!(near.contains(&path.as_str()) || names(&text, "Samples").next().is_none(), "{path} names the samples");
        let takes = text.contains(".sample()");
        assert!(!takes || path == "app.rs", "{path} takes samples; the clock of app.rs does");
    }
}

#[test]
fn actors_do_not_name_each_other() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let own = ACTORS.iter().find(|actor| path.starts_with(&format!("actors/{actor}")));
        if WIRING.contains(&path.as_str()) {
            continue;
        }
        for actor in ACTORS.iter().filter(|actor| Some(*actor) != own) {
            for prefix in ["crate::actors::", "super::", "super::super::"] {
                let import = format!("{prefix}{actor}::");
                if names(&text, &import).next().is_some() {
                    wrong.push(format!("{path} names {actor}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_says_its_job_first() {
    let silent: Vec<_> = ["src", "tests", "benches", "fuzz"]
        .iter()
        .flat_map(|folder| files(folder, &[".rs"]))
        .filter(|path| !read(path).starts_with("//!"))
        .collect();
    assert!(silent.is_empty(), "without `//!`: {silent:#?}");
}

#[test]
fn files_stay_short() {
    let mut wrong = Vec::new();
    for path in files("src", &[".rs"]).iter().filter(|path| !is_test_file(path)) {
        let lines = read(path).lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
        let path = below_src(path);
        match LONGER.iter().find(|(longer, ..)| *longer == path) {
            Some((_, bound, _)) if lines > *bound => wrong.push(format!("{path}: {lines} lines, bound {bound}")),
            Some(_) if lines <= MAX_LINES => wrong.push(format!("{path}: {lines} lines, take it off the list")),
            None if lines > MAX_LINES => wrong.push(format!("{path}: {lines} production lines, at most {MAX_LINES}")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Files that `text`, a file in `folder`, declares as modules.
fn modules_of(path: &Path, text: &str) -> Vec<PathBuf> {
    let folder = path.parent().unwrap();
    let stem = path.file_stem().unwrap().to_str().unwrap();
    let is_root =
        ["main", "lib", "mod"].contains(&stem) || folder == Path::new("tests") || folder == Path::new("benches");
    let below = if is_root { folder.to_owned() } else { folder.join(stem) };
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if let Some(other) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
            found.push(folder.join(other));
        }
        let declared =
            line.trim_start_matches("pub").trim_start_matches("(super)").trim_start_matches("(crate)").trim();
        if let Some(name) = declared.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
            found.extend([below.join(format!("{name}.rs")), below.join(name).join("mod.rs")]);
        }
    }
    found
}

#[test]
fn no_file_is_forgotten() {
    let all: BTreeSet<PathBuf> = ["src", "tests", "benches"].iter().flat_map(|f| files(f, &[".rs"])).collect();
    let manifest = read(Path::new("Cargo.toml"));
    let is_root = |path: &Path| {
        let text = path.to_str().unwrap();
        let own = format!("path = \"{text}\"");
        let by_place = path.parent() == Some(Path::new("tests")) || path.parent() == Some(Path::new("benches"));
        manifest.contains(&own) || by_place || (text.starts_with("tests/") && text.ends_with("/main.rs"))
    };
    let mut waiting: Vec<PathBuf> = all.iter().filter(|path| is_root(path)).cloned().collect();
    let mut reached = BTreeSet::new();
    while let Some(path) = waiting.pop() {
        if all.contains(&path) && reached.insert(path.clone()) {
            waiting.extend(modules_of(&path, &read(&path)));
        }
    }
    let forgotten: Vec<_> = all.difference(&reached).collect();
    assert!(forgotten.is_empty(), "no `mod` leads to: {forgotten:#?}");
}

/// `R-12`, `M-1043` and the like: numbers of requirements and tickets.
fn has_ticket(line: &str) -> bool {
    let bytes = line.as_bytes();
    bytes.windows(4).enumerate().any(|(at, window)| {
        let alone = at == 0 || !bytes[at - 1].is_ascii_alphanumeric() && bytes[at - 1] != b'-' && bytes[at - 1] != b'_';
        alone
            && matches!(window[0], b'R' | b'L' | b'M' | b'S')
            && window[1] == b'-'
            && window[2..].iter().all(u8::is_ascii_digit)
    })
}

#[test]
fn the_tree_holds_no_tickets_and_no_paths_of_a_workplace() {
    // The tables of requirements and lessons name them, and the test that reads these.
    let may_have_tickets =
        ["docs/REQUIREMENTS.md", "docs/LESSONS.md", "tests/contract/requirements.rs", "tests/tidy.rs"];
    let places = ["/wo", "/ho", "/Us"].iter().zip(["rk/", "me/", "ers/"]).map(|(a, b)| format!("{a}{b}"));
    let places: Vec<String> = places.chain([format!(".{}/", "library")]).collect();
    let mut wrong = Vec::new();
    let endings = [
        ".rs", ".md", ".ts", ".tsx", ".mjs", ".css", ".toml", ".proto", ".yaml", ".json", "demo", "services", "setup",
        "test", "run",
    ];
    for path in files(".", &endings) {
        let text = read(&path);
        let name = path.to_str().unwrap().trim_start_matches("./");
        for (number, line) in text.lines().enumerate() {
            // A path starts at a blank, quote or bracket; `a/work/` is something else.
            let place = places.iter().find(|place| {
                line.match_indices(place.as_str()).any(|(at, _)| {
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '}' | ')'))
                })
            });
            if let Some(place) = place {
                wrong.push(format!("{name}:{}: {place}", number + 1));
            }
            if has_ticket(line) && !may_have_tickets.contains(&name) {
                wrong.push(format!("{name}:{}: a ticket number: {line}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_tables_of_this_test_are_in_use() {
    let all = sources();
    for (layer, _) in LAYERS {
        assert!(all.iter().any(|(path, _)| path.split(['/', '.']).next() == Some(layer)), "no module {layer}");
    }
    for (path, _, why) in LONGER {
        assert!(all.iter().any(|(found, _)| found == path) && !why.is_empty(), "no file {path}");
    }
    for actor in ACTORS {
        assert!(all.iter().any(|(path, _)| path.starts_with(&format!("actors/{actor}"))), "no actor {actor}");
    }
}
