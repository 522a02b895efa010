//! A message's bytes.
//!
//! | bytes | field |
//! | --- | --- |
//! | 1 | version, 1 |
//! | 1 | protocol: 1 key generation, 2 signing (both Schnorr); 3 key generation, 4 presigning, 5 signing, 6 signing in one round, 7 pairwise setup (all ECDSA) |
//! | 32 | session |
//! | 1 | round, from 1 |
//! | 2 | sender's index, big endian |
//! | 2 | recipient's index, big endian |
//! | 32 | context |
//! | 32 × participants | echo: digests of the previous round's broadcasts, in order of index; absent in round 1 |
//! | as the protocol says | broadcast part |
//! | as the protocol says | direct part |

use crate::bytes::{take, take_slice};
use crate::{AbortReason, Error, Participant, SessionId};

use super::echo::Echo;
use super::{Parts, Shape};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 71;

/// Which protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Dkg = 1,
    Signing = 2,
    EcdsaDkg = 3,
    Presigning = 4,
    EcdsaSigning = 5,
    OnlineSigning = 6,
    PairSetup = 7,
}

/// What every message of a run's round has in common, seen from one participant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(super) kind: Kind,
    pub(super) session: SessionId,
    pub(super) round: u8,
    pub(super) me: Participant,
    pub(super) context: [u8; 32],
}

impl Header {
    pub(super) fn next_round(&self) -> Result<Self, Error> {
        let round = self
            .round
            .checked_add(1)
            .ok_or(Error::Bug("a protocol of more than 255 rounds"))?;
        Ok(Self { round, ..*self })
    }
}

/// The message from this header's participant to another.
pub(super) fn encode(
    header: &Header,
    to: Participant,
    echo: Option<&Echo>,
    broadcast: &[u8],
    direct: &[u8],
) -> Vec<u8> {
    // One allocation: growing would leave copies of the direct part behind.
    let echo_bytes = echo.map_or(0, Echo::wire_len);
    let len = HEADER_BYTES + echo_bytes + broadcast.len() + direct.len();
    let mut message = Vec::with_capacity(len);
    message.extend_from_slice(&[VERSION, header.kind as u8]);
    message.extend_from_slice(header.session.as_bytes());
    message.push(header.round);
    message.extend_from_slice(&header.me.to_bytes());
    message.extend_from_slice(&to.to_bytes());
    message.extend_from_slice(&header.context);
    for digest in echo.into_iter().flat_map(Echo::digests) {
        message.extend_from_slice(digest);
    }
    message.extend_from_slice(broadcast);
    message.extend_from_slice(direct);
    message
}

/// Checks a message against what this header's participant awaits from `from`, and splits it.
pub(super) fn decode<'a>(
    header: &Header,
    from: Participant,
    echo_bytes: usize,
    shape: Shape,
    message: &'a [u8],
) -> Result<Parts<'a>, AbortReason> {
    let mut rest = message;
    check(&mut rest, &[VERSION], AbortReason::Malformed)?;
    check(&mut rest, &[header.kind as u8], AbortReason::WrongSession)?;
    check(
        &mut rest,
        header.session.as_bytes(),
        AbortReason::WrongSession,
    )?;
    check(&mut rest, &[header.round], AbortReason::WrongRound)?;
    check(&mut rest, &from.to_bytes(), AbortReason::Misaddressed)?;
    check(&mut rest, &header.me.to_bytes(), AbortReason::Misaddressed)?;
    check(&mut rest, &header.context, AbortReason::ContextMismatch)?;
    let parts = Parts {
        echo: take_slice(&mut rest, echo_bytes).ok_or(AbortReason::Malformed)?,
        broadcast: take_slice(&mut rest, shape.broadcast).ok_or(AbortReason::Malformed)?,
        direct: take_slice(&mut rest, shape.direct).ok_or(AbortReason::Malformed)?,
    };
    if rest.is_empty() {
        Ok(parts)
    } else {
        Err(AbortReason::Malformed)
    }
}

fn check<const N: usize>(
    rest: &mut &[u8],
    expected: &[u8; N],
    otherwise: AbortReason,
) -> Result<(), AbortReason> {
    match take::<N>(rest) {
        Some(field) if field == expected => Ok(()),
        Some(_) => Err(otherwise),
        None => Err(AbortReason::Malformed),
    }
}
