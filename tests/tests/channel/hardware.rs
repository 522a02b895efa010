//! An identity key in hardware, as TLS sees it: how long it takes, and which schemes go with which key.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arca_attestation::{IdentityCurve, identity_curve};
use arca_channel::{Error, HardwareKey, HardwareKeyError, Identity, accept};
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::signature::hazmat::PrehashSigner as _;
use p384::ecdsa::{DerSignature, Signature, SigningKey};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, Signer, SigningKey as TlsSigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use sha2::{Digest as _, Sha256, Sha384};
use tokio::io::duplex;

use crate::forge::spki;
use crate::raw::{Raw, client_builder};
use crate::world::{World, observe};

/// Signs when it is told to.
struct Slow {
    key: SigningKey,
    spki: Vec<u8>,
    asked: Sender<()>,
    go: Mutex<Receiver<()>>,
}

impl HardwareKey for Slow {
    fn spki(&self) -> &[u8] {
        &self.spki
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, HardwareKeyError> {
        self.asked.send(()).unwrap();
        let told = self
            .go
            .lock()
            .unwrap()
            .recv_timeout(Duration::from_secs(20));
        told.map_err(|_| HardwareKeyError("nobody else could run meanwhile".into()))?;
        let signature: DerSignature = self.key.sign(message);
        Ok(signature.as_bytes().to_vec())
    }
}

/// There is one worker, and it is in the hardware's hands; another task has to run for the hardware to go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn other_tasks_go_on_while_it_signs() {
    let world = World::new();
    let key = SigningKey::random(&mut world.rng());
    let ((asked, was_asked), (go, told)) = (channel(), channel());
    let slow = Slow {
        spki: spki(&key),
        key,
        asked,
        go: Mutex::new(told),
    };
    let slow = Arc::new(Identity::hardware(Arc::new(slow)).unwrap());
    let (near, far) = duplex(1 << 16);
    let ceo = world.party(&world.ceo);
    let client = world.stranger(&slow);
    client.set_manifest(world.sign(&world.draft())).unwrap();
    let connecting = tokio::spawn({
        let near = arca_channel::connect(near, &client, observe("ceo"), &mut world.rng());
        async move { near.await.map(drop) }
    });
    let accepting = tokio::spawn(accept(far, &ceo, &mut world.rng()));
    // Not a task of the runtime: waits until the worker is inside the hardware, then has a task told.
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        was_asked.recv().unwrap();
        runtime.spawn(async move { go.send(()).unwrap() });
    });
    accepting.await.unwrap().unwrap();
    connecting.await.unwrap().unwrap();
}

#[test]
fn only_p384_keys_are_taken_from_hardware() {
    struct Public(Vec<u8>);
    impl HardwareKey for Public {
        fn spki(&self) -> &[u8] {
            &self.0
        }

        fn sign(&self, _: &[u8]) -> Result<Vec<u8>, HardwareKeyError> {
            unreachable!("nothing is to be signed")
        }
    }
    let world = World::new();
    let key = SigningKey::random(&mut world.rng());
    let honest = spki(&key);
    let identity = Identity::hardware(Arc::new(Public(honest.clone()))).unwrap();
    assert_eq!(identity.spki(), honest);
    assert!(identity.to_scalar().is_none());
    assert_eq!(identity_curve(&honest), Some(IdentityCurve::P384));
    assert!(world.operator.to_scalar().is_some());

    let mut trailing = honest.clone();
    trailing.push(0);
    let mut off_the_curve = honest;
    *off_the_curve.last_mut().unwrap() ^= 1;
    for wrong in [
        world.operator.spki().to_vec(),
        trailing,
        off_the_curve,
        Vec::new(),
    ] {
        let refused = Identity::hardware(Arc::new(Public(wrong))).unwrap_err();
        assert!(matches!(refused, Error::HardwareKey), "{refused}");
    }
}

/// Signs with its key and the hash of `scheme`, whatever curve the key is on.
#[derive(Clone, Debug)]
struct Crosswise {
    key: Key,
    scheme: SignatureScheme,
}

#[derive(Clone, Debug)]
enum Key {
    P256(p256::ecdsa::SigningKey),
    P384(SigningKey),
}

impl Key {
    fn spki(&self) -> Vec<u8> {
        match self {
            Self::P256(key) => {
                use p256::pkcs8::EncodePublicKey as _;
                let key = key.verifying_key().to_public_key_der().unwrap();
                key.as_bytes().to_vec()
            }
            Self::P384(key) => spki(key),
        }
    }
}

impl TlsSigningKey for Crosswise {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(self.clone()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for Crosswise {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let hash = if self.scheme == SignatureScheme::ECDSA_NISTP256_SHA256 {
            Sha256::digest(message).to_vec()
        } else {
            Sha384::digest(message).to_vec()
        };
        Ok(match &self.key {
            Key::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign_prehash(&hash).unwrap();
                signature.to_der().as_bytes().to_vec()
            }
            Key::P384(key) => {
                let signature: Signature = key.sign_prehash(&hash).unwrap();
                signature.to_der().as_bytes().to_vec()
            }
        })
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

/// Each curve with its own hash, and neither with the other's.
#[tokio::test(start_paused = true)]
async fn a_key_signs_with_the_scheme_of_its_curve() {
    let world = World::new();
    let keys = [
        Key::P256(p256::ecdsa::SigningKey::random(&mut world.rng())),
        Key::P384(SigningKey::random(&mut world.rng())),
    ];
    let schemes = [
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ECDSA_NISTP384_SHA384,
    ];
    for (own, key) in keys.into_iter().enumerate() {
        for (other, scheme) in schemes.into_iter().enumerate() {
            let spki = CertificateDer::from(key.spki());
            let key = key.clone();
            let certified = CertifiedKey::new(vec![spki], Arc::new(Crosswise { key, scheme }));
            let resolver = AlwaysResolvesClientRawPublicKeys::new(Arc::new(certified));
            let mut config = client_builder().with_client_cert_resolver(Arc::new(resolver));
            config.alpn_protocols = vec![arca_channel::ALPN.to_vec()];

            let ceo = world.party(&world.ceo);
            let (near, far) = duplex(1 << 16);
            let client = async {
                let config = Arc::new(config);
                let mut raw = Raw::connect_with(near, &world.operator, config).await?;
                // TLS 1.3: the client learns of a refused signature with its first read.
                raw.receive().await;
                Ok::<_, std::io::Error>(())
            };
            let serving = accept(far, &ceo, &mut world.rng());
            let server = async { tokio::time::timeout(Duration::from_secs(5), serving).await };
            let (_, server) = tokio::join!(
                async { tokio::time::timeout(Duration::from_secs(6), client).await },
                server
            );
            if own == other {
                // TLS is through: it waits for a hello that does not come.
                assert!(server.is_err(), "{scheme:?}");
            } else {
                assert!(
                    matches!(server, Ok(Err(Error::Io(_)))),
                    "{scheme:?} {server:?}"
                );
            }
        }
    }
}
