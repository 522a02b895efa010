//! Certificates for the stand-in, under an authority of the tests.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use arca_attestation::UnixMillis;
use der::Encode as _;
use der::asn1::{GeneralizedTime, Ia5String};
use p256::ecdsa::{DerSignature, SigningKey};
use p256::pkcs8::EncodePrivateKey as _;
use rand_core::OsRng;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spki::SubjectPublicKeyInfoOwned;
use x509_cert::builder::{Builder as _, CertificateBuilder, Profile};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::{Time, Validity};

pub struct Authority {
    key: SigningKey,
    name: Name,
    certificate: CertificateDer<'static>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = SigningKey::random(&mut OsRng);
        let name = Name::from_str(&format!("CN={name}")).unwrap();
        let certificate = CertificateBuilder::new(
            Profile::Root,
            SerialNumber::from(1u32),
            validity(1_000_000_000, 4_000_000_000),
            name.clone(),
            SubjectPublicKeyInfoOwned::from_key(*key.verifying_key()).unwrap(),
            &key,
        )
        .unwrap()
        .build::<DerSignature>()
        .unwrap();
        Self {
            key,
            name,
            certificate: certificate.to_der().unwrap().into(),
        }
    }

    pub fn root(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// A server of that name, with a certificate from and to so many seconds relative to `at`.
    pub fn server(&self, name: &str, at: UnixMillis, from: i64, to: i64) -> Arc<ServerConfig> {
        let key = SigningKey::random(&mut OsRng);
        let time = |offset: i64| (at.0 / 1000).checked_add_signed(offset).unwrap();
        let profile = Profile::Leaf {
            issuer: self.name.clone(),
            enable_key_agreement: false,
            enable_key_encipherment: false,
        };
        let mut builder = CertificateBuilder::new(
            profile,
            SerialNumber::from(2u32),
            validity(time(from), time(to)),
            Name::from_str("CN=kms").unwrap(),
            SubjectPublicKeyInfoOwned::from_key(*key.verifying_key()).unwrap(),
            &self.key,
        )
        .unwrap();
        let names = vec![GeneralName::DnsName(Ia5String::new(name).unwrap())];
        builder.add_extension(&SubjectAltName(names)).unwrap();
        let certificate = builder.build::<DerSignature>().unwrap().to_der().unwrap();
        let key = PrivatePkcs8KeyDer::from(key.to_pkcs8_der().unwrap().as_bytes().to_vec());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.into(), self.root()],
                PrivateKeyDer::Pkcs8(key),
            )
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

/// In seconds since 1970.
fn validity(from: u64, to: u64) -> Validity {
    let time = |seconds| {
        let time = GeneralizedTime::from_unix_duration(Duration::from_secs(seconds)).unwrap();
        Time::GeneralTime(time)
    };
    Validity {
        not_before: time(from),
        not_after: time(to),
    }
}
