//! The making of a sample's logs, session by session.

use arca_attestation::{SigningAuthorization, request_commitment};
use arca_audit::bundle::TlogProof;
use arca_audit::certificate::{self, Base64, Certificate, Opening, Request, Signature, file_name};
use arca_audit::checkpoint::Checkpoint;
use arca_audit::cosignature::cosign;
use arca_audit::entry::{
    self, Entry, Event, Hex, InstanceStarted, KeyCreated, Outcome, Seen, SigningIntent,
};
use arca_audit::note::SignedNote;
use arca_audit::writer::{BundleWriter, TileWriter};
use arca_audit::{Hash, inclusion_proof, leaf_hash};
use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha256};

use super::{
    CLUSTER, INITIATOR, KEY, KIND, Member, PACE_MS, PARTIES, Plan, Sample, Sink, Tamper, named,
};
use crate::audit::export::{self, Export, ExportedLog};
use crate::error::{Error, Result};

/// A log while it is made.
struct Writer {
    tiles: TileWriter,
    bundles: BundleWriter,
    boot: [u8; 16],
    evidence: [u8; 32],
    document: Vec<u8>,
    openings: Vec<u8>,
    openings_of: u64,
    /// Kept for proofs, where they are asked for.
    leaves: Option<Vec<Hash>>,
}

/// The same at each run, so that runs of one sample begin alike.
fn boot(member: &Member, session: u64) -> [u8; 16] {
    let digest = Sha256::new()
        .chain_update(member.name)
        .chain_update(session.to_be_bytes())
        .finalize();
    let mut boot = [0; 16];
    boot.iter_mut()
        .zip(digest)
        .for_each(|(to, from)| *to = from);
    boot
}

/// What a session left behind.
pub(super) struct Done {
    request: Request,
    session: [u8; 32],
    signature: Signature,
    /// Member and index of its intent.
    intents: [(usize, u64); 2],
    bytes: [Vec<u8>; 2],
}

/// The making of logs.
pub(super) struct Run<'a, 's> {
    sample: &'a Sample,
    logs: Vec<Writer>,
    sink: Sink<'s>,
    tamper: Tamper<'s>,
    time: u64,
    pub pace_ms: u64,
}

impl<'a, 's> Run<'a, 's> {
    pub fn new(
        sample: &'a Sample,
        keep_leaves: bool,
        sink: Sink<'s>,
        tamper: Tamper<'s>,
    ) -> Result<Self> {
        let logs = sample.members.iter().map(|_| Writer {
            tiles: TileWriter::new(),
            bundles: BundleWriter::new(),
            boot: [0; 16],
            evidence: [0; 32],
            document: Vec::new(),
            openings: Vec::new(),
            openings_of: 0,
            leaves: keep_leaves.then(Vec::new),
        });
        let mut run = Self {
            sample,
            logs: logs.collect(),
            sink,
            tamper,
            time: sample.began_ms,
            pace_ms: PACE_MS,
        };
        run.start(0)?;
        for (place, peers) in [(0, [1, 2]), (1, [0, 2]), (2, [0, 1])] {
            for peer in peers {
                let event = run.peer(peer, |name, boot, evidence| Event::EvidenceVerified {
                    peer: name,
                    boot,
                    evidence,
                    measurement: None,
                })?;
                run.append(place, event)?;
                let event = run.peer(peer, |name, boot, _| Event::LeaseGranted {
                    peer: name,
                    boot,
                })?;
                run.append(place, event)?;
            }
            let boot = Hex(run.log(place)?.boot);
            run.append(place, Event::LeaseHeld { boot })?;
            let key = sample.key();
            let created = KeyCreated {
                key: key.name.clone(),
                epoch: 1,
                scheme: key.scheme,
                public_key: key.public_key,
                threshold: key.threshold,
                parties: key.parties,
            };
            run.append(place, Event::KeyCreated(created))?;
            run.append(
                place,
                Event::KeyEnabled {
                    key: key.name,
                    epoch: 1,
                },
            )?;
        }
        Ok(run)
    }

    fn peer(
        &self,
        place: usize,
        event: impl FnOnce(String, Hex<16>, Hex<32>) -> Event,
    ) -> Result<Event> {
        let log = self.log(place)?;
        Ok(event(
            self.member(place)?.name.to_owned(),
            Hex(log.boot),
            Hex(log.evidence),
        ))
    }

    fn member(&self, place: usize) -> Result<&'a Member> {
        self.sample
            .members
            .get(place)
            .ok_or_else(|| Error::bug("no such member"))
    }

    fn log(&self, place: usize) -> Result<&Writer> {
        self.logs
            .get(place)
            .ok_or_else(|| Error::bug("no such log"))
    }

    fn put(&mut self, path: &str, content: &[u8]) -> Result<()> {
        (self.sink)(path, content).map_err(|cause| {
            Error::config(path, format!("cannot be written: {cause}"), "make room")
        })
    }

    /// Every party starts anew: the one before has ended.
    pub fn start(&mut self, session: u64) -> Result<()> {
        let manifest = serde_json::to_vec(&self.sample.signed_manifest()).map_err(Error::bug)?;
        for place in 0..self.logs.len() {
            let member = self.member(place)?;
            let boot = boot(member, session);
            let document = member.evidence(&boot, &self.sample.digest, self.time)?;
            let digest: [u8; 32] = Sha256::digest(&document).into();
            let files = [&document, &manifest];
            for file in files {
                let path = format!("{}/files/{}", member.name, file_name(file));
                self.put(&path, file)?;
            }
            if let Some(log) = self.logs.get_mut(place) {
                log.boot = boot;
                log.evidence = digest;
                log.document = document;
            }
            let started = InstanceStarted {
                log_key: Hex(member.log_key()),
                witness_key: Hex(member.witness_key()),
                identity: Hex(Sha256::digest(&member.spki).into()),
                first: session == 0,
                follows: None,
            };
            self.append(place, Event::InstanceStarted(started))?;
            let digest = Hex(self.sample.digest);
            self.append(place, Event::ManifestAccepted { epoch: 1, digest })?;
        }
        Ok(())
    }

    /// Gives index and bytes.
    fn append(&mut self, place: usize, event: Event) -> Result<(u64, Vec<u8>)> {
        let log = self.log(place)?;
        let size = log.tiles.size();
        let mut entry = Entry {
            version: entry::VERSION,
            time_ms: self.time,
            boot: Hex(log.boot),
            manifest: Hex(self.sample.digest),
            evidence: Hex(log.evidence),
            event,
        };
        let member = self.member(place)?;
        if !(self.tamper)(member.name, &mut entry) {
            return Ok((size, Vec::new()));
        }
        let bytes = entry.encode().map_err(Error::bug)?;
        let log = self
            .logs
            .get_mut(place)
            .ok_or_else(|| Error::bug("no such log"))?;
        let index = log.tiles.size();
        let leaf = leaf_hash(&bytes);
        let mut full = log.tiles.append([leaf]);
        full.extend(log.bundles.append(&bytes).map_err(Error::bug)?);
        if let Some(leaves) = &mut log.leaves {
            leaves.push(leaf);
        }
        for (path, content) in full {
            self.put(&format!("{}/1/{path}", member.name), &content)?;
        }
        Ok((index, bytes))
    }

    pub fn sign(&mut self, number: u64, open: bool) -> Result<Done> {
        self.time = self.time.saturating_add(self.pace_ms);
        let sample = self.sample;
        let request = sample.request(number, self.time)?;
        let commitment = {
            let authorization = SigningAuthorization {
                cluster: CLUSTER,
                initiator: INITIATOR,
                request_id: &request.request_id,
                key: KEY,
                payload_kind: "digest",
                payload: &request.payload.0,
                expire_ms: request.expire_ms,
                derivation_path: &[],
            };
            request_commitment(&authorization.digest(), &request.authorization.0)
        };
        let session: [u8; 32] =
            Sha256::digest([b"session".as_slice(), &number.to_be_bytes()].concat()).into();
        // Each pair of the three in turn, the first of them coordinating.
        let signers = match number % 3 {
            0 => [0, 1],
            1 => [1, 2],
            _ => [2, 0],
        };
        let names = signers.map(|place| PARTIES.get(place).copied().unwrap_or_default().to_owned());
        let [coordinator, _] = &names;
        let points = self
            .logs
            .iter()
            .map(|log| (log.tiles.size(), log.tiles.tree().root()))
            .collect::<Vec<_>>();
        let mut intents = [(0, 0); 2];
        let mut bytes = [Vec::new(), Vec::new()];
        for ((place, intent), entry) in signers.into_iter().zip(&mut intents).zip(&mut bytes) {
            let seen = points.iter().zip(PARTIES).enumerate();
            let seen = seen
                .filter(|(peer, _)| *peer != place)
                .map(|(_, ((size, root), party))| Seen {
                    party: party.to_owned(),
                    log: 1,
                    size: *size,
                    root: Hex(*root),
                });
            let event = Event::SigningIntent(SigningIntent {
                session: Hex(session),
                request: Hex(commitment),
                key: KEY.to_owned(),
                epoch: 1,
                key_record: Hex(sample.key().digest()),
                coordinator: coordinator.clone(),
                signers: names.to_vec(),
                seen: seen.collect(),
            });
            let (index, encoded) = self.append(place, event)?;
            *intent = (place, index);
            *entry = encoded;
        }
        let signature = sample.group.sign(&request.payload.0).to_bytes();
        let [coordinating, other] = signers;
        let result = Outcome::Signed {
            signatures: vec![Hex(Sha256::digest(signature).into())],
        };
        self.append(
            coordinating,
            Event::SigningOutcome {
                session: Hex(session),
                result,
            },
        )?;
        let result = Outcome::Released;
        self.append(
            other,
            Event::SigningOutcome {
                session: Hex(session),
                result,
            },
        )?;
        let done = Done {
            request,
            session,
            signature: Signature {
                signature: Hex(signature),
                input: 0,
                recovery_id: 0,
                public_key: Vec::new(),
            },
            intents,
            bytes,
        };
        if open {
            self.open(&done)?;
        }
        Ok(done)
    }

    fn open(&mut self, done: &Done) -> Result<()> {
        let [(place, index), _] = done.intents;
        let opening = Opening {
            index,
            session: Hex(done.session),
            request: done.request.clone(),
            key: self.sample.key(),
            signatures: vec![done.signature.clone()],
        };
        let bundle = index / 256;
        if self.log(place)?.openings_of != bundle {
            self.put_openings(place)?;
        }
        let log = self
            .logs
            .get_mut(place)
            .ok_or_else(|| Error::bug("no such log"))?;
        log.openings_of = bundle;
        serde_json::to_writer(&mut log.openings, &opening).map_err(Error::bug)?;
        log.openings.push(b'\n');
        Ok(())
    }

    fn put_openings(&mut self, place: usize) -> Result<()> {
        let name = self.member(place)?.name;
        let Some(log) = self
            .logs
            .get_mut(place)
            .filter(|log| !log.openings.is_empty())
        else {
            return Ok(());
        };
        let openings = std::mem::take(&mut log.openings);
        let path = export::openings_path(name, 1, log.openings_of)?;
        self.put(&path, &openings)
    }

    /// The checkpoint of a log, cosigned by both others.
    fn cosigned(&self, place: usize) -> Result<SignedNote> {
        let log = self.log(place)?;
        let (size, root) = (log.tiles.size(), log.tiles.tree().root());
        let mut note = self.member(place)?.checkpoint(size, root)?;
        let checkpoint = Checkpoint {
            origin: named(&self.member(place)?.origin())?,
            size,
            root,
        };
        for (peer, member) in self.sample.members.iter().enumerate() {
            if peer != place {
                let name = named(&entry::witness_name(KIND, CLUSTER, member.name))?;
                let line = cosign(&checkpoint, self.time / 1000, &name, &member.witness_key)
                    .map_err(Error::bug)?;
                note.add(line).map_err(Error::bug)?;
            }
        }
        Ok(note)
    }

    pub fn finish(mut self, plan: &Plan) -> Result<()> {
        let mut logs = Vec::new();
        for place in 0..self.logs.len() {
            self.put_openings(place)?;
            let member = self.member(place)?;
            let log = self.log(place)?;
            let size = log.tiles.size();
            let mut partial = log.tiles.partial();
            partial.extend(log.bundles.partial());
            for (path, content) in partial {
                self.put(&format!("{}/1/{path}", member.name), &content)?;
            }
            let note = self.cosigned(place)?;
            self.put(&format!("{}/1/checkpoint", member.name), &note.to_bytes())?;
            logs.push(ExportedLog {
                party: member.name.to_owned(),
                log: 1,
                size,
                settled: size,
                ranges: vec![(0, size)],
            });
        }
        let export = Export {
            version: Export::VERSION,
            cluster: CLUSTER.to_owned(),
            kind: KIND.to_owned(),
            exporter: "auditor".to_owned(),
            began_ms: self.sample.began_ms,
            complete: true,
            openings: plan.openings,
            logs,
        };
        let content = serde_json::to_vec_pretty(&export).map_err(Error::bug)?;
        self.put(export::FILE, &content)
    }

    pub fn certificate(&self, done: &Done) -> Result<Vec<u8>> {
        let sample = self.sample;
        let mut parties = Vec::new();
        for ((place, index), bytes) in done.intents.iter().zip(&done.bytes) {
            let member = self.member(*place)?;
            let log = self.log(*place)?;
            let leaves = log.leaves.as_deref().unwrap_or_default();
            let proof = TlogProof {
                extra: Vec::new(),
                index: *index,
                proof: inclusion_proof(leaves, *index).map_err(Error::bug)?,
                checkpoint: self.cosigned(*place)?,
            };
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(Error::bug);
            parties.push(certificate::Party {
                party: member.name.to_owned(),
                log_key: Hex(member.log_key()),
                witness_key: Hex(member.witness_key()),
                evidence: Base64(log.document.clone()),
                entry: text(bytes.clone())?,
                proof: text(proof.to_bytes())?,
            });
        }
        let certificate = Certificate {
            version: certificate::VERSION,
            request: done.request.clone(),
            key: sample.key(),
            session: Hex(done.session),
            signatures: vec![done.signature.clone()],
            manifest: sample.signed_manifest(),
            parties,
        };
        Ok(certificate.encode())
    }
}
