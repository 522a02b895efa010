//! Collecting one round's messages.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use zeroize::Zeroizing;

use crate::{AbortReason, Error, Participant, Reject};

use super::wire::{self, Header};
use super::{Received, Shape};

/// The messages of one round: exactly one from each other participant, each checked on arrival.
pub struct Inbox {
    header: Header,
    echo_bytes: usize,
    shape: Shape,
    messages: BTreeMap<Participant, Option<Zeroizing<Vec<u8>>>>,
}

impl Inbox {
    pub(super) fn new(
        header: Header,
        senders: BTreeSet<Participant>,
        echo_bytes: usize,
        shape: Shape,
    ) -> Self {
        Self {
            header,
            echo_bytes,
            shape,
            messages: senders.into_iter().map(|from| (from, None)).collect(),
        }
    }

    /// Adds a message that `from` sent. The same bytes a second time change nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Abort`] naming `from` when the message is not one for this run, round and recipient, has
    /// another length than it must, or differs from one it sent before: end the run.
    /// [`Reject::UnexpectedSender`] when `from` takes no part: drop the message.
    ///
    /// # Security
    ///
    /// `from` must be whom the channel authenticated, not what the message says.
    pub fn insert(
        &mut self,
        from: Participant,
        message: impl Into<Zeroizing<Vec<u8>>>,
    ) -> Result<(), Error> {
        let message = message.into();
        let slot = self
            .messages
            .get_mut(&from)
            .ok_or(Reject::UnexpectedSender)?;
        if let Some(earlier) = slot {
            return if *earlier == message {
                Ok(())
            } else {
                Err(Error::abort(AbortReason::Conflicting, from))
            };
        }
        match wire::decode(&self.header, from, self.echo_bytes, self.shape, &message) {
            Ok(_) => {
                *slot = Some(message);
                Ok(())
            }
            // Which of the two has the wrong parameters, or who told them different ones, cannot be
            // known here.
            Err(AbortReason::ContextMismatch) => Err(Error::Abort {
                reason: AbortReason::ContextMismatch,
                culprits: Vec::new(),
                suspects: vec![from],
            }),
            Err(reason) => Err(Error::abort(reason, from)),
        }
    }

    /// Those whose message is still awaited, in ascending order.
    pub fn missing(&self) -> Vec<Participant> {
        let awaited = self.messages.iter().filter(|(_, m)| m.is_none());
        awaited.map(|(from, _)| *from).collect()
    }

    /// Whether everyone's message has arrived.
    pub fn is_complete(&self) -> bool {
        self.messages.values().all(Option::is_some)
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// What arrived, split into parts. Every message passed the same decoder on arrival.
    pub(super) fn received(&self) -> Received<'_> {
        let arrived = self.messages.iter().filter_map(|(from, message)| {
            let message = message.as_ref()?;
            let parts = wire::decode(&self.header, *from, self.echo_bytes, self.shape, message);
            Some((*from, parts.ok()?))
        });
        arrived.collect()
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("round", &self.header.round)
            .field("missing", &self.missing())
            .finish_non_exhaustive()
    }
}
