//! The flights between TLS and HTTP/2: read within a bound, checked once for their form.

use arca_proto::v1::channel_message::Body;
use arca_proto::v1::{ChannelMessage, ChannelRefusal, ChannelRole};
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::Error;
use crate::error::INTERNAL;

/// Longest flight, in bytes: evidence is at most 16 KiB, and the rest is short.
pub(crate) const MAX_FLIGHT: u32 = 32 * 1024;
/// The only version of the handshake so far.
pub(crate) const VERSION: u32 = 1;
/// Longest cluster id or party name that is read at all.
const MAX_NAME: usize = 64;
/// Longest reason and message of a refusal that are shown.
const MAX_REASON: usize = 64;
const MAX_MESSAGE: usize = 256;

pub(crate) type Nonce = [u8; 32];

/// What the side that connects wants to be known as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Party,
    Principal,
    Visitor,
}

pub(crate) struct Hello {
    pub nonce: Nonce,
    pub claim: Claim,
    pub responder: String,
    pub cluster: String,
}

pub(crate) struct Proof {
    /// Present where the sender asks for evidence in return.
    pub nonce: Option<Nonce>,
    pub cluster: String,
    pub party: String,
    pub boot_id: [u8; 16],
    pub manifest_epoch: u64,
    pub evidence: Vec<u8>,
}

pub(crate) async fn send<S: AsyncWrite + Unpin>(stream: &mut S, body: Body) -> Result<(), Error> {
    let message = ChannelMessage { body: Some(body) };
    let encoded = message.encode_to_vec();
    let length = u32::try_from(encoded.len())
        .ok()
        .filter(|length| *length <= MAX_FLIGHT)
        .ok_or(Error::Malformed("our own flight is too long"))?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(&encoded).await?;
    stream.flush().await?;
    Ok(())
}

async fn receive<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Body, Error> {
    let length = stream.read_u32().await?;
    if length > MAX_FLIGHT {
        return Err(Error::Oversize(length));
    }
    let mut encoded = vec![0; length as usize];
    stream.read_exact(&mut encoded).await?;
    let message = ChannelMessage::decode(encoded.as_slice())
        .map_err(|_| Error::Malformed("not a ChannelMessage"))?;
    match message.body {
        Some(Body::Refusal(refusal)) => Err(refused(&refusal)),
        Some(body) => Ok(body),
        None => Err(Error::Malformed("an empty ChannelMessage")),
    }
}

pub(crate) async fn receive_hello<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Hello, Error> {
    let Body::Hello(hello) = receive(stream).await? else {
        return Err(Error::Malformed("not the hello that was due"));
    };
    // First, so that other versions may differ in everything else.
    if hello.version != VERSION {
        return Err(Error::Version(hello.version));
    }
    Ok(Hello {
        claim: match hello.role() {
            ChannelRole::Party => Claim::Party,
            ChannelRole::Principal => Claim::Principal,
            ChannelRole::Visitor => Claim::Visitor,
            ChannelRole::Unspecified => return Err(Error::Malformed("the role")),
        },
        nonce: nonce(&hello.nonce)?,
        responder: name(hello.responder)?,
        cluster: name(hello.cluster)?,
    })
}

/// A proof; `asks_in_return` says whether it must or must not carry a nonce.
pub(crate) async fn receive_proof<S: AsyncRead + Unpin>(
    stream: &mut S,
    asks_in_return: bool,
) -> Result<Proof, Error> {
    let Body::Proof(proof) = receive(stream).await? else {
        return Err(Error::Malformed("not the proof that was due"));
    };
    let nonce = match (asks_in_return, proof.nonce.as_slice()) {
        (true, bytes) => Some(nonce(bytes)?),
        (false, []) => None,
        (false, _) => return Err(Error::Malformed("a nonce where none belongs")),
    };
    Ok(Proof {
        nonce,
        cluster: name(proof.cluster)?,
        party: name(proof.party)?,
        boot_id: proof
            .boot_id
            .try_into()
            .map_err(|_| Error::Malformed("the boot id is not 16 bytes"))?,
        manifest_epoch: proof.manifest_epoch,
        evidence: proof.evidence,
    })
}

pub(crate) async fn receive_accept<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(), Error> {
    match receive(stream).await? {
        Body::Accept(_) => Ok(()),
        _ => Err(Error::Malformed("not the accept that was due")),
    }
}

/// Tells the other side why, where it can still hear it. Whether it does changes nothing.
pub(crate) async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S, error: &Error) {
    // A side that was refused, or whose stream is gone, has nothing to say.
    if !matches!(error, Error::Refused { .. } | Error::Io(_)) {
        // What failed inside this side is for its own log.
        let message = match error.reason() {
            INTERNAL => String::new(),
            _ => printable(&error.to_string(), MAX_MESSAGE),
        };
        let reason = error.reason().to_owned();
        let refusal = ChannelRefusal { reason, message };
        let _ = send(stream, Body::Refusal(refusal)).await;
    }
    let _ = stream.shutdown().await;
}

fn refused(refusal: &ChannelRefusal) -> Error {
    let stable = (1..=MAX_REASON).contains(&refusal.reason.len())
        && refusal
            .reason
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    Error::Refused {
        reason: if stable {
            refusal.reason.clone()
        } else {
            "UNSPECIFIED".to_owned()
        },
        message: printable(&refusal.message, MAX_MESSAGE),
    }
}

/// The other side's words end on a person's terminal: no control characters, and not too many.
fn printable(text: &str, limit: usize) -> String {
    text.chars()
        .take(limit)
        .map(|c| {
            if c.is_ascii_graphic() || c == ' ' {
                c
            } else {
                '?'
            }
        })
        .collect()
}

fn nonce(bytes: &[u8]) -> Result<Nonce, Error> {
    bytes
        .try_into()
        .map_err(|_| Error::Malformed("a nonce is not 32 bytes"))
}

/// A cluster id or a party's name, or nothing.
fn name(text: String) -> Result<String, Error> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.len() <= MAX_NAME && text.bytes().all(allowed) {
        Ok(text)
    } else {
        Err(Error::Malformed("a name"))
    }
}
