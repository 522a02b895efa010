//! A network that garbles, cuts, stalls and floods, and peers that send what no flight is.

use std::sync::Arc;

use arca_channel::{Channel, Endpoint, Error, Target, accept, connect};
use arca_proto::v1::channel_message::Body;
use arca_proto::v1::{ChannelAccept, ChannelHello, ChannelMessage, ChannelProof, ChannelRole};
use prost::Message as _;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex, split,
};
use tokio::time::Instant;

use crate::raw::{Raw, frame, hello};
use crate::world::{World, peer, service};

// Flights that are none.

/// Sends `bytes` where the hello is due, to the real `ceo`, and returns its error.
async fn instead_of_hello(world: &World, bytes: &[u8]) -> Error {
    let ceo = world.party(&world.ceo);
    let (near, far) = duplex(1 << 16);
    let attacker = async {
        let mut raw = Raw::connect(near, &world.operator).await;
        raw.send_bytes(bytes).await;
        let _ = raw.tls.shutdown().await;
        let answer = raw.receive().await;
        assert!(
            matches!(answer, Some(Body::Refusal(_)) | None),
            "nothing else is said: {answer:?}"
        );
    };
    let (outcome, ()) = tokio::join!(accept(far, &ceo, &mut world.rng()), attacker);
    outcome.unwrap_err()
}

fn framed(body: Body) -> Vec<u8> {
    frame(&ChannelMessage { body: Some(body) }.encode_to_vec())
}

#[tokio::test]
async fn malformed_first_flights() {
    let world = World::new();
    let good = hello(ChannelRole::Principal, "ceo");
    let changed = |change: fn(&mut ChannelHello)| {
        let mut hello = good.clone();
        change(&mut hello);
        framed(Body::Hello(hello))
    };
    let cases: [(&str, Vec<u8>); 19] = [
        ("MALFORMED", frame(b"")),
        ("MALFORMED", frame(&[0xff; 100])),
        ("MALFORMED", framed(Body::Accept(ChannelAccept {}))),
        ("MALFORMED", framed(Body::Proof(ChannelProof::default()))),
        ("MALFORMED", changed(|hello| hello.nonce.clear())),
        ("MALFORMED", changed(|hello| hello.nonce = vec![0; 31])),
        ("MALFORMED", changed(|hello| hello.nonce = vec![0; 33])),
        ("MALFORMED", changed(|hello| hello.role = 0)),
        ("MALFORMED", changed(|hello| hello.role = 99)),
        (
            "MALFORMED",
            changed(|hello| hello.responder = "c".repeat(65)),
        ),
        (
            "MALFORMED",
            changed(|hello| hello.cluster = "sim-\u{1b}[2J".into()),
        ),
        ("VERSION", changed(|hello| hello.version = 0)),
        ("VERSION", changed(|hello| hello.version = 2)),
        (
            "WRONG_PARTY",
            changed(|hello| hello.responder = "cto".into()),
        ),
        ("WRONG_PARTY", changed(|hello| hello.responder.clear())),
        // Only a visitor may come without saying to whom.
        (
            "WRONG_CLUSTER",
            changed(|hello| {
                hello.responder.clear();
                hello.cluster.clear();
            }),
        ),
        ("OVERSIZE", u32::MAX.to_be_bytes().to_vec()),
        ("OVERSIZE", (32 * 1024u32 + 1).to_be_bytes().to_vec()),
        // "PRI " is a length beyond the limit: HTTP/2 begins nowhere near a flight.
        ("OVERSIZE", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
    ];
    for (reason, bytes) in cases {
        assert_eq!(
            instead_of_hello(&world, &bytes).await.reason(),
            reason,
            "{bytes:?}"
        );
    }
}

/// A proof with a nonce where none is asked for, without one where it is, of a wrong boot id.
#[tokio::test]
async fn malformed_proofs() {
    let world = World::new();
    let ceo = world.party(&world.ceo);
    let good = ChannelProof {
        nonce: vec![9; 32],
        boot_id: vec![1; 16],
        ..ChannelProof::default()
    };
    let without_nonce = ChannelProof {
        nonce: vec![],
        ..good.clone()
    };
    let short_boot_id = ChannelProof {
        boot_id: vec![1; 15],
        ..good.clone()
    };
    let client = world.client(&world.operator);
    for (initiator, target, proof) in [
        (&ceo, peer("cto"), without_nonce),
        (&ceo, peer("cto"), short_boot_id),
        (&client, service("cto"), good),
    ] {
        let (near, far) = duplex(1 << 16);
        let attacker = async {
            let mut raw = Raw::accept(far, &world.cto.identity).await;
            raw.receive_hello().await;
            raw.send(Body::Proof(proof)).await;
            raw.receive().await
        };
        let connecting = connect(near, initiator, target, &mut world.rng());
        let (outcome, _) = tokio::join!(connecting, attacker);
        assert_eq!(outcome.unwrap_err().reason(), "MALFORMED");
    }
}

/// What the other side says on refusing reaches a person's terminal.
#[tokio::test]
async fn a_refusal_in_strange_words() {
    let world = World::new();
    let client = world.client(&world.operator);
    let (near, far) = duplex(1 << 16);
    let attacker = async {
        let mut raw = Raw::accept(far, &world.ceo.identity).await;
        let refusal = arca_proto::v1::ChannelRefusal {
            reason: "all is well".into(),
            message: "\u{1b}[2J".to_owned() + &"x".repeat(10_000),
        };
        raw.send(Body::Refusal(refusal)).await;
        raw.receive().await
    };
    let connecting = connect(near, &client, service("ceo"), &mut world.rng());
    let (outcome, _) = tokio::join!(connecting, attacker);
    let Err(Error::Refused { reason, message }) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(reason, "UNSPECIFIED");
    assert_eq!(message.len(), 256);
    assert!(message.starts_with("?[2Jxxx"));
}

#[tokio::test]
async fn garbage_instead_of_tls() {
    let world = World::new();
    let ceo = world.party(&world.ceo);
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 1000],
        &[22, 3, 1, 255, 255, 1],
    ] {
        let (mut near, far) = duplex(1 << 16);
        near.write_all(garbage).await.unwrap();
        near.shutdown().await.unwrap();
        let outcome = accept(far, &ceo, &mut world.rng()).await;
        assert!(matches!(outcome.unwrap_err(), Error::Io(_)));
        let (near, mut far) = duplex(1 << 16);
        far.write_all(garbage).await.unwrap();
        far.shutdown().await.unwrap();
        let client = world.client(&world.operator);
        let outcome = connect(near, &client, service("ceo"), &mut world.rng()).await;
        assert!(matches!(outcome.unwrap_err(), Error::Io(_)));
    }
}

// Silence.

#[tokio::test(start_paused = true)]
async fn somebody_who_never_speaks() {
    let world = World::new();
    let ceo = world.party(&world.ceo);
    let begin = Instant::now();
    let (_near, far) = duplex(1 << 16);
    let outcome = accept(far, &ceo, &mut world.rng()).await;
    assert!(matches!(outcome.unwrap_err(), Error::Timeout));
    assert_eq!(begin.elapsed().as_secs(), 10);

    let (near, _far) = duplex(1 << 16);
    let client = world.client(&world.operator);
    let outcome = connect(near, &client, service("ceo"), &mut world.rng()).await;
    assert!(matches!(outcome.unwrap_err(), Error::Timeout));
}

#[tokio::test(start_paused = true)]
async fn somebody_who_stops_speaking_after_tls() {
    let world = World::new();
    let ceo = world.party(&world.ceo);
    let sent = framed(Body::Hello(hello(ChannelRole::Party, "ceo")));
    // Nothing, a part of a flight, a flight without the next one.
    for length in [0, 3, 4, sent.len() - 1, sent.len()] {
        let (near, far) = duplex(1 << 16);
        let attacker = async {
            let mut raw = Raw::connect(near, &world.cto.identity).await;
            raw.send_bytes(&sent[..length]).await;
            raw
        };
        let begin = Instant::now();
        let (outcome, _raw) = tokio::join!(accept(far, &ceo, &mut world.rng()), attacker);
        assert!(matches!(outcome.unwrap_err(), Error::Timeout), "{length}");
        assert_eq!(begin.elapsed().as_secs(), 10);
    }
}

/// One that reads nothing cannot hold a refusal open either.
#[tokio::test(start_paused = true)]
async fn somebody_who_never_reads() {
    let world = World::new();
    let ceo = world.party(&world.ceo);
    let (near, far) = duplex(2048);
    let attacker = async {
        let mut raw = Raw::connect(near, &world.operator).await;
        raw.send(Body::Hello(hello(ChannelRole::Visitor, "ceo")))
            .await;
        raw
    };
    let (outcome, _raw) = tokio::join!(accept(far, &ceo, &mut world.rng()), attacker);
    assert!(matches!(outcome.unwrap_err(), Error::Timeout));
}

// A forwarder that is not content with forwarding.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    FromInitiator,
    FromResponder,
}

/// What the forwarder does to one byte of one direction.
#[derive(Clone, Copy, Debug)]
enum Harm {
    None,
    Flip(Direction, usize),
    Cut(Direction, usize),
}

/// What went through before it was harmed.
#[derive(Default)]
struct Carried {
    from_initiator: Vec<u8>,
    from_responder: Vec<u8>,
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: Direction,
    harm: Harm,
    carried: &mut Vec<u8>,
) -> Result<(), &'static str> {
    let mut buffer = [0; 4096];
    loop {
        let count = from.read(&mut buffer).await.map_err(|_| "gone")?;
        if count == 0 {
            let _ = to.shutdown().await;
            return Ok(());
        }
        let chunk = &mut buffer[..count];
        let begin = carried.len();
        carried.extend_from_slice(chunk);
        match harm {
            Harm::Flip(at, offset) if at == direction => {
                if let Some(byte) = offset.checked_sub(begin).and_then(|at| chunk.get_mut(at)) {
                    *byte ^= 1 << (offset % 8);
                }
            }
            Harm::Cut(at, offset) if at == direction && offset < carried.len() => {
                to.write_all(&chunk[..offset - begin])
                    .await
                    .map_err(|_| "gone")?;
                return Err("cut");
            }
            _ => {}
        }
        to.write_all(chunk).await.map_err(|_| "gone")?;
    }
}

async fn forward(near: DuplexStream, far: DuplexStream, harm: Harm) -> Carried {
    let mut carried = Carried::default();
    let (near_read, near_write) = split(near);
    let (far_read, far_write) = split(far);
    let up = &mut carried.from_initiator;
    let down = &mut carried.from_responder;
    let _ = tokio::try_join!(
        carry(near_read, far_write, Direction::FromInitiator, harm, up),
        carry(far_read, near_write, Direction::FromResponder, harm, down),
    );
    carried
}

struct Outcome {
    near: Result<Channel<DuplexStream>, Error>,
    far: Result<Channel<DuplexStream>, Error>,
    forwarder: tokio::task::JoinHandle<Carried>,
}

async fn through_forwarder(
    world: &World,
    initiator: &Arc<Endpoint>,
    responder: &Arc<Endpoint>,
    target: Target,
    harm: Harm,
) -> Outcome {
    let (near, near_end) = duplex(1 << 16);
    let (far_end, far) = duplex(1 << 16);
    let forwarder = tokio::spawn(forward(near_end, far_end, harm));
    let (near, far) = tokio::join!(
        connect(near, initiator, target, &mut world.rng()),
        accept(far, responder, &mut world.rng()),
    );
    Outcome {
        near,
        far,
        forwarder,
    }
}

/// Lengths of both directions of an unharmed handshake, and the bytes.
async fn clean(
    world: &World,
    initiator: &Arc<Endpoint>,
    responder: &Arc<Endpoint>,
    target: Target,
) -> Carried {
    let outcome = through_forwarder(world, initiator, responder, target, Harm::None).await;
    drop((outcome.near.unwrap(), outcome.far.unwrap()));
    outcome.forwarder.await.unwrap()
}

/// Whether an offset lies in `legacy_record_version` of a record's header, which RFC 8446, 5.1 wants ignored.
fn means_nothing(bytes: &[u8], offset: usize) -> bool {
    let mut begin = 0;
    while let Some(header) = bytes.get(begin..begin + 5) {
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if (begin..begin + 5 + length).contains(&offset) {
            return (1..3).contains(&(offset - begin));
        }
        begin += 5 + length;
    }
    false
}

/// Every offset of the first records and of the last, and a sample of what is between them.
fn sample(length: usize) -> impl Iterator<Item = usize> {
    (0..length).filter(move |offset| *offset < 12 || *offset + 12 > length || offset % 67 == 0)
}

/// Harms one handshake, and returns what each side made of it and the bytes of the harmed direction; `None` when
/// the handshake was over before that byte, since its signatures vary in length.
async fn harmed(
    world: &World,
    (ceo, cto): (&Arc<Endpoint>, &Arc<Endpoint>),
    direction: Direction,
    offset: usize,
    harm: Harm,
) -> Option<(Result<(), Error>, Result<(), Error>, Vec<u8>)> {
    let Outcome {
        near,
        far,
        forwarder,
    } = through_forwarder(world, ceo, cto, peer("cto"), harm).await;
    let (initiator, responder) = match (near, far) {
        // The responder may have said its last word before the harm. It gets nothing to serve.
        (Err(error), Ok(mut channel)) => {
            assert!(channel.read_u8().await.is_err(), "{harm:?}");
            (Err(error), Ok(()))
        }
        (near, far) => (near.map(drop), far.map(drop)),
    };
    let carried = forwarder.await.unwrap();
    let bytes = match direction {
        Direction::FromInitiator => carried.from_initiator,
        Direction::FromResponder => carried.from_responder,
    };
    (offset < bytes.len()).then_some((initiator, responder, bytes))
}

#[tokio::test(start_paused = true)]
async fn a_flipped_byte_at_any_place_refuses_the_connection() {
    let world = World::new();
    let (ceo, cto) = (world.party(&world.ceo), world.party(&world.cto));
    let carried = clean(&world, &ceo, &cto, peer("cto")).await;
    let mut refused = 0;
    for (direction, length) in [
        (Direction::FromInitiator, carried.from_initiator.len()),
        (Direction::FromResponder, carried.from_responder.len()),
    ] {
        for offset in sample(length) {
            let harm = Harm::Flip(direction, offset);
            let Some((initiator, responder, bytes)) =
                harmed(&world, (&ceo, &cto), direction, offset, harm).await
            else {
                continue;
            };
            if means_nothing(&bytes, offset) {
                continue;
            }
            assert!(initiator.is_err(), "{harm:?}: the initiator went on");
            if direction == Direction::FromInitiator {
                assert!(responder.is_err(), "{harm:?}: the responder went on");
            }
            refused += 1;
        }
    }
    assert!(refused > 100, "{refused} is no sample");
}

#[tokio::test(start_paused = true)]
async fn a_cut_at_any_place_refuses_the_connection() {
    let world = World::new();
    let (ceo, cto) = (world.party(&world.ceo), world.party(&world.cto));
    let carried = clean(&world, &ceo, &cto, peer("cto")).await;
    let mut refused = 0;
    for (direction, length) in [
        (Direction::FromInitiator, carried.from_initiator.len()),
        (Direction::FromResponder, carried.from_responder.len()),
    ] {
        for offset in sample(length) {
            let harm = Harm::Cut(direction, offset);
            let Some((initiator, responder, _)) =
                harmed(&world, (&ceo, &cto), direction, offset, harm).await
            else {
                continue;
            };
            assert!(initiator.is_err(), "{harm:?}: the initiator went on");
            if direction == Direction::FromInitiator {
                assert!(responder.is_err(), "{harm:?}: the responder went on");
            }
            refused += 1;
        }
    }
    assert!(refused > 100, "{refused} is no sample");
}

/// After the handshake too: what is read is what was written, or an error.
#[tokio::test(start_paused = true)]
async fn a_flipped_byte_in_an_open_channel_ends_it() {
    let world = World::new();
    let (ceo, client) = (world.party(&world.ceo), world.client(&world.operator));
    let carried = clean(&world, &client, &ceo, service("ceo")).await;
    // Past the end of every handshake, whatever its signatures' lengths, and inside the first message's record.
    let offset = carried.from_initiator.len() + 40;
    let harm = Harm::Flip(Direction::FromInitiator, offset);
    let outcome = through_forwarder(&world, &client, &ceo, service("ceo"), harm).await;
    let (mut near, mut far) = (outcome.near.unwrap(), outcome.far.unwrap());
    near.write_all(&[7; 100]).await.unwrap();
    near.flush().await.unwrap();
    assert_eq!(
        far.read_u8().await.unwrap_err().kind(),
        std::io::ErrorKind::InvalidData
    );
}

/// A stream that ends without TLS's close is no end of a message.
#[tokio::test]
async fn a_cut_in_an_open_channel_is_an_error() {
    let world = World::new();
    let (ceo, client) = (world.party(&world.ceo), world.client(&world.operator));
    let (near, far) = world.meet(&client, &ceo, service("ceo")).await;
    drop(near.unwrap());
    let error = far.unwrap().read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}
