//! Two parties set up, make a key, presign, or sign with and without presignatures; one message of the first is
//! overwritten with the input. The second ends with an error or with an honest result, and never panics.
//!
//! Input: what to overwrite (1 byte: bit 0 the curve, bits 1 to 3 the protocol, bits 4 and 5 the round, bit 6
//! whether the message ends with the input), where (2 bytes, big endian), and the bytes.
#![no_main]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, RwLock};

use arca_threshold::ecdsa::pairwise::{PairSetup, PairSetupParams, pair_setup};
use arca_threshold::ecdsa::{
    CurveId, DkgParams, KeyPackage, PairSetups, Path, Presignature, PresigningParams, Signable,
    Signed, SigningParams, dkg, presign, sign, sign_online, verify,
};
use arca_threshold::{Error, Outbox, Participant, Protocol, SessionId, Transition};
use libfuzzer_sys::fuzz_target;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;

const CURVES: [CurveId; 2] = [CurveId::Secp256k1, CurveId::P256];
const DIGEST: [u8; 32] = [7; 32];
const BINDING: [u8; 32] = [0; 32];

type Keys = [Arc<KeyPackage>; 2];
type Setups = [PairSetups; 2];

/// By curve.
static KEYS: LazyLock<[Keys; 2]> = LazyLock::new(|| {
    CURVES.map(|curve| both(run(|me, rng| generate(curve, me, rng), |_, _, _| {})).map(Arc::new))
});
/// Made anew when a failed check has spent them.
static SETUPS: LazyLock<RwLock<Setups>> = LazyLock::new(|| RwLock::new(pair_up()));

fuzz_target!(|input: &[u8]| {
    let [what, high, low, bytes @ ..] = input else {
        return;
    };
    let (curve, protocol) = (usize::from(what & 1), what >> 1 & 7);
    let (round, truncate) = (u32::from(what >> 4 & 3) + 1, what & 64 != 0);
    let offset = usize::from(u16::from_be_bytes([*high, *low]));
    let overwrite = |now: u32, to: Participant, message: &mut Vec<u8>| {
        if now != round || to.get() != 2 {
            return;
        }
        let end = offset.saturating_add(bytes.len());
        if message.len() < end || truncate {
            message.resize(end, 0);
        }
        message[offset..end].copy_from_slice(bytes);
    };
    let keys = &KEYS[curve];
    let setups = setups();
    match protocol {
        0 => drop(second(run(set_up, overwrite))),
        1 => {
            let key = second(run(|me, rng| generate(CURVES[curve], me, rng), overwrite));
            if let Ok(key) = key {
                assert_eq!(key.to_bytes(), keys[1].to_bytes());
            }
        }
        2 => {
            let start =
                |me: Participant, rng: &mut ChaCha20Rng| start_presigning(keys, &setups, me, rng);
            if let Ok(presignatures) = second(run(start, overwrite)) {
                assert_eq!(presignatures.len(), 2);
            }
        }
        3 => {
            let start = |me: Participant, rng: &mut ChaCha20Rng| {
                let place = place(me);
                sign(
                    Arc::clone(&keys[place]),
                    &setups[place],
                    request(&keys[1]),
                    rng,
                )
                .map(started)
            };
            check(&keys[1], second(run(start, overwrite)));
        }
        _ => {
            let start =
                |me: Participant, rng: &mut ChaCha20Rng| start_presigning(keys, &setups, me, rng);
            let mut pools = both(run(start, |_, _, _| {})).map(Some);
            let start = |me: Participant, _: &mut ChaCha20Rng| {
                let pool = pools[place(me)].take().expect("each starts once");
                sign_online(
                    Arc::clone(&keys[place(me)]),
                    &BINDING,
                    pool,
                    request(&keys[1]),
                )
            };
            check(&keys[1], second(run(start, overwrite)));
        }
    }
});

/// What the second party, who coordinates, ends with: nothing, or signatures that verify.
fn check(key: &KeyPackage, signed: Result<Signed, Error>) {
    match signed {
        Ok(Signed::Signatures(signatures)) => {
            assert_eq!(signatures.len(), 2);
            for signature in signatures {
                verify(
                    key.curve(),
                    &key.public_key(),
                    &DIGEST,
                    &signature.r,
                    &signature.s,
                )
                .expect("a signature verifies");
            }
        }
        Ok(Signed::Released) => panic!("the second party coordinates"),
        Err(_) => {}
    }
}

fn setups() -> Setups {
    let spent = |setups: &Setups| {
        setups
            .iter()
            .flat_map(|s| s.values())
            .any(|s| s.is_poisoned())
    };
    let mut setups = SETUPS.write().expect("one thread");
    if spent(&setups) {
        *setups = pair_up();
    }
    setups.clone()
}

fn parties() -> [Participant; 2] {
    [1, 2].map(|index| Participant::new(index).expect("not zero"))
}

fn place(me: Participant) -> usize {
    usize::from(me.get() - 1)
}

fn peer(me: Participant) -> Participant {
    parties()[1 - place(me)]
}

fn started<O>((protocol, outbox): (Protocol<O>, Outbox)) -> Transition<O> {
    Transition::Continue(protocol, outbox)
}

fn set_up(me: Participant, rng: &mut ChaCha20Rng) -> Result<Transition<PairSetup>, Error> {
    let params = PairSetupParams {
        session: SessionId::new([1; 32]),
        context: [2; 32],
        me,
        peer: peer(me),
    };
    pair_setup(params, rng).map(started)
}

fn pair_up() -> Setups {
    let [one, two] = both(run(set_up, |_, _, _| {}));
    let [first, second] = parties();
    [
        [(second, Arc::new(one))].into(),
        [(first, Arc::new(two))].into(),
    ]
}

fn generate(
    curve: CurveId,
    me: Participant,
    rng: &mut ChaCha20Rng,
) -> Result<Transition<KeyPackage>, Error> {
    let params = DkgParams {
        curve,
        session: SessionId::new([1; 32]),
        context: [2; 32],
        me,
        participants: parties().into(),
        threshold: 2,
    };
    dkg(params, rng).map(started)
}

fn start_presigning(
    keys: &Keys,
    setups: &Setups,
    me: Participant,
    rng: &mut ChaCha20Rng,
) -> Result<Transition<Vec<Presignature>>, Error> {
    let params = PresigningParams {
        session: SessionId::new([3; 32]),
        binding: BINDING,
        signers: parties().into(),
        count: 2,
    };
    presign(
        Arc::clone(&keys[place(me)]),
        &setups[place(me)],
        params,
        rng,
    )
    .map(started)
}

fn request(key: &KeyPackage) -> SigningParams {
    let message = Signable {
        digest: DIGEST,
        key: key.derive(&Path::default()).expect("the key itself"),
    };
    SigningParams {
        session: SessionId::new([4; 32]),
        context: [2; 32],
        signers: parties().into(),
        coordinator: parties()[1],
        entropy: [5; 32],
        messages: vec![message; 2],
    }
}

fn both<O>(outcomes: BTreeMap<Participant, Result<O, Error>>) -> [O; 2] {
    let mut outcomes = outcomes
        .into_values()
        .map(|outcome| outcome.expect("an honest run"));
    [(); 2].map(|()| outcomes.next().expect("two parties"))
}

fn second<O>(mut outcomes: BTreeMap<Participant, Result<O, Error>>) -> Result<O, Error> {
    let (_, outcome) = outcomes.pop_last().expect("two parties");
    if let Err(Error::Bug(what)) = &outcome {
        panic!("a message reached a bug: {what}");
    }
    outcome
}

fn run<O>(
    mut start: impl FnMut(Participant, &mut ChaCha20Rng) -> Result<Transition<O>, Error>,
    overwrite: impl Fn(u32, Participant, &mut Vec<u8>),
) -> BTreeMap<Participant, Result<O, Error>> {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let mut outcomes = BTreeMap::new();
    let (mut running, mut letters) = (Vec::new(), Vec::new());
    let mut take = |me, step, running: &mut Vec<_>, letters: &mut Vec<_>| {
        let outbox = match step {
            Ok(Transition::Continue(protocol, outbox)) => {
                running.push((me, protocol));
                outbox
            }
            Ok(Transition::Done(output, outbox)) => {
                outcomes.insert(me, Ok(output));
                outbox
            }
            Err(error) => {
                outcomes.insert(me, Err(error));
                return;
            }
        };
        letters.extend(outbox.into_iter().map(|(to, message)| (me, to, message)));
    };
    for me in parties() {
        let step = start(me, &mut rng);
        take(me, step, &mut running, &mut letters);
    }
    for round in 1.. {
        if running.is_empty() {
            break;
        }
        let (mut next, mut posted) = (Vec::new(), Vec::new());
        for (me, protocol) in running {
            let mut inbox = protocol.inbox();
            let mut mine = letters.iter_mut().filter(|(_, to, _)| *to == me);
            let delivered = mine.try_for_each(|(from, to, message)| {
                overwrite(round, *to, message);
                inbox.insert(*from, message.clone())
            });
            let step = delivered.and_then(|()| protocol.advance(inbox, &mut rng));
            take(me, step, &mut next, &mut posted);
        }
        (running, letters) = (next, posted);
    }
    outcomes
}
