//! How far a party's sealed state has come, whether it serves, and what its peers say of it; and the acceptance of a
//! loss. See `docs/sealed-state.md`.

use arca_attestation::loss::SignedLossAcceptance;
use arca_proto::v1;
use serde::Serialize;

use crate::client::Client;
use crate::error::{Error, Result};

/// How far a sealed state has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StateAnchor {
    /// Counts the changes of the state.
    pub sequence: u64,
    /// Covers the whole state and all of its history.
    #[serde(with = "hex::serde")]
    pub head: [u8; 32],
}

/// Whether a party may act on its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Not enough peers have said yet that it is the newest that they know of.
    Waiting,
    /// It serves.
    Held,
    /// It will not serve before it is restarted, or its loss accepted.
    Lost,
}

/// What a peer says of the party that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// Nothing since the start.
    None,
    /// It deals with this instance.
    Granted,
    /// It does not.
    Denied,
    /// The administrators said not to wait for it.
    Waived,
}

/// A peer of the party that was asked.
#[derive(Clone, Debug, Serialize)]
pub struct PeerState {
    /// The peer's name.
    pub name: String,
    /// What the party remembers of it; absent when it never met it.
    pub remembered: Option<StateAnchor>,
    /// What it says of the party.
    pub word: Word,
    /// Why it does not deal with the party: stable, in UPPER_SNAKE_CASE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denial_reason: Option<String>,
    /// The last that it saw of the party.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denial_known: Option<StateAnchor>,
}

/// A party's state, in its own words.
#[derive(Clone, Debug, Serialize)]
pub struct PartyState {
    /// Who answers.
    pub party: String,
    /// Of its running enclave.
    #[serde(with = "hex::serde")]
    pub boot_id: [u8; 16],
    /// The state now.
    pub current: StateAnchor,
    /// The state as this instance found it at its start.
    pub start: StateAnchor,
    /// Whether it serves.
    pub standing: Standing,
    /// Why not, and what to do; empty when it serves.
    pub message: String,
    /// How many peers have to grant.
    pub grants_needed: u32,
    /// The others.
    pub peers: Vec<PeerState>,
}

impl PartyState {
    /// What the party that answered remembers of `peer`.
    pub fn remembered(&self, peer: &str) -> Option<StateAnchor> {
        let peer = self.peers.iter().find(|known| known.name == peer);
        peer.and_then(|peer| peer.remembered)
    }

    /// The highest sequence of its own state that the party was told of by a peer, in this boot.
    pub fn told(&self) -> Option<u64> {
        let known = self.peers.iter().filter_map(|peer| peer.denial_known);
        known.map(|known| known.sequence).max()
    }
}

impl Client {
    /// How far the party's state has come, and what its peers say.
    ///
    /// # Errors
    /// As [`ping`](Self::ping).
    pub async fn state(&self) -> Result<PartyState> {
        let object = format!("state of {}", self.party());
        let answer = self
            .party_service()
            .get_state(v1::GetStateRequest {})
            .await
            .map_err(|status| self.error(object, &status))?;
        answer.into_inner().try_into()
    }

    /// Hands the party an acceptance of its loss. Returns where its state goes on from.
    ///
    /// # Errors
    /// [`Error::Reject`] when the party does not accept it.
    pub async fn accept_loss(&self, acceptance: &SignedLossAcceptance) -> Result<StateAnchor> {
        let request = v1::AcceptLossRequest {
            acceptance: acceptance.bytes.clone(),
            signatures: acceptance
                .signatures
                .iter()
                .map(|(administrator, signature)| v1::ManifestSignature {
                    administrator: administrator.to_vec(),
                    signature: signature.to_vec(),
                })
                .collect(),
        };
        let object = format!("accepted loss at {}", self.party());
        let answer = self
            .party_service()
            .accept_loss(request)
            .await
            .map_err(|status| self.error(object, &status))?;
        anchor(answer.into_inner().current)
    }
}

impl TryFrom<v1::GetStateResponse> for PartyState {
    type Error = Error;

    fn try_from(state: v1::GetStateResponse) -> Result<Self> {
        use v1::get_state_response::Standing as Wire;
        let standing = match state.standing() {
            Wire::Waiting => Standing::Waiting,
            Wire::Held => Standing::Held,
            Wire::Lost => Standing::Lost,
            Wire::Unspecified => return Err(wrong("standing")),
        };
        Ok(Self {
            standing,
            party: state.party,
            boot_id: state.boot_id.try_into().map_err(|_| wrong("boot_id"))?,
            current: anchor(state.current)?,
            start: anchor(state.start)?,
            message: state.message,
            grants_needed: state.grants_needed,
            peers: state
                .peers
                .into_iter()
                .map(PeerState::try_from)
                .collect::<Result<_>>()?,
        })
    }
}

impl TryFrom<v1::PeerState> for PeerState {
    type Error = Error;

    fn try_from(peer: v1::PeerState) -> Result<Self> {
        use v1::peer_state::Word as Wire;
        let word = match peer.word() {
            Wire::None => Word::None,
            Wire::Granted => Word::Granted,
            Wire::Denied => Word::Denied,
            Wire::Waived => Word::Waived,
            Wire::Unspecified => return Err(wrong("word")),
        };
        let optional = |known: Option<v1::StateAnchor>| known.map(|known| anchor(Some(known)));
        Ok(Self {
            word,
            name: peer.name,
            remembered: optional(peer.remembered).transpose()?,
            denial_reason: Some(peer.denial_reason).filter(|reason| !reason.is_empty()),
            denial_known: optional(peer.denial_known).transpose()?,
        })
    }
}

fn anchor(anchor: Option<v1::StateAnchor>) -> Result<StateAnchor> {
    let anchor = anchor.ok_or_else(|| wrong("anchor"))?;
    Ok(StateAnchor {
        sequence: anchor.sequence,
        head: anchor.head.try_into().map_err(|_| wrong("head"))?,
    })
}

fn wrong(field: &str) -> Error {
    Error::bug(format!("a party's state has no valid {field}"))
}
