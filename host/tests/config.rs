//! The configuration: what is understood, and what each mistake is answered with.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

use std::path::Path;
use std::time::Duration;

use arca_host::{
    ArchivePlace, BucketConfig, BucketCredentials, Config, ConfigError, CredentialSource, EXAMPLE,
    KmsConfig, Limits, Transport, VsockConfig,
};

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

const VSOCK: VsockConfig = VsockConfig {
    cid: 16,
    enclave_port: 1,
    storage_port: 2,
    dial_port: 3,
    kms_port: 4,
};

fn unix(folder: &str) -> Transport {
    Transport::Unix(folder.into())
}

fn read(text: &str) -> Result<Config, ConfigError> {
    Config::from_toml(text, Path::new("host.toml"))
}

#[test]
fn a_right_file_is_understood_and_defaults_are_filled_in() {
    let config = read(RIGHT).unwrap();
    assert_eq!(config.party, "ceo");
    assert_eq!(config.listen, "127.0.0.1:7101".parse().unwrap());
    assert_eq!(config.transport, unix("/run/arca/ceo"));
    assert_eq!(config.kms, None);
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
    assert_eq!(config.transport, unix("/etc/arca/s"));
    assert_eq!(config.storage.path, Path::new("/etc/arca/f"));
    let config = Config::from_toml(RIGHT, Path::new("/etc/arca/host.toml")).unwrap();
    assert_eq!(config.transport, unix("/run/arca/ceo"));

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
            Some(rest)
                if (rest.contains("_") || rest.starts_with("folder")) && rest.contains(" = ") =>
            {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let mut config = read(&uncommented).unwrap();
    assert_eq!(config.limits.bytes_per_second.take(), Some(1_048_576));
    assert_eq!(config, example);
    let fields = uncommented
        .lines()
        .filter(|line| line.contains(" = ") && (!line.starts_with('#') || is_optional(line)));
    assert_eq!(
        fields.count(),
        43,
        "the example lacks a field, or this test does not know it"
    );
}

/// What is for some hosts and not for others is commented out without a space.
fn is_optional(line: &str) -> bool {
    line.starts_with('#') && !line.starts_with("# ") && line.len() > 1
}

/// The section that a line begins, commented out or not.
fn section_of(line: &str) -> Option<&str> {
    let line = line.trim_start_matches('#').trim_start_matches('[');
    let name = line.strip_suffix("]]").or(line.strip_suffix(']'))?;
    (!name.contains(' ')).then_some(name)
}

/// The example with what is for some hosts in these sections, less the fields that begin so.
fn with_sections(sections: &[&str], leave_out: &[&str]) -> String {
    let mut text = String::new();
    let (mut top, mut here) = (true, false);
    for line in EXAMPLE.lines() {
        top &= section_of(line).is_none();
        here = section_of(line).map_or(here, |section| sections.contains(&section));
        let plain = line.trim_start_matches('#');
        if (top || here) && leave_out.iter().any(|field| plain.starts_with(field)) {
            continue;
        }
        let line = if here && is_optional(line) {
            plain
        } else {
            line
        };
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[test]
fn the_example_for_a_bucket_and_for_a_witness_is_right_too() {
    let config = read(&with_sections(
        &["archive", "witness"],
        &["file", "profile", "imds"],
    ));
    let config = config.unwrap();
    let bucket = BucketConfig {
        bucket: "audit-logs".into(),
        prefix: "ceo".into(),
        endpoint: Some("https://minio.example.com:9000".into()),
        region: "us-east-1".into(),
        credentials: BucketCredentials::Environment,
    };
    assert_eq!(config.archive.place, ArchivePlace::Bucket(bucket));
    assert_eq!(config.witnesses.len(), 1);
    assert_eq!(config.witnesses[0].url, "https://witness.example.com");
    assert_eq!(read(&config.to_string()).unwrap(), config);
    // What is shown are the defaults.
    let least = with_sections(
        &["archive", "witness"],
        &[
            "file",
            "profile",
            "imds",
            "region",
            "every_seconds",
            "# quiet",
        ],
    );
    assert_eq!(read(&least).unwrap(), config);
    for (source, field) in [
        ("\"file\"", "archive.file"),
        ("\"imds\"", ""),
        ("\"elsewhere\"", "archive.credentials"),
    ] {
        let text = with_sections(&["archive"], &["file", "profile", "imds"]);
        let read = read(&text.replace("\"environment\"", source));
        assert_eq!(read.err().map_or(String::new(), |it| it.field), field);
    }
}

#[test]
fn without_a_section_the_archive_is_beside_the_storage_file() {
    let config = read(RIGHT).unwrap();
    let beside = ArchivePlace::Folder("/var/lib/arca/log/ceo".into());
    assert_eq!(config.archive.place, beside);
    assert_eq!(config.archive.quiet, Duration::from_secs(1));
    assert_eq!(config.archive.every, Duration::from_secs(10));
    assert_eq!(config.witnesses, []);
}

#[test]
fn mistakes_about_the_archive_and_witnesses_are_answered_by_field() {
    let vkey = EXAMPLE
        .split("vkey = ")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap();
    let bucket = "[archive]\nurl = \"s3://b/p\"\ncredentials = \"environment\"\n";
    let witness = format!("[[witness]]\nurl = \"http://w\"\nvkey = {vkey}\n");
    read(&format!("{RIGHT}{bucket}{witness}")).unwrap();
    let log_key = "\"example.com/log+6d7a2d8e+AddamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea\"";
    let cases: &[(&str, &str, &str, &str)] = &[
        ("s3://b/p", "https://b/p", "archive.url", "no s3:// URL"),
        ("s3://b/p", "s3://", "archive.url", "no s3:// URL"),
        ("s3://b/p", "s3://b/../p", "archive.url", "no s3:// URL"),
        ("s3://b/p", "s3://b//p", "archive.url", "no s3:// URL"),
        (
            "credentials = \"environment\"\n",
            "",
            "archive.credentials",
            "is missing",
        ),
        (
            "environment\"",
            "environment\"\nfolder = \"f\"",
            "archive.folder",
            "url is there too",
        ),
        (
            "environment\"",
            "environment\"\nfile = \"f\"",
            "archive.file",
            "means nothing",
        ),
        (
            "environment\"",
            "environment\"\nendpoint = \"h:1\"",
            "archive.endpoint",
            "no http(s) URL",
        ),
        (
            "environment\"",
            "environment\"\nendpoint = \"https://key:secret@h\"",
            "archive.endpoint",
            "no http(s) URL",
        ),
        (
            "environment\"",
            "environment\"\nregion = \"a b\"",
            "archive.region",
            "no region",
        ),
        (
            "environment\"",
            "environment\"\nquiet_seconds = 0",
            "archive.quiet_seconds",
            "1 to 3600",
        ),
        (
            "environment\"",
            "environment\"\naccess_key = \"x\"",
            "archive.access_key",
            "unknown field",
        ),
        (
            "url = \"s3://b/p\"\n",
            "",
            "archive.credentials",
            "means nothing without url",
        ),
        ("http://w", "ftp://w", "witness.url", "no http(s) URL"),
        (vkey, "\"w+00000000+BA==\"", "witness.vkey", "verifier key"),
        (vkey, log_key, "witness.vkey", ""),
        (vkey, "7", "witness.vkey", "invalid type"),
    ];
    for (part, with, field, problem) in cases {
        let right = format!("{RIGHT}{bucket}{witness}");
        assert!(right.contains(part), "{part}");
        let error = read(&right.replacen(part, with, 1)).unwrap_err();
        assert_eq!(&error.field, field, "{with}: {error}");
        assert!(error.problem.contains(problem), "{with}: {error}");
    }
    let twice = read(&format!("{RIGHT}{witness}{witness}")).unwrap_err();
    assert!(twice.problem.contains("another [[witness]]"), "{twice}");
}

#[test]
fn the_example_for_a_nitro_enclave_is_right_too() {
    let nitro = |leave_out: &[&str]| with_sections(&["vsock", "kms"], leave_out);
    let config = read(&nitro(&["sockets", "file", "profile"])).unwrap();
    assert_eq!(
        config.transport,
        Transport::Vsock(VsockConfig {
            cid: 16,
            enclave_port: 7001,
            storage_port: 7002,
            dial_port: 7003,
            kms_port: 7004,
        })
    );
    let kms = config.kms.clone().unwrap();
    assert_eq!(kms.endpoint, "kms.eu-central-1.amazonaws.com:443");
    // What is shown are the defaults.
    let defaults = [
        "sockets",
        "file",
        "profile",
        "enclave",
        "storage_port",
        "dial_port",
        "kms_port",
        "imds",
        "endpoint",
    ];
    assert_eq!(read(&nitro(&defaults)).unwrap(), config);

    let with_file = nitro(&["sockets", "imds", "profile"]).replace("\"imds\"", "\"file\"");
    assert_eq!(
        read(&with_file).unwrap().kms.unwrap().credentials,
        CredentialSource::File {
            path: "/etc/arca/credentials".into(),
            profile: "default".into(),
        }
    );
}

#[test]
fn the_operating_guide_has_every_field() {
    let guide = include_str!("../../docs/operations.md");
    let mut section = String::new();
    for line in EXAMPLE.lines() {
        let line = if is_optional(line) {
            line.trim_start_matches('#')
        } else {
            line
        };
        if let Some(name) = section_of(line) {
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
    config.transport = unix("/a \"quoted\" folder");
    assert_eq!(read(&config.to_string()).unwrap(), config);
    config.transport = Transport::Vsock(VSOCK);
    for credentials in [
        CredentialSource::Instance {
            address: "127.0.0.1:1338".into(),
        },
        CredentialSource::File {
            path: "/a \"quoted\" file".into(),
            profile: "arca".into(),
        },
    ] {
        config.kms = Some(KmsConfig {
            region: "eu-central-1".into(),
            endpoint: "vpce.example.com:8443".into(),
            credentials,
        });
        assert_eq!(read(&config.to_string()).unwrap(), config);
    }
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
        (
            "[storage]",
            "[vsock]\ncid = 16\n[storage]",
            3,
            "sockets",
            "[vsock] is there too",
        ),
        (
            "sockets = \"/run/arca/ceo\"",
            "vsock.storage_port = 1",
            3,
            "vsock.cid",
            "is missing",
        ),
        (
            "sockets = \"/run/arca/ceo\"",
            "vsock.cid = 2",
            3,
            "vsock.cid",
            "is 2; 3 to",
        ),
        (
            "sockets = \"/run/arca/ceo\"",
            "vsock = { cid = 16, dial_port = 7002 }",
            3,
            "vsock",
            "one port twice",
        ),
        (
            "sockets = \"/run/arca/ceo\"",
            "vsock = { cid = 16, dial_port = 0 }",
            3,
            "vsock.dial_port",
            "is 0",
        ),
        (
            "[metrics]",
            "[kms]\nregion = \"EU\"\ncredentials = \"imds\"\n[metrics]",
            9,
            "kms.region",
            "is no region",
        ),
        (
            "[metrics]",
            "[kms]\nregion = \"eu\"\n[metrics]",
            8,
            "kms.credentials",
            "is missing",
        ),
        (
            "[metrics]",
            "[kms]\nregion = \"eu\"\ncredentials = \"env\"\n[metrics]",
            10,
            "kms.credentials",
            "\"env\" is no source",
        ),
        (
            "[metrics]",
            "[kms]\nregion = \"eu\"\ncredentials = \"file\"\n[metrics]",
            8,
            "kms.file",
            "is missing",
        ),
        (
            "[metrics]",
            "[kms]\nregion = \"eu\"\nfile = \"f\"\ncredentials = \"imds\"\n[metrics]",
            10,
            "kms.file",
            "means nothing",
        ),
        (
            "[metrics]",
            "[kms]\nregion = \"eu\"\ncredentials = \"imds\"\nendpoint = \"https://kms\"\n[metrics]",
            11,
            "kms.endpoint",
            "no host:port",
        ),
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
