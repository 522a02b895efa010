//! A cluster to attack: a local root, three parties, an operator, an administrator.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arca_attestation::manifest::{
    Administrator, Administrators, Draft, Manifest, Party, Principal, Revocation, Role,
    SignedManifest, signing_bytes,
};
use arca_attestation::{Measurements, ReferenceValues, TrustAnchors, TrustClass, UnixMillis};
use arca_channel::{
    Attester, AttesterError, Channel, Endpoint, Error, Identity, Limits, Target, accept, connect,
};
use arca_enclave_simulated::nsm::{LocalRoot, Nsm, Request, measure};
use ed25519_dalek::Signer as _;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

pub const CLUSTER: &str = "sim-treasury";
pub const START: u64 = 1_800_000_000_000;
pub const HOUR: u64 = 60 * 60 * 1000;

/// An enclave in no manifest that is expected to run the image.
pub fn candidate() -> Target {
    Target::Candidate(ReferenceValues::Simulated(vec![image()]))
}

/// What both ends came to.
pub type Met = (
    Result<Channel<DuplexStream>, Error>,
    Result<Channel<DuplexStream>, Error>,
);

pub struct World {
    pub root: LocalRoot,
    pub clock: Arc<TestClock>,
    pub ceo: Enclave,
    pub cto: Enclave,
    pub operator: Arc<Identity>,
    administrator: ed25519_dalek::SigningKey,
    rng: Mutex<ChaCha20Rng>,
}

/// A party's secrets: what an attacker who stole all of them would have.
pub struct Enclave {
    pub name: &'static str,
    pub identity: Arc<Identity>,
    pub boot_id: [u8; 16],
    pub attester: Arc<NsmAttester>,
}

pub struct TestClock(pub AtomicU64);

impl TestClock {
    pub fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }

    pub fn set(&self, now: u64) {
        self.0.store(now, Ordering::SeqCst);
    }
}

pub struct NsmAttester {
    nsm: Nsm,
    clock: Arc<TestClock>,
    rng: Mutex<ChaCha20Rng>,
}

impl NsmAttester {
    pub fn document(&self, nonce: &[u8], user_data: &[u8], public_key: &[u8]) -> Vec<u8> {
        let request = Request {
            nonce: Some(nonce),
            user_data: Some(user_data),
            public_key: Some(public_key),
        };
        let mut rng = self.rng.lock().unwrap();
        self.nsm
            .attest(&request, self.clock.now(), &mut *rng)
            .unwrap()
    }
}

#[tonic::async_trait]
impl Attester for NsmAttester {
    async fn evidence(
        &self,
        nonce: &[u8],
        user_data: &[u8],
        public_key: &[u8],
    ) -> Result<Vec<u8>, AttesterError> {
        Ok(self.document(nonce, user_data, public_key))
    }
}

/// The image that the manifest allows.
pub fn image() -> Measurements {
    Measurements {
        pcr0: measure(b"image"),
        pcr1: measure(b"kernel"),
        pcr2: measure(b"application"),
    }
}

impl World {
    pub fn new() -> Self {
        Self::seeded(7)
    }

    pub fn seeded(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let clock = Arc::new(TestClock(AtomicU64::new(START)));
        let root = LocalRoot::create(&mut rng, UnixMillis(START)).unwrap();
        let ceo = Enclave::new("ceo", &root, &image(), &clock, &mut rng);
        let cto = Enclave::new("cto", &root, &image(), &clock, &mut rng);
        Self {
            root,
            clock,
            ceo,
            cto,
            operator: Arc::new(Identity::generate(&mut rng).unwrap()),
            administrator: ed25519_dalek::SigningKey::generate(&mut rng),
            rng: Mutex::new(rng),
        }
    }

    /// A generator of its own for each use, all from the world's seed.
    pub fn rng(&self) -> ChaCha20Rng {
        ChaCha20Rng::from_rng(&mut *self.rng.lock().unwrap()).unwrap()
    }

    pub fn enclave(&self, name: &'static str, measurements: &Measurements) -> Enclave {
        Enclave::new(name, &self.root, measurements, &self.clock, &mut self.rng())
    }

    pub fn anchors(&self) -> TrustAnchors {
        TrustAnchors::simulated(&self.root.certificate_der().unwrap()).unwrap()
    }

    pub fn draft(&self) -> Draft {
        let party = |enclave: &Enclave| Party {
            name: enclave.name.into(),
            class: TrustClass::Simulated,
            identity: enclave.identity.spki().to_vec(),
            measurements: vec![image()],
        };
        Draft {
            hsm_roots: Vec::new(),
            version: Draft::VERSION,
            cluster: CLUSTER.into(),
            epoch: 1,
            not_before: UnixMillis(START - HOUR),
            not_after: UnixMillis(START + 1000 * HOUR),
            parties: vec![party(&self.ceo), party(&self.cto)],
            administrators: Administrators {
                quorum: 1,
                keys: vec![Administrator {
                    name: "alice".into(),
                    public_key: self.administrator.verifying_key().to_bytes(),
                }],
            },
            principals: vec![Principal {
                name: "treasury".into(),
                identity: self.operator.spki().to_vec(),
                roles: vec![Role::Operator, Role::Initiator],
            }],
            policy_digest: None,
            revoked: vec![],
        }
    }

    pub fn sign(&self, draft: &Draft) -> Arc<Manifest> {
        let bytes = draft.to_bytes().unwrap();
        let signature = self.administrator.sign(&signing_bytes(&bytes));
        let signed = SignedManifest {
            bytes,
            signatures: vec![(
                self.administrator.verifying_key().to_bytes(),
                signature.to_bytes(),
            )],
        };
        Arc::new(signed.verify_stored().unwrap())
    }

    /// The first manifest, changed.
    pub fn manifest(&self, change: impl FnOnce(&mut Draft)) -> Arc<Manifest> {
        let mut draft = self.draft();
        change(&mut draft);
        self.sign(&draft)
    }

    pub fn revoking(&self, identity: &Identity) -> Arc<Manifest> {
        let revoked = Revocation::Identity(identity.spki().to_vec());
        self.manifest(|draft| draft.revoked = vec![revoked])
    }

    /// An enclave before it has a manifest.
    pub fn fresh(&self, enclave: &Enclave) -> Arc<Endpoint> {
        let clock = self.clock.clone();
        Arc::new(
            Endpoint::enclave(
                enclave.identity.clone(),
                enclave.attester.clone(),
                enclave.boot_id,
                TrustClass::Simulated,
                self.anchors(),
                Arc::new(move || clock.now()),
                Limits::default(),
            )
            .unwrap(),
        )
    }

    /// A party under the first manifest.
    pub fn party(&self, enclave: &Enclave) -> Arc<Endpoint> {
        let endpoint = self.fresh(enclave);
        endpoint.set_manifest(self.sign(&self.draft())).unwrap();
        endpoint
    }

    /// A client without a manifest.
    pub fn stranger(&self, identity: &Arc<Identity>) -> Arc<Endpoint> {
        self.client_with(identity, self.anchors())
    }

    pub fn client_with(&self, identity: &Arc<Identity>, anchors: TrustAnchors) -> Arc<Endpoint> {
        let clock = self.clock.clone();
        let clock = Arc::new(move || clock.now());
        let limits = Limits::default();
        Arc::new(Endpoint::client(identity.clone(), anchors, clock, limits).unwrap())
    }

    /// A client under the first manifest.
    pub fn client(&self, identity: &Arc<Identity>) -> Arc<Endpoint> {
        let endpoint = self.stranger(identity);
        endpoint.set_manifest(self.sign(&self.draft())).unwrap();
        endpoint
    }

    pub fn somebody(&self) -> Arc<Identity> {
        Arc::new(Identity::generate(&mut self.rng()).unwrap())
    }

    /// Both ends of one connection, over nothing but a pipe.
    pub async fn meet(
        &self,
        initiator: &Arc<Endpoint>,
        responder: &Arc<Endpoint>,
        target: Target,
    ) -> Met {
        let (near, far) = duplex(1 << 16);
        tokio::join!(
            connect(near, initiator, target, &mut self.rng()),
            accept(far, responder, &mut self.rng()),
        )
    }
}

impl Enclave {
    fn new(
        name: &'static str,
        root: &LocalRoot,
        measurements: &Measurements,
        clock: &Arc<TestClock>,
        rng: &mut ChaCha20Rng,
    ) -> Self {
        let mut boot_id = [0; 16];
        rng.fill_bytes(&mut boot_id);
        let nsm = Nsm::new(root, name, measurements, rng, clock.now()).unwrap();
        Self {
            name,
            identity: Arc::new(Identity::generate(rng).unwrap()),
            boot_id,
            attester: Arc::new(NsmAttester {
                nsm,
                clock: clock.clone(),
                rng: Mutex::new(ChaCha20Rng::from_rng(rng).unwrap()),
            }),
        }
    }
}

pub fn peer(name: &str) -> Target {
    Target::Peer(name.into())
}

pub fn service(name: &str) -> Target {
    Target::Service(name.into())
}

pub fn observe(name: &str) -> Target {
    Target::Observe(name.into())
}

/// The reason of a refused connection; panics on an open one.
pub fn reason<S>(outcome: &Result<Channel<S>, Error>) -> &str {
    outcome.as_ref().unwrap_err().reason()
}

/// One word there and back.
pub async fn echo(near: &mut Channel<DuplexStream>, far: &mut Channel<DuplexStream>) {
    let mut word = [0; 5];
    near.write_all(b"hello").await.unwrap();
    near.flush().await.unwrap();
    far.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"hello");
    far.write_all(b"world").await.unwrap();
    far.flush().await.unwrap();
    near.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"world");
}
