//! Inbound connections: what passes, what is refused, and who notices.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

mod common;

use std::time::{Duration, Instant};

use arca_host::ENCLAVE_SOCKET;
use common::{Running, accept, read, read_to_end, soon};
use tokio::io::AsyncWriteExt;

const REFUSED: &str = "arca_host_connections_refused_total";
const OPEN: &str = "arca_host_connections_open";
const CLOSED: &str = "arca_host_connections_closed_total";
const BYTES: &str = "arca_host_bytes_total";

#[tokio::test]
async fn bytes_pass_unchanged_in_both_directions_at_once() {
    let running = Running::start().await;
    let enclave = running.enclave();
    let up: Vec<u8> = (0..1_500_000_u32).map(|i| ((i * 31) >> 3) as u8).collect();
    let down: Vec<u8> = (0..900_000_u32).map(|i| ((i * 17) >> 5) as u8).collect();

    let (client_read, mut client_write) = running.connect().await.into_split();
    let mut client_read = client_read;
    let sending = tokio::spawn({
        let up = up.clone();
        async move {
            client_write.write_all(&up).await.unwrap();
            client_write
        }
    });
    let (mut enclave_read, mut enclave_write) = accept(&enclave).await.into_split();
    let answering = tokio::spawn({
        let down = down.clone();
        async move {
            enclave_write.write_all(&down).await.unwrap();
            enclave_write
        }
    });
    assert!(read(&mut enclave_read, up.len()).await == up);
    assert!(read(&mut client_read, down.len()).await == down);
    drop(soon(sending).await.unwrap());
    drop(soon(answering).await.unwrap());

    let to = [("flow", "inbound"), ("direction", "to_enclave")];
    running.metric_becomes(BYTES, &to, up.len() as f64).await;
    let from = [("flow", "inbound"), ("direction", "from_enclave")];
    running
        .metric_becomes(BYTES, &from, down.len() as f64)
        .await;
}

#[tokio::test]
async fn the_end_of_a_request_is_passed_on_while_the_answer_still_flows() {
    let running = Running::start().await;
    let enclave = running.enclave();
    let mut client = running.connect().await;
    client.write_all(b"request").await.unwrap();
    client.shutdown().await.unwrap();

    let mut inside = accept(&enclave).await;
    assert_eq!(read_to_end(&mut inside).await, b"request");
    inside
        .write_all(b"answer after the end of the request")
        .await
        .unwrap();
    inside.shutdown().await.unwrap();
    assert_eq!(
        read_to_end(&mut client).await,
        b"answer after the end of the request"
    );
    running
        .metric_becomes(CLOSED, &[("flow", "inbound"), ("end", "done")], 1.0)
        .await;
    running
        .metric_becomes(OPEN, &[("flow", "inbound")], 0.0)
        .await;
}

#[tokio::test]
async fn the_end_of_an_answer_is_passed_on_while_the_request_still_flows() {
    let running = Running::start().await;
    let enclave = running.enclave();
    let mut client = running.connect().await;
    client.write_all(b"a").await.unwrap();
    let mut inside = accept(&enclave).await;
    inside.write_all(b"no more from me").await.unwrap();
    inside.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await, b"no more from me");
    client.write_all(b"bc").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut inside).await, b"abc");
}

#[tokio::test]
async fn a_client_that_vanishes_is_gone_for_the_enclave_too() {
    let running = Running::start().await;
    let enclave = running.enclave();
    let mut client = running.connect().await;
    client.write_all(b"hello").await.unwrap();
    let mut inside = accept(&enclave).await;
    read(&mut inside, 5).await;
    // Unread bytes make the kernel send a reset instead of an orderly end.
    inside.write_all(b"unread").await.unwrap();
    soon(client.readable()).await.unwrap();
    drop(client);
    assert_eq!(read_to_end(&mut inside).await, b"");
}

#[tokio::test]
async fn an_enclave_that_is_absent_or_restarts_needs_no_restart_of_the_host() {
    let running = Running::start().await;
    let refused = [("reason", "enclave_unreachable")];

    let mut early = running.connect().await;
    early.write_all(b"anyone?").await.unwrap();
    assert_eq!(read_to_end(&mut early).await, b"");
    assert_eq!(running.metric(REFUSED, &refused).await, 1.0);

    let first_life = running.enclave();
    let mut client = running.connect().await;
    client.write_all(b"one").await.unwrap();
    let mut inside = accept(&first_life).await;
    assert_eq!(read(&mut inside, 3).await, b"one");
    drop((inside, first_life));
    assert_eq!(read_to_end(&mut client).await, b"");

    let mut between = running.connect().await;
    between.write_all(b"anyone?").await.unwrap();
    assert_eq!(read_to_end(&mut between).await, b"");
    assert_eq!(running.metric(REFUSED, &refused).await, 2.0);

    std::fs::remove_file(running.socket(ENCLAVE_SOCKET)).unwrap();
    let second_life = running.enclave();
    let mut client = running.connect().await;
    client.write_all(b"two").await.unwrap();
    assert_eq!(read(&mut accept(&second_life).await, 3).await, b"two");
}

#[tokio::test]
async fn a_silent_client_is_dropped_and_the_enclave_never_hears_of_it() {
    let running = Running::start_with(|config| {
        config.limits.first_byte = Duration::from_millis(200);
    })
    .await;
    let enclave = running.enclave();
    let mut silent = running.connect().await;
    assert_eq!(read_to_end(&mut silent).await, b"");
    assert_eq!(
        running
            .metric(REFUSED, &[("reason", "first_byte_timeout")])
            .await,
        1.0
    );

    // A port scanner: connects and leaves.
    let mut scanner = running.connect().await;
    scanner.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut scanner).await, b"");
    assert_eq!(
        running
            .metric(REFUSED, &[("reason", "closed_silently")])
            .await,
        1.0
    );

    let mut talker = running.connect().await;
    talker.write_all(b"first to speak").await.unwrap();
    let mut inside = accept(&enclave).await;
    assert_eq!(read(&mut inside, 14).await, b"first to speak");
}

#[tokio::test]
async fn an_idle_connection_is_closed_on_both_sides() {
    let running =
        Running::start_with(|config| config.limits.idle = Duration::from_millis(200)).await;
    let enclave = running.enclave();
    let mut client = running.connect().await;
    client.write_all(b"x").await.unwrap();
    let mut inside = accept(&enclave).await;
    assert_eq!(read_to_end(&mut inside).await, b"x");
    assert_eq!(read_to_end(&mut client).await, b"");
    assert_eq!(
        running
            .metric(CLOSED, &[("flow", "inbound"), ("end", "idle")])
            .await,
        1.0
    );
}

#[tokio::test]
async fn traffic_in_one_direction_keeps_a_connection_from_being_idle() {
    let running =
        Running::start_with(|config| config.limits.idle = Duration::from_millis(400)).await;
    let enclave = running.enclave();
    let mut client = running.connect().await;
    client.write_all(b"x").await.unwrap();
    let mut inside = accept(&enclave).await;
    read(&mut inside, 1).await;
    let since = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    while since.elapsed() < Duration::from_millis(1200) {
        ticks.tick().await;
        inside.write_all(b"t").await.unwrap();
        assert_eq!(read(&mut client, 1).await, b"t");
    }
}

#[tokio::test]
async fn whoever_never_lets_go_after_the_other_side_is_done_is_closed() {
    let running = Running::start_with(|config| {
        config.limits.half_closed = Duration::from_millis(200);
    })
    .await;
    let enclave = running.enclave();
    let idle = [("flow", "inbound"), ("end", "idle")];

    let mut client = running.connect().await;
    client.write_all(b"x").await.unwrap();
    let mut inside = accept(&enclave).await;
    inside.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await, b"");
    assert_eq!(read_to_end(&mut inside).await, b"x");
    assert_eq!(running.metric(CLOSED, &idle).await, 1.0);

    let mut client = running.connect().await;
    client.write_all(b"x").await.unwrap();
    client.shutdown().await.unwrap();
    let mut inside = accept(&enclave).await;
    assert_eq!(read_to_end(&mut inside).await, b"x");
    assert_eq!(read_to_end(&mut client).await, b"");
    assert_eq!(running.metric(CLOSED, &idle).await, 2.0);
}

#[tokio::test]
async fn connections_beyond_the_total_are_closed_and_room_is_used_again() {
    let running = Running::start_with(|config| config.limits.max_connections = 2).await;
    let enclave = running.enclave();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = running.connect().await;
        client.write_all(b"x").await.unwrap();
        held.push((client, accept(&enclave).await));
    }
    let mut beyond = running.connect().await;
    assert_eq!(read_to_end(&mut beyond).await, b"");
    assert_eq!(
        running
            .metric(REFUSED, &[("reason", "max_connections")])
            .await,
        1.0
    );
    assert_eq!(running.metric(OPEN, &[("flow", "inbound")]).await, 2.0);

    drop(held.pop());
    running
        .metric_becomes(OPEN, &[("flow", "inbound")], 1.0)
        .await;
    let mut next = running.connect().await;
    next.write_all(b"next").await.unwrap();
    assert_eq!(read(&mut accept(&enclave).await, 4).await, b"next");
}

#[tokio::test]
async fn connections_that_never_speak_count_too() {
    let running = Running::start_with(|config| config.limits.max_connections_per_address = 2).await;
    let _silent = (running.connect().await, running.connect().await);
    let mut beyond = running.connect().await;
    assert_eq!(read_to_end(&mut beyond).await, b"");
    let refused = [("reason", "max_connections_per_address")];
    assert_eq!(running.metric(REFUSED, &refused).await, 1.0);
}

#[tokio::test]
async fn a_flood_of_connections_is_refused_and_counted() {
    let running = Running::start_with(|config| {
        config.limits.accepts_per_second_per_address = 5;
    })
    .await;
    for _ in 0..50 {
        drop(running.connect().await);
    }
    let refused = [("reason", "accepts_per_second_per_address")];
    let wait = async { while running.metric(REFUSED, &refused).await < 30.0 {} };
    soon(wait).await;
}

#[tokio::test]
async fn one_connection_stays_within_its_rate() {
    let rate = 64 * 1024;
    let running = Running::start_with(|config| config.limits.bytes_per_second = Some(rate)).await;
    let enclave = running.enclave();
    let mut client = running.connect().await;
    let sent = vec![7; 2 * rate as usize];
    let since = Instant::now();
    let sending = tokio::spawn({
        let sent = sent.clone();
        async move {
            client.write_all(&sent).await.unwrap();
            client
        }
    });
    let mut inside = accept(&enclave).await;
    assert!(read(&mut inside, sent.len()).await == sent);
    // One second's worth is free, the other has to wait; a fifth of slack for the last buffer.
    assert!(
        since.elapsed() > Duration::from_millis(800),
        "took {:?}",
        since.elapsed()
    );
    soon(sending).await.unwrap();
}

#[tokio::test]
async fn stalled_connections_do_not_hold_up_the_others() {
    let running = Running::start().await;
    let enclave = running.enclave();
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut client = running.connect().await;
        client.write_all(&[0; 1]).await.unwrap();
        // The enclave's side never reads, so the host's buffers for it fill up.
        let inside = accept(&enclave).await;
        let flood = vec![0; 1024 * 1024];
        tokio::select! {
            biased;
            flooded = client.write_all(&flood) => flooded.unwrap(),
            () = std::future::ready(()) => {}
        }
        stalled.push((client, inside));
    }
    let mut client = running.connect().await;
    client.write_all(b"ping").await.unwrap();
    let mut inside = accept(&enclave).await;
    assert_eq!(read(&mut inside, 4).await, b"ping");
    inside.write_all(b"pong").await.unwrap();
    assert_eq!(read(&mut client, 4).await, b"pong");
}
