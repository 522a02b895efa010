//! Makes attestation documents of every shape, honest ones and broken ones. Shares no code with the verifier
//! or with the simulated NSM.

use std::str::FromStr as _;
use std::sync::LazyLock;
use std::time::Duration;

use arca_attestation::{
    ArchiveExpected, CertificateFault, Error, Evidence, Expectation, Expected, Measurements,
    ReferenceValues, TrustAnchors, UnixMillis, verify_live,
};
use ciborium::Value;
use der::asn1::{BitString, ObjectIdentifier, OctetString, UtcTime};
use der::oid::AssociatedOid;
use der::{Any, Encode as _};
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{DerSignature, Signature, SigningKey};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::certificate::{TbsCertificate, Version};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::{Time, Validity};

/// When every forged document is made, unless a test says otherwise.
pub const NOW: UnixMillis = UnixMillis(1_780_000_000_000);
pub const NONCE: &[u8] = &[0x11; 32];
pub const USER_DATA: &[u8] = &[0x22; 48];
pub const PUBLIC_KEY: &[u8] = &[0x33; 91];
pub const MEASUREMENTS: Measurements = Measurements {
    pcr0: [1; 48],
    pcr1: [2; 48],
    pcr2: [3; 48],
};

static REFERENCE: LazyLock<ReferenceValues> =
    LazyLock::new(|| ReferenceValues::Simulated(vec![MEASUREMENTS]));

pub static EXPECTED: LazyLock<Expected<'static>> = LazyLock::new(|| Expected {
    reference: &REFERENCE,
    nonce: NONCE,
    public_key: PUBLIC_KEY,
    user_data: USER_DATA,
});

pub static EXPECTED_OF_ARCHIVE: LazyLock<ArchiveExpected<'static>> =
    LazyLock::new(|| ArchiveExpected {
        reference: &REFERENCE,
        nonce: Expectation::Equals(NONCE),
        public_key: Expectation::Equals(PUBLIC_KEY),
        user_data: Expectation::Equals(USER_DATA),
    });

const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");

/// A document in the making. Starts honest; tests change one thing.
pub struct Forge {
    /// Root first, leaf last. Each is signed by the one before it.
    pub path: Vec<Certificate>,
    /// The payload, in order. `certificate` and `cabundle` are filled in from `path` unless set.
    pub fields: Vec<(Value, Value)>,
    pub protected: Vec<u8>,
    pub unprotected: Value,
    /// Whether maps and arrays of the payload have indefinite length.
    pub indefinite: bool,
    /// What signs the document, if not the leaf's key.
    pub signer: Option<SigningKey>,
}

impl Forge {
    pub fn new() -> Self {
        Self::seeded(7)
    }

    /// With keys of its own.
    pub fn seeded(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let path =
            ["root", "region", "zone", "leaf"]
                .iter()
                .enumerate()
                .map(|(position, subject)| {
                    let role = if *subject == "leaf" {
                        Role::Leaf
                    } else {
                        Role::Authority
                    };
                    Certificate::new(subject, role, position, SigningKey::random(&mut rng))
                });
        let pcrs = (0..16u8).map(|index| match index {
            0 => MEASUREMENTS.pcr0,
            1 => MEASUREMENTS.pcr1,
            2 => MEASUREMENTS.pcr2,
            _ => [0; 48],
        });
        let fields = [
            (
                "module_id",
                Value::from("i-0123456789abcdef0-enc0123456789abcdef"),
            ),
            ("digest", Value::from("SHA384")),
            ("timestamp", Value::from(NOW.0)),
            ("pcrs", pcr_map(pcrs.enumerate())),
            ("public_key", bytes(PUBLIC_KEY)),
            ("user_data", bytes(USER_DATA)),
            ("nonce", bytes(NONCE)),
        ];
        Self {
            path: path.collect(),
            fields: fields.map(|(key, value)| (Value::from(key), value)).into(),
            protected: vec![0xa1, 0x01, 0x38, 0x22],
            unprotected: Value::Map(Vec::new()),
            indefinite: false,
            signer: None,
        }
    }

    /// Sets a field of the payload, in place or at the end.
    pub fn set(&mut self, key: &str, value: Value) {
        match self
            .fields
            .iter_mut()
            .find(|(found, _)| found.as_text() == Some(key))
        {
            Some(field) => field.1 = value,
            None => self.fields.push((Value::from(key), value)),
        }
    }

    pub fn remove(&mut self, key: &str) {
        self.fields
            .retain(|(found, _)| found.as_text() != Some(key));
    }

    pub fn root_der(&self) -> Vec<u8> {
        self.path[0].der(&self.path[0])
    }

    pub fn anchors(&self) -> TrustAnchors {
        TrustAnchors::simulated(&self.root_der()).unwrap()
    }

    /// DER, root first, leaf last.
    pub fn certificates(&self) -> Vec<Vec<u8>> {
        let issuers = self.path.iter().take(1).chain(&self.path);
        self.path
            .iter()
            .zip(issuers)
            .map(|(certificate, issuer)| certificate.der(issuer))
            .collect()
    }

    pub fn payload(&self) -> Vec<u8> {
        let mut fields = self.fields.clone();
        let mut bundle = self.certificates();
        let leaf = bundle.pop().unwrap();
        let has = |key| {
            self.fields
                .iter()
                .any(|(found, _)| found.as_text() == Some(key))
        };
        if !has("certificate") {
            fields.push((Value::from("certificate"), Value::Bytes(leaf)));
        }
        if !has("cabundle") {
            let bundle = bundle.into_iter().map(Value::Bytes).collect();
            fields.push((Value::from("cabundle"), Value::Array(bundle)));
        }
        encode(&Value::Map(fields), self.indefinite)
    }

    /// The four elements of the COSE_Sign1 over this payload.
    pub fn envelope(&self, payload: Vec<u8>) -> [Value; 4] {
        let signed = Value::Array(vec![
            Value::from("Signature1"),
            Value::Bytes(self.protected.clone()),
            Value::Bytes(Vec::new()),
            Value::Bytes(payload.clone()),
        ]);
        let key = self
            .signer
            .as_ref()
            .unwrap_or(&self.path.last().unwrap().key);
        let signature: Signature = key.sign(&encode(&signed, false));
        [
            Value::Bytes(self.protected.clone()),
            self.unprotected.clone(),
            Value::Bytes(payload),
            Value::Bytes(signature.to_vec()),
        ]
    }

    pub fn document(&self) -> Vec<u8> {
        encode(&Value::Array(self.envelope(self.payload()).into()), false)
    }

    /// Under this forge's own root, at [`NOW`], with every expectation met.
    pub fn verify(&self) -> Result<Evidence, Error> {
        verify_live(&self.document(), &self.anchors(), &EXPECTED, NOW)
    }

    /// The error of [`verify`](Self::verify) after `change`, which has to be the only thing wrong.
    pub fn refusal(change: impl FnOnce(&mut Self)) -> Error {
        let mut forge = Self::new();
        change(&mut forge);
        forge.verify().expect_err("verified what it should refuse")
    }
}

pub enum Role {
    Authority,
    Leaf,
}

/// A certificate in the making, with its key.
pub struct Certificate {
    pub key: SigningKey,
    pub tbs: TbsCertificate,
    /// The algorithm outside the signed part.
    pub algorithm: AlgorithmIdentifierOwned,
}

impl Certificate {
    /// Issuer and path length follow from the position in a path of four.
    fn new(subject: &str, role: Role, position: usize, key: SigningKey) -> Self {
        let names = ["CN=root", "CN=root", "CN=region", "CN=zone"];
        let algorithm = AlgorithmIdentifierOwned {
            oid: ECDSA_WITH_SHA384,
            parameters: None,
        };
        let extensions = match role {
            Role::Authority => {
                let path_len_constraint = match position {
                    0 => None,
                    position => Some(u8::try_from(2 - position).unwrap()),
                };
                vec![
                    basic_constraints(BasicConstraints {
                        ca: true,
                        path_len_constraint,
                    }),
                    key_usage(KeyUsages::KeyCertSign | KeyUsages::CRLSign),
                ]
            }
            Role::Leaf => vec![
                basic_constraints(BasicConstraints {
                    ca: false,
                    path_len_constraint: None,
                }),
                key_usage(KeyUsages::DigitalSignature.into()),
            ],
        };
        let tbs = TbsCertificate {
            version: Version::V3,
            serial_number: SerialNumber::from(u32::try_from(position).unwrap() + 1),
            signature: algorithm.clone(),
            issuer: Name::from_str(names[position]).unwrap(),
            validity: validity(NOW, -3600, 3600 * (4 - i64::try_from(position).unwrap())),
            subject: Name::from_str(&format!("CN={subject}")).unwrap(),
            subject_public_key_info: SubjectPublicKeyInfoOwned::from_key(*key.verifying_key())
                .unwrap(),
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(extensions),
        };
        Self {
            key,
            tbs,
            algorithm,
        }
    }

    pub fn der(&self, issuer: &Certificate) -> Vec<u8> {
        let signature: DerSignature = issuer.key.sign(&self.tbs.to_der().unwrap());
        let certificate = x509_cert::Certificate {
            tbs_certificate: self.tbs.clone(),
            signature_algorithm: self.algorithm.clone(),
            signature: BitString::from_bytes(signature.as_bytes()).unwrap(),
        };
        certificate.to_der().unwrap()
    }

    /// Replaces the extension of this type, or drops it.
    pub fn set_extension(&mut self, oid: ObjectIdentifier, extension: Option<Extension>) {
        let extensions = self.tbs.extensions.get_or_insert_default();
        extensions.retain(|found| found.extn_id != oid);
        extensions.extend(extension);
    }
}

/// SubjectPublicKeyInfo, DER.
pub fn spki(key: &SigningKey) -> Vec<u8> {
    use p384::pkcs8::EncodePublicKey as _;
    let key = key.verifying_key().to_public_key_der().unwrap();
    key.as_bytes().to_vec()
}

/// From `from` to `to`, in seconds relative to `at`.
pub fn validity(at: UnixMillis, from: i64, to: i64) -> Validity {
    let time = |offset: i64| {
        let at = Duration::from_secs((at.0 / 1000).checked_add_signed(offset).unwrap());
        Time::UtcTime(UtcTime::from_unix_duration(at).unwrap())
    };
    Validity {
        not_before: time(from),
        not_after: time(to),
    }
}

pub fn basic_constraints(value: BasicConstraints) -> Extension {
    extension(BasicConstraints::OID, true, value.to_der().unwrap())
}

pub fn key_usage(usages: der::flagset::FlagSet<KeyUsages>) -> Extension {
    extension(KeyUsage::OID, true, KeyUsage(usages).to_der().unwrap())
}

pub fn extension(oid: ObjectIdentifier, critical: bool, value: Vec<u8>) -> Extension {
    Extension {
        extn_id: oid,
        critical,
        extn_value: OctetString::new(value).unwrap(),
    }
}

pub fn algorithm(oid: &str, parameters: Option<Any>) -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned {
        oid: ObjectIdentifier::new(oid).unwrap(),
        parameters,
    }
}

pub fn bytes(value: &[u8]) -> Value {
    Value::Bytes(value.to_vec())
}

pub fn pcr_map<const N: usize>(pcrs: impl Iterator<Item = (usize, [u8; N])>) -> Value {
    Value::Map(
        pcrs.map(|(index, pcr)| (Value::from(index as u64), bytes(&pcr)))
            .collect(),
    )
}

/// CBOR, with definite or indefinite length of every map and array.
pub fn encode(value: &Value, indefinite: bool) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        Value::Map(entries) => {
            open(&mut out, 0xa0, entries.len(), indefinite);
            for (key, value) in entries {
                out.extend(encode(key, indefinite));
                out.extend(encode(value, indefinite));
            }
        }
        Value::Array(elements) => {
            open(&mut out, 0x80, elements.len(), indefinite);
            out.extend(
                elements
                    .iter()
                    .flat_map(|element| encode(element, indefinite)),
            );
        }
        scalar => ciborium::into_writer(scalar, &mut out).unwrap(),
    }
    if indefinite && matches!(value, Value::Map(_) | Value::Array(_)) {
        out.push(0xff);
    }
    out
}

fn open(out: &mut Vec<u8>, major: u8, count: usize, indefinite: bool) {
    match u8::try_from(count).unwrap() {
        _ if indefinite => out.push(major | 31),
        count @ 0..=23 => out.push(major | count),
        count => out.extend([major | 24, count]),
    }
}

/// Why `document` is refused under the root of every forge, at [`NOW`].
pub fn refused_document(document: &[u8]) -> Error {
    verify_live(document, &Forge::new().anchors(), &EXPECTED, NOW).expect_err("verified")
}

/// 0 is the root, 3 the leaf.
pub fn certificate(position: usize, fault: CertificateFault) -> Error {
    Error::Certificate { position, fault }
}
