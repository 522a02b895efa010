use std::time::Duration;

use arca_proto::v1::{
    EnrollRequest, EnrollResponse, GetEvidenceRequest, GetEvidenceResponse, ListPartiesRequest,
    ListPartiesResponse, PartyStatus, PingRequest, PingResponse,
    party_service_server::PartyService, party_status::Connection,
};
use tonic::{Request, Response, Status};

use super::Services;
use crate::{core::manifest_from_wire, error::Error, names};

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
