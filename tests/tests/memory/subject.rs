//! The process that is looked into: uses secrets as an enclave does, drops them, and waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
};

use arca_attestation::{TrustClass, UnixMillis};
use arca_channel::Identity;
use arca_enclave::platform::Platform as _;
use arca_enclave::sealing::{self, Header};
use arca_enclave_simulated::{Config, SimulatedPlatform, nsm::LocalRoot};
use arca_threshold::{
    self as frost, Outbox, Participant, Protocol, Scheme, SessionId, Transition, Tweak,
    ecdsa::{self, CurveId, PairSetups, Path, pairwise},
};
use rand_chacha::ChaCha20Rng;
use rand_core::{OsRng, RngCore as _, SeedableRng as _};
use zeroize::Zeroizing;

/// Where the subject tells its secrets and takes orders.
pub const SOCKET: &str = "ARCA_TEST_SUBJECT_SOCKET";
pub const TASK: &str = "ARCA_TEST_SUBJECT_TASK";
/// What the test must not look for: the generators of these tests keep their seeds.
pub const SEED: &str = "seed of the nonces of ";
/// The order to keep a copy of the bytes that follow.
pub const KEEP: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    Bip340,
    Ed25519,
    Secp256k1,
    P256,
    Sealing,
    Identity,
}

impl Scenario {
    const ALL: [Self; 6] = [
        Self::Bip340,
        Self::Ed25519,
        Self::Secp256k1,
        Self::P256,
        Self::Sealing,
        Self::Identity,
    ];

    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

#[test]
#[ignore = "is started by the tests beside it"]
fn subject() {
    let stream = UnixStream::connect(PathBuf::from(std::env::var_os(SOCKET).unwrap())).unwrap();
    let told = Told(stream);
    let task = std::env::var(TASK).unwrap();
    let scenario = Scenario::ALL.into_iter().find(|s| s.name() == task);
    match scenario.unwrap() {
        Scenario::Bip340 => schnorr(&told, Scheme::Bip340),
        Scenario::Ed25519 => schnorr(&told, Scheme::Ed25519),
        Scenario::Secp256k1 => dkls(&told, CurveId::Secp256k1),
        Scenario::P256 => dkls(&told, CurveId::P256),
        Scenario::Sealing => seal_and_unseal(&told),
        Scenario::Identity => identify(&told),
    }
    told.obey();
}

/// Tells secrets to the test, with no copy on the way.
struct Told(UnixStream);

impl Told {
    fn secret(&self, name: &str, bytes: &[u8]) {
        assert!(!name.is_empty());
        self.put(name.as_bytes());
        self.put(bytes);
    }

    fn put(&self, bytes: &[u8]) {
        let mut stream = &self.0;
        stream
            .write_all(&[u8::try_from(bytes.len()).unwrap()])
            .unwrap();
        stream.write_all(bytes).unwrap();
    }

    /// Says that the task is done, then keeps what it is told to keep.
    fn obey(&self) {
        self.put(&[]);
        let mut stream = &self.0;
        let mut kept: Vec<Box<[u8]>> = Vec::new();
        let mut order = [0; 2];
        while stream.read_exact(&mut order).is_ok() {
            assert_eq!(order[0], KEEP);
            let mut copy = vec![0; usize::from(order[1])].into_boxed_slice();
            stream.read_exact(&mut copy).unwrap();
            kept.push(copy);
            stream.write_all(&[KEEP]).unwrap();
        }
    }
}

fn schnorr(told: &Told, scheme: Scheme) {
    let mut rng = generator();
    let parties = parties();
    let session = session(&mut rng);
    let mut starts = Vec::new();
    for me in &parties {
        let params = frost::DkgParams {
            scheme,
            session,
            context: [9; 32],
            me: *me,
            participants: parties.clone(),
            threshold: 2,
        };
        let (protocol, outbox) = frost::dkg(params, &mut rng).unwrap();
        starts.push((*me, protocol, outbox));
    }
    let keys = drive(starts, &mut rng, &mut |round, from, to, bytes| {
        dealt(told, round, from, to, bytes);
    });
    let mut read = BTreeMap::new();
    for (me, key) in keys {
        let bytes = key.to_bytes().unwrap();
        told.secret(&format!("share of {}", me.get()), last(&bytes));
        read.insert(me, Arc::new(frost::KeyPackage::from_bytes(&bytes).unwrap()));
    }

    let messages = match scheme {
        Scheme::Bip340 => vec![
            (vec![1; 32], Tweak::None),
            (vec![2; 32], Tweak::TaprootKeyPath),
        ],
        Scheme::Ed25519 => vec![(vec![1; 40], Tweak::None), (vec![2; 7], Tweak::None)],
    };
    let signers: BTreeSet<Participant> = parties.iter().copied().take(2).collect();
    let params = frost::SigningParams {
        session: self::session(&mut rng),
        context: [3; 32],
        signers: signers.clone(),
        coordinator: one(&signers),
        messages: messages
            .into_iter()
            .map(|(message, tweak)| frost::Signable { message, tweak })
            .collect(),
    };
    let mut starts = Vec::new();
    for me in &signers {
        // With which the test makes the same nonces.
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut seed[..]);
        told.secret(&format!("{SEED}{}", me.get()), &seed[..]);
        let mut nonces = ChaCha20Rng::from_seed(*seed);
        let (protocol, outbox) =
            frost::sign(Arc::clone(&read[me]), params.clone(), &mut nonces).unwrap();
        starts.push((*me, protocol, outbox));
    }
    let signed = drive(starts, &mut rng, &mut |_, _, _, _| {});
    // Deep computations overwrite what earlier ones left: the last word is a package that is merely read.
    let bytes = read[&one(&signers)].to_bytes().unwrap();
    drop(read);
    drop(frost::KeyPackage::from_bytes(&bytes).unwrap());
    drop(bytes);
    let signatures = signed.values().filter_map(|signed| match signed {
        frost::Signed::Signatures(signatures) => Some(signatures.len()),
        frost::Signed::Released => None,
    });
    assert_eq!(signatures.sum::<usize>(), 2);
}

fn dkls(told: &Told, curve: CurveId) {
    let mut rng = generator();
    let parties = parties();
    let session = session(&mut rng);
    let mut starts = Vec::new();
    for me in &parties {
        let params = ecdsa::DkgParams {
            curve,
            session,
            context: [9; 32],
            me: *me,
            participants: parties.clone(),
            threshold: 2,
        };
        let (protocol, outbox) = ecdsa::dkg(params, &mut rng).unwrap();
        starts.push((*me, protocol, outbox));
    }
    let keys = drive(starts, &mut rng, &mut |round, from, to, bytes| {
        dealt(told, round, from, to, bytes);
    });
    let mut read = BTreeMap::new();
    for (me, key) in keys {
        let bytes = key.to_bytes();
        told.secret(&format!("share of {}", me.get()), last(&bytes));
        read.insert(me, Arc::new(ecdsa::KeyPackage::from_bytes(&bytes).unwrap()));
    }

    let signers: BTreeSet<Participant> = parties.iter().copied().take(2).collect();
    let [one, other] = [*signers.first().unwrap(), *signers.last().unwrap()];
    let session = self::session(&mut rng);
    let mut starts = Vec::new();
    for (me, peer) in [(one, other), (other, one)] {
        let params = pairwise::PairSetupParams {
            session,
            context: [8; 32],
            me,
            peer,
        };
        let (protocol, outbox) = pairwise::pair_setup(params, &mut rng).unwrap();
        starts.push((me, protocol, outbox));
    }
    let setups: BTreeMap<Participant, PairSetups> = drive(starts, &mut rng, &mut |_, _, _, _| {})
        .into_iter()
        .map(|(me, setup)| {
            let peer = if me == one { other } else { one };
            (me, PairSetups::from([(peer, Arc::new(setup))]))
        })
        .collect();

    let binding = [5; 32];
    let params = ecdsa::PresigningParams {
        session: self::session(&mut rng),
        binding,
        signers: signers.clone(),
        count: 2,
    };
    let mut starts = Vec::new();
    for me in &signers {
        let (protocol, outbox) =
            ecdsa::presign(Arc::clone(&read[me]), &setups[me], params.clone(), &mut rng).unwrap();
        starts.push((*me, protocol, outbox));
    }
    let pools = drive(starts, &mut rng, &mut |_, _, _, _| {});

    let key = &read[&one];
    let messages: Vec<ecdsa::Signable> = [vec![], vec![7, 1]]
        .into_iter()
        .map(|path| ecdsa::Signable {
            digest: [4; 32],
            key: key.derive(&Path::new(path).unwrap()).unwrap(),
        })
        .collect();
    let mut entropy = [0; 32];
    rng.fill_bytes(&mut entropy);
    let mut params = ecdsa::SigningParams {
        session: self::session(&mut rng),
        context: [3; 32],
        signers: signers.clone(),
        coordinator: one,
        entropy,
        messages,
    };
    let mut starts = Vec::new();
    let mut letters = Vec::new();
    for (me, pool) in pools {
        let online = ecdsa::sign_online(Arc::clone(&read[&me]), &binding, pool, params.clone());
        match online.unwrap() {
            Transition::Continue(protocol, _) => starts.push(protocol),
            Transition::Done(_, outbox) => letters.extend(outbox.into_iter().map(|l| (me, l.1))),
        }
    }
    let coordinator = starts.pop().unwrap();
    let mut inbox = coordinator.inbox();
    for (from, bytes) in letters {
        inbox.insert(from, bytes).unwrap();
    }
    let signed = coordinator.advance(inbox, &mut rng).unwrap();
    assert!(matches!(
        signed,
        Transition::Done(ecdsa::Signed::Signatures(signatures), _) if signatures.len() == 2
    ));

    params.session = self::session(&mut rng);
    let mut starts = Vec::new();
    for me in &signers {
        let (protocol, outbox) =
            ecdsa::sign(Arc::clone(&read[me]), &setups[me], params.clone(), &mut rng).unwrap();
        starts.push((*me, protocol, outbox));
    }
    drive(starts, &mut rng, &mut |_, _, _, _| {});
    // As above.
    let bytes = read[&one].to_bytes();
    drop(read);
    drop(ecdsa::KeyPackage::from_bytes(&bytes).unwrap());
}

fn one(signers: &BTreeSet<Participant>) -> Participant {
    *signers.first().unwrap()
}

fn seal_and_unseal(told: &Told) {
    let folder = tempfile::tempdir().unwrap();
    let part = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    };
    let config = Config {
        sockets: part("run"),
        root: part("root"),
        hardware: folder.path().join("hardware"),
        presignatures: 0,
        danger_without_log: false,
    };
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = UnixMillis(u64::try_from(since.unwrap().as_millis()).unwrap());
    let root = LocalRoot::create(&mut OsRng, now).unwrap();
    root.save(&config.root).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let header = Header {
        class: TrustClass::Simulated,
        cluster: "sim-memory".into(),
        party: "ceo".into(),
        object: "key/00".into(),
        key_epoch: 1,
        sequence: 1,
        predecessor: [0; 32],
        manifest_digest: [8; 48],
    };
    runtime.block_on(async {
        let platform = SimulatedPlatform::start(&config).unwrap();
        let mut content = Zeroizing::new(vec![0; 96]);
        OsRng.fill_bytes(&mut content);
        told.secret("content", &content);
        let blob = sealing::seal(&platform, &header, &content, &mut OsRng)
            .await
            .unwrap();
        drop(content);
        let (_, content) = sealing::unseal(&platform, "sim-memory", "ceo", "key/00", &blob)
            .await
            .unwrap();
        drop(content);
        let (header, wrapped) = wrapped(&blob);
        let key = platform.unwrap(wrapped, header).await.unwrap();
        told.secret("data key", key.expose());
    });
    drop(runtime);
    let mut kek = Zeroizing::new([0; 32]);
    let mut file = std::fs::File::open(config.hardware.join("kek")).unwrap();
    file.read_exact(&mut kek[..]).unwrap();
    told.secret("key-encryption key", &kek[..]);
}

/// Header and wrapped data key of a sealed blob; `enclave/src/sealing.rs` says where they are.
fn wrapped(blob: &[u8]) -> (&[u8], &[u8]) {
    let field = |at: usize| 2 + usize::from(u16::from_be_bytes([blob[at], blob[at + 1]]));
    let mut at = 10;
    for _ in 0..3 {
        at += field(at);
    }
    at += 8 + 8 + 32 + 48;
    at += field(at);
    (&blob[..at], &blob[at + 2..at + field(at)])
}

fn identify(told: &Told) {
    let identity = Identity::generate(&mut OsRng).unwrap();
    let scalar = identity.to_scalar().unwrap();
    told.secret("identity", &scalar[..]);
    let mut read = Zeroizing::new([0; 32]);
    read.copy_from_slice(&scalar);
    let again = Identity::from_scalar(&read).unwrap();
    assert_eq!(identity.spki(), again.spki());
}

/// What one party dealt to another in a key generation.
fn dealt(told: &Told, round: u32, from: Participant, to: Participant, bytes: &[u8]) {
    if round == 3 {
        let name = format!("what {} dealt to {}", from.get(), to.get());
        told.secret(&name, last(bytes));
    }
}

/// Key packages, and messages that deal shares, end with the secret.
fn last(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.len() - 32..]
}

/// Sees each message: round, sender, recipient.
type Watch<'a> = &'a mut dyn FnMut(u32, Participant, Participant, &[u8]);
type Start<O> = (Participant, Protocol<O>, Outbox);

/// Runs a protocol to its end among all, as `enclave/src/session.rs` does at each.
fn drive<O>(
    starts: Vec<Start<O>>,
    rng: &mut ChaCha20Rng,
    watch: Watch<'_>,
) -> BTreeMap<Participant, O> {
    let mut outputs = BTreeMap::new();
    let mut running = Vec::new();
    let mut letters = Vec::new();
    for (me, protocol, outbox) in starts {
        letters.extend(outbox.into_iter().map(|(to, bytes)| (me, to, bytes)));
        running.push((me, protocol));
    }
    while !running.is_empty() {
        let mut delivered: BTreeMap<Participant, Vec<_>> = BTreeMap::new();
        let round = running[0].1.round();
        for (from, to, bytes) in std::mem::take(&mut letters) {
            watch(round, from, to, &bytes);
            delivered.entry(to).or_default().push((from, bytes));
        }
        for (me, protocol) in std::mem::take(&mut running) {
            let mut inbox = protocol.inbox();
            for (from, bytes) in delivered.remove(&me).unwrap_or_default() {
                inbox.insert(from, bytes).unwrap();
            }
            let outbox = match protocol.advance(inbox, rng).unwrap() {
                Transition::Continue(protocol, outbox) => {
                    running.push((me, protocol));
                    outbox
                }
                Transition::Done(output, outbox) => {
                    outputs.insert(me, output);
                    outbox
                }
            };
            letters.extend(outbox.into_iter().map(|(to, bytes)| (me, to, bytes)));
        }
    }
    outputs
}

fn parties() -> BTreeSet<Participant> {
    (1..=3)
        .map(|index| Participant::new(index).unwrap())
        .collect()
}

fn session(rng: &mut ChaCha20Rng) -> SessionId {
    let mut bytes = [0; 32];
    rng.fill_bytes(&mut bytes);
    SessionId::new(bytes)
}

/// Unlike the one of the enclave, it is not erased: nothing that it makes may be told by its key alone.
fn generator() -> ChaCha20Rng {
    ChaCha20Rng::from_entropy()
}
