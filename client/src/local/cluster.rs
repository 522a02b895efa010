//! A cluster from nothing: files, processes, manifest, profile.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arca_attestation::manifest::{
    Administrator, Administrators as ManifestAdministrators, Principal as ManifestPrincipal, Role,
    SignedManifest,
};
use arca_attestation::{Measurements, ReferenceValues, TrustAnchors};
use p256::pkcs8::EncodePublicKey;
use rand_core::{OsRng, RngCore};

use crate::cluster::{Cluster, candidate};
use crate::enroll::{self, Candidate};
use crate::error::{Error, Result};
use crate::hsm::Authority;
use crate::local::hsm::{self, SoftToken};
use crate::local::party::{EnclaveProgram, free_port};
use crate::local::{Binaries, LocalParty};
use crate::party_files::{PartyFiles, create_private};
use crate::profile::{Administrators, Kind, Principal, Profile, ProfileFile, PublicKey};
use crate::{clock, keyfile, manifest_file};

/// The parties of the running example.
pub const PARTIES: [&str; 3] = ["ceo", "cto", "cloud"];
/// Who signs the manifest.
pub const ADMINISTRATORS: [&str; 3] = ["alice", "bob", "carol"];
/// How many of the administrators have to sign.
pub const QUORUM: u16 = 2;
/// Who asks for keys and signatures.
pub const PRINCIPAL: &str = "treasury";

/// A process that does not answer by then will not.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(30);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Somebody else may take a port between the choice and its use.
const PORT_ATTEMPTS: usize = 5;

/// A cluster of three simulated parties, 2 of 3 administrators and one principal.
///
/// Dropping it kills every process. The folder stays; it is its owner's.
#[derive(Debug)]
pub struct LocalCluster {
    id: String,
    folder: PathBuf,
    binaries: Binaries,
    anchors: TrustAnchors,
    measurements: Measurements,
    presignatures: Option<u32>,
    danger_without_log: bool,
    tokens: BTreeMap<String, SoftToken>,
    authority: Option<Authority>,
    parties: BTreeMap<String, LocalParty>,
    profile: Option<Arc<Profile>>,
}

impl LocalCluster {
    /// Makes the simulated root, the keys and the folders. No process runs yet.
    ///
    /// # Errors
    /// [`Error::Config`] when the folder is not empty or cannot be used, [`Error::Process`] when a program fails.
    pub fn prepare(folder: &Path, binaries: Binaries) -> Result<Self> {
        let folder = std::path::absolute(folder)
            .map_err(|cause| Error::config(folder.display(), cause, "name another folder"))?;
        create_private(&folder)?;
        let is_empty = std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_none());
        if !is_empty {
            return Err(Error::config(
                folder.display(),
                "is not empty",
                "name a folder that is empty or does not exist",
            ));
        }
        let root = folder.join("root");
        run(&binaries.enclave, &["make-root", &root.to_string_lossy()])?;
        let anchors = crate::read_simulated_root(&root.join("root.der"))?;
        let measurements = run(&binaries.enclave, &["measurements"])?;
        let measurements = serde_json::from_slice(&measurements).map_err(|_| Error::Process {
            program: binaries.enclave.display().to_string(),
            problem: "does not print measurements".to_owned(),
            log_tail: String::new(),
            advice: "build all programs from the same source".to_owned(),
        })?;
        for name in ADMINISTRATORS {
            keyfile::generate_administrator(&folder.join(format!("{name}.pem")))?;
        }
        keyfile::generate_principal(&folder.join(format!("{PRINCIPAL}.pem")))?;
        Ok(Self {
            id: format!("sim-local-{:08x}", OsRng.next_u32()),
            folder,
            binaries,
            anchors,
            measurements,
            presignatures: None,
            danger_without_log: false,
            tokens: BTreeMap::new(),
            authority: None,
            parties: BTreeMap::new(),
            profile: None,
        })
    }

    /// Keeps so many ECDSA presignatures ready for each key and set of signers, from the next start on; 0 for none.
    #[must_use]
    pub fn with_presignatures(mut self, count: u32) -> Self {
        self.presignatures = Some(count);
        self
    }

    /// Leaves the audit log out, to measure what it costs.
    #[must_use]
    pub fn danger_without_log(mut self) -> Self {
        self.danger_without_log = true;
        self
    }

    /// Puts the keys of these parties into tokens of their own, certified by a root of the cluster's own. The others stay
    /// on the simulated NSM.
    ///
    /// # Errors
    /// [`Error::Config`] when the root cannot be made.
    pub fn with_tokens(mut self, parties: &[&str], token: &SoftToken) -> Result<Self> {
        let authority = Authority::create("HSM root of a local cluster", 365)?;
        authority.save(&self.folder.join("hsm-root"))?;
        self.authority = Some(authority);
        let names = parties.iter().map(|name| (*name).to_owned());
        self.tokens = names.map(|name| (name, token.clone())).collect();
        Ok(self)
    }

    /// [`prepare`](Self::prepare), [`start`](Self::start), [`collect`](Self::collect),
    /// [`enroll`](Self::enroll) and [`wait_connected`](Self::wait_connected): a cluster that signs.
    ///
    /// # Errors
    /// Those of the steps.
    pub async fn bring_up(folder: &Path, binaries: Binaries) -> Result<Self> {
        Self::prepare(folder, binaries)?.into_running().await
    }

    /// Starts and enrols what was prepared.
    ///
    /// # Errors
    /// Those of the steps.
    pub async fn into_running(self) -> Result<Self> {
        let mut cluster = self;
        cluster.start().await?;
        let candidates = cluster.collect().await?;
        cluster.enroll(&candidates, &[0, 1]).await?;
        cluster.wait_connected(&PARTIES).await?;
        Ok(cluster)
    }

    /// Starts all parties, on ports that are free, and waits until each answers.
    ///
    /// # Errors
    /// [`Error::Process`] with the end of its log when a process ends.
    pub async fn start(&mut self) -> Result<()> {
        let mut attempt = 1;
        loop {
            self.configure()?;
            let outcome = self.start_all().await;
            let raced = self.parties.values().any(LocalParty::port_is_taken);
            match outcome {
                Err(_) if raced && attempt < PORT_ATTEMPTS => {
                    self.kill_all().await;
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// Verifies every enclave's evidence.
    ///
    /// # Errors
    /// As [`enroll::collect`].
    pub async fn collect(&self) -> Result<Vec<Candidate>> {
        let mut candidates = Vec::new();
        for name in PARTIES {
            let address = self.party(name)?.address().to_string();
            candidates.push(
                enroll::collect(name, &address, &self.anchors, &self.reference(name)?).await?,
            );
        }
        Ok(candidates)
    }

    /// Has administrators (by index) sign a manifest over the candidates, hands it to every party, and writes
    /// the profile.
    ///
    /// # Errors
    /// What a party refuses.
    pub async fn enroll(
        &mut self,
        candidates: &[Candidate],
        signers: &[usize],
    ) -> Result<SignedManifest> {
        let keys = ADMINISTRATORS
            .iter()
            .map(|name| keyfile::read_administrator(&self.folder.join(format!("{name}.pem"))))
            .collect::<Result<Vec<_>>>()?;
        let administrators: Vec<Administrator> = ADMINISTRATORS
            .iter()
            .zip(&keys)
            .map(|(name, key)| Administrator {
                name: (*name).to_owned(),
                public_key: key.verifying_key().to_bytes(),
            })
            .collect();
        let principal = keyfile::read_principal(&self.folder.join(format!("{PRINCIPAL}.pem")))?;
        let principals = vec![ManifestPrincipal {
            name: PRINCIPAL.to_owned(),
            identity: principal
                .public_key()
                .to_public_key_der()
                .map_err(Error::bug)?
                .into_vec(),
            roles: vec![Role::Operator, Role::Initiator, Role::Auditor],
        }];
        let mut draft = enroll::draft(
            &self.id,
            candidates,
            Vec::new(),
            ManifestAdministrators {
                quorum: QUORUM,
                keys: administrators.clone(),
            },
            principals,
            // The parties share this machine's clock; a second covers its rounding.
            arca_attestation::UnixMillis(clock::now().0.saturating_sub(1000)),
            DAY,
        );
        draft.hsm_roots = self.hsm_roots()?;
        let bytes = draft.to_bytes().map_err(Error::bug)?;
        let signatures: Vec<_> = signers
            .iter()
            .filter_map(|index| keys.get(*index))
            .map(|key| manifest_file::sign(&bytes, key))
            .collect();
        let signed = manifest_file::assemble(bytes, &signatures)?;
        for party in &draft.parties {
            let address = self.party(&party.name)?.address().to_string();
            let reference = self.reference(&party.name)?;
            let client = candidate(&party.name, &address, &self.anchors, &reference).await?;
            enroll::apply(&client, party, &signed, draft.epoch).await?;
        }
        manifest_file::write(&self.folder.join("manifest.signed.json"), &signed)?;
        self.write_profile(&administrators)?;
        Ok(signed)
    }

    /// Waits until each of these parties reaches each other one over its attested channel.
    ///
    /// # Errors
    /// The last failure, when the time is over.
    pub async fn wait_connected(&self, names: &[&str]) -> Result<()> {
        let cluster = self.cluster()?;
        for name in names {
            self.until_answered(name, async || {
                let client = cluster.party(name).await?;
                for other in names.iter().filter(|other| *other != name) {
                    client.ping(Some(other)).await?;
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Starts one party's processes that do not run, and waits until it answers.
    ///
    /// # Errors
    /// [`Error::Process`] with the end of its log when a process ends.
    pub async fn start_party(&mut self, name: &str) -> Result<()> {
        self.party_mut(name)?.start_both().await?;
        self.wait_answering(name).await
    }

    /// Waits until a party answers a handshake, and once it is enrolled a request.
    ///
    /// # Errors
    /// [`Error::Process`] when one of its processes ends, or the last failure when the time is over.
    pub async fn wait_answering(&self, name: &str) -> Result<()> {
        let address = self.party(name)?.address().to_string();
        let cluster = self.profile.is_some().then(|| self.cluster()).transpose()?;
        let reference = self.reference(name)?;
        self.until_answered(name, async || match &cluster {
            Some(cluster) => cluster.party(name).await?.ping(None).await,
            None => enroll::collect(name, &address, &self.anchors, &reference)
                .await
                .map(drop),
        })
        .await
    }

    /// Stops every process, in order, and waits until all are gone.
    pub async fn stop(&mut self) {
        for party in self.parties.values_mut() {
            party.stop().await;
        }
    }

    /// Kills every process (SIGKILL).
    pub async fn kill_all(&mut self) {
        for party in self.parties.values_mut() {
            party.kill().await;
        }
    }

    /// The cluster's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where everything is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the enclaves' program measures as.
    pub fn measurements(&self) -> &Measurements {
        &self.measurements
    }

    /// What an enclave of this cluster is appraised by.
    fn reference(&self, party: &str) -> Result<ReferenceValues> {
        Ok(match self.tokens.contains_key(party) {
            true => ReferenceValues::Hsm(self.hsm_roots()?),
            false => ReferenceValues::Simulated(vec![self.measurements]),
        })
    }

    fn hsm_roots(&self) -> Result<Vec<Vec<u8>>> {
        let root = self.authority.as_ref().map(Authority::certificate_der);
        Ok(root.transpose()?.into_iter().collect())
    }

    /// How the enclave of a party is started, for people to type; `--config` follows.
    pub fn enclave_command(&self, party: &str) -> String {
        let party = self.parties.get(party);
        party.map_or_else(String::new, LocalParty::enclave_command)
    }

    /// All parties, in the order of their names.
    pub fn parties(&self) -> impl Iterator<Item = &LocalParty> {
        self.parties.values()
    }

    /// One party.
    ///
    /// # Errors
    /// [`Error::Bug`] when there is none of that name.
    pub fn party(&self, name: &str) -> Result<&LocalParty> {
        self.parties
            .get(name)
            .ok_or_else(|| Error::bug(format!("no local party {name}")))
    }

    /// One party, to stop, kill and start.
    ///
    /// # Errors
    /// As [`party`](Self::party).
    pub fn party_mut(&mut self, name: &str) -> Result<&mut LocalParty> {
        self.parties
            .get_mut(name)
            .ok_or_else(|| Error::bug(format!("no local party {name}")))
    }

    /// A client of the cluster, as its principal.
    ///
    /// # Errors
    /// [`Error::Bug`] before [`enroll`](Self::enroll).
    pub fn cluster(&self) -> Result<Cluster> {
        let profile = self
            .profile
            .clone()
            .ok_or_else(|| Error::bug("the cluster is not enrolled yet"))?;
        Cluster::new(profile)
    }

    async fn start_all(&mut self) -> Result<()> {
        for party in self.parties.values_mut() {
            party.start_both().await?;
        }
        for name in PARTIES {
            self.wait_answering(name).await?;
        }
        Ok(())
    }

    fn configure(&mut self) -> Result<()> {
        let mut free = BTreeSet::new();
        while free.len() < 2 * PARTIES.len() {
            free.insert(free_port(&mut OsRng)?);
        }
        let free: Vec<SocketAddr> = free.into_iter().collect();
        let (listen, metrics) = free.split_at(PARTIES.len());
        let names = || PARTIES.iter().map(|name| (*name).to_owned());
        let addresses: BTreeMap<String, SocketAddr> = names().zip(listen.iter().copied()).collect();
        let metrics: BTreeMap<String, SocketAddr> = names().zip(metrics.iter().copied()).collect();
        self.parties.clear();
        for (name, address) in &addresses {
            let folder = self.folder.join(name);
            // Of an attempt whose ports were taken.
            if folder.exists() {
                std::fs::remove_dir_all(&folder)
                    .map_err(|cause| Error::config(folder.display(), cause, "remove it"))?;
            }
            PartyFiles {
                party: name.clone(),
                listen: address.to_string(),
                metrics: metrics.get(name).map(SocketAddr::to_string),
                peers: addresses
                    .iter()
                    .filter(|(other, _)| *other != name)
                    .map(|(other, address)| (other.clone(), address.to_string()))
                    .collect(),
                quota_bytes: 1 << 30,
                simulated_root: self.folder.join("root"),
                presignatures: self.presignatures,
                danger_without_log: self.danger_without_log,
            }
            .write(&folder)?;
            let metrics = *metrics
                .get(name)
                .ok_or_else(|| Error::bug("a party without a port for its metrics"))?;
            let program = self.program(name, &folder)?;
            let binaries = self.binaries.clone();
            let party = LocalParty::new(name, *address, metrics, folder, binaries, program);
            self.parties.insert(name.clone(), party);
        }
        Ok(())
    }

    /// The enclave's program of a party; its token is made first, where it has one.
    fn program(&self, party: &str, folder: &Path) -> Result<EnclaveProgram> {
        let (Some(token), Some(authority)) = (self.tokens.get(party), &self.authority) else {
            return Ok(EnclaveProgram::plain(&self.binaries.enclave));
        };
        // What production runs is enough, unless there are parties that production would never accept.
        let mixed = self.tokens.len() < PARTIES.len();
        let root = self.folder.join("root").join("root.der");
        let names = (self.id.as_str(), party);
        let program = self.binaries.hsm(mixed)?;
        let root = mixed.then_some(root.as_path());
        hsm::set_up(
            token,
            &program,
            root,
            names,
            authority,
            folder,
            self.presignatures,
        )
    }

    fn write_profile(&mut self, administrators: &[Administrator]) -> Result<()> {
        let file = ProfileFile {
            cluster: self.id.clone(),
            kind: Kind::Simulated,
            manifest: "manifest.signed.json".into(),
            simulated_root: Some("root/root.der".into()),
            administrators: Administrators {
                quorum: usize::from(QUORUM),
                keys: administrators
                    .iter()
                    .map(|key| PublicKey(key.public_key))
                    .collect(),
            },
            principal: Some(Principal {
                key: format!("{PRINCIPAL}.pem").into(),
            }),
            parties: self
                .parties
                .values()
                .map(|party| (party.name().to_owned(), party.address().to_string()))
                .collect(),
        };
        let path = self.folder.join("profile.toml");
        file.write(&path)?;
        self.profile = Some(Arc::new(Profile::load(&path)?));
        Ok(())
    }

    /// Repeats `attempt` until it succeeds, a process of the party ends, or the time is over.
    async fn until_answered(
        &self,
        name: &str,
        attempt: impl AsyncFn() -> Result<()>,
    ) -> Result<()> {
        let party = self.party(name)?;
        let started = Instant::now();
        let keep_trying = async {
            loop {
                match attempt().await {
                    Ok(()) => return Ok(()),
                    // Nobody else will appear at that address.
                    Err(
                        error @ (Error::Untrusted { .. } | Error::Config { .. } | Error::Bug(_)),
                    ) => {
                        return Err(error);
                    }
                    Err(error) if started.elapsed() > PATIENCE => return Err(error),
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        };
        tokio::select! {
            outcome = keep_trying => outcome,
            error = party.ended() => Err(error),
        }
    }
}

/// Runs a program to its end and returns what it printed.
pub(super) fn run(program: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let failed = |problem: String, log_tail: String| Error::Process {
        program: format!("{} {}", program.display(), arguments.join(" ")),
        problem,
        log_tail,
        advice: "build all programs from the same source".to_owned(),
    };
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|cause| failed(format!("cannot be started: {cause}"), String::new()))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        let log_tail = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(failed(format!("failed: {}", output.status), log_tail))
    }
}
