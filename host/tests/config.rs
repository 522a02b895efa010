//! The configuration: what is understood, and what each mistake is answered with.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

use std::path::Path;
use std::time::Duration;

use arca_host::{Config, ConfigError, EXAMPLE, Limits};

const RIGHT: &str = "\
party = \"ceo\"
listen = \"127.0.0.1:7101\"
sockets = \"/run/arca/ceo\"
[peers]
cto = \"127.0.0.1:7102\"
[storage]
path = \"/var/lib/arca/ceo.redb\"
[metrics]
listen = \"127.0.0.1:9101\"
[limits]
idle_seconds = 60
";

fn read(text: &str) -> Result<Config, ConfigError> {
    Config::from_toml(text, Path::new("host.toml"))
}

#[test]
fn a_right_file_is_understood_and_defaults_are_filled_in() {
    let config = read(RIGHT).unwrap();
    assert_eq!(config.party, "ceo");
    assert_eq!(config.listen, "127.0.0.1:7101".parse().unwrap());
    assert_eq!(config.sockets, Path::new("/run/arca/ceo"));
    assert_eq!(
        config.peers.get("cto").map(String::as_str),
        Some("127.0.0.1:7102")
    );
    assert_eq!(config.storage.path, Path::new("/var/lib/arca/ceo.redb"));
    assert_eq!(config.storage.quota_bytes, 1 << 30);
    assert_eq!(config.metrics, Some("127.0.0.1:9101".parse().unwrap()));
    assert_eq!(
        config.limits,
        Limits {
            idle: Duration::from_secs(60),
            ..Limits::default()
        }
    );
}

#[test]
fn the_least_file_will_do() {
    let least = "party = \"a\"\nlisten = \"[::1]:0\"\nsockets = \"s\"\nstorage.path = \"f\"\n";
    let config = read(least).unwrap();
    assert_eq!(config.metrics, None);
    assert_eq!(config.limits, Limits::default());
    assert!(config.peers.is_empty());
}

#[test]
fn relative_paths_count_from_the_files_folder() {
    let least = "party = \"a\"\nlisten = \"[::1]:0\"\nsockets = \"s\"\nstorage.path = \"f\"\n";
    let config = Config::from_toml(least, Path::new("/etc/arca/host.toml")).unwrap();
    assert_eq!(config.sockets, Path::new("/etc/arca/s"));
    assert_eq!(config.storage.path, Path::new("/etc/arca/f"));
    let config = Config::from_toml(RIGHT, Path::new("/etc/arca/host.toml")).unwrap();
    assert_eq!(config.sockets, Path::new("/run/arca/ceo"));

    let deep = format!("/{}/host.toml", "d".repeat(93));
    let error = Config::from_toml(least, Path::new(&deep)).unwrap_err();
    assert_eq!(error.field, "sockets");
}

#[test]
fn the_example_shows_every_field_with_its_default() {
    let example = read(EXAMPLE).unwrap();
    assert_eq!(example.limits, Limits::default());
    // Every commented-out field is right too, once the comment sign is gone.
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.contains("_") && rest.contains(" = ") => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let mut config = read(&uncommented).unwrap();
    assert_eq!(config.limits.bytes_per_second.take(), Some(1_048_576));
    assert_eq!(config, example);
    let fields = uncommented
        .lines()
        .filter(|line| line.contains(" = ") && !line.starts_with('#'));
    assert_eq!(
        fields.count(),
        19,
        "the example lacks a field, or this test does not know it"
    );
}

#[test]
fn the_operating_guide_has_every_field() {
    let guide = include_str!("../../docs/operations.md");
    let mut section = String::new();
    for line in EXAMPLE.lines() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = format!("{name}.");
        }
        let field = line
            .trim_start_matches("# ")
            .split_once(" = ")
            .map(|(field, _)| field);
        if let Some(field) = field.filter(|field| !field.contains(' ') && section != "peers.") {
            assert!(
                guide.contains(&format!("| `{section}{field}` |")),
                "{section}{field}"
            );
        }
    }
}

#[test]
fn what_is_printed_reads_back_as_the_same() {
    let mut config = read(RIGHT).unwrap();
    assert_eq!(read(&config.to_string()).unwrap(), config);
    config.limits.bytes_per_second = Some(1_000_000);
    config.metrics = None;
    config.peers.clear();
    config.sockets = "/a \"quoted\" folder".into();
    assert_eq!(read(&config.to_string()).unwrap(), config);
}

#[test]
fn every_mistake_is_answered_with_line_field_problem_and_remedy() {
    // What to replace in the right file, by what; then line, field and a part of the problem.
    let mistakes: &[(&str, &str, usize, &str, &str)] = &[
        (
            "party = \"ceo\"",
            "party = \"CEO\"",
            1,
            "party",
            "no name of a party",
        ),
        (
            "\"ceo\"",
            "\"a-name-of-33-bytes-is-one-too-long\"",
            1,
            "party",
            "no name of a party",
        ),
        (
            "party = \"ceo\"",
            "party = \"\"",
            1,
            "party",
            "no name of a party",
        ),
        ("party = \"ceo\"", "party = 7", 1, "party", "invalid type"),
        ("party = \"ceo\"\n", "", 1, "party", "is missing"),
        (
            "listen = \"127.0.0.1:7101\"",
            "listen = \"localhost\"",
            2,
            "listen",
            "no address:port",
        ),
        (
            "listen = \"127.0.0.1:7101\"\n",
            "",
            1,
            "listen",
            "is missing",
        ),
        (
            "/run/arca/ceo",
            &"x".repeat(95),
            3,
            "sockets",
            "is 95 bytes long",
        ),
        (
            "sockets = \"/run/arca/ceo\"",
            "sockets = \"\"",
            3,
            "sockets",
            "is 0 bytes long",
        ),
        ("cto = ", "CTO = ", 5, "peers.CTO", "no name of a party"),
        ("cto = ", "ceo = ", 5, "peers.ceo", "is this party itself"),
        (
            "127.0.0.1:7102",
            "127.0.0.1",
            5,
            "peers.cto",
            "no host:port",
        ),
        (
            "127.0.0.1:7102",
            "cto.example.com:0",
            5,
            "peers.cto",
            "no host:port",
        ),
        ("127.0.0.1:7102", ":7102", 5, "peers.cto", "no host:port"),
        (
            "cto = \"127.0.0.1:7102\"",
            "cto = 7102",
            5,
            "peers.cto",
            "invalid type",
        ),
        (
            "[storage]\npath = \"/var/lib/arca/ceo.redb\"\n",
            "",
            1,
            "storage",
            "is missing",
        ),
        (
            "path = \"/var/lib/arca/ceo.redb\"",
            "",
            6,
            "storage.path",
            "is missing",
        ),
        (
            "/var/lib/arca/ceo.redb",
            "/",
            7,
            "storage.path",
            "is no file",
        ),
        (
            "path = \"/var",
            "quota_bytes = 0\npath = \"/var",
            7,
            "storage.quota_bytes",
            "is 0",
        ),
        (
            "path = \"/var",
            "quota_bytes = -1\npath = \"/var",
            7,
            "storage.quota_bytes",
            "invalid",
        ),
        (
            "path = \"/var",
            "quota = 5\npath = \"/var",
            7,
            "storage.quota",
            "unknown field",
        ),
        (
            "listen = \"127.0.0.1:9101\"",
            "listen = \":9101\"",
            9,
            "metrics.listen",
            "no address",
        ),
        (
            "listen = \"127.0.0.1:9101\"",
            "",
            8,
            "metrics.listen",
            "is missing",
        ),
        (
            "idle_seconds = 60",
            "idle_seconds = 0",
            11,
            "limits.idle_seconds",
            "is 0",
        ),
        (
            "idle_seconds = 60",
            "idle_seconds = 99999",
            11,
            "limits.idle_seconds",
            "86400",
        ),
        (
            "idle_seconds = 60",
            "idle_seconds = \"1m\"",
            11,
            "limits.idle_seconds",
            "invalid type",
        ),
        (
            "idle_seconds = 60",
            "idle = 60",
            11,
            "limits.idle",
            "unknown field",
        ),
        (
            "idle_seconds",
            "max_connections = 0\nidle_seconds",
            11,
            "limits.max_connections",
            "is 0",
        ),
        (
            "idle_seconds = 60",
            "bytes_per_second = 1",
            11,
            "limits.bytes_per_second",
            "is 1",
        ),
        (
            "idle_seconds = 60",
            "idle_seconds = 1\nidle_seconds = 2",
            12,
            "limits.idle_seconds",
            "dup",
        ),
        ("[limits]", "[limit]", 10, "limit", "unknown field"),
        ("[limits]", "[limits", 10, "limits", ""),
    ];
    for (what, by, line, field, problem) in mistakes {
        assert!(RIGHT.contains(what), "{what:?} is not in the right file");
        let error = read(&RIGHT.replacen(what, by, 1)).expect_err(by);
        let text = error.to_string();
        assert_eq!(
            (error.line, &*error.field),
            (Some(*line), *field),
            "{what:?} by {by:?}: {text}"
        );
        assert!(
            error.problem.contains(problem),
            "{what:?} by {by:?}: {text}"
        );
        assert!(
            text.starts_with(&format!("host.toml:{line}: {field}: ")),
            "{text}"
        );
        assert!(
            !error.remedy.is_empty() && text.ends_with(&error.remedy),
            "{text}"
        );
        assert!(!text.contains('\n'), "{text:?}");
    }
}

#[test]
fn a_file_that_is_no_toml_at_all_is_refused_with_a_line() {
    for garbage in [
        "\u{0}\u{1}\u{2}",
        "just words",
        "= 5",
        "[[[",
        "a = \"never closed",
    ] {
        let error = read(garbage).unwrap_err();
        assert_eq!(error.line, Some(1), "{garbage:?}: {error}");
    }
    assert_eq!(read("").unwrap_err().field, "party");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Path::new("/no/such/host.toml")).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("/no/such/host.toml: cannot be read: No such file")
    );
}
