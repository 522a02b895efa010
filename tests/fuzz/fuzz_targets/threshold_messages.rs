//! Two parties make a key or a signature; one message of the first is overwritten with the input. The
//! second ends with an error or with the honest result, and never panics.
//!
//! Input: what to overwrite (1 byte: bit 0 the scheme, bit 1 the protocol, bits 2 and 3 the round, bit 4
//! whether the message ends with the input), where (2 bytes, big endian), and the bytes.
#![no_main]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arca_threshold::{
    DkgParams, Error, KeyPackage, Outbox, Participant, Protocol, Scheme, SessionId, Signable,
    Signed, SigningParams, Transition, Tweak, dkg, sign,
};
use libfuzzer_sys::fuzz_target;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;

type Start<O> = (Participant, Protocol<O>, Outbox);

static KEYS: LazyLock<[Vec<Arc<KeyPackage>>; 2]> = LazyLock::new(|| {
    [Scheme::Bip340, Scheme::Ed25519].map(|scheme| {
        let outcomes = run(generate(scheme), |_, _, _| {});
        let keys = outcomes
            .into_values()
            .map(|key| Arc::new(key.expect("an honest run")));
        keys.collect()
    })
});
/// What the second party ends with in honest runs: key packages, then signatures, by scheme.
static HONEST: LazyLock<[Vec<Vec<u8>>; 2]> = LazyLock::new(|| {
    let schemes = [Scheme::Bip340, Scheme::Ed25519];
    [
        schemes
            .map(|scheme| second(run(generate(scheme), |_, _, _| {}), key_bytes))
            .to_vec(),
        schemes
            .map(|scheme| second(run(start_signing(scheme), |_, _, _| {}), signature_bytes))
            .to_vec(),
    ]
    .map(|results| {
        results
            .into_iter()
            .map(|r| r.expect("an honest run"))
            .collect()
    })
});

fuzz_target!(|input: &[u8]| {
    let [what, high, low, bytes @ ..] = input else {
        return;
    };
    let (scheme, signing) = (usize::from(what & 1), what & 2 != 0);
    let (round, truncate) = (u32::from(what >> 2 & 3) + 1, what & 16 != 0);
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
    let which = [Scheme::Bip340, Scheme::Ed25519][scheme];
    let result = if signing {
        second(run(start_signing(which), overwrite), signature_bytes)
    } else {
        second(run(generate(which), overwrite), key_bytes)
    };
    if let Ok(result) = result {
        assert_eq!(result, HONEST[usize::from(signing)][scheme]);
    }
});

fn second<O>(
    mut outcomes: BTreeMap<Participant, Result<O, Error>>,
    bytes: impl Fn(O) -> Vec<u8>,
) -> Result<Vec<u8>, Error> {
    let (_, outcome) = outcomes.pop_last().expect("two parties");
    if let Err(Error::Bug(what)) = &outcome {
        panic!("a message reached a bug: {what}");
    }
    outcome.map(bytes)
}

fn key_bytes(key: KeyPackage) -> Vec<u8> {
    key.to_bytes().expect("a key package encodes").to_vec()
}

fn signature_bytes(signed: Signed) -> Vec<u8> {
    match signed {
        Signed::Signatures(signatures) => signatures.concat(),
        Signed::Released => panic!("the second party coordinates"),
    }
}

fn parties() -> impl Iterator<Item = Participant> {
    (1..=2).filter_map(Participant::new)
}

fn generate(scheme: Scheme) -> Vec<Start<KeyPackage>> {
    let start = |me: Participant| {
        let params = DkgParams {
            scheme,
            session: SessionId::new([1; 32]),
            context: [2; 32],
            me,
            participants: parties().collect(),
            threshold: 2,
        };
        let mut rng = ChaCha20Rng::seed_from_u64(u64::from(me.get()));
        let (protocol, outbox) = dkg(params, &mut rng).expect("served parameters");
        (me, protocol, outbox)
    };
    parties().map(start).collect()
}

fn start_signing(scheme: Scheme) -> Vec<Start<Signed>> {
    let tweak = match scheme {
        Scheme::Bip340 => Tweak::TaprootKeyPath,
        Scheme::Ed25519 => Tweak::None,
    };
    let message = Signable {
        message: vec![3; 32],
        tweak,
    };
    let start = |(me, key): (Participant, &Arc<KeyPackage>)| {
        let params = SigningParams {
            session: SessionId::new([1; 32]),
            context: [2; 32],
            signers: parties().collect(),
            coordinator: parties().last().expect("two parties"),
            messages: vec![message.clone(); 2],
        };
        let mut rng = ChaCha20Rng::seed_from_u64(u64::from(me.get()));
        let (protocol, outbox) =
            sign(Arc::clone(key), params, &mut rng).expect("served parameters");
        (me, protocol, outbox)
    };
    let keys = &KEYS[usize::from(scheme == Scheme::Ed25519)];
    parties().zip(keys).map(start).collect()
}

fn run<O>(
    starts: Vec<Start<O>>,
    overwrite: impl Fn(u32, Participant, &mut Vec<u8>),
) -> BTreeMap<Participant, Result<O, Error>> {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let mut outcomes = BTreeMap::new();
    let (mut running, mut letters) = (Vec::new(), Vec::new());
    for (me, protocol, outbox) in starts {
        letters.extend(outbox.into_iter().map(|(to, message)| (me, to, message)));
        running.push((me, protocol));
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
            match delivered.and_then(|()| protocol.advance(inbox, &mut rng)) {
                Ok(Transition::Continue(protocol, outbox)) => {
                    posted.extend(outbox.into_iter().map(|(to, message)| (me, to, message)));
                    next.push((me, protocol));
                }
                Ok(Transition::Done(output, outbox)) => {
                    posted.extend(outbox.into_iter().map(|(to, message)| (me, to, message)));
                    outcomes.insert(me, Ok(output));
                }
                Err(error) => {
                    outcomes.insert(me, Err(error));
                }
            }
        }
        (running, letters) = (next, posted);
    }
    outcomes
}
