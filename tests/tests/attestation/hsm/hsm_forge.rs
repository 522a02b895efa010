//! Makes evidence of HSMs, honest and broken. Shares no code with the crate's own writer: ciborium encodes.

use arca_attestation::hsm::{Statement, Token};
use arca_attestation::{
    ArchiveExpected, Error, Evidence, Expectation, Expected, ReferenceValues, TrustAnchors,
    UnixMillis, verify_live,
};
use ciborium::Value;
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{Signature, SigningKey};

use crate::forge::{Certificate, Forge, NONCE, NOW, USER_DATA, bytes, encode, spki};

pub const EXTERNAL_AAD: &[u8] = b"arca/v1/hsm-evidence";

/// Evidence in the making. Starts honest; tests change one thing.
pub struct HsmForge {
    /// Root first, leaf last. Each is signed by the one before it; the leaf's key is the identity.
    pub path: Vec<Certificate>,
    /// The payload, in order. `public_key`, `certificate` and `cabundle` are filled in from `path` unless set.
    pub fields: Vec<(&'static str, Value)>,
    pub external_aad: Vec<u8>,
    pub protected: Vec<u8>,
    pub unprotected: Value,
    pub indefinite: bool,
    /// What signs, if not the leaf's key.
    pub signer: Option<SigningKey>,
}

pub fn token() -> Vec<(&'static str, Value)> {
    vec![
        ("manufacturer", Value::from("Example Secure Modules")),
        ("model", Value::from("Vault 7")),
        ("serial", Value::from("0123456789abcdef")),
        ("firmware", Value::from("7.8.4")),
    ]
}

pub fn map(entries: Vec<(&'static str, Value)>) -> Value {
    let entries = entries.into_iter();
    Value::Map(
        entries
            .map(|(key, value)| (Value::from(key), value))
            .collect(),
    )
}

impl HsmForge {
    pub fn new() -> Self {
        Self {
            path: Forge::new().path,
            fields: vec![
                ("version", Value::from(1)),
                ("token", map(token())),
                ("timestamp", Value::from(NOW.0)),
                ("nonce", bytes(NONCE)),
                ("user_data", bytes(USER_DATA)),
                ("public_key", Value::Null),
                ("certificate", Value::Null),
                ("cabundle", Value::Null),
            ],
            external_aad: EXTERNAL_AAD.to_vec(),
            protected: vec![0xa1, 0x01, 0x38, 0x22],
            unprotected: Value::Map(Vec::new()),
            indefinite: false,
            signer: None,
        }
    }

    /// Another organisation's, or another party's: with keys of its own.
    pub fn of(seed: u64) -> Self {
        let mut forge = Self::new();
        forge.path = Forge::seeded(seed).path;
        forge
    }

    pub fn set(&mut self, key: &str, value: Value) {
        let mut fields = self.fields.iter_mut();
        fields.find(|(found, _)| *found == key).unwrap().1 = value;
    }

    /// DER, root first, leaf last.
    pub fn certificates(&self) -> Vec<Vec<u8>> {
        let issuers = self.path.iter().take(1).chain(&self.path);
        let certificates = self.path.iter().zip(issuers);
        certificates
            .map(|(certificate, issuer)| certificate.der(issuer))
            .collect()
    }

    pub fn root_der(&self) -> Vec<u8> {
        self.path[0].der(&self.path[0])
    }

    pub fn identity(&self) -> Vec<u8> {
        spki(&self.path.last().unwrap().key)
    }

    pub fn payload(&self) -> Vec<u8> {
        let mut bundle = self.certificates();
        let leaf = bundle.pop().unwrap();
        let entries = self.fields.iter().map(|(key, value)| {
            let value = match (*key, value) {
                ("public_key", Value::Null) => Value::Bytes(self.identity()),
                ("certificate", Value::Null) => Value::Bytes(leaf.clone()),
                ("cabundle", Value::Null) => {
                    Value::Array(bundle.iter().cloned().map(Value::Bytes).collect())
                }
                (_, value) => value.clone(),
            };
            (Value::from(*key), value)
        });
        encode(&Value::Map(entries.collect()), self.indefinite)
    }

    /// What is signed over this payload.
    pub fn signed(&self, payload: &[u8]) -> Vec<u8> {
        let signed = [
            Value::from("Signature1"),
            bytes(&self.protected),
            bytes(&self.external_aad),
            bytes(payload),
        ];
        encode(&Value::Array(signed.into()), false)
    }

    /// The four elements of the COSE_Sign1 over this payload.
    pub fn envelope(&self, payload: &[u8]) -> [Value; 4] {
        let key = &self.path.last().unwrap().key;
        let signature: Signature = self
            .signer
            .as_ref()
            .unwrap_or(key)
            .sign(&self.signed(payload));
        [
            bytes(&self.protected),
            self.unprotected.clone(),
            bytes(payload),
            bytes(&signature.to_bytes()),
        ]
    }

    pub fn document(&self) -> Vec<u8> {
        self.document_of(&self.payload())
    }

    pub fn document_of(&self, payload: &[u8]) -> Vec<u8> {
        encode(&Value::Array(self.envelope(payload).into()), false)
    }

    /// Under this forge's own root, at [`NOW`], with every expectation met.
    pub fn verify(&self) -> Result<Evidence, Error> {
        self.verify_at(NOW)
    }

    pub fn verify_at(&self, now: UnixMillis) -> Result<Evidence, Error> {
        verify(
            &self.document(),
            &roots(&self.root_der()),
            &self.identity(),
            now,
        )
    }

    /// The error of [`verify`](Self::verify) after `change`, which has to be the only thing wrong.
    pub fn refusal(change: impl FnOnce(&mut Self)) -> Error {
        let mut forge = Self::new();
        change(&mut forge);
        forge.verify().expect_err("verified what it should refuse")
    }

    /// The same in the crate's own words.
    pub fn statement<'a>(&self, identity: &'a [u8], path: &'a [Vec<u8>]) -> Statement<'a> {
        let (leaf, bundle) = path.split_last().unwrap();
        Statement {
            token: Token::new(
                "Example Secure Modules",
                "Vault 7",
                "0123456789abcdef",
                "7.8.4",
            ),
            timestamp: NOW,
            nonce: NONCE,
            user_data: USER_DATA,
            public_key: identity,
            certificate: leaf,
            cabundle: bundle.iter().map(Vec::as_slice).collect(),
        }
    }
}

pub fn roots(root: &[u8]) -> ReferenceValues {
    ReferenceValues::Hsm(vec![root.to_vec()])
}

/// Live, with every other expectation met. There is no root of NSMs: it takes none.
pub fn verify(
    document: &[u8],
    reference: &ReferenceValues,
    identity: &[u8],
    now: UnixMillis,
) -> Result<Evidence, Error> {
    let expected = Expected {
        reference,
        nonce: NONCE,
        public_key: identity,
        user_data: USER_DATA,
    };
    verify_live(document, &TrustAnchors::hsm_only(), &expected, now)
}

pub fn of_archive<'a>(reference: &'a ReferenceValues, identity: &'a [u8]) -> ArchiveExpected<'a> {
    ArchiveExpected {
        reference,
        nonce: Expectation::Equals(NONCE),
        public_key: Expectation::Equals(identity),
        user_data: Expectation::Equals(USER_DATA),
    }
}
