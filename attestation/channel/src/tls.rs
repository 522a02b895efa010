//! TLS as this channel uses it: version 1.3, raw public keys on both sides, every session new.
//!
//! TLS proves that the other side holds a P-256 or P-384 key and protects the bytes. Whose key that is, and what code
//! holds it, the handshake after it decides.

use std::sync::Arc;

use arca_attestation::binder::Role;
use arca_attestation::{IdentityCurve, identity_curve};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, HandshakeKind,
    PeerIncompatible, ProtocolVersion, ServerConfig, SignatureScheme,
};
use tokio_rustls::TlsStream;

use crate::identity::{Identity, scheme};
use crate::{ALPN, Error};

/// Both directions' configuration for one identity.
pub(crate) struct Configs {
    pub server: Arc<ServerConfig>,
    pub client: Arc<ClientConfig>,
}

impl Configs {
    pub fn new(identity: &Identity) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(PossessionOnly(provider.clone()));
        let key = identity.certified();

        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(Error::Tls)?
            .with_client_cert_verifier(verifier.clone())
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(
                key.clone(),
            )));
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.max_early_data_size = 0;
        server.send_half_rtt_data = false;

        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(Error::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)));
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        client.enable_early_data = false;
        client.enable_sni = false;

        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }
}

/// Names nobody: the peer is known by its key, and no name goes over the wire.
pub(crate) fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())
}

/// What the handshake needs to know of a finished TLS session.
pub(crate) struct Session {
    /// The other side's key, canonical `SubjectPublicKeyInfo`.
    pub peer_spki: Vec<u8>,
    initiator_exporter: [u8; 32],
    responder_exporter: [u8; 32],
}

impl Session {
    pub fn of<S>(stream: &TlsStream<S>) -> Result<Self, Error> {
        let (_, tls) = stream.get_ref();
        // The configuration excludes all of these; evidence hangs on it, so look again.
        if tls.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return Err(Error::TlsParameters("not TLS 1.3"));
        }
        if !matches!(
            tls.handshake_kind(),
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest)
        ) {
            return Err(Error::TlsParameters("a resumed session"));
        }
        if tls.alpn_protocol() != Some(ALPN) {
            return Err(Error::TlsParameters("no application protocol arca/1"));
        }
        let Some([key]) = tls.peer_certificates() else {
            return Err(Error::TlsParameters("not exactly one public key"));
        };
        Ok(Self {
            peer_spki: key.to_vec(),
            initiator_exporter: export(stream, Role::Initiator)?,
            responder_exporter: export(stream, Role::Responder)?,
        })
    }

    /// What the evidence of the side in `role` is bound to.
    pub fn exporter(&self, role: Role) -> &[u8; 32] {
        match role {
            Role::Initiator => &self.initiator_exporter,
            Role::Responder => &self.responder_exporter,
        }
    }
}

/// RFC 8446 section 7.5, without a context.
fn export<S>(stream: &TlsStream<S>, role: Role) -> Result<[u8; 32], Error> {
    let label = role.exporter_label();
    match stream {
        TlsStream::Client(stream) => {
            let (_, tls) = stream.get_ref();
            tls.export_keying_material([0; 32], label, None)
        }
        TlsStream::Server(stream) => {
            let (_, tls) = stream.get_ref();
            tls.export_keying_material([0; 32], label, None)
        }
    }
    .map_err(Error::Tls)
}

/// Accepts any P-256 or P-384 key whose holder signed the transcript, each with the scheme of its own curve.
///
/// With a raw public key, the bytes that identify the peer are the ones whose signature was verified: there
/// is no certificate for two parsers to read differently.
#[derive(Debug)]
struct PossessionOnly(Arc<CryptoProvider>);

impl PossessionOnly {
    fn check_form(
        key: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
    ) -> Result<(), rustls::Error> {
        if more.is_empty() && identity_curve(key).is_some() {
            Ok(())
        } else {
            Err(CertificateError::BadEncoding.into())
        }
    }

    fn check_possession(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // Whatever the signature algorithm makes of the other scheme: a key has one.
        if identity_curve(key).map(scheme) != Some(signed.scheme) {
            return Err(CertificateError::BadSignature.into());
        }
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(key.as_ref()),
            signed,
            &self.0.signature_verification_algorithms,
        )
    }
}

impl ServerCertVerifier for PossessionOnly {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Self::check_form(key, more).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_possession(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        [IdentityCurve::P256, IdentityCurve::P384]
            .map(scheme)
            .into()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for PossessionOnly {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Self::check_form(key, more).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_possession(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        [IdentityCurve::P256, IdentityCurve::P384]
            .map(scheme)
            .into()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
