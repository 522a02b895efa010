//! A peer that speaks TLS and flights by hand, and so can say anything.

use std::sync::Arc;

use arca_attestation::binder::{Binder, Role};
use arca_channel::{ALPN, Identity};
use arca_proto::v1::channel_message::Body;
use arca_proto::v1::{ChannelHello, ChannelMessage, ChannelProof, ChannelRole};
use p256::pkcs8::EncodePrivateKey as _;
use prost::Message as _;
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature_with_raw_key;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::world::{CLUSTER, Enclave};

/// One end of a TLS session, with everything that the session gives away.
pub struct Raw<S> {
    pub tls: TlsStream<S>,
    pub own_spki: Vec<u8>,
    pub peer_spki: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub async fn connect(stream: S, identity: &Identity) -> Self {
        Self::connect_with(stream, identity, Arc::new(client_config(identity)))
            .await
            .unwrap()
    }

    pub async fn connect_with(
        stream: S,
        identity: &Identity,
        config: Arc<ClientConfig>,
    ) -> std::io::Result<Self> {
        let name = ServerName::try_from("arca").unwrap();
        let tls = TlsConnector::from(config).connect(name, stream).await?;
        Ok(Self::over(tls.into(), identity))
    }

    pub async fn accept(stream: S, identity: &Identity) -> Self {
        let config = Arc::new(server_config(identity));
        let tls = TlsAcceptor::from(config).accept(stream).await.unwrap();
        Self::over(tls.into(), identity)
    }

    fn over(tls: TlsStream<S>, identity: &Identity) -> Self {
        let peer_spki = tls.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        Self {
            tls,
            own_spki: identity.spki().to_vec(),
            peer_spki,
        }
    }

    pub fn exporter(&self, role: Role) -> [u8; 32] {
        let label = role.exporter_label();
        match &self.tls {
            TlsStream::Client(tls) => tls.get_ref().1.export_keying_material([0; 32], label, None),
            TlsStream::Server(tls) => tls.get_ref().1.export_keying_material([0; 32], label, None),
        }
        .unwrap()
    }

    pub async fn send(&mut self, body: Body) {
        let message = ChannelMessage { body: Some(body) };
        self.send_bytes(&frame(&message.encode_to_vec())).await;
    }

    /// Whatever they are. The other side may have closed already.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.tls.write_all(bytes).await;
        let _ = self.tls.flush().await;
    }

    /// `None` when the other side closed.
    pub async fn receive(&mut self) -> Option<Body> {
        let length = self.tls.read_u32().await.ok()?;
        let mut bytes = vec![0; length as usize];
        self.tls.read_exact(&mut bytes).await.ok()?;
        ChannelMessage::decode(bytes.as_slice()).unwrap().body
    }

    pub async fn receive_proof(&mut self) -> ChannelProof {
        match self.receive().await {
            Some(Body::Proof(proof)) => proof,
            other => panic!("no proof but {other:?}"),
        }
    }

    pub async fn receive_hello(&mut self) -> ChannelHello {
        match self.receive().await {
            Some(Body::Hello(hello)) => hello,
            other => panic!("no hello but {other:?}"),
        }
    }
}

pub fn frame(message: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    bytes
}

pub fn hello(role: ChannelRole, responder: &str) -> ChannelHello {
    ChannelHello {
        version: 1,
        nonce: vec![1; 32],
        role: role.into(),
        responder: responder.into(),
        cluster: CLUSTER.into(),
    }
}

/// What evidence is made over and what the proof around it says. Honest until changed.
#[derive(Clone)]
pub struct Claims {
    pub role: Role,
    pub exporter: [u8; 32],
    pub nonce: Vec<u8>,
    pub own_spki: Vec<u8>,
    pub peer_spki: Vec<u8>,
    pub cluster: String,
    pub party: String,
    pub boot_id: [u8; 16],
    pub manifest_epoch: u64,
}

impl Claims {
    /// Those of `enclave` at its end of `raw`, asked with `nonce`.
    pub fn honest<S: AsyncRead + AsyncWrite + Unpin>(
        enclave: &Enclave,
        raw: &Raw<S>,
        role: Role,
        nonce: &[u8],
    ) -> Self {
        Self {
            role,
            exporter: raw.exporter(role),
            nonce: nonce.to_vec(),
            own_spki: raw.own_spki.clone(),
            peer_spki: raw.peer_spki.clone(),
            cluster: CLUSTER.into(),
            party: enclave.name.into(),
            boot_id: enclave.boot_id,
            manifest_epoch: 1,
        }
    }

    /// A real document over these claims, by the enclave's own platform.
    pub fn evidence(&self, enclave: &Enclave) -> Vec<u8> {
        let binder = Binder {
            role: self.role,
            exporter: &self.exporter,
            nonce: &self.nonce,
            own_spki: &self.own_spki,
            peer_spki: &self.peer_spki,
            cluster: &self.cluster,
            party: &self.party,
            boot_id: &self.boot_id,
            manifest_epoch: self.manifest_epoch,
        };
        enclave
            .attester
            .document(&self.nonce, &binder.digest(), &self.own_spki)
    }

    /// The flight that says so. A nonce in it asks the other side in return.
    pub fn proof(&self, asks: &[u8], evidence: Vec<u8>) -> ChannelProof {
        ChannelProof {
            nonce: asks.to_vec(),
            cluster: self.cluster.clone(),
            party: self.party.clone(),
            boot_id: self.boot_id.to_vec(),
            manifest_epoch: self.manifest_epoch,
            evidence,
        }
    }
}

/// As the channel's own, except that it verifies nobody's key.
pub fn client_config(identity: &Identity) -> ClientConfig {
    let resolver = AlwaysResolvesClientRawPublicKeys::new(certified(identity));
    let mut config = client_builder().with_client_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

pub fn client_builder() -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
}

pub fn server_config(identity: &Identity) -> ServerConfig {
    let resolver = AlwaysResolvesServerRawPublicKeys::new(certified(identity));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(Anybody))
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config
}

pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What somebody who stole the identity would present.
pub fn certified(identity: &Identity) -> Arc<CertifiedKey> {
    let key = p256::SecretKey::from_slice(identity.to_scalar().unwrap().as_ref()).unwrap();
    let key = PrivateKeyDer::Pkcs8(key.to_pkcs8_der().unwrap().as_bytes().to_vec().into());
    let key = rustls::crypto::ring::sign::any_ecdsa_type(&key).unwrap();
    let spki = CertificateDer::from(identity.spki().to_vec());
    Arc::new(CertifiedKey::new(vec![spki], key))
}

#[derive(Debug)]
pub struct Anybody;

impl Anybody {
    fn check(
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let spki = SubjectPublicKeyInfoDer::from(key.as_ref());
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &spki, signed, &algorithms)
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("TLS 1.3 alone")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::check(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("TLS 1.3 alone")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::check(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
