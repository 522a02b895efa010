//! What the enclave reports about itself, and what of it an operator sees.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

mod common;

use std::time::Duration;

use arca_host::STORAGE_SOCKET;
use arca_proto::v1::metric::{Kind, Label};
use arca_proto::v1::metrics_service_client::MetricsServiceClient;
use arca_proto::v1::{Metric, ReportMetricsRequest};
use common::exposition::Page;
use common::{Running, soon};
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

const PRESIGNATURES: &str = "arca_enclave_presignatures";
const SIGNATURES: &str = "arca_enclave_signatures_total";
const AGE: &str = "arca_host_enclave_report_age_seconds";
const REPORTS: &str = "arca_host_enclave_reports_total";

fn metric(kind: Kind, name: &str, value: f64, labels: &[(&str, &str)]) -> Metric {
    let label = |(name, value): &(&str, &str)| Label {
        name: (*name).into(),
        value: (*value).into(),
    };
    Metric {
        name: name.into(),
        help: format!("What {name} counts"),
        kind: kind.into(),
        value,
        labels: labels.iter().map(label).collect(),
    }
}

fn gauge(name: &str, value: f64, labels: &[(&str, &str)]) -> Metric {
    metric(Kind::Gauge, name, value, labels)
}

fn counter(name: &str, value: f64, labels: &[(&str, &str)]) -> Metric {
    metric(Kind::Counter, name, value, labels)
}

async fn report(
    enclave: &mut MetricsServiceClient<Channel>,
    metrics: Vec<Metric>,
) -> Result<(), Status> {
    soon(enclave.report_metrics(ReportMetricsRequest { metrics }))
        .await
        .map(|_| ())
}

#[tokio::test]
async fn reported_series_are_on_the_page_with_help_type_labels_and_party() {
    let running = Running::start().await;
    let mut enclave = running.reports().await;
    let pool = [("key", "keys/f6cc"), ("signers", "ceo,cto")];
    let metrics = vec![
        gauge(PRESIGNATURES, 17.0, &pool),
        counter(
            SIGNATURES,
            3.0,
            &[("scheme", "ecdsa"), ("how", "presignature")],
        ),
        gauge(
            "arca_enclave_presignatures_wanted",
            32.5,
            &[("signers", "ceo,cto"), ("key", "keys/f6cc")],
        ),
        gauge("arca_enclave_pair_setups", 1.0, &[("peer", "cto")]),
        counter(
            "arca_enclave_pair_setups_discarded_total",
            0.0,
            &[("peer", "cto")],
        ),
        gauge("arca_enclave_quarantined", 0.0, &[("peer", "cto")]),
        // Not next to the other of its name: on the page it is.
        counter(SIGNATURES, 4.0, &[("scheme", "ed25519"), ("how", "frost")]),
    ];
    report(&mut enclave, metrics.clone()).await.unwrap();
    assert_eq!(reported(&running).await, Page::of(&metrics));
    assert_eq!(running.metric(PRESIGNATURES, &pool).await, 17.0);
    assert_eq!(running.metric(REPORTS, &[("outcome", "ok")]).await, 1.0);

    let guide = include_str!("../../docs/operations.md");
    for name in metrics.iter().map(|metric| &metric.name) {
        assert!(
            guide.contains(&format!("| `{name}` |")),
            "not in the guide: {name}"
        );
    }
}

#[tokio::test]
async fn a_report_replaces_the_one_before_it_wholly() {
    let running = Running::start().await;
    let mut enclave = running.reports().await;
    let first = vec![
        gauge(PRESIGNATURES, 1.0, &[("key", "a")]),
        gauge(PRESIGNATURES, 2.0, &[("key", "b")]),
        gauge("arca_enclave_quarantined", 1.0, &[("peer", "cto")]),
    ];
    let second = vec![
        gauge(PRESIGNATURES, 3.0, &[("key", "b")]),
        // Another kind and help than before.
        Metric {
            help: "Anew".into(),
            ..counter(SIGNATURES, 5.0, &[])
        },
    ];
    for metrics in [first, second, vec![]] {
        report(&mut enclave, metrics.clone()).await.unwrap();
        assert_eq!(reported(&running).await, Page::of(&metrics));
    }
}

#[tokio::test]
async fn after_half_a_minute_without_a_report_it_is_gone_and_its_age_tells() {
    let running = Running::start().await;
    let mut enclave = running.reports().await;
    let metrics = vec![gauge(PRESIGNATURES, 1.0, &[])];
    pass(100).await;
    // Nothing reported yet: the age is that of the host.
    assert!(running.metric(AGE, &[]).await >= 100.0);
    for _ in 0..2 {
        report(&mut enclave, metrics.clone()).await.unwrap();
        assert!(running.metric(AGE, &[]).await < 20.0);
        pass(20).await;
        assert_eq!(reported(&running).await, Page::of(&metrics));
        assert!(running.metric(AGE, &[]).await >= 20.0);
        pass(10).await;
        assert_eq!(reported(&running).await, Page::default());
        assert!(running.metric(AGE, &[]).await >= 30.0);
    }
    // What is refused does not make anything younger.
    let bad = report(&mut enclave, vec![gauge("arca_host_x", 1.0, &[])]).await;
    assert_eq!(bad.unwrap_err().code(), Code::InvalidArgument);
    assert!(running.metric(AGE, &[]).await >= 30.0);
    assert_eq!(reported(&running).await, Page::default());
}

#[tokio::test]
async fn a_report_goes_with_the_connection_that_it_came_on() {
    let running = Running::start().await;
    let metrics = vec![gauge(PRESIGNATURES, 1.0, &[])];
    let mut storage = running.storage().await;
    let mut enclave = running.reports().await;
    report(&mut enclave, metrics.clone()).await.unwrap();
    assert_eq!(reported(&running).await, Page::of(&metrics));

    drop(enclave);
    soon(async { while reported(&running).await != Page::default() {} }).await;
    assert!(running.metric(AGE, &[]).await < 30.0);
    // Its other connections do not count.
    let list = arca_proto::v1::ListBlobsRequest::default();
    soon(storage.list_blobs(list)).await.unwrap();
    assert_eq!(reported(&running).await, Page::default());

    let mut again = running.reports().await;
    report(&mut again, metrics.clone()).await.unwrap();
    assert_eq!(reported(&running).await, Page::of(&metrics));
}

#[tokio::test]
async fn a_bad_report_is_refused_as_a_whole_by_entry_and_the_last_one_stays() {
    let running = Running::start().await;
    let mut enclave = running.reports().await;
    let good = vec![gauge(PRESIGNATURES, 1.0, &[("key", "a")])];
    report(&mut enclave, good.clone()).await.unwrap();

    let x = |labels: &[(&str, &str)]| gauge("arca_enclave_x", 1.0, labels);
    let help = |help: &str| Metric {
        help: help.into(),
        ..x(&[])
    };
    let kind = |kind: i32| Metric { kind, ..x(&[]) };
    let nine: Vec<(String, String)> = (0..9)
        .map(|i| ("a".repeat(i + 1), "v".to_owned()))
        .collect();
    let nine: Vec<(&str, &str)> = nine.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let long_name = format!("arca_enclave_{}", "a".repeat(65));
    let cases: Vec<(Metric, &str)> = vec![
        (gauge("", 1.0, &[]), "metrics[1].name"),
        (gauge("arca_host_build_info", 1.0, &[]), "metrics[1].name"),
        (gauge("enclave_x", 1.0, &[]), "metrics[1].name"),
        (gauge(" arca_enclave_x", 1.0, &[]), "metrics[1].name"),
        (gauge("arca_enclave_", 1.0, &[]), "metrics[1].name"),
        (gauge(&long_name, 1.0, &[]), "metrics[1].name has 65"),
        (
            gauge("arca_enclave_X", 1.0, &[]),
            "metrics[1].name has the character U+0058",
        ),
        (
            gauge("arca_enclave_x{} 1\narca_host_y", 1.0, &[]),
            "metrics[1].name has the character U+007B",
        ),
        (
            gauge("arca_enclave_x\n", 1.0, &[]),
            "metrics[1].name has the character U+000A",
        ),
        (
            gauge("arca_enclave_\u{e4}", 1.0, &[]),
            "metrics[1].name has the character U+00E4",
        ),
        (
            counter("arca_enclave_x", 1.0, &[]),
            "metrics[1].name is that of a COUNTER",
        ),
        (help(""), "metrics[1].help is empty"),
        (help("  "), "metrics[1].help is empty"),
        (
            help("one\ntwo"),
            "metrics[1].help has the character U+000A at offset 3",
        ),
        (help("one\rtwo"), "metrics[1].help has the character U+000D"),
        (
            help("one\u{2028}two"),
            "metrics[1].help has the character U+2028",
        ),
        (kind(0), "metrics[1].kind is 0"),
        (kind(3), "metrics[1].kind is 3"),
        (kind(-1), "metrics[1].kind is -1"),
        (gauge("arca_enclave_x", f64::NAN, &[]), "metrics[1].value"),
        (
            gauge("arca_enclave_x", f64::INFINITY, &[]),
            "metrics[1].value",
        ),
        (
            gauge("arca_enclave_x", f64::NEG_INFINITY, &[]),
            "metrics[1].value",
        ),
        (
            counter("arca_enclave_x_total", -1.0, &[]),
            "metrics[1].value",
        ),
        (x(&nine), "metrics[1].labels has 9"),
        (x(&[("", "v")]), "metrics[1].labels[0].name is empty"),
        (
            x(&[("a", "v"), ("b1", "v")]),
            "metrics[1].labels[1].name has the character U+0031",
        ),
        (x(&[("A", "v")]), "metrics[1].labels[0].name"),
        (x(&[("a=\"\",b", "v")]), "metrics[1].labels[0].name"),
        (x(&[("party", "cto")]), "metrics[1].labels[0].name is party"),
        (
            x(&[("__name__", "arca_host_build_info")]),
            "metrics[1].labels[0].name begins",
        ),
        (
            x(&[("a", "v"), ("b", "v"), ("a", "w")]),
            "metrics[1].labels has one name twice",
        ),
        (
            x(&[("a", ""), ("a", "w")]),
            "metrics[1].labels has one name twice",
        ),
        (
            x(&[("a", &"v".repeat(129))]),
            "metrics[1].labels[0].value is 129",
        ),
        (
            x(&[("a", "one\ntwo")]),
            "metrics[1].labels[0].value has the character U+000A at offset 3",
        ),
        (
            x(&[("a", "\u{7f}")]),
            "metrics[1].labels[0].value has the character U+007F",
        ),
        (
            x(&[("a", "\0")]),
            "metrics[1].labels[0].value has the character U+0000",
        ),
        (
            x(&[("a", "\u{85}")]),
            "metrics[1].labels[0].value has the character U+0085",
        ),
        (
            x(&[("a", "\u{202e}")]),
            "metrics[1].labels[0].value has the character U+202E",
        ),
        // Of two entries of one name.
        (
            Metric {
                help: "Another".into(),
                ..gauge("arca_enclave_first", 1.0, &[("a", "w")])
            },
            "metrics[1].help is not that of metrics[0]",
        ),
        (
            gauge("arca_enclave_first_total", 1.0, &[("a", "w")]),
            "metrics[1].kind is not that of metrics[0]",
        ),
        (
            gauge("arca_enclave_first", 2.0, &[("b", "w"), ("a", "v")]),
            "metrics[1] is the same series as metrics[0]",
        ),
        // To Prometheus an empty label is no label.
        (
            gauge(
                "arca_enclave_first",
                2.0,
                &[("a", "v"), ("b", "w"), ("c", "")],
            ),
            "metrics[1] is the same series as metrics[0]",
        ),
    ];
    let mut refusals = 0.0;
    for (bad, says) in cases {
        let first = if bad.name == "arca_enclave_first_total" {
            counter("arca_enclave_first_total", 1.0, &[("a", "v")])
        } else {
            gauge("arca_enclave_first", 1.0, &[("a", "v"), ("b", "w")])
        };
        let shown = format!("{bad:?}");
        let last = gauge("arca_enclave_last", 1.0, &[]);
        let refused = report(&mut enclave, vec![first, bad, last]).await;
        let refused = refused.expect_err(&shown);
        assert_eq!(refused.code(), Code::InvalidArgument, "{shown}");
        assert!(
            refused.message().starts_with(says),
            "{shown}: {}",
            refused.message()
        );
        assert_eq!(reported(&running).await, Page::of(&good), "{shown}");
        refusals += 1.0;
    }
    let refused = [("outcome", "refused")];
    assert_eq!(running.metric(REPORTS, &refused).await, refusals);
    assert_eq!(running.metric(REPORTS, &[("outcome", "ok")]).await, 1.0);
}

#[tokio::test]
async fn the_largest_of_everything_fits_and_one_more_metric_is_refused() {
    let running = Running::start().await;
    let mut enclave = running.reports().await;
    let name = format!("arca_enclave_{}", "z".repeat(64));
    let value = "\u{20ac}".repeat(128);
    let labels: Vec<String> = (1..=8).map(|length| "l".repeat(length)).collect();
    let labels: Vec<(&str, &str)> = labels.iter().map(|name| (name.as_str(), &*value)).collect();
    let mut metrics = vec![
        gauge(&name, f64::MAX, &labels),
        gauge("arca_enclave_0", -f64::MIN_POSITIVE, &[]),
    ];
    metrics.extend((metrics.len()..1024).map(|i| {
        let key = format!("keys/{i:032x}");
        gauge(PRESIGNATURES, i as f64, &[("key", &key)])
    }));
    report(&mut enclave, metrics.clone()).await.unwrap();
    assert_eq!(reported(&running).await, Page::of(&metrics));

    let mut too_many = metrics.clone();
    too_many.push(gauge(PRESIGNATURES, 1.0, &[]));
    let refused = report(&mut enclave, too_many).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("1025"), "{}", refused.message());
    assert_eq!(reported(&running).await, Page::of(&metrics));
}

#[tokio::test]
async fn a_report_of_more_than_a_mebibyte_is_not_read() {
    let running = Running::start().await;
    let mut enclave = running.reports().await;
    let help = |length: usize| {
        vec![Metric {
            help: "h".repeat(length),
            ..gauge(PRESIGNATURES, 1.0, &[])
        }]
    };
    let fits = help(1024 * 1024 - 100);
    report(&mut enclave, fits.clone()).await.unwrap();
    let refused = report(&mut enclave, help(1024 * 1024)).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    assert_eq!(reported(&running).await, Page::of(&fits));
}

#[tokio::test]
async fn what_would_break_out_of_quotes_or_lines_is_escaped() {
    let running = Running::start().await;
    let mut enclave = running.reports().await;
    let values = [
        r#"""#,
        r"\",
        r"\\",
        r#"\""#,
        r"\n",
        r#""} 1 arca_host_build_info{version=""#,
        r#"x",party="cto"#,
        "# TYPE arca_host_build_info counter",
        "{}= ,",
        "\u{e4}\u{20ac}\u{1f511}'",
    ];
    let metrics: Vec<Metric> = values
        .iter()
        .map(|value| Metric {
            help: r#"A "quote", a \n that is none, a \"#.into(),
            ..gauge("arca_enclave_x", 1.0, &[("a", value)])
        })
        .collect();
    report(&mut enclave, metrics.clone()).await.unwrap();
    assert_eq!(reported(&running).await, Page::of(&metrics));
    let (_, page) = running.get("/metrics").await;
    let help = "# HELP arca_enclave_x A \"quote\", a \\\\n that is none, a \\\\\n";
    assert!(page.contains(help), "{page}");
    let series = "\narca_enclave_x{party=\"ceo\",a=\"\\\\\\\"\"} 1\n";
    assert!(page.contains(series), "{page}");
    assert_eq!(running.metric("arca_host_build_info", &[]).await, 1.0);
}

#[tokio::test]
async fn reports_are_read_one_at_a_time() {
    let running = Running::start().await;
    let mut enclave = running.reports().await;
    let mut endless = UnixStream::connect(running.socket(STORAGE_SOCKET))
        .await
        .unwrap();
    endless.write_all(&endless_report()).await.unwrap();
    let refused = soon(async {
        loop {
            if let Err(refused) = report(&mut enclave, vec![]).await {
                break refused;
            }
        }
    });
    assert_eq!(refused.await.code(), Code::ResourceExhausted);

    drop(endless);
    soon(async { while report(&mut enclave, vec![]).await.is_err() {} }).await;
}

/// The beginning of a connection and of a report, in HTTP/2 (RFC 9113, RFC 7541), that never goes on.
fn endless_report() -> Vec<u8> {
    let literal = |bytes: &mut Vec<u8>, text: &[u8]| {
        bytes.push(text.len() as u8);
        bytes.extend(text);
    };
    // :method POST and :scheme http, then :path, :authority and content-type with values of their own.
    let mut headers = vec![0x83, 0x86, 0x04];
    literal(&mut headers, b"/arca.v1.MetricsService/ReportMetrics");
    headers.push(0x01);
    literal(&mut headers, b"host");
    headers.extend([0x0f, 0x10]);
    literal(&mut headers, b"application/grpc");
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS, empty; HEADERS of stream 1, all of them, with a body to come.
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    bytes.extend([0, 0, headers.len() as u8, 1, 4, 0, 0, 0, 1]);
    bytes.extend(headers);
    bytes
}

/// Lets so many seconds pass at once, on every clock of the runtime.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes is refused with the page as it was, or is on the page as it came; the page is well-formed.
    #[test]
    fn no_report_breaks_the_page(reports in prop::collection::vec(any_report(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let running = Running::start().await;
            let mut enclave = running.reports().await;
            let mut last = Page::default();
            for metrics in reports {
                match report(&mut enclave, metrics.clone()).await {
                    Ok(()) => last = Page::of(&metrics),
                    Err(refused) => assert_eq!(refused.code(), Code::InvalidArgument),
                }
                assert_eq!(reported(&running).await, last);
            }
        });
    }
}

/// Few names, so that they meet; mostly valid in each part, so that a good many are valid as a whole.
fn any_report() -> impl Strategy<Value = Vec<Metric>> {
    let name = prop_oneof![
        8 => "arca_enclave_[ab]_total",
        1 => "arca_enclave_[a-z0-9_]{0,4}",
        1 => "(arca_host_|arca_enclave_)?[a-z\n{}\" ]{0,3}",
    ];
    let help =
        prop_oneof![20 => Just("help".to_owned()), 1 => any::<String>(), 1 => "[a\\\\\"\n ]{0,3}"];
    let kind = prop_oneof![20 => Just(2), 1 => -1..4];
    let value = prop_oneof![8 => 0.0..1e6, 1 => any::<f64>()];
    let text =
        prop_oneof![8 => "[a\\\\\"'{}=,#\u{e4} ]{0,4}", 1 => any::<String>(), 1 => ".{0,3}\n"];
    let label_name = prop_oneof![8 => "[a-d]", 1 => "(party|__name__|_|le|[a-z_]{0,9})"];
    let label = (label_name, text).prop_map(|(name, value)| Label { name, value });
    let metric = (name, help, kind, value, prop::collection::vec(label, 0..3)).prop_map(
        |(name, help, kind, value, labels)| Metric {
            name,
            help,
            kind,
            value,
            labels,
        },
    );
    prop::collection::vec(metric, 0..6)
}

/// The part of the page that the enclave reported; the rest is checked to be the host's, and all of it to be
/// well-formed.
async fn reported(running: &Running) -> Page {
    let (status, text) = running.get("/metrics").await;
    assert_eq!(status, 200);
    let Page(mut families) = Page::read(&text);
    families.retain(|name, family| {
        assert!(!family.series.is_empty(), "{name} has no series\n{text}");
        for labels in family.series.keys() {
            assert_eq!(labels["party"], "ceo", "{name}\n{text}");
        }
        let of_the_host = name.starts_with("arca_host_");
        assert!(of_the_host || name.starts_with("arca_enclave_"), "{name}");
        !of_the_host
    });
    Page(families)
}
