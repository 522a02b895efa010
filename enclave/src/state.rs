//! Sealed objects by name: what the enclave keeps on the host.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};

use zeroize::Zeroizing;

use crate::{
    error::Error,
    platform::Platform,
    random::Randomness,
    sealing::{self, Header},
    storage::HostStorage,
    stripes::Stripes,
};

/// How many objects' latest blobs are remembered; see [`SealedState::read`].
const REMEMBERED: usize = 1 << 16;

/// To whom the objects belong: goes into every header.
#[derive(Clone, Debug, Default)]
pub struct Owner {
    /// Cluster id.
    pub cluster: String,
    /// Party name.
    pub party: String,
    /// SHA-384 of the manifest in force.
    pub manifest_digest: Option<[u8; 48]>,
}

/// The sealed objects of one enclave.
pub struct SealedState {
    platform: Arc<dyn Platform>,
    storage: HostStorage,
    randomness: Arc<Randomness>,
    latest: Mutex<Latest>,
    writers: Stripes,
}

/// Sequence and digest of the newest blob of an object; `None` where there is none.
type Version = Option<(u64, [u8; 32])>;

impl SealedState {
    /// Nothing is read until it is asked for, so that start-up does not grow with the number of keys.
    pub fn new(platform: Arc<dyn Platform>, randomness: Arc<Randomness>) -> Self {
        Self {
            storage: HostStorage::new(Arc::clone(&platform)),
            platform,
            randomness,
            latest: Mutex::new(Latest::default()),
            writers: Stripes::default(),
        }
    }

    /// Reads and unseals an object.
    ///
    /// Within one boot the host cannot go back on an object: a blob older than one that was read or written
    /// since the start is refused (for the last 65,536 objects touched).
    ///
    /// # Errors
    /// [`Error::Fault`] when the host does not answer, the blob does not unseal, or it is an older one.
    pub async fn read(
        &self,
        owner: &Owner,
        object: &str,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        let blob = self.storage.get(object).await?;
        let known = self.latest().get(object);
        let Some(blob) = blob else {
            if let Some(Some((sequence, _))) = known {
                return Err(rolled_back(object, sequence, 0));
            }
            self.latest().set(object, None);
            return Ok(None);
        };
        let (header, content) =
            sealing::unseal(&*self.platform, &owner.cluster, &owner.party, object, &blob).await?;
        let digest = sealing::digest(&blob);
        if let Some(Some((sequence, known_digest))) = known
            && (header.sequence < sequence
                || (header.sequence == sequence && digest != known_digest))
        {
            return Err(rolled_back(object, sequence, header.sequence));
        }
        self.latest().set(object, Some((header.sequence, digest)));
        Ok(Some(content))
    }

    /// Seals an object and stores it, as the successor of what is there.
    ///
    /// Returns when the host says that it is durable. A failure leaves the object as it was, or stored.
    ///
    /// # Errors
    /// [`Error::Fault`] from the platform or the host.
    pub async fn write(
        &self,
        owner: &Owner,
        object: &str,
        key_epoch: u64,
        content: &[u8],
    ) -> Result<(), Error> {
        let _writing = self.writers.lock(object).await;
        let known = self.latest().get(object);
        let version = match known {
            Some(version) => version,
            None => {
                self.read(owner, object).await?;
                self.latest().get(object).flatten()
            }
        };
        let (sequence, predecessor) = match version {
            Some((sequence, digest)) => (sequence.saturating_add(1), digest),
            None => (1, [0; 32]),
        };
        let header = Header {
            class: self.platform.class(),
            cluster: owner.cluster.clone(),
            party: owner.party.clone(),
            object: object.to_owned(),
            key_epoch,
            sequence,
            predecessor,
            manifest_digest: owner.manifest_digest.unwrap_or([0; 48]),
        };
        let mut rng = self.randomness.generator(&*self.platform)?;
        let blob = sealing::seal(&*self.platform, &header, content, &mut rng).await?;
        let digest = sealing::digest(&blob);
        self.storage.put(object, blob).await?;
        self.latest().set(object, Some((sequence, digest)));
        Ok(())
    }

    /// The host that holds the blobs.
    pub fn storage(&self) -> &HostStorage {
        &self.storage
    }

    /// Names of the objects with a prefix, as the host tells them: some may be missing.
    ///
    /// # Errors
    /// [`Error::Fault`] when the host does not answer.
    pub async fn list(&self, prefix: &str, after: &str, limit: u32) -> Result<Vec<String>, Error> {
        self.storage.list(prefix, after, limit).await
    }

    fn latest(&self) -> std::sync::MutexGuard<'_, Latest> {
        self.latest
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The newest version seen of each object, the longest untouched forgotten first.
#[derive(Default)]
struct Latest {
    versions: HashMap<String, Version>,
    order: VecDeque<String>,
}

impl Latest {
    fn get(&self, object: &str) -> Option<Version> {
        self.versions.get(object).copied()
    }

    fn set(&mut self, object: &str, version: Version) {
        if self.versions.insert(object.to_owned(), version).is_some() {
            return;
        }
        self.order.push_back(object.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.versions.remove(&oldest);
        }
    }
}

fn rolled_back(object: &str, known: u64, found: u64) -> Error {
    Error::Fault {
        reason: "SEALED_STATE_ROLLED_BACK",
        message: format!(
            "{object}: the host returned version {found}, but version {known} was seen since this enclave \
             started; restore the host's newest storage"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_platform::TestPlatform;

    struct Fixture {
        platform: Arc<TestPlatform>,
        state: SealedState,
        owner: Owner,
    }

    fn fixture() -> Fixture {
        let platform = Arc::new(TestPlatform::new());
        let randomness = Arc::new(Randomness::new(&*platform).unwrap());
        let state = SealedState::new(platform.clone(), randomness);
        let owner = Owner {
            cluster: "sim-test".into(),
            party: "ceo".into(),
            manifest_digest: None,
        };
        Fixture {
            platform,
            state,
            owner,
        }
    }

    impl Fixture {
        /// The same disk and hardware after a restart.
        fn restarted(&self) -> Fixture {
            let randomness = Arc::new(Randomness::new(&*self.platform).unwrap());
            Fixture {
                platform: self.platform.clone(),
                state: SealedState::new(self.platform.clone(), randomness),
                owner: self.owner.clone(),
            }
        }

        async fn write(&self, content: &[u8]) -> Result<(), Error> {
            self.state.write(&self.owner, "signing/1", 0, content).await
        }

        async fn read(&self) -> Result<Option<Vec<u8>>, Error> {
            let content = self.state.read(&self.owner, "signing/1").await?;
            Ok(content.map(|content| content.to_vec()))
        }

        fn blob(&self) -> Option<Vec<u8>> {
            self.platform.disk().get("signing/1").cloned()
        }

        fn set_blob(&self, blob: Option<Vec<u8>>) {
            match blob {
                Some(blob) => self.platform.disk().insert("signing/1".into(), blob),
                None => self.platform.disk().remove("signing/1"),
            };
        }
    }

    #[tokio::test]
    async fn what_was_written_is_read_also_after_a_restart() {
        let f = fixture();
        assert_eq!(f.read().await.unwrap(), None);
        f.write(b"one").await.unwrap();
        f.write(b"two").await.unwrap();
        assert_eq!(f.read().await.unwrap().as_deref(), Some(&b"two"[..]));
        let f = f.restarted();
        assert_eq!(f.read().await.unwrap().as_deref(), Some(&b"two"[..]));
    }

    #[tokio::test]
    async fn within_one_boot_the_host_cannot_go_back_on_a_blob() {
        let f = fixture();
        f.write(b"one").await.unwrap();
        let old = f.blob();
        f.write(b"two").await.unwrap();
        let new = f.blob();
        for gone_back in [old, None] {
            f.set_blob(gone_back);
            assert_eq!(
                f.read().await.unwrap_err().reason(),
                "SEALED_STATE_ROLLED_BACK"
            );
        }
        f.set_blob(new);
        assert_eq!(f.read().await.unwrap().as_deref(), Some(&b"two"[..]));
    }

    #[tokio::test]
    async fn each_blob_names_the_one_before_it() {
        let f = fixture();
        f.write(b"one").await.unwrap();
        let first = f.blob().unwrap();
        // A restart in between does not break the chain.
        let f = f.restarted();
        f.write(b"two").await.unwrap();
        let blob = f.blob().unwrap();
        let opened = sealing::unseal(&*f.platform, "sim-test", "ceo", "signing/1", &blob).await;
        let (header, _) = opened.unwrap();
        assert_eq!(header.sequence, 2);
        assert_eq!(header.predecessor, sealing::digest(&first));
    }

    #[tokio::test]
    async fn a_blob_that_does_not_open_is_never_written_over() {
        let f = fixture();
        f.write(b"one").await.unwrap();
        let f = f.restarted();
        f.set_blob(Some(b"garbage".to_vec()));
        assert!(f.write(b"two").await.is_err());
        assert_eq!(f.blob().as_deref(), Some(&b"garbage"[..]));
    }
}
