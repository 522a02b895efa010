//! `arca.v1.CredentialService`: with what the enclave signs its requests to AWS KMS.
//!
//! They are read anew for each request, so that whoever rotates them need not tell the host, and they are not
//! kept. They authorise the caller alone: what KMS then does goes by the enclave's attestation document.

mod file;
mod instance;

use std::fmt;
use std::sync::Arc;

use arca_proto::v1::credential_service_server::{CredentialService, CredentialServiceServer};
use arca_proto::v1::{GetCredentialsRequest, GetCredentialsResponse};
use object_store::aws::AwsCredential;
use tonic::{Request, Response, Status};
use tracing::warn;

use crate::config::CredentialSource;
use crate::metrics::{KmsFailure, Metrics};

/// AWS credentials. Never logged.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    access_key_id: String,
    secret_access_key: String,
    /// Empty for those that do not expire.
    session_token: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

impl From<Credentials> for AwsCredential {
    fn from(credentials: Credentials) -> Self {
        Self {
            key_id: credentials.access_key_id,
            secret_key: credentials.secret_access_key,
            token: Some(credentials.session_token).filter(|token| !token.is_empty()),
        }
    }
}

/// The credentials of now, or what is wrong, in words without any secret. `section` is that of the configuration.
pub(crate) async fn read(source: &CredentialSource, section: &str) -> Result<Credentials, String> {
    match source {
        CredentialSource::File { path, profile } => file::read(path, profile, section).await,
        CredentialSource::Instance { address } => instance::fetch(address).await,
    }
}

/// The service for one source; without one it says so.
pub(crate) fn service(
    source: Option<CredentialSource>,
    metrics: Arc<Metrics>,
) -> CredentialServiceServer<impl CredentialService> {
    CredentialServiceServer::new(Service { source, metrics })
}

#[derive(Debug)]
struct Service {
    source: Option<CredentialSource>,
    metrics: Arc<Metrics>,
}

#[tonic::async_trait]
impl CredentialService for Service {
    async fn get_credentials(
        &self,
        _: Request<GetCredentialsRequest>,
    ) -> Result<Response<GetCredentialsResponse>, Status> {
        let read = match &self.source {
            None => {
                return Err(Status::failed_precondition(
                    "the host has no AWS credentials: add [kms] to host.toml",
                ));
            }
            Some(source) => read(source, "kms").await,
        };
        let credentials = read.map_err(|problem| {
            self.metrics.kms_failed(KmsFailure::Credentials);
            warn!(problem, "no AWS credentials for the enclave");
            Status::unavailable(format!("the host has no AWS credentials: {problem}"))
        })?;
        Ok(Response::new(GetCredentialsResponse {
            access_key_id: credentials.access_key_id,
            secret_access_key: credentials.secret_access_key,
            session_token: credentials.session_token,
        }))
    }
}
