//! Parties whose identity is in an HSM: among themselves, and with enclaves under an NSM.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arca_attestation::hsm::{Statement, Token, document, to_sign};
use arca_attestation::manifest::{Draft, Party};
use arca_attestation::{Error as Refusal, ReferenceValues, TrustAnchors, TrustClass, UnixMillis};
use arca_channel::{
    Attester, AttesterError, Endpoint, Error, HardwareKey, HardwareKeyError, Identity, Limits,
    Target,
};
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{DerSignature, Signature};
use rand_core::RngCore as _;
use tokio::time::Instant;

use crate::forge::{Certificate, Forge, spki, validity};
use crate::world::{
    Enclave, START, TestClock, World, candidate, echo, observe, peer, reason, service,
};

/// A party with its key in an HSM, which is software here.
struct Vault {
    name: &'static str,
    path: Vec<Certificate>,
    key: Arc<SoftKey>,
    identity: Arc<Identity>,
    attester: Arc<dyn Attester>,
    boot_id: [u8; 16],
    clock: Arc<TestClock>,
}

struct SoftKey {
    key: p384::ecdsa::SigningKey,
    spki: Vec<u8>,
    broken: AtomicBool,
}

impl HardwareKey for SoftKey {
    fn spki(&self) -> &[u8] {
        &self.spki
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, HardwareKeyError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(HardwareKeyError("CKR_DEVICE_REMOVED".into()));
        }
        let signature: DerSignature = self.key.sign(message);
        Ok(signature.as_bytes().to_vec())
    }
}

struct HsmAttester {
    key: Arc<SoftKey>,
    /// Root first, leaf last.
    certificates: Vec<Vec<u8>>,
    clock: Arc<TestClock>,
}

#[tonic::async_trait]
impl Attester for HsmAttester {
    async fn evidence(
        &self,
        nonce: &[u8],
        user_data: &[u8],
        public_key: &[u8],
    ) -> Result<Vec<u8>, AttesterError> {
        let (leaf, bundle) = self.certificates.split_last().unwrap();
        let statement = Statement {
            token: Token::new("Example Secure Modules", "Vault 7", "42", "7.8.4"),
            timestamp: self.clock.now(),
            nonce,
            user_data,
            public_key,
            certificate: leaf,
            cabundle: bundle.iter().map(Vec::as_slice).collect(),
        };
        let payload = statement.payload().unwrap();
        let signature: Signature = self.key.key.sign(&to_sign(&payload));
        let signature = <[u8; 96]>::try_from(&signature.to_bytes()[..]).unwrap();
        Ok(document(&payload, &signature))
    }
}

impl Vault {
    /// Certified by the organisation of this seed for 1000 hours.
    fn new(world: &World, name: &'static str, organisation: u64) -> Self {
        Self::lasting(world, name, organisation, 1000 * 3600)
    }

    fn lasting(world: &World, name: &'static str, organisation: u64, seconds: i64) -> Self {
        let mut rng = world.rng();
        let mut path = Forge::seeded(organisation).path;
        // A key of its own, under the organisation's authorities.
        let leaf = path.last_mut().unwrap();
        leaf.key = p384::ecdsa::SigningKey::random(&mut rng);
        leaf.tbs.subject_public_key_info =
            ::spki::SubjectPublicKeyInfoOwned::from_key(*leaf.key.verifying_key()).unwrap();
        let lasts = [2000 * 3600, 2000 * 3600, 2000 * 3600, seconds];
        for (certificate, seconds) in path.iter_mut().zip(lasts) {
            certificate.tbs.validity = validity(UnixMillis(START), -3600, seconds);
        }
        let leaf = path.last().unwrap();
        let key = Arc::new(SoftKey {
            key: leaf.key.clone(),
            spki: spki(&leaf.key),
            broken: AtomicBool::new(false),
        });
        let mut boot_id = [0; 16];
        rng.fill_bytes(&mut boot_id);
        Self {
            name,
            identity: Arc::new(Identity::hardware(key.clone()).unwrap()),
            attester: Arc::new(HsmAttester {
                key: key.clone(),
                certificates: certificates(&path),
                clock: world.clock.clone(),
            }),
            path,
            key,
            boot_id,
            clock: world.clock.clone(),
        }
    }

    fn root(&self) -> Vec<u8> {
        certificates(&self.path).remove(0)
    }

    fn party(&self) -> Party {
        Party {
            name: self.name.into(),
            class: TrustClass::Hsm,
            identity: self.identity.spki().to_vec(),
            measurements: Vec::new(),
        }
    }

    fn endpoint(&self, anchors: TrustAnchors) -> Arc<Endpoint> {
        self.endpoint_of(TrustClass::Hsm, self.attester.clone(), anchors)
    }

    fn endpoint_of(
        &self,
        class: TrustClass,
        attester: Arc<dyn Attester>,
        anchors: TrustAnchors,
    ) -> Arc<Endpoint> {
        let clock = self.clock.clone();
        let endpoint = Endpoint::enclave(
            self.identity.clone(),
            attester,
            self.boot_id,
            class,
            anchors,
            Arc::new(move || clock.now()),
            Limits::default(),
        );
        Arc::new(endpoint.unwrap())
    }
}

fn certificates(path: &[Certificate]) -> Vec<Vec<u8>> {
    let issuers = path.iter().take(1).chain(path);
    path.iter()
        .zip(issuers)
        .map(|(certificate, issuer)| certificate.der(issuer))
        .collect()
}

/// The world's two enclaves and these.
fn mixed(world: &World, vaults: &[&Vault]) -> Draft {
    let mut draft = world.draft();
    draft
        .parties
        .extend(vaults.iter().map(|vault| vault.party()));
    draft.hsm_roots = vaults.iter().map(|vault| vault.root()).collect();
    draft.hsm_roots.dedup();
    draft
}

fn enclave(world: &World, enclave: &Enclave, draft: &Draft) -> Arc<Endpoint> {
    let endpoint = world.fresh(enclave);
    endpoint.set_manifest(world.sign(draft)).unwrap();
    endpoint
}

#[tokio::test(start_paused = true)]
async fn a_mixed_cluster_meets() {
    let world = World::new();
    let vault = Vault::new(&world, "vault", 8);
    let draft = mixed(&world, &[&vault]);
    let ceo = enclave(&world, &world.ceo, &draft);
    let client = world.stranger(&world.operator);
    client.set_manifest(world.sign(&draft)).unwrap();
    // The platform for simulated clusters has their root as its anchor.
    let endpoint = vault.endpoint(world.anchors());
    endpoint.set_manifest(world.sign(&draft)).unwrap();

    for (initiator, responder, target, found) in [
        (&ceo, &endpoint, peer("vault"), TrustClass::Hsm),
        (&endpoint, &ceo, peer("ceo"), TrustClass::Simulated),
        (&client, &endpoint, service("vault"), TrustClass::Hsm),
        (&client, &endpoint, observe("vault"), TrustClass::Hsm),
    ] {
        let (near, far) = world.meet(initiator, responder, target).await;
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        echo(&mut near, &mut far).await;
        let evidence = near.peer().party().unwrap().evidence();
        assert_eq!(evidence.class(), found);
        assert_eq!(evidence.token().is_some(), found == TrustClass::Hsm);
        if let Some(party) = far.peer().party() {
            assert_ne!(party.evidence().class(), found);
        }
    }
}

/// Each party's evidence is judged by the manifest, so no root of NSMs is needed, and the AWS root does no harm.
#[tokio::test(start_paused = true)]
async fn hsms_alone_need_no_anchor() {
    let world = World::new();
    let vaults = [Vault::new(&world, "one", 8), Vault::new(&world, "two", 9)];
    let mut draft = mixed(&world, &[&vaults[0], &vaults[1]]);
    draft.parties.drain(..2);
    for cluster in ["sim-treasury", "treasury"] {
        draft.cluster = cluster.into();
        for anchors in [TrustAnchors::hsm_only(), TrustAnchors::production()] {
            let [one, two] = [0, 1].map(|place| {
                let endpoint = vaults[place].endpoint(anchors.clone());
                endpoint.set_manifest(world.sign(&draft)).unwrap();
                endpoint
            });
            let (near, far) = world.meet(&one, &two, peer("two")).await;
            echo(&mut near.unwrap(), &mut far.unwrap()).await;
        }
    }
    // A program with a simulated root works for no cluster that guards anything.
    draft.cluster = "treasury".into();
    let endpoint = vaults[0].endpoint(world.anchors());
    let refused = endpoint.set_manifest(world.sign(&draft)).unwrap_err();
    assert!(refused.to_string().contains("its kind"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_manifest_with_parties_that_cannot_be_verified_is_not_taken() {
    let world = World::new();
    let vault = Vault::new(&world, "vault", 8);
    let simulated = mixed(&world, &[&vault]);
    let mut nitro = simulated.clone();
    nitro.cluster = "treasury".into();
    for party in &mut nitro.parties[..2] {
        party.class = TrustClass::Nitro;
    }
    let (aws, none) = (TrustAnchors::production(), TrustAnchors::hsm_only());
    for (anchors, draft, taken) in [
        (&aws, &simulated, false),
        (&none, &simulated, false),
        (&none, &nitro, false),
        (&aws, &nitro, true),
        (&world.anchors(), &simulated, true),
        (&world.anchors(), &nitro, false),
    ] {
        let manifest = world.sign(draft);
        let as_client = world.client_with(&world.operator, anchors.clone());
        assert_eq!(as_client.set_manifest(manifest.clone()).is_ok(), taken);
        let as_party = vault.endpoint(anchors.clone());
        assert_eq!(as_party.set_manifest(manifest).is_ok(), taken);
    }
    let refused = vault.endpoint(aws).set_manifest(world.sign(&simulated));
    let Err(Error::Manifest(problem)) = refused else {
        panic!("{refused:?}");
    };
    assert!(problem.contains("no trust anchor"), "{problem}");
}

/// What a party is stands in the manifest and in the program, and the two have to agree.
#[tokio::test(start_paused = true)]
async fn an_enclave_of_another_class_than_the_manifests_is_not_enrolled() {
    let world = World::new();
    let vault = Vault::new(&world, "vault", 8);
    let as_hsm = world.sign(&mixed(&world, &[&vault]));
    let mut draft = mixed(&world, &[&vault]);
    let named = draft.parties.last_mut().unwrap();
    named.class = TrustClass::Simulated;
    named.measurements = vec![crate::world::image()];
    draft.hsm_roots.clear();
    let as_simulated = world.sign(&draft);
    for class in [TrustClass::Hsm, TrustClass::Simulated] {
        let endpoint = vault.endpoint_of(class, vault.attester.clone(), world.anchors());
        let (right, wrong) = match class {
            TrustClass::Hsm => (&as_hsm, &as_simulated),
            _ => (&as_simulated, &as_hsm),
        };
        let refused = endpoint.set_manifest(wrong.clone()).unwrap_err();
        assert!(refused.to_string().contains("class"), "{refused}");
        endpoint.set_manifest(right.clone()).unwrap();
    }
}

/// A party of class `hsm` that brings a genuine document of an NSM, and one of class `simulated` that brings
/// genuine evidence of an HSM: neither passes, though both are good evidence of something.
#[tokio::test(start_paused = true)]
async fn evidence_of_another_class_than_the_manifests() {
    let world = World::new();
    let vault = Vault::new(&world, "vault", 8);
    let as_hsm = mixed(&world, &[&vault]);
    let mut as_simulated = as_hsm.clone();
    let named = as_simulated.parties.last_mut().unwrap();
    named.class = TrustClass::Simulated;
    named.measurements = vec![crate::world::image()];
    as_simulated.hsm_roots.clear();

    let nsm: Arc<dyn Attester> = world.cto.attester.clone();
    let hsm = vault.attester.clone();
    for (draft, class, attester) in [
        (as_hsm, TrustClass::Hsm, nsm),
        (as_simulated, TrustClass::Simulated, hsm),
    ] {
        let client = world.stranger(&world.operator);
        client.set_manifest(world.sign(&draft)).unwrap();
        let ceo = enclave(&world, &world.ceo, &draft);
        let traitor = vault.endpoint_of(class, attester, world.anchors());
        traitor.set_manifest(world.sign(&draft)).unwrap();
        let (near, _) = world.meet(&client, &traitor, service("vault")).await;
        assert_eq!(reason(&near), "EVIDENCE_REFUSED");
        let (near, _) = world.meet(&ceo, &traitor, peer("vault")).await;
        assert_eq!(reason(&near), "EVIDENCE_REFUSED");
        let (_, far) = world.meet(&traitor, &ceo, peer("ceo")).await;
        assert_eq!(reason(&far), "EVIDENCE_REFUSED");
    }
}

#[tokio::test(start_paused = true)]
async fn a_root_that_the_manifest_does_not_name() {
    let world = World::new();
    let vault = Vault::new(&world, "vault", 8);
    let mut draft = mixed(&world, &[&vault]);
    draft.hsm_roots = vec![Vault::new(&world, "other", 9).root()];
    let ceo = enclave(&world, &world.ceo, &draft);
    let endpoint = vault.endpoint(world.anchors());
    endpoint.set_manifest(world.sign(&draft)).unwrap();
    let class = TrustClass::Hsm;
    let (near, _) = world.meet(&ceo, &endpoint, peer("vault")).await;
    let Err(Error::Evidence(refusal)) = near else {
        panic!("{near:?}");
    };
    assert_eq!(refusal, Refusal::UntrustedRoot { class });
    let (_, far) = world.meet(&endpoint, &ceo, peer("ceo")).await;
    assert_eq!(reason(&far), "EVIDENCE_REFUSED");
}

#[tokio::test(start_paused = true)]
async fn a_candidate_is_certified_under_an_expected_root() {
    let world = World::new();
    let (vault, other) = (
        Vault::new(&world, "vault", 8),
        Vault::new(&world, "other", 9),
    );
    let nobody = world.client_with(&world.somebody(), TrustAnchors::hsm_only());
    let hsm = |roots: Vec<Vec<u8>>| Target::Candidate(ReferenceValues::Hsm(roots));
    let both = hsm(vec![other.root(), vault.root()]);
    let fresh = vault.endpoint(TrustAnchors::production());
    let (near, _) = world.meet(&nobody, &fresh, both.clone()).await;
    let near = near.unwrap();
    let arca_channel::Peer::Candidate(found) = near.peer() else {
        panic!("{:?}", near.peer());
    };
    assert_eq!(found.evidence().class(), TrustClass::Hsm);
    assert_eq!(found.identity(), vault.key.spki());

    for target in [hsm(Vec::new()), hsm(vec![other.root()]), candidate()] {
        let (near, _) = world.meet(&nobody, &fresh, target).await;
        assert_eq!(reason(&near), "EVIDENCE_REFUSED");
    }
    // An enclave under an NSM is no candidate where an HSM is expected.
    let (near, _) = world.meet(&nobody, &world.fresh(&world.ceo), both).await;
    assert_eq!(reason(&near), "EVIDENCE_REFUSED");
}

#[tokio::test(start_paused = true)]
async fn a_client_for_simulated_clusters_takes_no_production_candidate() {
    let world = World::new();
    let vault = Vault::new(&world, "vault", 8);
    let mut draft = mixed(&world, &[&vault]);
    draft.cluster = "treasury".into();
    draft.parties.drain(..2);
    let endpoint = vault.endpoint(TrustAnchors::production());
    endpoint.set_manifest(world.sign(&draft)).unwrap();
    let target = Target::Candidate(ReferenceValues::Hsm(vec![vault.root()]));
    let simulated = world.stranger(&world.somebody());
    let (near, _) = world.meet(&simulated, &endpoint, target.clone()).await;
    assert_eq!(reason(&near), "TRUST_CLASS");
    let production = world.client_with(&world.somebody(), TrustAnchors::production());
    let (near, _) = world.meet(&production, &endpoint, target).await;
    assert!(near.is_ok());
}

/// A channel is not open for longer than the identity's certificate is valid.
#[tokio::test(start_paused = true)]
async fn the_certificate_bounds_the_channel() {
    let world = World::new();
    let vault = Vault::lasting(&world, "vault", 8, 600);
    let draft = mixed(&world, &[&vault]);
    let ceo = enclave(&world, &world.ceo, &draft);
    let endpoint = vault.endpoint(world.anchors());
    endpoint.set_manifest(world.sign(&draft)).unwrap();
    let begin = Instant::now();
    let (near, far) = world.meet(&ceo, &endpoint, peer("vault")).await;
    let left = near.unwrap().expires_at() - begin;
    assert_eq!(left.as_secs(), 570);
    drop(far);
    world.clock.set(START + 601_000);
    let (near, _) = world.meet(&ceo, &endpoint, peer("vault")).await;
    assert_eq!(reason(&near), "EVIDENCE_REFUSED");
}

#[tokio::test(start_paused = true)]
async fn its_own_key_at_the_other_end() {
    let world = World::new();
    let vault = Vault::new(&world, "vault", 8);
    let draft = mixed(&world, &[&vault]);
    let [here, there] = [(), ()].map(|()| {
        let endpoint = vault.endpoint(world.anchors());
        endpoint.set_manifest(world.sign(&draft)).unwrap();
        endpoint
    });
    let (near, far) = world.meet(&here, &there, peer("vault")).await;
    assert_eq!(reason(&near), "REFLECTION");
    assert_eq!(reason(&far), "REFLECTION");
}

/// Hardware that fails costs the connections that needed it, and nothing else.
#[tokio::test(start_paused = true)]
async fn hardware_that_does_not_sign() {
    let world = World::new();
    let vault = Vault::new(&world, "vault", 8);
    let draft = mixed(&world, &[&vault]);
    let ceo = enclave(&world, &world.ceo, &draft);
    let endpoint = vault.endpoint(world.anchors());
    endpoint.set_manifest(world.sign(&draft)).unwrap();

    vault.key.broken.store(true, Ordering::SeqCst);
    let (near, far) = world.meet(&ceo, &endpoint, peer("vault")).await;
    assert_eq!(reason(&near), "CONNECTION_FAILED");
    let far = far.unwrap_err();
    assert!(far.to_string().contains("CKR_DEVICE_REMOVED"), "{far}");
    let (near, far) = world.meet(&endpoint, &ceo, peer("ceo")).await;
    assert!(near.unwrap_err().to_string().contains("CKR_DEVICE_REMOVED"));
    // What the hardware said is for this side's log, not for whoever connects.
    assert!(!far.unwrap_err().to_string().contains("CKR_DEVICE_REMOVED"));

    vault.key.broken.store(false, Ordering::SeqCst);
    let (near, far) = world.meet(&ceo, &endpoint, peer("vault")).await;
    echo(&mut near.unwrap(), &mut far.unwrap()).await;
}
