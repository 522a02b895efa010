//! AWS KMS, as far as sealing needs it: a fresh data key under one key, and the same data key again.
//!
//! Each request carries an attestation document of this enclave (`Recipient`), and KMS encrypts the data key to the
//! public key in it. The key's policy says for which measurements that happens; credentials alone get nothing.
//!
//! Read in this order: this file, `recipient` and [`envelope`] (how replies are opened), `https` and `roots`
//! (who is believed to be KMS), `signature` and `credentials` (what AWS wants to see of the caller).

mod credentials;
pub mod envelope;
mod error;
mod https;
mod recipient;
mod roots;
mod signature;

use std::{sync::Arc, time::Duration};

use arca_enclave::platform::{DataKey, PlatformError};
use base64ct::{Base64, Encoding as _};
use http_body_util::Full;
use hyper::{Request, body::Bytes, header::HeaderValue};
use rand_core::RngCore as _;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use self::{
    credentials::CredentialSource,
    https::{Answer, Https},
    recipient::RecipientKey,
    signature::{Scope, Timestamp, authorization},
};
pub(crate) use self::{error::KmsError, roots::amazon};
use crate::{clock::Clock, config::KeyArn, nsm::Nsm, transport::Transport};

const SERVICE: &str = "kms";
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
const DATA_KEY_SPEC: &str = "AES_256";
const RECIPIENT_ALGORITHM: &str = "RSAES_OAEP_SHA_256";
/// Largest `CiphertextBlob`, from the API's reference.
pub(crate) const MAX_CIPHERTEXT: usize = 6144;

/// How long KMS is waited for. The defaults are for production.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For one attempt, from connecting to the answer's last byte.
    pub attempt: Duration,
    /// Attempts of one request. Only what may pass is tried again.
    pub attempts: u32,
    /// Before the second attempt; twice as long before each further one.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempt: Duration::from_secs(5),
            attempts: 4,
            pause: Duration::from_millis(100),
        }
    }
}

/// A client of KMS for one key.
pub(crate) struct Kms {
    key: KeyArn,
    /// Authenticated with every ciphertext: it opens with this context and no other.
    context: Value,
    https: Https,
    credentials: CredentialSource,
    recipient: Arc<RecipientKey>,
    nsm: Nsm,
    clock: Arc<Clock>,
    patience: Patience,
}

/// A data key with what KMS gives it out again for.
pub(crate) struct FreshKey {
    pub(crate) key: DataKey,
    pub(crate) ciphertext: Vec<u8>,
}

/// What a client of KMS is made of.
pub(crate) struct Parts {
    pub(crate) key: KeyArn,
    pub(crate) context: Value,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) roots: Vec<CertificateDer<'static>>,
    pub(crate) nsm: Nsm,
    pub(crate) clock: Arc<Clock>,
    pub(crate) patience: Patience,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    key_id: Option<String>,
    ciphertext_blob: Option<String>,
    ciphertext_for_recipient: Option<String>,
    plaintext: Option<String>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(rename = "__type")]
    kind: Option<String>,
}

#[derive(Clone, Copy, Debug, Serialize)]
enum Operation {
    GenerateDataKey,
    Decrypt,
}

impl Operation {
    fn target(self) -> &'static str {
        match self {
            Self::GenerateDataKey => "TrentService.GenerateDataKey",
            Self::Decrypt => "TrentService.Decrypt",
        }
    }
}

impl Kms {
    /// Draws the key that replies are encrypted to.
    pub(crate) fn new(parts: Parts) -> Result<Self, PlatformError> {
        let failed = |cause: String| PlatformError::Failed {
            operation: "preparing for KMS",
            cause,
        };
        let mut rng = parts.nsm.generator()?;
        let recipient =
            RecipientKey::generate(&mut rng).map_err(|error| failed(error.to_string()))?;
        let https = Https::new(
            Arc::clone(&parts.transport),
            Arc::clone(&parts.clock),
            &parts.key.endpoint(),
            &parts.roots,
        )
        .map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            key: parts.key,
            context: parts.context,
            https,
            credentials: CredentialSource::new(parts.transport),
            recipient: Arc::new(recipient),
            nsm: parts.nsm,
            clock: parts.clock,
            patience: parts.patience,
        })
    }

    /// A new data key.
    pub(crate) async fn generate(&self) -> Result<FreshKey, KmsError> {
        let body = json!({
            "KeyId": self.key.as_str(),
            "KeySpec": DATA_KEY_SPEC,
            "EncryptionContext": self.context,
        });
        let reply = self.call(Operation::GenerateDataKey, body).await?;
        let ciphertext = reply.ciphertext_blob.as_deref().and_then(decode);
        let ciphertext = ciphertext
            .filter(|ciphertext| (1..=MAX_CIPHERTEXT).contains(&ciphertext.len()))
            .ok_or_else(|| KmsError::Answer("it has no CiphertextBlob".to_owned()))?;
        Ok(FreshKey {
            key: self.open(reply).await?,
            ciphertext,
        })
    }

    /// The data key of a ciphertext that [`generate`](Self::generate) gave.
    pub(crate) async fn decrypt(&self, ciphertext: &[u8]) -> Result<DataKey, KmsError> {
        let body = json!({
            "KeyId": self.key.as_str(),
            "CiphertextBlob": Base64::encode_string(ciphertext),
            "EncryptionContext": self.context,
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        });
        let reply = self.call(Operation::Decrypt, body).await?;
        self.open(reply).await
    }

    /// Opens a reply, if it is of the configured key.
    async fn open(&self, reply: Reply) -> Result<DataKey, KmsError> {
        if reply.key_id.as_deref() != Some(self.key.as_str()) {
            return Err(KmsError::Answer(
                "it is of another key than kms.key of this image's configuration".to_owned(),
            ));
        }
        if reply
            .plaintext
            .is_some_and(|plaintext| !plaintext.is_empty())
        {
            return Err(KmsError::Answer(
                "it has the key in the clear, as if no attestation document had been sent"
                    .to_owned(),
            ));
        }
        let envelope = reply.ciphertext_for_recipient.as_deref().and_then(decode);
        let envelope = envelope
            .ok_or_else(|| KmsError::Answer("it has no CiphertextForRecipient".to_owned()))?;
        let recipient = Arc::clone(&self.recipient);
        let mut rng = self
            .nsm
            .generator()
            .map_err(|error| KmsError::Enclave(error.to_string()))?;
        // An RSA operation takes milliseconds.
        tokio::task::spawn_blocking(move || recipient.open(&envelope, &mut rng))
            .await
            .map_err(|_| KmsError::Enclave("opening an answer panicked".to_owned()))?
            .map_err(KmsError::from)
    }

    /// Tries until it succeeds, or fails for good, or patience ends.
    async fn call(&self, operation: Operation, body: Value) -> Result<Reply, KmsError> {
        let mut pause = self.patience.pause;
        let mut attempt = 1;
        loop {
            let tried = timeout(self.patience.attempt, self.attempt(operation, &body)).await;
            let error = match tried {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) => error,
                Err(_) => KmsError::Unreachable("no answer in time".to_owned()),
            };
            if !error.passes() || attempt >= self.patience.attempts {
                return Err(error);
            }
            tracing::debug!(attempt, %error, ?operation, "trying KMS again");
            sleep(jittered(&self.nsm, pause)).await;
            pause = pause.saturating_mul(2);
            attempt += 1;
        }
    }

    async fn attempt(&self, operation: Operation, body: &Value) -> Result<Reply, KmsError> {
        let credentials = self.credentials.get().await?;
        let body = self.with_recipient(body).await?;
        let enclave = |what: &str| KmsError::Enclave(what.to_owned());
        let body = serde_json::to_vec(&body).map_err(|_| enclave("the request does not encode"))?;
        let time =
            Timestamp::new(self.clock.now()).ok_or_else(|| enclave("the clock is out of range"))?;
        let endpoint = self.key.endpoint();
        let mut headers = vec![
            ("content-type", CONTENT_TYPE),
            ("host", &endpoint),
            ("x-amz-date", time.as_str()),
            ("x-amz-target", operation.target()),
        ];
        if let Some(token) = credentials.session_token() {
            headers.push(("x-amz-security-token", token));
        }
        let request = signature::Request {
            method: "POST",
            headers: &headers,
            body: &body,
        };
        let scope = Scope {
            region: self.key.region(),
            service: SERVICE,
            time: &time,
        };
        let authorization = authorization(&request, &scope, &credentials);
        headers.push(("authorization", &authorization));
        headers.push(("connection", "close"));
        let mut request = Request::post("/");
        for (name, value) in headers {
            let mut value =
                HeaderValue::from_str(value).map_err(|_| enclave("a header does not encode"))?;
            // Kept out of whatever hyper may log.
            value.set_sensitive(name == "authorization" || name == "x-amz-security-token");
            request = request.header(name, value);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| enclave("the request does not encode"))?;
        read(self.https.send(request).await?)
    }

    /// A fresh document for each attempt: KMS takes none that is older than five minutes.
    async fn with_recipient(&self, body: &Value) -> Result<Value, KmsError> {
        let (nsm, public_key) = (self.nsm.clone(), Arc::clone(&self.recipient));
        let document =
            tokio::task::spawn_blocking(move || nsm.attest(&[], &[], public_key.public_der()))
                .await
                .map_err(|_| KmsError::Enclave("making evidence panicked".to_owned()))?
                .map_err(|error| KmsError::Enclave(error.to_string()))?;
        let mut body = body.clone();
        if let Some(fields) = body.as_object_mut() {
            let recipient = json!({
                "AttestationDocument": Base64::encode_string(&document),
                "KeyEncryptionAlgorithm": RECIPIENT_ALGORITHM,
            });
            fields.insert("Recipient".to_owned(), recipient);
        }
        Ok(body)
    }
}

impl std::fmt::Debug for Kms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kms")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

fn read(answer: Answer) -> Result<Reply, KmsError> {
    let request_id = answer.request_id.map_or_else(String::new, |id| {
        format!(" (request {})", id.escape_default())
    });
    if answer.status == 200 {
        return serde_json::from_slice(&answer.body)
            .map_err(|_| KmsError::Answer(format!("it is no reply of KMS{request_id}")));
    }
    let failure: Option<Failure> = serde_json::from_slice(&answer.body).ok();
    let kind = failure.and_then(|failure| failure.kind).unwrap_or_default();
    // Some services put a namespace before it.
    let kind = kind.rsplit('#').next().unwrap_or_default();
    let plain = kind.len() <= 64 && kind.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let kind = if plain && !kind.is_empty() {
        kind
    } else {
        "an error without a type"
    };
    Err(KmsError::of_aws(answer.status, kind, request_id))
}

fn decode(text: &str) -> Option<Vec<u8>> {
    Base64::decode_vec(text).ok()
}

/// Between half and all of a pause, so that enclaves that failed together do not try again together.
fn jittered(nsm: &Nsm, pause: Duration) -> Duration {
    let part = nsm.generator().map_or(u32::MAX, |mut rng| rng.next_u32());
    let half = pause / 2;
    half + half.mul_f64(f64::from(part) / f64::from(u32::MAX))
}
