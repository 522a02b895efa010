use std::time::Duration;

use arca_attestation::loss::SignedLossAcceptance;
use arca_proto::v1::{
    self as wire, AcceptLossRequest, AcceptLossResponse, EnrollRequest, EnrollResponse,
    GetEvidenceRequest, GetEvidenceResponse, GetStateRequest, GetStateResponse, ListPartiesRequest,
    ListPartiesResponse, PartyStatus, PeerState, PingRequest, PingResponse,
    party_service_server::PartyService, party_status::Connection,
};
use tonic::{Request, Response, Status};

use super::Services;
use crate::{
    core::{manifest_from_wire, signatures_from_wire},
    error::Error,
    lease::{Standing, Word},
    names,
};

/// How long a peer has to answer a ping.
const PING: Duration = Duration::from_secs(5);

#[tonic::async_trait]
impl PartyService for Services {
    async fn get_evidence(
        &self,
        request: Request<GetEvidenceRequest>,
    ) -> Result<Response<GetEvidenceResponse>, Status> {
        let nonce = request.into_inner().nonce;
        if !(16..=64).contains(&nonce.len()) {
            return Err(Error::invalid("INVALID_ARGUMENT", "nonce: 16 to 64 bytes").into());
        }
        Ok(Response::new(self.0.evidence(&nonce).await?))
    }

    async fn enroll(
        &self,
        request: Request<EnrollRequest>,
    ) -> Result<Response<EnrollResponse>, Status> {
        let signed = request
            .into_inner()
            .manifest
            .ok_or_else(|| Error::invalid("INVALID_ARGUMENT", "manifest: missing"))?;
        let (party, manifest_epoch) = self.0.enroll(manifest_from_wire(signed)?).await?;
        Ok(Response::new(EnrollResponse {
            party,
            manifest_epoch,
        }))
    }

    async fn list_parties(
        &self,
        _: Request<ListPartiesRequest>,
    ) -> Result<Response<ListPartiesResponse>, Status> {
        let membership = self.0.membership()?;
        let links = self.0.network.links();
        let parties = membership
            .manifest
            .parties()
            .iter()
            .map(|party| {
                let link = links.get(&party.name);
                let myself = party.name == membership.party;
                let connection = match (myself, link) {
                    (true, _) => Connection::Self_,
                    (false, Some(_)) => Connection::Up,
                    (false, None) => Connection::Down,
                };
                let boot_id = if myself {
                    self.0.boot_id.to_vec()
                } else {
                    link.map(|link| link.boot_id.to_vec()).unwrap_or_default()
                };
                PartyStatus {
                    name: party.name.clone(),
                    trust_class: party.class.to_string(),
                    identity: party.identity.clone(),
                    connection: connection.into(),
                    boot_id,
                    verify_time: link.map(|link| names::timestamp(link.verified_at.0)),
                }
            })
            .collect();
        Ok(Response::new(ListPartiesResponse {
            cluster: membership.manifest.cluster().to_owned(),
            manifest_epoch: membership.manifest.epoch(),
            manifest_digest: membership.manifest.digest().to_vec(),
            parties,
        }))
    }

    async fn get_state(
        &self,
        _: Request<GetStateRequest>,
    ) -> Result<Response<GetStateResponse>, Status> {
        let core = &self.0;
        let membership = core.membership()?;
        let (remembered, words) = (core.lease.remembered(), core.lease.words());
        let peers = membership.manifest.parties().iter();
        let peers = peers.filter(|party| party.name != membership.party);
        let peers = peers.map(|party| {
            let known = remembered.get(&party.name);
            let (word, denial) = match words.get(&party.name) {
                None => (wire::peer_state::Word::None, None),
                Some(Word::Granted) => (wire::peer_state::Word::Granted, None),
                Some(Word::Waived) => (wire::peer_state::Word::Waived, None),
                Some(Word::Denied(denial)) => (wire::peer_state::Word::Denied, Some(denial)),
            };
            PeerState {
                name: party.name.clone(),
                remembered: known.map(|known| known.anchor.into()),
                remembered_boot_id: known
                    .map(|known| known.boot_id.to_vec())
                    .unwrap_or_default(),
                word: word.into(),
                denial_reason: denial
                    .map(|denial| denial.objection.reason().to_owned())
                    .unwrap_or_default(),
                denial_known: denial.map(|denial| denial.known.into()),
            }
        });
        let standing = match core.lease.standing() {
            Standing::Waiting => wire::get_state_response::Standing::Waiting,
            Standing::Held => wire::get_state_response::Standing::Held,
            Standing::Lost(_) => wire::get_state_response::Standing::Lost,
        };
        let current = *core.state.anchor().borrow();
        Ok(Response::new(GetStateResponse {
            cluster: membership.manifest.cluster().to_owned(),
            party: membership.party.clone(),
            boot_id: core.boot_id.to_vec(),
            current: Some(current.into()),
            start: Some(core.lease.start().into()),
            standing: standing.into(),
            message: core.lease.explanation(),
            peers: peers.collect(),
            grants_needed: u32::try_from(core.lease.needed()).unwrap_or(u32::MAX),
        }))
    }

    async fn accept_loss(
        &self,
        request: Request<AcceptLossRequest>,
    ) -> Result<Response<AcceptLossResponse>, Status> {
        let request = request.into_inner();
        let signed = SignedLossAcceptance {
            bytes: request.acceptance,
            signatures: signatures_from_wire(request.signatures)?,
        };
        let current = self.0.accept_loss(&signed).await?;
        Ok(Response::new(AcceptLossResponse {
            current: Some(current.into()),
        }))
    }

    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        let party = request.into_inner().party;
        if !party.is_empty() {
            let membership = self.0.membership()?;
            if membership.manifest.party(&party).is_none() {
                let shown = party.escape_default();
                return Err(Error::not_found(
                    "UNKNOWN_PARTY",
                    format!("party: the manifest has no party {shown}"),
                )
                .into());
            }
            if party != membership.party {
                self.0.network.ping(&membership.party, &party, PING).await?;
            }
        }
        Ok(Response::new(PingResponse {}))
    }
}
