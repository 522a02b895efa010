//! Echo-checked broadcast: what each participant received in a round, compared in the next.

use std::collections::{BTreeMap, BTreeSet};

use crate::tags;
use crate::{AbortReason, Error, Participant};

use super::Received;
use super::wire::Header;

const DIGEST_BYTES: usize = 32;

/// The digest of each participant's broadcast of one round, one's own included.
pub(crate) struct Echo(BTreeMap<Participant, [u8; DIGEST_BYTES]>);

impl Echo {
    pub(super) fn new<'a>(
        header: &Header,
        broadcasts: impl Iterator<Item = (Participant, &'a [u8])>,
    ) -> Self {
        let digest = |from: Participant, broadcast| {
            tags::hash(
                tags::ECHO,
                &[
                    &header.context,
                    &[header.round],
                    &from.to_bytes(),
                    broadcast,
                ],
            )
        };
        Self(
            broadcasts
                .map(|(from, b)| (from, digest(from, b)))
                .collect(),
        )
    }

    pub(super) fn wire_len(&self) -> usize {
        self.0.len() * DIGEST_BYTES
    }

    pub(super) fn digests(&self) -> impl Iterator<Item = &[u8; DIGEST_BYTES]> {
        self.0.values()
    }

    /// Compares what the others say they received with what this participant received.
    ///
    /// An echo that contradicts this participant's own broadcast, or what the echoing participant
    /// itself broadcast to this one, proves a deviation. About a third party's broadcast it is word
    /// against word: either the broadcaster sent two versions, or the echo lies.
    pub(super) fn check(&self, me: Participant, received: &Received<'_>) -> Result<(), Error> {
        let mut culprits = BTreeSet::new();
        let mut disputes = Vec::new();
        for (echoing, parts) in received {
            let (echoed, _) = parts.echo.as_chunks::<DIGEST_BYTES>();
            for ((broadcaster, mine), theirs) in self.0.iter().zip(echoed) {
                if mine == theirs {
                    continue;
                }
                if *broadcaster == me || broadcaster == echoing {
                    culprits.insert(*echoing);
                } else {
                    disputes.push([*echoing, *broadcaster]);
                }
            }
        }
        // A proven deviation explains every dispute its author is part of.
        disputes.retain(|parties| !parties.iter().any(|p| culprits.contains(p)));
        let suspects: BTreeSet<Participant> = disputes.into_iter().flatten().collect();
        if culprits.is_empty() && suspects.is_empty() {
            return Ok(());
        }
        Err(Error::Abort {
            reason: AbortReason::Equivocation,
            suspects: suspects.into_iter().collect(),
            culprits: culprits.into_iter().collect(),
        })
    }
}
