//! The host's AWS credentials: fetched for each request, used for it, dropped.
//!
//! The enclave trusts nothing about them. They authorise some caller of the account; what KMS gives out goes by the
//! attestation document, and the worst that wrong credentials do is a refusal.

use std::{fmt, sync::Arc, time::Duration};

use arca_enclave::platform::HostEndpoint;
use arca_proto::v1::{
    GetCredentialsRequest, GetCredentialsResponse,
    credential_service_client::CredentialServiceClient,
};
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;
use zeroize::Zeroizing;

use super::KmsError;
use crate::transport::Transport;

/// The host may ask the metadata service, which takes its time.
const DEADLINE: Duration = Duration::from_secs(8);
const MAX_ACCESS_KEY_ID: usize = 128;
const MAX_SECRET: usize = 256;
/// AWS names no limit; session tokens have some 1000 bytes.
const MAX_TOKEN: usize = 8192;
/// What of a host's message is shown.
const MAX_SAID: usize = 200;

/// AWS credentials. Move-only, zeroised, never logged.
pub(crate) struct Credentials {
    access_key_id: String,
    secret_access_key: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
}

impl Credentials {
    /// Takes over what the host sent, if it is of the right form: nothing in it may end a header.
    fn take(response: GetCredentialsResponse) -> Option<Self> {
        let secret_access_key = Zeroizing::new(response.secret_access_key);
        let session_token = Zeroizing::new(response.session_token);
        let access_key_id = response.access_key_id;
        let graphic = |text: &str, range: std::ops::RangeInclusive<usize>| {
            range.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let valid = graphic(&access_key_id, 1..=MAX_ACCESS_KEY_ID)
            && access_key_id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && graphic(&secret_access_key, 1..=MAX_SECRET)
            && graphic(&session_token, 0..=MAX_TOKEN);
        valid.then(|| Self {
            access_key_id,
            secret_access_key,
            session_token: (!session_token.is_empty()).then_some(session_token),
        })
    }

    pub(crate) fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    pub(crate) fn secret_access_key(&self) -> &str {
        &self.secret_access_key
    }

    pub(crate) fn session_token(&self) -> Option<&str> {
        self.session_token.as_ref().map(|token| token.as_str())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(redacted)")
    }
}

/// The host's `CredentialService`, over a connection that makes itself anew when it breaks.
pub(crate) struct CredentialSource(CredentialServiceClient<Channel>);

impl CredentialSource {
    /// Connects at the first call.
    pub(crate) fn new(transport: Arc<dyn Transport>) -> Self {
        let connector = service_fn(move |_| {
            let transport = Arc::clone(&transport);
            async move {
                let stream = transport.connect(HostEndpoint::Storage).await?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        let channel = Endpoint::from_static("http://host")
            .timeout(DEADLINE)
            .connect_timeout(DEADLINE)
            .connect_with_connector_lazy(connector);
        Self(CredentialServiceClient::new(channel).max_decoding_message_size(2 * MAX_TOKEN))
    }

    /// The credentials of now.
    pub(crate) async fn get(&self) -> Result<Credentials, KmsError> {
        let response = self
            .0
            .clone()
            .get_credentials(GetCredentialsRequest {})
            .await
            .map_err(|status| {
                let said: String = status.message().chars().take(MAX_SAID).collect();
                KmsError::Credentials(said.escape_default().to_string())
            })?;
        Credentials::take(response.into_inner())
            .ok_or_else(|| KmsError::Credentials("they are malformed".to_owned()))
    }
}

#[cfg(test)]
impl Credentials {
    pub(super) fn for_test(access_key_id: &str, secret: &str, token: Option<&str>) -> Self {
        Self::take(GetCredentialsResponse {
            access_key_id: access_key_id.to_owned(),
            secret_access_key: secret.to_owned(),
            session_token: token.unwrap_or_default().to_owned(),
        })
        .unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_could_end_a_header_are_refused() {
        let good = || GetCredentialsResponse {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG".to_owned(),
            session_token: "t0ken==".to_owned(),
        };
        let taken = Credentials::take(good()).unwrap();
        assert_eq!(taken.session_token(), Some("t0ken=="));
        assert_eq!(format!("{taken:?}"), "Credentials(redacted)");
        for bad in ["a\r\nx: y", "a b", "", "é", &"a".repeat(9000)] {
            let mut response = good();
            response.access_key_id = bad.to_owned();
            assert!(Credentials::take(response).is_none(), "{bad}");
            let mut response = good();
            response.secret_access_key = bad.to_owned();
            assert!(Credentials::take(response).is_none(), "{bad}");
            if !bad.is_empty() {
                let mut response = good();
                response.session_token = bad.to_owned();
                assert!(Credentials::take(response).is_none(), "{bad}");
            }
        }
        let mut response = good();
        response.access_key_id = "AKID/us-east-1".to_owned();
        assert!(
            Credentials::take(response).is_none(),
            "it is a part of the scope"
        );
    }
}
