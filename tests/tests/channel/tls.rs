//! TLS of other kinds than the channel's: refused, and never resumed.

use std::sync::Arc;

use arca_attestation::binder::Role;
use arca_attestation::{IdentityCurve, identity_curve};
use arca_channel::{Error, Identity, accept, connect};
use arca_proto::v1::ChannelRole;
use arca_proto::v1::channel_message::Body;
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::crypto::ring::Ticketer;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use crate::raw::{Claims, Raw, certified, client_builder, client_config, hello, server_config};
use crate::world::{World, observe};

/// Connects with this configuration to the real `ceo`, as far as TLS goes.
async fn tls_with(
    world: &World,
    identity: &Identity,
    config: Arc<ClientConfig>,
) -> (std::io::Result<Raw<DuplexStream>>, Result<(), Error>) {
    let ceo = world.party(&world.ceo);
    let (near, far) = duplex(1 << 16);
    let client = async {
        let mut raw = Raw::connect_with(near, identity, config).await?;
        // TLS 1.3 clients finish before the server has looked at their key.
        raw.tls.read_u8().await.map(|_| ()).or_else(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                Ok(())
            } else {
                Err(error)
            }
        })?;
        Ok(raw)
    };
    // Nobody speaks after TLS, so whichever side is content waits for the other.
    let server = accept(far, &ceo, &mut world.rng());
    let (client, server) = tokio::join!(client, server);
    (client, server.map(drop))
}

#[tokio::test]
async fn tls_1_2() {
    let world = World::new();
    let ceo = world.party(&world.ceo);
    let (mut near, far) = duplex(1 << 16);
    // RFC 5246 section 7.4.1.2: version 3.3, a random, no session, one suite, no compression, and of extensions
    // signature_algorithms alone: no supported_versions.
    let mut body = vec![3, 3];
    body.extend_from_slice(&[5; 32]);
    body.extend_from_slice(&[0, 0, 2, 0xc0, 0x2b, 1, 0]);
    body.extend_from_slice(&[0, 8, 0, 13, 0, 4, 0, 2, 4, 3]);
    let mut record = vec![22, 3, 1, 0, u8::try_from(body.len() + 4).unwrap(), 1, 0, 0];
    record.push(u8::try_from(body.len()).unwrap());
    record.extend_from_slice(&body);
    near.write_all(&record).await.unwrap();

    let (outcome, answer) = tokio::join!(accept(far, &ceo, &mut world.rng()), async {
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        answer
    });
    assert!(matches!(outcome.unwrap_err(), Error::Io(_)));
    assert_eq!(answer[0], 21, "an alert");
    assert_eq!(answer[5..], [2, 70], "fatal, protocol_version");
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_key() {
    let world = World::new();
    let mut config = client_builder().with_no_client_auth();
    config.alpn_protocols = vec![arca_channel::ALPN.to_vec()];
    let (client, server) = tls_with(&world, &world.operator, Arc::new(config)).await;
    assert!(client.is_err());
    assert!(matches!(server.unwrap_err(), Error::Io(_)));
}

#[tokio::test(start_paused = true)]
async fn another_application_protocol() {
    let world = World::new();
    let mut config = client_config(&world.operator);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (client, server) = tls_with(&world, &world.operator, Arc::new(config.clone())).await;
    assert!(client.is_err());
    assert!(matches!(server.unwrap_err(), Error::Io(_)));

    config.alpn_protocols.clear();
    let (_, server) = tls_with(&world, &world.operator, Arc::new(config)).await;
    assert!(matches!(server.unwrap_err(), Error::TlsParameters(_)));
}

/// One key has one name: other kinds of key and other encodings of a P-256 key are refused.
#[tokio::test(start_paused = true)]
async fn a_key_of_another_form() {
    let world = World::new();
    let with_key = |key: Arc<CertifiedKey>| {
        let resolver = AlwaysResolvesClientRawPublicKeys::new(key);
        let mut config = client_builder().with_client_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![arca_channel::ALPN.to_vec()];
        Arc::new(config)
    };

    // RFC 8410: Ed25519, its private key and its public one.
    let ed25519 = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let prefixed = |prefix: &str, key: &[u8]| [&hex::decode(prefix).unwrap(), key].concat();
    let der = prefixed("302e020100300506032b657004220420", ed25519.as_bytes());
    let signing = rustls::crypto::ring::sign::any_eddsa_type(&der.into()).unwrap();
    let public_key = ed25519.verifying_key().to_bytes();
    let spki = prefixed("302a300506032b6570032100", &public_key);
    let other_kind = CertifiedKey::new(vec![CertificateDer::from(spki)], signing);

    let honest = certified(&world.operator);
    let spki = world.operator.spki();
    let (prefix, point) = spki.split_at(spki.len() - 65);
    // RFC 5480: the same key with a compressed point, 32 bytes shorter; lengths are at 1 and before the point.
    let mut compressed = prefix.to_vec();
    compressed[1] -= 32;
    let length_at = prefix.len() - 2;
    compressed[length_at] -= 32;
    compressed.push(2 + (point[64] & 1));
    compressed.extend_from_slice(&point[1..33]);
    use p256::pkcs8::DecodePublicKey as _;
    assert_eq!(
        p256::PublicKey::from_public_key_der(&compressed).unwrap(),
        p256::PublicKey::from_public_key_der(spki).unwrap()
    );
    assert_eq!(identity_curve(spki), Some(IdentityCurve::P256));
    assert_eq!(identity_curve(&compressed), None);
    let other_encoding =
        CertifiedKey::new(vec![CertificateDer::from(compressed)], honest.key.clone());
    let mut two = (*honest).clone();
    two.cert.push(two.cert[0].clone());

    for key in [other_kind, other_encoding, two] {
        let config = with_key(Arc::new(key));
        let (client, server) = tls_with(&world, &world.operator, config).await;
        assert!(client.is_err());
        assert!(matches!(server.unwrap_err(), Error::Io(_)));
    }
}

/// Somebody else's public key, without its secret.
#[tokio::test(start_paused = true)]
async fn a_key_that_the_client_does_not_hold() {
    let world = World::new();
    let mut claimed = (*certified(&world.somebody())).clone();
    claimed.cert = vec![world.operator.spki().to_vec().into()];
    let resolver = AlwaysResolvesClientRawPublicKeys::new(Arc::new(claimed));
    let mut config = client_builder().with_client_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![arca_channel::ALPN.to_vec()];
    let (client, server) = tls_with(&world, &world.operator, Arc::new(config)).await;
    assert!(client.is_err());
    assert!(matches!(server.unwrap_err(), Error::Io(_)));
}

/// A client that keeps tickets gets none from us, and one that has some of another server's is not resumed.
#[tokio::test]
async fn a_client_that_would_resume() {
    let world = World::new();
    let ceo = world.party(&world.ceo);
    // Resumes whenever it can; see below.
    let config = Arc::new(client_config(&world.operator));
    let mut foreign = server_config(&world.ceo.identity);
    foreign.ticketer = Ticketer::new().unwrap();
    foreign.send_tls13_tickets = 2;
    let foreign = Arc::new(foreign);

    let mut kinds = Vec::new();
    for server in ["ours", "ours", "foreign", "foreign", "ours", "foreign"] {
        let (near, far) = duplex(1 << 16);
        let client = async {
            let mut raw = Raw::connect_with(near, &world.operator, config.clone())
                .await
                .unwrap();
            raw.send(Body::Hello(hello(ChannelRole::Visitor, "ceo")))
                .await;
            // Tickets come before the answer.
            raw.receive().await;
            raw.tls.get_ref().1.handshake_kind().unwrap()
        };
        let kind = if server == "ours" {
            tokio::join!(client, accept(far, &ceo, &mut world.rng())).0
        } else {
            let server = async {
                let acceptor = tokio_rustls::TlsAcceptor::from(foreign.clone());
                let mut tls = acceptor.accept(far).await.unwrap();
                tls.read_u32().await.unwrap();
                tls.write_all(&[0; 4]).await.unwrap();
                tls.flush().await.unwrap();
                tls.shutdown().await.unwrap();
            };
            tokio::join!(client, server).0
        };
        kinds.push((server, kind));
    }
    assert_eq!(
        kinds,
        [
            ("ours", HandshakeKind::Full),
            ("ours", HandshakeKind::Full),
            ("foreign", HandshakeKind::Full),
            ("foreign", HandshakeKind::Resumed),
            ("ours", HandshakeKind::Full),
            ("foreign", HandshakeKind::Resumed),
        ]
    );
}

/// Our initiator offers no ticket, even to a party's key whose TLS hands them out.
#[tokio::test]
async fn a_responder_that_would_resume() {
    let world = World::new();
    let client = world.client(&world.operator);
    let mut config = server_config(&world.ceo.identity);
    config.ticketer = Ticketer::new().unwrap();
    config.send_tls13_tickets = 2;
    let config = Arc::new(config);
    for _ in 0..2 {
        let (near, far) = duplex(1 << 16);
        let server = async {
            let acceptor = tokio_rustls::TlsAcceptor::from(config.clone());
            let tls = acceptor.accept(far).await.unwrap();
            assert_eq!(tls.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
            let mut raw = Raw {
                own_spki: world.ceo.identity.spki().to_vec(),
                peer_spki: world.operator.spki().to_vec(),
                tls: tls.into(),
            };
            let nonce = raw.receive_hello().await.nonce;
            let claims = Claims::honest(&world.ceo, &raw, Role::Responder, &nonce);
            let evidence = claims.evidence(&world.ceo);
            raw.send(Body::Proof(claims.proof(&[], evidence))).await;
            raw.send(Body::Accept(Default::default())).await;
            raw
        };
        let connecting = connect(near, &client, observe("ceo"), &mut world.rng());
        let (outcome, _raw) = tokio::join!(connecting, server);
        outcome.unwrap();
    }
}
