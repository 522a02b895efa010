//! What every part of the service shares: platform, sealed state, membership, network.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use arca_attestation::{
    Expected,
    binder::Statement,
    loss::SignedLossAcceptance,
    manifest::{AdministratorSignature, Manifest, SignedManifest},
    verify_live,
};
use arca_audit::{
    certificate::{self as audit, Base64, SignedAcceptance},
    entry::{Event, Hex, InstanceStarted, LogPoint},
};
use arca_channel::{Attester, AttesterError, Clock, Endpoint, Identity, Limits};
use arca_proto::v1 as wire;
use arca_wipe::wiped;
use prost::Message as _;
use rand_core::RngCore as _;
use sha2::{Digest, Sha256, Sha384};
use tokio::sync::{Notify, watch};
use tonic::Code;
use zeroize::Zeroizing;

use crate::{
    Settings,
    error::Error,
    key::HeldKey,
    lane::Background,
    lease::{Anchor, Lease, Standing},
    log::{Log, LogKeys},
    network::Network,
    operations::Operations,
    pairs::Pairs,
    platform::Platform,
    presignatures::Presignatures,
    process::Protection,
    random::Randomness,
    report::Counters,
    signing::Requests,
    state::{Footing, Owner, SealedState},
};

/// Name of the object that holds identity and manifest.
const PARTY_OBJECT: &str = "party";
/// Keys kept unsealed at a time.
const KEYS_IN_MEMORY: usize = 4096;
/// How long the answer to `Enroll` has to leave before its channel ends with the old manifest.
const ENROLL_ANSWER: Duration = Duration::from_millis(100);

/// Which party this enclave is, and under which manifest.
#[derive(Debug)]
pub struct Membership {
    /// This party's name.
    pub party: String,
    /// The manifest in force.
    pub manifest: Arc<Manifest>,
    /// Goes into the header of everything sealed from now on.
    pub owner: Owner,
}

/// What is drawn once in a party's life, and sealed with its identity.
struct Secrets {
    /// Mixed into the generator.
    hedge: Box<Zeroizing<[u8; 32]>>,
    /// What the log's keys are derived from.
    log_seed: Box<Zeroizing<[u8; 32]>>,
}

/// The shared part of the service.
pub struct Core {
    /// The hardware.
    pub platform: Arc<dyn Platform>,
    /// Generators for sessions.
    pub randomness: Arc<Randomness>,
    /// Sealed objects.
    pub state: SealedState,
    /// Whether this instance may act, and what is remembered of the peers.
    pub lease: Arc<Lease>,
    /// This enclave's side of attested channels.
    pub endpoint: Arc<Endpoint>,
    /// Drawn at this start.
    pub boot_id: [u8; 16],
    /// Links and sessions.
    pub network: Arc<Network>,
    /// What ECDSA needs with each peer.
    pub pairs: Arc<Pairs>,
    /// ECDSA signatures made ahead.
    pub presignatures: Presignatures,
    /// For work that can wait.
    pub background: Background,
    /// What was signed.
    pub counters: Counters,
    /// Long-running operations of this boot.
    pub operations: Operations,
    /// Signing requests that are being worked on.
    pub requests: Requests,
    /// What this process got from the kernel.
    pub protections: Vec<Protection>,
    /// Told when a peer grants.
    pub leasing: Notify,
    membership: watch::Sender<Option<Arc<Membership>>>,
    enrolling: tokio::sync::Mutex<()>,
    /// The audit log.
    pub log: Arc<Log>,
    /// Whether the identity was made in this boot.
    identity_is_new: bool,
    /// Behind pointers, so that each is in one place only.
    secrets: Secrets,
    keys: Mutex<HashMap<String, Arc<HeldKey>>>,
}

impl Core {
    /// Starts from what the host has stored, or as a new enclave that stands in no manifest.
    ///
    /// # Errors
    /// When the host does not answer, when what it has does not unseal, or when the platform fails. A new
    /// identity is made only when the host says that there is none.
    pub async fn start(
        platform: Arc<dyn Platform>,
        settings: &Settings,
    ) -> Result<Arc<Self>, Error> {
        let randomness = Arc::new(Randomness::new(&*platform)?);
        let lease = Arc::new(Lease::default());
        let log = Arc::new(Log::default());
        let state = SealedState::new(
            Arc::clone(&platform),
            Arc::clone(&randomness),
            Arc::clone(&lease),
            Arc::clone(&log),
        );
        let stored = state.read_outside(&Owner::default(), PARTY_OBJECT).await?;
        let hardware = platform.identity().map(Identity::hardware).transpose()?;
        let identity_is_new = stored.is_none();
        let (identity, secrets, signed) = match stored {
            Some(content) => wiped(|| restore(&content, hardware))?,
            None => {
                let mut rng = randomness.generator(&*platform)?;
                let mut secrets = Secrets::default();
                rng.fill_bytes(&mut secrets.hedge[..]);
                rng.fill_bytes(&mut secrets.log_seed[..]);
                let identity = match hardware {
                    Some(identity) => identity,
                    None => Identity::generate(&mut rng)?,
                };
                (identity, secrets, None)
            }
        };
        randomness.hedge(&secrets.hedge);
        let mut boot_id = [0; 16];
        randomness.generator(&*platform)?.fill_bytes(&mut boot_id);
        log.begin(LogKeys::derive(&secrets.log_seed)?, boot_id);
        let endpoint = Arc::new(Endpoint::enclave(
            Arc::new(identity),
            Arc::new(PlatformAttester(Arc::clone(&platform))),
            boot_id,
            platform.class(),
            platform.anchors().clone(),
            Arc::new(PlatformClock(Arc::clone(&platform))),
            Limits::default(),
        )?);
        let core = Arc::new(Self {
            network: Arc::new(Network::new(
                state.anchor(),
                Arc::clone(&log),
                Arc::clone(&platform),
            )),
            state,
            lease,
            randomness,
            endpoint,
            boot_id,
            pairs: Arc::default(),
            presignatures: Presignatures::new(settings.presignatures),
            background: Background::start()?,
            counters: Counters::default(),
            operations: Operations::default(),
            requests: Requests::default(),
            protections: settings.protections.clone(),
            leasing: Notify::new(),
            membership: watch::Sender::new(None),
            enrolling: tokio::sync::Mutex::new(()),
            log,
            identity_is_new,
            secrets,
            keys: Mutex::default(),
            platform,
        });
        if let Some((signed, manifest)) = signed {
            let manifest = Arc::new(manifest);
            core.endpoint.set_manifest(Arc::clone(&manifest))?;
            core.join_cluster(&manifest, &signed).await?;
        }
        Ok(core)
    }

    /// Which party this is.
    ///
    /// # Errors
    /// [`Error::Reject`] before a manifest was accepted, and outside its validity.
    pub fn membership(&self) -> Result<Arc<Membership>, Error> {
        let membership = self.membership.borrow().clone().ok_or_else(|| {
            Error::reject(
                Code::FailedPrecondition,
                "NOT_ENROLLED",
                "this enclave is in no cluster yet; enrol it with a signed manifest (arca party enroll)",
            )
        })?;
        let now = self.platform.now();
        if now < membership.manifest.not_before() || now > membership.manifest.not_after() {
            return Err(Error::reject(
                Code::FailedPrecondition,
                "MANIFEST_NOT_VALID",
                format!(
                    "manifest epoch {} is outside its validity; enrol a newer one, or see to the clock",
                    membership.manifest.epoch()
                ),
            ));
        }
        Ok(membership)
    }

    /// The manifest in force, also outside its validity; `None` before one was accepted.
    pub fn manifest(&self) -> Option<Arc<Manifest>> {
        self.membership
            .borrow()
            .as_ref()
            .map(|membership| Arc::clone(&membership.manifest))
    }

    /// Changes when another manifest is accepted.
    pub fn follow_membership(&self) -> watch::Receiver<Option<Arc<Membership>>> {
        self.membership.subscribe()
    }

    /// Accepts a manifest: the first by its own quorum, a later one by that of the current administrators too.
    ///
    /// It is sealed, stored and in force when this returns. Every channel under the previous one ends right after.
    ///
    /// # Errors
    /// [`Error::Reject`] with what is wrong with it; [`Error::Fault`] when it could not be stored.
    pub async fn enroll(self: &Arc<Self>, signed: SignedManifest) -> Result<(String, u64), Error> {
        let _one_at_a_time = self.enrolling.lock().await;
        let now = self.platform.now();
        let current = self.membership.borrow().clone();
        let manifest = match &current {
            None => signed.verify_first(now),
            Some(current) => {
                if <[u8; 48]>::from(Sha384::digest(&signed.bytes)) == current.manifest.digest() {
                    return Ok((current.party.clone(), current.manifest.epoch()));
                }
                signed.verify_next(&current.manifest, now)
            }
        }
        .map_err(|error| {
            Error::reject(
                Code::FailedPrecondition,
                "MANIFEST_REFUSED",
                error.to_string(),
            )
        })?;
        let party = manifest.party_by_identity(self.endpoint.identity().spki()).ok_or_else(|| {
            Error::reject(
                Code::FailedPrecondition,
                "MANIFEST_WITHOUT_THIS_PARTY",
                "no party of this manifest has this enclave's identity key; an enclave that never enrolled \
                 makes a new one at each start, so collect its evidence again",
            )
        })?;
        // Before anything is stored: what the channel could not hold, a start could not either.
        self.endpoint.check_manifest(&manifest).map_err(|error| {
            Error::reject(
                Code::FailedPrecondition,
                "MANIFEST_REFUSED",
                error.to_string(),
            )
        })?;
        self.check_own_measurement(&manifest, &party.name).await?;
        let name = party.name.clone();
        let epoch = manifest.epoch();
        let content = self.to_sealed(&signed);
        self.state
            .write_outside(&Owner::default(), PARTY_OBJECT, &content)
            .await?;
        let manifest = Arc::new(manifest);
        match current {
            None => self.join_cluster(&manifest, &signed).await?,
            Some(_) => self.take_membership(&manifest, &signed).await?,
        }
        self.note(Event::ManifestAccepted {
            epoch,
            digest: Hex(manifest.digest()),
        });
        // The caller's own channel ends with the others; the answer leaves first.
        let core = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(ENROLL_ANSWER).await;
            if let Err(error) = core.endpoint.set_manifest(manifest) {
                tracing::error!(%error, "channels go on under the manifest before");
            }
        });
        Ok((name, epoch))
    }

    /// Goes on from the state that this party has, although its peers saw a later one: the administrators say so.
    ///
    /// Afterwards the state has a higher sequence than any that was lost, and the peers are asked anew.
    ///
    /// # Errors
    /// [`Error::Reject`] when it is not signed for exactly this state, or this instance needs none;
    /// [`Error::Fault`] when it could not be stored.
    pub async fn accept_loss(&self, signed: &SignedLossAcceptance) -> Result<Anchor, Error> {
        let _one_at_a_time = self.enrolling.lock().await;
        let refuse =
            |reason, message: String| Error::reject(Code::FailedPrecondition, reason, message);
        let membership = self.membership()?;
        let accepted = signed
            .verify(&membership.manifest)
            .map_err(|error| refuse("LOSS_ACCEPTANCE_REFUSED", error.to_string()))?;
        let draft = accepted.draft();
        let found = *self.state.anchor().borrow();
        if draft.party != membership.party {
            let message = format!(
                "party: it is for {}, this is {}",
                draft.party, membership.party
            );
            return Err(refuse("LOSS_ACCEPTANCE_REFUSED", message));
        }
        if self.lease.standing() == Standing::Held {
            let message = format!("{} serves: nothing of its state is lost", membership.party);
            return Err(refuse("NOTHING_LOST", message));
        }
        if (draft.found_sequence, draft.found_head) != (found.sequence, found.head) {
            let message = format!(
                "found_sequence: it accepts sequence {}, and the state here has sequence {} or another history; make                  a new draft",
                draft.found_sequence, found.sequence
            );
            return Err(refuse("LOSS_ACCEPTANCE_REFUSED", message));
        }
        if draft
            .boot_id
            .is_some_and(|boot_id| boot_id.0 != self.boot_id)
        {
            let message = "boot_id: it waives peers for another boot; make a new draft".to_owned();
            return Err(refuse("LOSS_ACCEPTANCE_REFUSED", message));
        }
        let to = Anchor {
            sequence: accepted.resumed_sequence(),
            head: accepted.resumed_head(),
        };
        let acceptance = accepted.digest();
        let file = SignedAcceptance {
            acceptance: Base64(signed.bytes.clone()),
            signatures: signatures_to_file(&signed.signatures),
        };
        let events = vec![
            Event::LossAccepted {
                acceptance: Hex(acceptance),
                found: found.sequence,
                resumed: to.sequence,
            },
            self.started(Some(self.log.point()))?,
        ];
        self.state.keep_file(&acceptance, to_json(&file)?);
        self.state
            .jump(&membership.owner, (found, to), events)
            .await?;
        tracing::warn!(
            found = draft.found_sequence,
            lost = draft.lost_sequence,
            reason = draft.reason,
            "the administrators accepted a loss of state"
        );
        self.lease.accept(to, &draft.waived_peers);
        for peer in self.network.links().into_keys() {
            self.network.drop_link(&peer);
        }
        self.leasing.notify_one();
        Ok(to)
    }

    /// Fresh evidence of this enclave over a caller's nonce.
    ///
    /// # Errors
    /// When the platform fails.
    pub async fn evidence(&self, nonce: &[u8]) -> Result<wire::GetEvidenceResponse, Error> {
        let membership = self.membership()?;
        let statement = Statement {
            nonce,
            cluster: membership.manifest.cluster(),
            party: &membership.party,
            boot_id: &self.boot_id,
            manifest_epoch: membership.manifest.epoch(),
        };
        let identity = self.endpoint.identity().spki();
        let evidence = self
            .platform
            .evidence(nonce, &statement.digest(), identity)
            .await?;
        Ok(wire::GetEvidenceResponse {
            evidence,
            cluster: membership.manifest.cluster().to_owned(),
            party: membership.party.clone(),
            boot_id: self.boot_id.to_vec(),
            manifest_epoch: membership.manifest.epoch(),
            protections: self
                .protections
                .iter()
                .map(|protection| wire::Protection {
                    name: protection.name.to_owned(),
                    in_force: protection.in_force,
                    detail: protection.detail.clone(),
                })
                .collect(),
        })
    }

    /// The share that this party holds of a key. It is unsealed at the first use.
    ///
    /// # Errors
    /// [`Error::Reject`] when there is none; [`Error::Fault`] when it does not unseal.
    pub async fn key(&self, name: &str) -> Result<Arc<HeldKey>, Error> {
        if let Some(held) = self.keys().get(name) {
            return Ok(Arc::clone(held));
        }
        let id = crate::names::key_id(name)?;
        let membership = self.membership()?;
        let content = self
            .state
            .read(&membership.owner, &key_object(id))
            .await?
            .ok_or_else(|| {
                Error::not_found(
                    "KEY_NOT_FOUND",
                    format!(
                        "{name}: no such key at {}; see `arca key list`",
                        membership.party
                    ),
                )
            })?;
        let held = Arc::new(HeldKey::from_sealed(name, &content)?);
        self.remember_key(Arc::clone(&held));
        Ok(held)
    }

    /// Seals and stores a key, then keeps it at hand.
    ///
    /// # Errors
    /// [`Error::Fault`] when it could not be stored; it is then not used either.
    pub async fn store_key(&self, held: Arc<HeldKey>) -> Result<Footing, Error> {
        let membership = self.membership()?;
        let id = crate::names::key_id(&held.record.name)?;
        let content = held.to_sealed()?;
        let record = &held.record;
        let event = if record.enabled {
            Event::KeyEnabled {
                key: record.name.clone(),
                epoch: record.epoch,
            }
        } else {
            Event::KeyCreated(record.to_event())
        };
        let object = key_object(id);
        let stored = self
            .state
            .write_with(
                &membership.owner,
                &object,
                record.epoch,
                &content,
                vec![event],
            )
            .await?;
        self.remember_key(held);
        Ok(stored)
    }

    /// The plaintext of the object "party": identity key (P-256 scalar, 32 bytes, big-endian; zeros where the hardware
    /// holds it), hedge and log seed (32 bytes each), encoded `SignedManifest`. In one buffer that never grows, so that no copy stays
    /// behind.
    fn to_sealed(&self, signed: &SignedManifest) -> Zeroizing<Vec<u8>> {
        let manifest = manifest_to_wire(signed).encode_to_vec();
        let mut content = Zeroizing::new(Vec::with_capacity(96 + manifest.len()));
        match self.endpoint.identity().to_scalar() {
            Some(scalar) => content.extend_from_slice(&scalar),
            None => content.extend_from_slice(&[0; 32]),
        }
        content.extend_from_slice(&self.secrets.hedge[..]);
        content.extend_from_slice(&self.secrets.log_seed[..]);
        content.extend_from_slice(&manifest);
        content
    }

    /// Decides by the first manifest of this boot, with the state that the host has.
    async fn join_cluster(
        &self,
        manifest: &Arc<Manifest>,
        signed: &SignedManifest,
    ) -> Result<(), Error> {
        let owner = self.owner(manifest)?;
        self.state.open(&owner).await?;
        // Last, because it can be done once a boot.
        self.platform.bind_manifest(&manifest.digest()).await?;
        self.take_membership(manifest, signed).await
    }

    fn owner(&self, manifest: &Manifest) -> Result<Owner, Error> {
        let party = manifest
            .party_by_identity(self.endpoint.identity().spki())
            .ok_or(Error::Bug(
                "a manifest was accepted that does not name this party",
            ))?;
        Ok(Owner {
            cluster: manifest.cluster().to_owned(),
            party: party.name.clone(),
            manifest_digest: Some(manifest.digest()),
            evidence: [0; 32],
        })
    }

    /// Decides by this manifest from now on, and says in the log who does.
    async fn take_membership(
        &self,
        manifest: &Arc<Manifest>,
        signed: &SignedManifest,
    ) -> Result<(), Error> {
        let mut owner = self.owner(manifest)?;
        let statement = self
            .log
            .keys()?
            .statement(&owner, &self.boot_id, &manifest.digest());
        let identity = self.endpoint.identity().spki();
        let evidence = self
            .platform
            .evidence(&self.boot_id, &statement, identity)
            .await?;
        owner.evidence = Sha256::digest(&evidence).into();
        let party = owner.party.clone();
        let others = manifest.parties().iter().map(|party| party.name.clone());
        let others = others.filter(|name| *name != party).collect();
        self.lease.set_peers(&party, others);
        tracing::info!(
            cluster = manifest.cluster(),
            party,
            epoch = manifest.epoch(),
            "enrolled"
        );
        let file = audit::SignedManifest {
            manifest: Base64(signed.bytes.clone()),
            signatures: signatures_to_file(&signed.signatures),
        };
        self.state.keep_file(&owner.evidence, evidence);
        self.state.keep_file(&manifest.digest(), to_json(&file)?);
        let manifest = Arc::clone(manifest);
        self.membership.send_replace(Some(Arc::new(Membership {
            party,
            manifest,
            owner,
        })));
        self.note(self.started(None)?);
        Ok(())
    }

    /// What the log says of this instance.
    fn started(&self, follows: Option<LogPoint>) -> Result<Event, Error> {
        let keys = self.log.keys()?;
        Ok(Event::InstanceStarted(InstanceStarted {
            log_key: Hex(keys.log_key()),
            witness_key: Hex(keys.witness_key()),
            identity: Hex(Sha256::digest(self.endpoint.identity().spki()).into()),
            first: self.identity_is_new,
            follows,
        }))
    }

    /// Enters an event into the log that nothing waits for; before there is a manifest, there is no log.
    pub fn note(&self, event: Event) {
        if let Some(membership) = &*self.membership.borrow() {
            self.state.note(&membership.owner, event);
        }
    }

    /// Refuses a manifest under which this enclave's own peers would refuse it.
    async fn check_own_measurement(&self, manifest: &Manifest, party: &str) -> Result<(), Error> {
        let mut nonce = [0; 32];
        self.randomness
            .generator(&*self.platform)?
            .fill_bytes(&mut nonce);
        let identity = self.endpoint.identity().spki();
        let document = self.platform.evidence(&nonce, &nonce, identity).await?;
        let reference = manifest.reference_values(party).ok_or(Error::Bug(
            "a manifest is checked that does not name this party",
        ))?;
        let expected = Expected {
            reference: &reference,
            nonce: &nonce,
            public_key: identity,
            user_data: &nonce,
        };
        verify_live(
            &document,
            self.platform.anchors(),
            &expected,
            self.platform.now(),
        )
        .map_err(|error| {
            Error::reject(
                Code::FailedPrecondition,
                "MANIFEST_REFUSES_THIS_ENCLAVE",
                format!("under this manifest {party} could not prove itself: {error}"),
            )
        })?;
        Ok(())
    }

    fn remember_key(&self, held: Arc<HeldKey>) {
        let mut keys = self.keys();
        if keys.len() >= KEYS_IN_MEMORY
            && !keys.contains_key(&held.record.name)
            && let Some(any) = keys.keys().next().cloned()
        {
            keys.remove(&any);
        }
        keys.insert(held.record.name.clone(), held);
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<HeldKey>>> {
        self.keys
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Name under which the host files a key.
pub fn key_object(id: &str) -> String {
    format!("key/{id}")
}

type Restored = (Identity, Secrets, Option<(SignedManifest, Manifest)>);

/// Reads what [`Core::to_sealed`] wrote. The hardware's identity, where there is one, is the party's.
fn restore(content: &[u8], hardware: Option<Identity>) -> Result<Restored, Error> {
    let fault = |what: &str| Error::Fault {
        reason: "SEALED_BLOB_MALFORMED",
        message: format!("{PARTY_OBJECT}: {what}"),
    };
    let (identity, rest) = content
        .split_first_chunk::<32>()
        .ok_or_else(|| fault("no identity key"))?;
    let mut secrets = Secrets::default();
    let (hedge, rest) = rest
        .split_first_chunk::<32>()
        .ok_or_else(|| fault("no hedge"))?;
    secrets.hedge.copy_from_slice(hedge);
    let (log_seed, signed) = rest
        .split_first_chunk::<32>()
        .ok_or_else(|| fault("no log seed"))?;
    secrets.log_seed.copy_from_slice(log_seed);
    let scalar = Zeroizing::new(*identity);
    let identity = match hardware {
        Some(identity) => identity,
        None => Identity::from_scalar(&scalar)?,
    };
    let signed = wire::SignedManifest::decode(signed).map_err(|_| fault("no manifest"))?;
    let signed = manifest_from_wire(signed)?;
    let manifest = signed
        .verify_stored()
        .map_err(|error| fault(&format!("its manifest does not verify: {error}")))?;
    Ok((identity, secrets, Some((signed, manifest))))
}

impl Default for Secrets {
    fn default() -> Self {
        Self {
            hedge: Box::new(Zeroizing::new([0; 32])),
            log_seed: Box::new(Zeroizing::new([0; 32])),
        }
    }
}

fn signatures_to_file(signatures: &[AdministratorSignature]) -> Vec<audit::AdministratorSignature> {
    let signatures = signatures.iter();
    let signatures = signatures.map(|(administrator, signature)| audit::AdministratorSignature {
        administrator: Hex(*administrator),
        signature: Hex(*signature),
    });
    signatures.collect()
}

fn to_json(document: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(document).map_err(|_| Error::Bug("a document has no JSON"))
}

/// A signed manifest off the wire; nothing of it is verified yet.
///
/// # Errors
/// [`Error::Reject`] when a key or signature has the wrong length.
pub fn manifest_from_wire(signed: wire::SignedManifest) -> Result<SignedManifest, Error> {
    Ok(SignedManifest {
        bytes: signed.manifest,
        signatures: signatures_from_wire(signed.signatures)?,
    })
}

/// Administrators' keys and signatures off the wire.
///
/// # Errors
/// [`Error::Reject`] when one has the wrong length.
pub fn signatures_from_wire(
    signatures: Vec<wire::ManifestSignature>,
) -> Result<Vec<AdministratorSignature>, Error> {
    let invalid = |field| Error::invalid("INVALID_ARGUMENT", format!("signatures.{field}"));
    signatures
        .into_iter()
        .map(|signature| {
            Ok((
                signature
                    .administrator
                    .try_into()
                    .map_err(|_| invalid("administrator: 32 bytes"))?,
                signature
                    .signature
                    .try_into()
                    .map_err(|_| invalid("signature: 64 bytes"))?,
            ))
        })
        .collect()
}

fn manifest_to_wire(signed: &SignedManifest) -> wire::SignedManifest {
    wire::SignedManifest {
        manifest: signed.bytes.clone(),
        signatures: signed
            .signatures
            .iter()
            .map(|(administrator, signature)| wire::ManifestSignature {
                administrator: administrator.to_vec(),
                signature: signature.to_vec(),
            })
            .collect(),
    }
}

struct PlatformAttester(Arc<dyn Platform>);

#[tonic::async_trait]
impl Attester for PlatformAttester {
    async fn evidence(
        &self,
        nonce: &[u8],
        user_data: &[u8],
        public_key: &[u8],
    ) -> Result<Vec<u8>, AttesterError> {
        self.0
            .evidence(nonce, user_data, public_key)
            .await
            .map_err(|error| AttesterError(error.to_string()))
    }
}

struct PlatformClock(Arc<dyn Platform>);

impl Clock for PlatformClock {
    fn now(&self) -> arca_attestation::UnixMillis {
        self.0.now()
    }
}
