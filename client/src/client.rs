//! One party, over an attested connection.

use std::sync::Arc;
use std::time::Duration;

use arca_attestation::{ReferenceValues, TrustAnchors};
use arca_channel::Attested;
use arca_proto::v1;
use prost::Message;

use crate::authorizer::Authorizer;
use crate::connect::{Connection, is_transport, own_error};
use crate::error::{Error, Result};
use crate::patience::{FIRST_PAUSE, Failure, Patience};
use crate::resources::{Key, KeyRef, Parties, Scheme, SigningRequest};

/// What is to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// BIP-174, binary.
    Psbt(Vec<u8>),
    /// A serialised Solana message.
    SolanaMessage(Vec<u8>),
    /// An unsigned Ethereum transaction: the bytes whose Keccak-256 is signed.
    EthereumTransaction(Vec<u8>),
    /// 32 bytes as they are.
    Digest([u8; 32]),
}

/// A key to be made.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Idempotency key.
    pub request_id: String,
    /// For people.
    pub display_name: String,
    /// What it signs with.
    pub scheme: Scheme,
    /// Shares needed to sign.
    pub threshold: u32,
    /// Who holds a share; empty for all parties.
    pub parties: Vec<String>,
    /// Whether raw digests may be signed with it.
    pub allow_raw_digest: bool,
}

/// One party. Cheap to clone; clones share the connection.
#[derive(Clone, Debug)]
pub struct Client {
    party: String,
    connection: Connection,
    judgement: Judgement,
    authorizer: Option<Arc<Authorizer>>,
}

/// By what a party's evidence is judged.
#[derive(Clone, Debug)]
pub(crate) struct Judgement {
    pub anchors: TrustAnchors,
    pub reference: ReferenceValues,
}

/// Keys on a page of a list; the parties allow no more.
const KEYS: u32 = 1000;
/// Signing requests on a page of a list, and the largest page: each holds its payload, up to 1 MiB.
const REQUESTS: u32 = 25;
const LARGEST_PAGE: usize = 32 << 20;
/// One WaitOperation call; the parties allow 30 s.
const WAIT: Duration = Duration::from_secs(10);

impl Client {
    pub(crate) fn new(
        party: &str,
        connection: Connection,
        judgement: Judgement,
        authorizer: Option<Arc<Authorizer>>,
    ) -> Self {
        Self {
            party: party.to_owned(),
            connection,
            judgement,
            authorizer,
        }
    }

    /// The party's name.
    pub fn party(&self) -> &str {
        &self.party
    }

    pub(crate) fn judgement(&self) -> &Judgement {
        &self.judgement
    }

    /// What the party proved when this connection was made.
    ///
    /// # Errors
    /// [`Error::Bug`] only.
    pub fn attested(&self) -> Result<Attested> {
        self.connection.attested()
    }

    /// An empty call: to the party, or through it to another one and back.
    ///
    /// # Errors
    /// What the party refuses, or a lost connection.
    pub async fn ping(&self, through_to: Option<&str>) -> Result<()> {
        let request = v1::PingRequest {
            party: through_to.unwrap_or_default().to_owned(),
        };
        let object = through_to.map_or_else(
            || self.party.clone(),
            |to| format!("{} to {to}", self.party),
        );
        self.party_service()
            .ping(request)
            .await
            .map_err(|status| self.error(object, &status))?;
        Ok(())
    }

    /// The cluster as this party sees it.
    ///
    /// # Errors
    /// As [`ping`](Self::ping).
    pub async fn parties(&self) -> Result<Parties> {
        let list = self
            .party_service()
            .list_parties(v1::ListPartiesRequest {})
            .await
            .map_err(|status| self.error("parties", &status))?;
        list.into_inner().try_into()
    }

    /// Hands a signed manifest to the party. Returns its name in it and the manifest's epoch.
    ///
    /// # Errors
    /// What the party refuses.
    pub async fn enroll(
        &self,
        manifest: &arca_attestation::manifest::SignedManifest,
    ) -> Result<(String, u64)> {
        let request = v1::EnrollRequest {
            manifest: Some(v1::SignedManifest {
                manifest: manifest.bytes.clone(),
                signatures: manifest
                    .signatures
                    .iter()
                    .map(|(administrator, signature)| v1::ManifestSignature {
                        administrator: administrator.to_vec(),
                        signature: signature.to_vec(),
                    })
                    .collect(),
            }),
        };
        let object = format!("manifest at {}", self.party);
        let answer = self
            .party_service()
            .enroll(request)
            .await
            .map_err(|status| self.error(object, &status))?
            .into_inner();
        Ok((answer.party, answer.manifest_epoch))
    }

    /// Makes a key: the distributed key generation among its parties. Returns when it is done.
    ///
    /// # Errors
    /// [`Error::Abort`] with the culprits where the protocol names them; [`Error::Timeout`] after `timeout`.
    pub async fn create_key(&self, key: &NewKey, timeout: Duration) -> Result<Key> {
        let request = v1::CreateKeyRequest {
            request_id: key.request_id.clone(),
            display_name: key.display_name.clone(),
            scheme: v1::Scheme::from(key.scheme).into(),
            threshold: key.threshold,
            parties: key.parties.clone(),
            allow_raw_digest: key.allow_raw_digest,
        };
        let object = format!("key {:?} (request id {})", key.display_name, key.request_id);
        let patience = Patience::new(&object, timeout);
        let mut operation = patience
            .insist(|| {
                let request = request.clone();
                async move { self.key_service().create_key(request).await }
            })
            .await
            .map_err(|failure| self.failed(&object, failure))?
            .into_inner();
        while !operation.done {
            let left = patience.left()?;
            let request = v1::WaitOperationRequest {
                name: operation.name.clone(),
                timeout_ms: u32::try_from(left.min(WAIT).as_millis()).unwrap_or(u32::MAX),
            };
            operation = patience
                .insist(|| {
                    let request = request.clone();
                    async move { self.operation_service().wait_operation(request).await }
                })
                .await
                .map_err(|failure| self.failed(&object, failure))?
                .into_inner();
        }
        match operation.result {
            Some(v1::operation::Result::Response(any))
                if any.type_url.ends_with("/arca.v1.Key") =>
            {
                v1::Key::decode(any.value.as_slice())
                    .map_err(|_| Error::bug("a party's operation does not hold a key"))?
                    .try_into()
            }
            Some(v1::operation::Result::Error(error)) => Err(Error::Abort {
                object,
                reason: error.reason,
                message: error.message,
                culprits: error.culprits,
            }),
            Some(v1::operation::Result::Response(_)) | None => {
                Err(Error::bug("a party's operation does not hold a key"))
            }
        }
    }

    /// One key.
    ///
    /// # Errors
    /// [`Error::Reject`] when there is none of that name.
    pub async fn key(&self, name: &str) -> Result<Key> {
        let request = v1::GetKeyRequest {
            name: name.to_owned(),
        };
        let key = self.key_service().get_key(request).await;
        key.map_err(|status| self.error(name, &status))?
            .into_inner()
            .try_into()
    }

    /// All keys of which this party holds a share.
    ///
    /// # Errors
    /// As [`ping`](Self::ping).
    pub async fn keys(&self) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListKeysRequest {
                page_size: KEYS,
                page_token,
            };
            let page = self.key_service().list_keys(request).await;
            let page = page
                .map_err(|status| self.error("keys", &status))?
                .into_inner();
            for key in page.keys {
                keys.push(key.try_into()?);
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(keys);
            }
        }
    }

    /// Asks for a signature of a key (its resource name) or of one below it ([`Key::at`]), with this principal's
    /// own signature over the request. Returns as soon as the party has stored it.
    ///
    /// A lost connection is made again and the request repeated: the party knows it by `request_id`.
    ///
    /// # Errors
    /// [`Error::Reject`] when the request is not admitted, [`Error::Config`] without a principal's key.
    pub async fn request_signature<'a>(
        &self,
        key: impl Into<KeyRef<'a>>,
        request_id: &str,
        payload: &Payload,
        timeout: Duration,
    ) -> Result<SigningRequest> {
        let authorizer = self.authorizer.as_ref().ok_or_else(|| {
            Error::config(
                "profile",
                "names no principal, and only a principal can ask for signatures",
                "add [principal] with the path of its key",
            )
        })?;
        let request = authorizer.authorize(&key.into(), request_id, payload, timeout)?;
        let object = format!("signing request with id {request_id}");
        let patience = Patience::new(&object, timeout);
        patience
            .insist(|| {
                let request = request.clone();
                async move { self.signing_service().create_signing_request(request).await }
            })
            .await
            .map_err(|failure| self.failed(&object, failure))?
            .into_inner()
            .try_into()
    }

    /// Follows a signing request to its end, `observe` seeing each revision once. Resumes after every lost
    /// connection, also across restarts of the party.
    ///
    /// # Errors
    /// [`Error::Timeout`]; the request then goes on by itself.
    pub async fn watch(
        &self,
        request: SigningRequest,
        timeout: Duration,
        mut observe: impl FnMut(&SigningRequest),
    ) -> Result<SigningRequest> {
        let mut latest = request;
        observe(&latest);
        let name = latest.name.clone();
        let patience = Patience::new(&name, timeout);
        while !latest.state.is_terminal() {
            let left = patience.left()?;
            let revision = latest.revision;
            let mut stream = patience
                .insist(|| {
                    let request = v1::WatchSigningRequestRequest {
                        name: name.clone(),
                        after_revision: revision,
                    };
                    async move { self.signing_service().watch_signing_request(request).await }
                })
                .await
                .map_err(|failure| self.failed(&name, failure))?
                .into_inner();
            let follow = async {
                // A stream that breaks is asked for again, from the last revision that was seen.
                while let Ok(Some(message)) = stream.message().await {
                    latest = SigningRequest::try_from(message)?;
                    observe(&latest);
                    if latest.state.is_terminal() {
                        break;
                    }
                }
                Ok::<(), Error>(())
            };
            if let Ok(outcome) = tokio::time::timeout(left, follow).await {
                outcome?;
            }
            if !latest.state.is_terminal() {
                tokio::time::sleep(FIRST_PAUSE.min(patience.left()?)).await;
            }
        }
        Ok(latest)
    }

    /// Asks for a signature and follows it to SIGNED.
    ///
    /// # Errors
    /// As [`request_signature`](Self::request_signature) and [`watch`](Self::watch); [`Error::Abort`] for
    /// every other end.
    ///
    /// # Security
    /// What came back is the party's word until [`crate::verify::signatures`] has verified it.
    pub async fn sign<'a>(
        &self,
        key: impl Into<KeyRef<'a>>,
        request_id: &str,
        payload: &Payload,
        timeout: Duration,
    ) -> Result<SigningRequest> {
        let request = self
            .request_signature(key, request_id, payload, timeout)
            .await?;
        self.watch(request, timeout, |_| ()).await?.into_signed()
    }

    /// One signing request, known to the party that coordinates it.
    ///
    /// # Errors
    /// [`Error::Reject`] when this party does not know it.
    pub async fn signing_request(&self, name: &str) -> Result<SigningRequest> {
        let request = v1::GetSigningRequestRequest {
            name: name.to_owned(),
        };
        let found = self.signing_service().get_signing_request(request).await;
        found
            .map_err(|status| self.error(name, &status))?
            .into_inner()
            .try_into()
    }

    /// All signing requests that this party coordinates.
    ///
    /// # Errors
    /// As [`ping`](Self::ping).
    pub async fn signing_requests(&self) -> Result<Vec<SigningRequest>> {
        let mut requests = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListSigningRequestsRequest {
                page_size: REQUESTS,
                page_token,
            };
            let page = self.signing_service().list_signing_requests(request).await;
            let page = page
                .map_err(|status| self.error("signing requests", &status))?
                .into_inner();
            for request in page.signing_requests {
                requests.push(request.try_into()?);
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(requests);
            }
        }
    }

    fn failed(&self, object: &str, failure: Failure) -> Error {
        match failure {
            Failure::Status(status) => self.error(object, &status),
            Failure::Timeout(error) => error,
        }
    }

    /// What a failed call means.
    pub(crate) fn error(&self, object: impl ToString, status: &tonic::Status) -> Error {
        if let Some(error) = own_error(status) {
            return error;
        }
        if is_transport(status) {
            return Error::Unreachable {
                party: self.party.clone(),
                endpoint: "its open connection".to_owned(),
                problem: status.message().to_owned(),
            };
        }
        Error::from_status(object, status)
    }

    pub(crate) fn party_service(
        &self,
    ) -> v1::party_service_client::PartyServiceClient<tonic::transport::Channel> {
        v1::party_service_client::PartyServiceClient::new(self.connection.channel.clone())
    }

    fn key_service(&self) -> v1::key_service_client::KeyServiceClient<tonic::transport::Channel> {
        v1::key_service_client::KeyServiceClient::new(self.connection.channel.clone())
    }

    fn signing_service(
        &self,
    ) -> v1::signing_service_client::SigningServiceClient<tonic::transport::Channel> {
        v1::signing_service_client::SigningServiceClient::new(self.connection.channel.clone())
            .max_decoding_message_size(LARGEST_PAGE)
    }

    fn operation_service(
        &self,
    ) -> v1::operation_service_client::OperationServiceClient<tonic::transport::Channel> {
        v1::operation_service_client::OperationServiceClient::new(self.connection.channel.clone())
    }

    pub(crate) fn audit_service(
        &self,
    ) -> v1::audit_service_client::AuditServiceClient<tonic::transport::Channel> {
        v1::audit_service_client::AuditServiceClient::new(self.connection.channel.clone())
            .max_decoding_message_size(LARGEST_PAGE)
    }
}
