//! Outbound connections: the dial protocol, answer by answer, and garbage on its socket.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

mod common;

use std::time::Duration;

use arca_host::DIAL_SOCKET;
use common::{Running, accept, read, read_to_end, soon};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UnixStream};

const DIALS: &str = "arca_host_dials_total";
const OPEN: &str = "arca_host_connections_open";

const CONNECTED: u8 = 0;
const UNKNOWN: u8 = 1;
const UNREACHABLE: u8 = 2;
const LIMIT: u8 = 3;

async fn request(running: &Running, bytes: &[u8]) -> UnixStream {
    let mut stream = soon(UnixStream::connect(running.socket(DIAL_SOCKET)))
        .await
        .unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

async fn dial(running: &Running, name: &str) -> (UnixStream, u8) {
    let mut bytes = vec![u8::try_from(name.len()).unwrap()];
    bytes.extend_from_slice(name.as_bytes());
    let mut stream = request(running, &bytes).await;
    let status = read(&mut stream, 1).await[0];
    (stream, status)
}

async fn peer() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

#[tokio::test]
async fn a_named_peer_is_reached_and_each_end_is_passed_on() {
    let (listener, address) = peer().await;
    let running = Running::start_with(|config| {
        config.peers.insert("cto".into(), address);
    })
    .await;
    let (mut inside, status) = dial(&running, "cto").await;
    assert_eq!(status, CONNECTED);
    let (mut outside, _) = soon(listener.accept()).await.unwrap();

    inside.write_all(b"hello").await.unwrap();
    inside.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut outside).await, b"hello");
    outside.write_all(b"hello yourself").await.unwrap();
    outside.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut inside).await, b"hello yourself");

    let outcome = [("peer", "cto"), ("outcome", "connected")];
    assert_eq!(running.metric(DIALS, &outcome).await, 1.0);
    running
        .metric_becomes(OPEN, &[("flow", "outbound")], 0.0)
        .await;
}

#[tokio::test]
async fn a_peer_by_host_name_is_resolved_when_dialled() {
    let (listener, address) = peer().await;
    let port = address.rsplit_once(':').unwrap().1;
    let running = Running::start_with(|config| {
        config
            .peers
            .insert("cto".into(), format!("localhost:{port}"));
    })
    .await;
    let (_inside, status) = dial(&running, "cto").await;
    assert_eq!(status, CONNECTED);
    soon(listener.accept()).await.unwrap();
}

#[tokio::test]
async fn two_hosts_carry_bytes_from_enclave_to_enclave() {
    let cto = Running::start().await;
    let cto_enclave = cto.enclave();
    let ceo = Running::start().await;
    ceo.host
        .set_peer("cto", &cto.host.listen_address().to_string());
    let (mut from_ceo, status) = dial(&ceo, "cto").await;
    assert_eq!(status, CONNECTED);
    from_ceo.write_all(b"round 1").await.unwrap();
    let mut at_cto = accept(&cto_enclave).await;
    assert_eq!(read(&mut at_cto, 7).await, b"round 1");
    at_cto.write_all(b"round 2").await.unwrap();
    assert_eq!(read(&mut from_ceo, 7).await, b"round 2");
}

#[tokio::test]
async fn a_name_that_is_not_configured_is_unknown() {
    let running = Running::start().await;
    let (mut stream, status) = dial(&running, "mallory").await;
    assert_eq!(status, UNKNOWN);
    assert_eq!(read_to_end(&mut stream).await, b"");
    // What the enclave sends never becomes a label.
    let (_, page) = running.get("/metrics").await;
    assert!(!page.contains("mallory"));
    let outcome = [("peer", "none"), ("outcome", "unknown_peer")];
    assert_eq!(running.metric(DIALS, &outcome).await, 1.0);
}

#[tokio::test]
async fn a_peer_that_is_down_is_unreachable_until_it_is_back() {
    let (listener, address) = peer().await;
    drop(listener);
    let running = Running::start_with(|config| {
        config.peers.insert("cto".into(), address.clone());
    })
    .await;
    let (mut stream, status) = dial(&running, "cto").await;
    assert_eq!(status, UNREACHABLE);
    assert_eq!(read_to_end(&mut stream).await, b"");
    let outcome = [("peer", "cto"), ("outcome", "unreachable")];
    assert_eq!(running.metric(DIALS, &outcome).await, 1.0);

    let _back = TcpListener::bind(address).await.unwrap();
    assert_eq!(dial(&running, "cto").await.1, CONNECTED);
}

#[tokio::test]
async fn a_peer_that_does_not_answer_is_unreachable_in_time() {
    let running = Running::start_with(|config| {
        config.limits.dial = Duration::from_millis(100);
        // TEST-NET-1 of RFC 5737: nobody is there, and routers are silent about it.
        config.peers.insert("cto".into(), "192.0.2.1:7101".into());
        config
            .peers
            .insert("cloud".into(), "no-such-name.invalid:7101".into());
    })
    .await;
    assert_eq!(dial(&running, "cto").await.1, UNREACHABLE);
    assert_eq!(dial(&running, "cloud").await.1, UNREACHABLE);
}

#[tokio::test]
async fn dials_beyond_the_limit_are_answered_so_and_room_is_used_again() {
    let (_listener, address) = peer().await;
    let running = Running::start_with(|config| {
        config.limits.max_dials = 1;
        config.peers.insert("cto".into(), address);
    })
    .await;
    let (held, status) = dial(&running, "cto").await;
    assert_eq!(status, CONNECTED);
    let (mut beyond, status) = dial(&running, "cto").await;
    assert_eq!(status, LIMIT);
    assert_eq!(read_to_end(&mut beyond).await, b"");

    drop(held);
    drop(soon(_listener.accept()).await.unwrap());
    let again = async { while dial(&running, "cto").await.1 != CONNECTED {} };
    soon(again).await;
}

#[tokio::test]
async fn garbage_on_the_dial_socket_hurts_nobody() {
    let (_listener, address) = peer().await;
    let running = Running::start_with(|config| {
        config.peers.insert("cto".into(), address);
    })
    .await;
    // No name, bytes that are no text, the longest name, a name with the wrong case.
    let longest = [&[255][..], &[b'a'; 255]].concat();
    for garbage in [&b"\0"[..], b"\x03\xff\xfe\xfd", &longest, b"\x03CTO"] {
        let mut stream = request(&running, garbage).await;
        assert_eq!(read(&mut stream, 1).await, [UNKNOWN], "{garbage:?}");
    }
    // Ends in the middle of the name, or before it.
    for cut in [&b"\x09half"[..], b""] {
        let mut stream = request(&running, cut).await;
        stream.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut stream).await, b"");
    }
    let outcome = [("peer", "none"), ("outcome", "malformed")];
    running.metric_becomes(DIALS, &outcome, 2.0).await;
    // Half a request that stays open holds up nobody else.
    let _stuck = request(&running, b"\x09half").await;
    assert_eq!(dial(&running, "cto").await.1, CONNECTED);
}
