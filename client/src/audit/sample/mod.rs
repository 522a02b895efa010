//! A made-up cluster whose logs are real: three parties on keys in memory, evidence as HSMs give it, entries, tiles,
//! checkpoints, cosignatures, openings and certificates. For benchmarks and tests, which need logs of any length and
//! every way to break them.

mod run;

use std::io;

use arca_attestation::binder::LogStatement;
use arca_attestation::manifest::{
    Administrator, Administrators, Draft, Party, Principal, Role, SignedManifest,
};
use arca_attestation::{
    SigningAuthorization, TrustAnchors, TrustClass, UnixMillis, hsm as evidence,
};
use arca_audit::Hash;
use arca_audit::certificate::{self, AdministratorSignature, Base64, KeyRecord, Request};
use arca_audit::checkpoint::Checkpoint;
use arca_audit::entry::{self, Entry, Hex};
use arca_audit::note::{KeyName, SignedNote};
use ed25519_dalek::{Signer as _, SigningKey};
use p384::pkcs8::EncodePublicKey as _;
use rand_core::OsRng;
use sha2::{Digest as _, Sha256};
use x509_cert::builder::{Builder as _, RequestBuilder};
use x509_cert::der::{Encode as _, pem};

use super::source::Memory;
use super::trust::Trust;
use crate::error::{Error, Result};
use crate::{clock, hsm, manifest_file};
use run::Run;

/// The made-up cluster's id.
pub const CLUSTER: &str = "sim-sample";
/// Its parties.
pub const PARTIES: [&str; 3] = ["ceo", "cloud", "cto"];
const KEY: &str = "keys/00112233445566778899aabbccddeeff";
const KIND: &str = "simulated";
const INITIATOR: &str = "treasury";
/// A session every so many milliseconds, where nothing else is asked for.
pub const PACE_MS: u64 = 20;

/// Where the files of an export go: path and content.
pub type Sink<'s> = &'s mut dyn FnMut(&str, &[u8]) -> io::Result<()>;

/// Keys of everybody in the made-up cluster, and its manifest.
pub struct Sample {
    administrator: SigningKey,
    initiator: p256::ecdsa::SigningKey,
    group: SigningKey,
    manifest: SignedManifest,
    digest: [u8; 48],
    members: Vec<Member>,
    began_ms: u64,
}

/// One party: its keys, and the log as far as it has come.
struct Member {
    name: &'static str,
    identity: p384::ecdsa::SigningKey,
    spki: Vec<u8>,
    /// The root, and the identity's certificate, DER.
    chain: [Vec<u8>; 2],
    log_key: SigningKey,
    witness_key: SigningKey,
}

/// What an export is to hold.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Sessions, each signed by two of the three parties: four entries.
    pub sessions: u64,
    /// Whether each session is opened.
    pub openings: bool,
    /// Each party restarts after so many sessions; 0 for never.
    pub restart_every: u64,
    /// Milliseconds from one session to the next.
    pub pace_ms: u64,
}

fn named(bytes: &str) -> Result<KeyName> {
    bytes.parse().map_err(Error::bug)
}

/// What a party's enclave would have to do for its log to be false: changes an entry of a party before it is logged, or
/// has it left out by giving false.
pub type Tamper<'t> = &'t mut dyn FnMut(&str, &mut Entry) -> bool;

impl Sample {
    /// Draws all keys and signs the manifest.
    ///
    /// # Errors
    /// [`Error::Bug`] alone.
    pub fn new() -> Result<Self> {
        let authority = hsm::Authority::create("Sample HSM root", 30)?;
        let members = PARTIES
            .into_iter()
            .map(|name| Member::new(name, &authority))
            .collect::<Result<Vec<_>>>()?;
        let administrator = SigningKey::generate(&mut OsRng);
        let initiator = p256::ecdsa::SigningKey::random(&mut OsRng);
        let identity = initiator
            .verifying_key()
            .to_public_key_der()
            .map_err(Error::bug)?;
        let now = clock::now();
        let draft = Draft {
            version: Draft::VERSION,
            cluster: CLUSTER.to_owned(),
            epoch: 1,
            not_before: UnixMillis(now.0.saturating_sub(60_000)),
            not_after: UnixMillis(now.0.saturating_add(20 * 24 * 60 * 60 * 1000)),
            parties: members
                .iter()
                .map(|member| Party {
                    name: member.name.to_owned(),
                    class: TrustClass::Hsm,
                    identity: member.spki.clone(),
                    measurements: Vec::new(),
                })
                .collect(),
            hsm_roots: vec![authority.certificate_der()?],
            administrators: Administrators {
                quorum: 1,
                keys: vec![Administrator {
                    name: "alice".to_owned(),
                    public_key: administrator.verifying_key().to_bytes(),
                }],
            },
            principals: vec![Principal {
                name: INITIATOR.to_owned(),
                identity: identity.as_bytes().to_vec(),
                roles: vec![Role::Initiator],
            }],
            policy_digest: None,
            revoked: Vec::new(),
        };
        let bytes = draft.to_bytes().map_err(Error::bug)?;
        let signature = manifest_file::sign(&bytes, &administrator);
        let manifest = manifest_file::assemble(bytes, &[signature])?;
        let digest = manifest.verify_stored().map_err(Error::bug)?.digest();
        Ok(Self {
            administrator,
            initiator,
            group: SigningKey::generate(&mut OsRng),
            manifest,
            digest,
            members,
            began_ms: now.0,
        })
    }

    /// What an auditor of this cluster starts from.
    ///
    /// # Errors
    /// [`Error::Bug`] alone.
    pub fn trust(&self) -> Result<Trust> {
        let administrators = [self.administrator.verifying_key().to_bytes()];
        Trust::new(CLUSTER, TrustAnchors::hsm_only(), &administrators, 1)
    }

    fn key(&self) -> KeyRecord {
        KeyRecord {
            name: KEY.to_owned(),
            epoch: 1,
            scheme: "ed25519".to_owned(),
            public_key: self.group.verifying_key().to_bytes().to_vec(),
            chain_code: Vec::new(),
            threshold: 2,
            parties: PARTIES.map(str::to_owned).to_vec(),
            allow_raw_digest: true,
        }
    }

    fn signed_manifest(&self) -> certificate::SignedManifest {
        certificate::SignedManifest {
            manifest: Base64(self.manifest.bytes.clone()),
            signatures: self
                .manifest
                .signatures
                .iter()
                .map(|(administrator, signature)| AdministratorSignature {
                    administrator: Hex(*administrator),
                    signature: Hex(*signature),
                })
                .collect(),
        }
    }

    /// An export, whole, in memory.
    ///
    /// # Errors
    /// [`Error::Bug`] alone.
    pub fn export(&self, plan: &Plan) -> Result<Memory> {
        let mut export = Memory::default();
        self.write(
            plan,
            &mut |path, content| {
                export.0.insert(path.to_owned(), content.to_vec());
                Ok(())
            },
            |_| (),
        )?;
        Ok(export)
    }

    /// As [`export`](Self::export), with logs that are sound as logs and say something false.
    ///
    /// # Errors
    /// [`Error::Bug`] alone.
    pub fn export_false(&self, plan: &Plan, tamper: Tamper<'_>) -> Result<Memory> {
        let mut export = Memory::default();
        let mut sink = |path: &str, content: &[u8]| {
            export.0.insert(path.to_owned(), content.to_vec());
            Ok(())
        };
        self.run(plan, &mut sink, tamper, |_| ())?;
        Ok(export)
    }

    /// Writes an export as it is made; memory does not grow with it. `progress` is told how many sessions are done.
    ///
    /// # Errors
    /// What `sink` fails with.
    pub fn write(&self, plan: &Plan, sink: Sink<'_>, progress: impl FnMut(u64)) -> Result<()> {
        self.run(plan, sink, &mut |_, _| true, progress)
    }

    fn run(
        &self,
        plan: &Plan,
        sink: Sink<'_>,
        tamper: Tamper<'_>,
        mut progress: impl FnMut(u64),
    ) -> Result<()> {
        let mut run = Run::new(self, false, sink, tamper)?;
        run.pace_ms = plan.pace_ms;
        for session in 0..plan.sessions {
            let restarts =
                plan.restart_every > 0 && session > 0 && session.is_multiple_of(plan.restart_every);
            if restarts {
                run.start(session)?;
            }
            run.sign(session, plan.openings)?;
            progress(session + 1);
        }
        run.finish(plan)
    }

    /// The certificate of the last of `sessions` sessions.
    ///
    /// # Errors
    /// [`Error::Bug`] alone.
    pub fn certificate(&self, sessions: u64) -> Result<Vec<u8>> {
        let mut ignore = |_: &str, _: &[u8]| Ok(());
        let mut honest = |_: &str, _: &mut Entry| true;
        let mut run = Run::new(self, true, &mut ignore, &mut honest)?;
        let mut last = None;
        for session in 0..sessions.max(1) {
            last = Some(run.sign(session, false)?);
        }
        let signed = last.ok_or_else(|| Error::bug("nothing was signed"))?;
        run.certificate(&signed)
    }

    fn request(&self, session: u64, time: u64) -> Result<Request> {
        let payload: [u8; 32] = Sha256::digest(session.to_be_bytes()).into();
        let expire_ms = time.saturating_add(60_000);
        let request_id = format!("request-{session}");
        let authorization = SigningAuthorization {
            cluster: CLUSTER,
            initiator: INITIATOR,
            request_id: &request_id,
            key: KEY,
            payload_kind: "digest",
            payload: &payload,
            expire_ms,
            derivation_path: &[],
        };
        let signature: p256::ecdsa::Signature = self.initiator.sign(&authorization.message());
        Ok(Request {
            initiator: INITIATOR.to_owned(),
            request_id,
            key: KEY.to_owned(),
            payload_kind: "digest".to_owned(),
            payload: Base64(payload.to_vec()),
            expire_ms,
            derivation_path: Vec::new(),
            authorization: Hex(signature.to_bytes().into()),
        })
    }
}

impl Member {
    fn new(name: &'static str, authority: &hsm::Authority) -> Result<Self> {
        let identity = p384::ecdsa::SigningKey::random(&mut OsRng);
        let subject = format!("CN={name}").parse().map_err(Error::bug)?;
        let request = RequestBuilder::new(subject, &identity)
            .and_then(|builder| builder.build::<p384::ecdsa::DerSignature>())
            .map_err(Error::bug)?;
        let request = hsm::Request::parse(&request.to_der().map_err(Error::bug)?)?;
        let certified = authority.certify(&request, 20)?;
        let leaf = certified
            .chain
            .split_inclusive("-----END CERTIFICATE-----\n")
            .next();
        let (_, leaf) = pem::decode_vec(leaf.unwrap_or_default().as_bytes()).map_err(Error::bug)?;
        let spki = identity
            .verifying_key()
            .to_public_key_der()
            .map_err(Error::bug)?;
        Ok(Self {
            name,
            spki: spki.as_bytes().to_vec(),
            identity,
            chain: [authority.certificate_der()?, leaf],
            log_key: SigningKey::generate(&mut OsRng),
            witness_key: SigningKey::generate(&mut OsRng),
        })
    }

    fn log_key(&self) -> [u8; 32] {
        self.log_key.verifying_key().to_bytes()
    }

    fn witness_key(&self) -> [u8; 32] {
        self.witness_key.verifying_key().to_bytes()
    }

    /// Evidence of this boot, as an HSM gives it.
    fn evidence(&self, boot: &[u8; 16], manifest: &[u8; 48], time: u64) -> Result<Vec<u8>> {
        let statement = LogStatement {
            cluster: CLUSTER,
            party: self.name,
            boot_id: boot,
            manifest_digest: manifest,
            log_key: &self.log_key(),
            witness_key: &self.witness_key(),
        };
        let [root, leaf] = &self.chain;
        let payload = evidence::Statement {
            token: evidence::Token::new("Arca", "sample", "1", "1"),
            timestamp: UnixMillis(time),
            nonce: boot,
            user_data: &statement.digest(),
            public_key: &self.spki,
            certificate: leaf,
            cabundle: vec![root],
        }
        .payload()
        .map_err(Error::bug)?;
        let signature: p384::ecdsa::Signature = self.identity.sign(&evidence::to_sign(&payload));
        let bytes = signature.to_bytes();
        let signature = (&bytes[..]).try_into().map_err(Error::bug)?;
        Ok(evidence::document(&payload, &signature))
    }

    fn origin(&self) -> String {
        entry::origin(KIND, CLUSTER, self.name, 1)
    }

    fn checkpoint(&self, size: u64, root: Hash) -> Result<SignedNote> {
        let checkpoint = Checkpoint {
            origin: named(&self.origin())?,
            size,
            root,
        };
        Ok(checkpoint.sign(&self.log_key))
    }
}
