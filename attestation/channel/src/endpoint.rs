//! One side of channels: its key, what it trusts, and which manifest it holds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arca_attestation::manifest::Manifest;
use arca_attestation::{ReferenceValues, TrustAnchors, TrustClass, UnixMillis};
use tokio::sync::watch;

use crate::tls::Configs;
use crate::{Error, Identity};

/// The time, as the platform or the caller has it.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> UnixMillis;
}

impl<F: Fn() -> UnixMillis + Send + Sync> Clock for F {
    fn now(&self) -> UnixMillis {
        self()
    }
}

/// Makes this side's evidence: the platform under an enclave.
#[tonic::async_trait]
pub trait Attester: Send + Sync {
    /// Evidence over the three values, all of them inside what the hardware signs.
    async fn evidence(
        &self,
        nonce: &[u8],
        user_data: &[u8],
        public_key: &[u8],
    ) -> Result<Vec<u8>, AttesterError>;
}

/// The platform made no evidence.
#[derive(Debug, thiserror::Error)]
#[error("the platform made no evidence: {0}")]
pub struct AttesterError(pub String);

/// Bounds of a handshake and of the channel after it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first byte to a verified channel, evidence of both sides included.
    pub handshake: Duration,
    /// A channel is closed when it is this old, and has to be opened, with new evidence, again.
    pub max_age: Duration,
    /// A channel is closed this long before the leaf certificate of the other side's evidence expires.
    pub expiry_margin: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            max_age: Duration::from_secs(60 * 60),
            expiry_margin: Duration::from_secs(30),
        }
    }
}

/// Whom to reach, and as whom.
#[derive(Clone, Debug)]
pub enum Target {
    /// A party of the manifest, as another party of it: evidence goes both ways.
    Peer(String),
    /// A party of the manifest, as a principal of it.
    Service(String),
    /// A party of the manifest, as nobody: to see its evidence.
    Observe(String),
    /// An enclave that stands in no manifest yet, as nobody. It must be of this class, and run one of these
    /// measurements or be certified under one of these roots; an empty list matches nothing.
    Candidate(ReferenceValues),
}

/// One side of channels. An enclave has one for all its connections, a client one for each cluster.
pub struct Endpoint {
    pub(crate) identity: Arc<Identity>,
    pub(crate) tls: Configs,
    pub(crate) anchors: TrustAnchors,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: Limits,
    pub(crate) enclave: Option<EnclaveSide>,
    manifest: watch::Sender<Option<Arc<Manifest>>>,
}

/// What only an enclave has.
pub(crate) struct EnclaveSide {
    pub attester: Arc<dyn Attester>,
    pub boot_id: [u8; 16],
    class: TrustClass,
}

impl Endpoint {
    /// An enclave's. It can accept, and once it has a manifest it is a party.
    ///
    /// `boot_id` is drawn at each start; `class` is that of the evidence that `attester` makes.
    pub fn enclave(
        identity: Arc<Identity>,
        attester: Arc<dyn Attester>,
        boot_id: [u8; 16],
        class: TrustClass,
        anchors: TrustAnchors,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Result<Self, Error> {
        let enclave = EnclaveSide {
            attester,
            boot_id,
            class,
        };
        Self::new(identity, Some(enclave), anchors, clock, limits)
    }

    /// A client's. It makes no evidence and accepts nobody.
    pub fn client(
        identity: Arc<Identity>,
        anchors: TrustAnchors,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Result<Self, Error> {
        Self::new(identity, None, anchors, clock, limits)
    }

    fn new(
        identity: Arc<Identity>,
        enclave: Option<EnclaveSide>,
        anchors: TrustAnchors,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Result<Self, Error> {
        Ok(Self {
            tls: Configs::new(&identity)?,
            identity,
            anchors,
            clock,
            limits,
            enclave,
            manifest: watch::Sender::new(None),
        })
    }

    /// Takes a verified manifest. Every channel and every handshake under the previous one ends at once.
    ///
    /// Taking the manifest that is already held changes nothing.
    ///
    /// # Errors
    /// [`Error::Manifest`] when it is for another cluster than the one held or older, when it names a party whose
    /// evidence this endpoint has no trust anchor for or is of a kind that the anchors are not for, or when this is
    /// an enclave and the manifest does not name it as a party of its class.
    pub fn set_manifest(&self, manifest: Arc<Manifest>) -> Result<(), Error> {
        self.check_manifest(&manifest)?;
        let mut outcome = Ok(());
        self.manifest.send_if_modified(|held| {
            if let Some(held) = held {
                if held.digest() == manifest.digest() {
                    return false;
                }
                if held.cluster() != manifest.cluster() {
                    outcome = Err(Error::Manifest("it is for another cluster"));
                    return false;
                }
                if held.epoch() >= manifest.epoch() {
                    outcome = Err(Error::Manifest("its epoch is not above the one held"));
                    return false;
                }
            }
            *held = Some(manifest);
            true
        });
        outcome
    }

    /// Whether this endpoint could ever hold a manifest, whatever it holds now.
    ///
    /// # Errors
    /// [`Error::Manifest`]: see [`set_manifest`](Self::set_manifest).
    pub fn check_manifest(&self, manifest: &Manifest) -> Result<(), Error> {
        if !self.anchors.suit(manifest.kind()) {
            return Err(Error::Manifest("its kind is not that of the trust anchors"));
        }
        if !manifest
            .parties()
            .iter()
            .all(|party| self.anchors.admit(party.class))
        {
            return Err(Error::Manifest(
                "it names parties of a class for which this program has no trust anchor",
            ));
        }
        if let Some(enclave) = &self.enclave {
            let party = manifest
                .party_by_identity(self.identity.spki())
                .ok_or(Error::Manifest("it does not name this enclave as a party"))?;
            if party.class != enclave.class {
                return Err(Error::Manifest("it gives this enclave another trust class"));
            }
        }
        Ok(())
    }

    /// The manifest held.
    pub fn manifest(&self) -> Option<Arc<Manifest>> {
        self.manifest.borrow().clone()
    }

    /// This side's key.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The manifest as it is now, and a receiver that notices when it stops being so.
    pub(crate) fn follow_manifest(
        &self,
    ) -> (
        Option<Arc<Manifest>>,
        watch::Receiver<Option<Arc<Manifest>>>,
    ) {
        let mut changes = self.manifest.subscribe();
        let manifest = changes.borrow_and_update().clone();
        (manifest, changes)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("identity", &self.identity)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
