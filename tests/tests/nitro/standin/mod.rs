//! A stand-in for AWS KMS: a TLS server that does what the API's reference says of `GenerateDataKey` and `Decrypt` with
//! `Recipient`. Signatures of requests are computed by OpenSSL, and replies are encrypted by it; nothing here shares
//! code with the platform that is tested.
//!
//! <https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKey.html>,
//! <https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html>,
//! <https://docs.aws.amazon.com/kms/latest/developerguide/conditions-attestation.html>

mod http;
mod openssl;
mod signature;
mod tls;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arca_attestation::{
    ArchiveExpected, Expectation, Measurements, ReferenceValues, TrustAnchors, UnixMillis, inspect,
    verify_archive,
};
use base64ct::{Base64, Encoding as _};
use rand_core::{OsRng, RngCore as _};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

pub use tls::Authority;

pub const KEY: &str =
    "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
pub const SERVER: &str = "kms.eu-central-1.amazonaws.com";
pub const ACCESS_KEY_ID: &str = "ASIAEXAMPLE";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
pub const TOKEN: &str = "FwoGZXIvYXdzEXAMPLE==";
/// KMS takes no document that is older.
const FRESH: u64 = 5 * 60 * 1000;
/// Of a ciphertext blob, like KMS' own: nothing can be read off it.
const BLOB: usize = 184;

/// What the key's policy names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub pcr0: [u8; 48],
    pub pcr8: [u8; 48],
    pub allows_decrypt: bool,
}

/// What comes instead of an honest answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mischief {
    #[default]
    None,
    /// An error of this status and type, so often.
    Fails(u16, &'static str, usize),
    /// The reply says that it is of this key.
    KeyId(&'static str),
    /// The key is in the reply in the clear too.
    Plaintext,
    /// This envelope, whatever was asked for.
    Envelope(Vec<u8>),
    /// An envelope in DER, as OpenSSL writes it when it does not stream.
    Der,
    /// The IV of new data keys' envelopes has a bit flipped.
    SpoilsNewKeys,
    /// A reply without this field.
    Lacks(&'static str),
    /// These bytes as the whole HTTP answer, and the end.
    Says(Vec<u8>),
    /// No answer at all, for good.
    Silent,
    /// The end of the connection instead of an answer.
    HangsUp,
    /// An honest answer, byte by byte with a moment between them.
    Slow,
}

/// The service, with one key.
pub struct StandIn {
    anchors: TrustAnchors,
    clock: Box<dyn Fn() -> UnixMillis + Send + Sync>,
    openssl: openssl::OpenSsl,
    state: Mutex<State>,
}

struct State {
    policy: Policy,
    secrets: BTreeMap<String, (String, String)>,
    mischief: Mischief,
    calls: Vec<&'static str>,
    last_envelope: Vec<u8>,
    tls: Arc<rustls::ServerConfig>,
    checks_signatures: bool,
    /// Ciphertext blobs with their encryption context and plaintext.
    blobs: BTreeMap<Vec<u8>, (String, Vec<u8>)>,
}

struct Refusal(u16, &'static str);

impl StandIn {
    /// A key for enclaves with these registers under the anchors' root.
    pub fn new(
        anchors: TrustAnchors,
        authority: &Authority,
        policy: Policy,
        clock: impl Fn() -> UnixMillis + Send + Sync + 'static,
    ) -> Self {
        let now = clock();
        Self {
            anchors,
            clock: Box::new(clock),
            openssl: openssl::OpenSsl::new(),
            state: Mutex::new(State {
                policy,
                secrets: [(ACCESS_KEY_ID.into(), (SECRET.into(), TOKEN.into()))].into(),
                mischief: Mischief::None,
                calls: Vec::new(),
                last_envelope: Vec::new(),
                tls: authority.server(SERVER, now, -3600, 3600),
                checks_signatures: true,
                blobs: BTreeMap::new(),
            }),
        }
    }

    pub fn set_policy(&self, policy: Policy) {
        self.state.lock().unwrap().policy = policy;
    }

    pub fn set_mischief(&self, mischief: Mischief) {
        self.state.lock().unwrap().mischief = mischief;
    }

    pub fn set_tls(&self, tls: Arc<rustls::ServerConfig>) {
        self.state.lock().unwrap().tls = tls;
    }

    /// For tests of hundreds of requests.
    pub fn trust_signatures(&self) {
        self.state.lock().unwrap().checks_signatures = false;
    }

    /// The operations that succeeded since the last time.
    pub fn take_calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.state.lock().unwrap().calls)
    }

    /// The last `CiphertextForRecipient`.
    pub fn last_envelope(&self) -> Vec<u8> {
        self.state.lock().unwrap().last_envelope.clone()
    }

    /// One connection.
    pub async fn serve(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Send + Unpin) {
        let tls = Arc::clone(&self.state.lock().unwrap().tls);
        let Ok(mut stream) = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await else {
            return;
        };
        let Some(request) = http::read(&mut stream).await else {
            return;
        };
        let mischief = self.state.lock().unwrap().mischief.clone();
        match &mischief {
            Mischief::Silent => std::future::pending().await,
            Mischief::HangsUp => return,
            Mischief::Says(bytes) => return http::write_raw(&mut stream, bytes).await,
            _ => {}
        }
        let slow = mischief == Mischief::Slow;
        let answering = tokio::task::spawn_blocking(move || self.answer(&request, &mischief));
        let (status, body) = match answering.await.unwrap() {
            Ok(body) => (200, body),
            Err(Refusal(status, kind)) => (status, json!({ "__type": kind, "message": "no" })),
        };
        http::write(&mut stream, status, &body.to_string(), slow).await;
    }

    fn answer(&self, request: &http::Request, mischief: &Mischief) -> Result<Value, Refusal> {
        let (policy, secrets, checks_signatures) = {
            let mut state = self.state.lock().unwrap();
            if let Mischief::Fails(status, kind, times) = *mischief
                && times > 0
            {
                state.mischief = Mischief::Fails(status, kind, times - 1);
                return Err(Refusal(status, kind));
            }
            (state.policy, state.secrets.clone(), state.checks_signatures)
        };
        if checks_signatures {
            signature::check(&self.openssl, request, &secrets, (self.clock)())
                .map_err(|kind| Refusal(400, kind))?;
        }
        let invalid = || Refusal(400, "ValidationException");
        let body: Value = serde_json::from_slice(&request.body).map_err(|_| invalid())?;
        let operation = match request.header("x-amz-target") {
            Some("TrentService.GenerateDataKey") => "GenerateDataKey",
            Some("TrentService.Decrypt") => "Decrypt",
            _ => return Err(Refusal(400, "UnknownOperationException")),
        };
        if request.header("content-type") != Some("application/x-amz-json-1.1") {
            return Err(Refusal(400, "SerializationException"));
        }
        if request.header("host") != Some(SERVER)
            || (&*request.method, &*request.target) != ("POST", "/")
        {
            return Err(invalid());
        }
        if body["KeyId"] != KEY {
            return Err(Refusal(400, "NotFoundException"));
        }
        let public_key = self.recipient(&body["Recipient"], &policy)?;
        if body["EncryptionContext"]["arca"] != "v1"
            || (operation == "Decrypt" && !policy.allows_decrypt)
        {
            return Err(Refusal(400, "AccessDeniedException"));
        }
        // Its members are sorted.
        let context = body["EncryptionContext"].to_string();
        let mut reply = json!({ "KeyId": KEY });
        let plaintext = if operation == "GenerateDataKey" {
            if body["KeySpec"] != "AES_256" {
                return Err(invalid());
            }
            let (mut key, mut blob) = (vec![0; 32], vec![0; BLOB]);
            OsRng.fill_bytes(&mut key);
            OsRng.fill_bytes(&mut blob);
            reply["CiphertextBlob"] = Base64::encode_string(&blob).into();
            let mut state = self.state.lock().unwrap();
            state.blobs.insert(blob, (context, key.clone()));
            key
        } else {
            let blob = body["CiphertextBlob"].as_str().ok_or_else(invalid)?;
            let blob = Base64::decode_vec(blob).map_err(|_| invalid())?;
            match self.state.lock().unwrap().blobs.get(&blob) {
                Some((of, plaintext)) if *of == context => plaintext.clone(),
                _ => return Err(Refusal(400, "InvalidCiphertextException")),
            }
        };
        let stream = *mischief != Mischief::Der;
        let mut envelope = match mischief {
            Mischief::Envelope(envelope) => envelope.clone(),
            _ => self.openssl.envelope(&public_key, &plaintext, stream),
        };
        if *mischief == Mischief::SpoilsNewKeys && operation == "GenerateDataKey" {
            // The IV stands behind the identifier of AES-256-CBC and its own header.
            let before = [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 0x2a, 4, 0x10];
            let at = envelope.windows(11).position(|part| part == before);
            envelope[at.unwrap() + 11] ^= 1;
        }
        reply["CiphertextForRecipient"] = Base64::encode_string(&envelope).into();
        match mischief {
            Mischief::KeyId(other) => reply["KeyId"] = (*other).into(),
            Mischief::Plaintext => reply["Plaintext"] = Base64::encode_string(&plaintext).into(),
            Mischief::Lacks(field) => {
                reply.as_object_mut().unwrap().remove(*field);
            }
            _ => {}
        }
        let mut state = self.state.lock().unwrap();
        state.calls.push(operation);
        state.last_envelope = envelope;
        Ok(reply)
    }

    /// Verifies the attestation document, applies the policy, and returns the enclave's key.
    fn recipient(&self, recipient: &Value, policy: &Policy) -> Result<Vec<u8>, Refusal> {
        let denied = || Refusal(400, "AccessDeniedException");
        if recipient["KeyEncryptionAlgorithm"] != "RSAES_OAEP_SHA_256" {
            return Err(denied());
        }
        let document = recipient["AttestationDocument"]
            .as_str()
            .ok_or_else(denied)?;
        let document = Base64::decode_vec(document).map_err(|_| denied())?;
        let claimed = inspect(&document).map_err(|_| denied())?.claimed_pcrs;
        // The policy decides about registers; the verifier's part is that they are an enclave's.
        let reference = ReferenceValues::Simulated(vec![Measurements {
            pcr0: claimed[&0],
            pcr1: claimed[&1],
            pcr2: claimed[&2],
        }]);
        let expected = ArchiveExpected {
            reference: &reference,
            nonce: Expectation::NotCompared,
            public_key: Expectation::NotCompared,
            user_data: Expectation::NotCompared,
        };
        let evidence = verify_archive(&document, &self.anchors, &expected).map_err(|_| denied())?;
        if evidence.timestamp().0.abs_diff((self.clock)().0) > FRESH {
            return Err(denied());
        }
        let pcrs = evidence.pcrs().unwrap();
        if pcrs.get(&0) != Some(&policy.pcr0) || pcrs.get(&8) != Some(&policy.pcr8) {
            return Err(denied());
        }
        evidence.public_key().map(<[u8]>::to_vec).ok_or_else(denied)
    }
}
