//! Parties of this process that run a protocol with each other, and what it costs each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arca_threshold::ecdsa::pairwise::{PairSetup, PairSetupParams, pair_setup};
use arca_threshold::ecdsa::{
    CurveId, DkgParams, KeyPackage, PairSetups, Path, Presignature, PresigningParams, Signable,
    Signed, SigningParams, dkg, presign, sign, sign_online,
};
use arca_threshold::{Error, Outbox, Participant, Protocol, SessionId, Transition};
use nix::time::{ClockId, clock_gettime};
use rand_core::{OsRng, RngCore as _};

/// What one run cost: each party's time on the processor and the bytes it sent, and the rounds.
#[derive(Default)]
pub(super) struct Cost {
    pub time: BTreeMap<Participant, Duration>,
    pub sent: BTreeMap<Participant, usize>,
    pub rounds: usize,
}

pub(super) type Keys = BTreeMap<Participant, Arc<KeyPackage>>;
/// For each signer, its presignatures.
pub(super) type Pools = BTreeMap<Participant, Vec<Presignature>>;
type Outputs<O> = BTreeMap<Participant, O>;

/// This thread's time on the processor.
pub(super) fn now() -> anyhow::Result<Duration> {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    Ok(now.context("the thread's clock cannot be read")?.into())
}

/// Runs a protocol to its end among parties that `start` starts.
fn run<O>(
    parties: &BTreeSet<Participant>,
    mut start: impl FnMut(Participant) -> Result<Transition<O>, Error>,
) -> anyhow::Result<(Outputs<O>, Cost)> {
    let (mut outputs, mut cost) = (BTreeMap::new(), Cost::default());
    let (mut running, mut letters) = (Vec::new(), Vec::new());
    let mut step = |me: Participant,
                    cost: &mut Cost,
                    work: &mut dyn FnMut() -> Result<Transition<O>, Error>|
     -> anyhow::Result<(Option<Protocol<O>>, Outbox)> {
        let before = now()?;
        let transition = work()?;
        *cost.time.entry(me).or_default() += now()?.saturating_sub(before);
        Ok(match transition {
            Transition::Continue(protocol, outbox) => (Some(protocol), outbox),
            Transition::Done(output, outbox) => {
                outputs.insert(me, output);
                (None, outbox)
            }
        })
    };
    for me in parties {
        let (protocol, outbox) = step(*me, &mut cost, &mut || start(*me))?;
        running.extend(protocol.map(|protocol| (*me, protocol)));
        letters.extend(outbox.into_iter().map(|(to, bytes)| (*me, to, bytes)));
    }
    while !running.is_empty() {
        cost.rounds += 1;
        for (from, _, bytes) in &letters {
            *cost.sent.entry(*from).or_default() += bytes.len();
        }
        let (mut next, mut posted) = (Vec::new(), Vec::new());
        for (me, protocol) in running {
            let mine = letters.extract_if(.., |(_, to, _)| *to == me);
            let (mut mine, mut protocol) = (mine.collect::<Vec<_>>(), Some(protocol));
            let (protocol, outbox) = step(me, &mut cost, &mut || {
                let protocol = protocol.take().ok_or(Error::Bug("a step is taken once"))?;
                let mut inbox = protocol.inbox();
                for (from, _, bytes) in mine.drain(..) {
                    inbox.insert(from, bytes)?;
                }
                protocol.advance(inbox, &mut OsRng)
            })?;
            next.extend(protocol.map(|protocol| (me, protocol)));
            posted.extend(outbox.into_iter().map(|(to, bytes)| (me, to, bytes)));
        }
        (running, letters) = (next, posted);
    }
    Ok((outputs, cost))
}

fn started<O>((protocol, outbox): (Protocol<O>, Outbox)) -> Transition<O> {
    Transition::Continue(protocol, outbox)
}

fn fresh() -> [u8; 32] {
    let mut bytes = [0; 32];
    OsRng.fill_bytes(&mut bytes);
    bytes
}

/// A key among parties 1 to `n`.
pub(super) fn generate(curve: CurveId, t: u16, n: u16) -> anyhow::Result<(Keys, Cost)> {
    let participants: BTreeSet<_> = (1..=n).filter_map(Participant::new).collect();
    let session = SessionId::new(fresh());
    let (keys, cost) = run(&participants, |me| {
        let params = DkgParams {
            curve,
            session,
            context: [0; 32],
            me,
            participants: participants.clone(),
            threshold: t,
        };
        dkg(params, &mut OsRng).map(started)
    })?;
    let keys = keys.into_iter().map(|(me, key)| (me, Arc::new(key)));
    Ok((keys.collect(), cost))
}

/// What two parties share before they multiply.
pub(super) fn pair_up(
    one: Participant,
    other: Participant,
) -> anyhow::Result<(Outputs<PairSetup>, Cost)> {
    let session = SessionId::new(fresh());
    run(&[one, other].into(), |me| {
        let params = PairSetupParams {
            session,
            context: [0; 32],
            me,
            peer: if me == one { other } else { one },
        };
        pair_setup(params, &mut OsRng).map(started)
    })
}

/// The first `t` of a key's parties, who sign; the first of them coordinates.
pub(super) struct Signers {
    keys: Keys,
    setups: BTreeMap<Participant, PairSetups>,
    signers: BTreeSet<Participant>,
    coordinator: Participant,
}

impl Signers {
    pub fn new(keys: Keys) -> anyhow::Result<Self> {
        let (coordinator, key) = keys.first_key_value().context("a key has parties")?;
        let (coordinator, threshold) = (*coordinator, usize::from(key.threshold()));
        let signers: BTreeSet<_> = keys.keys().copied().take(threshold).collect();
        let mut setups: BTreeMap<_, PairSetups> = BTreeMap::new();
        for one in &signers {
            for other in signers.range(..*one) {
                for (me, setup) in pair_up(*one, *other)?.0 {
                    let peer = if me == *one { *other } else { *one };
                    setups.entry(me).or_default().insert(peer, Arc::new(setup));
                }
            }
        }
        Ok(Self {
            keys,
            setups,
            signers,
            coordinator,
        })
    }

    pub fn coordinator(&self) -> Participant {
        self.coordinator
    }

    pub fn presign(&self, count: usize) -> anyhow::Result<(Pools, Cost)> {
        let params = PresigningParams {
            session: SessionId::new(fresh()),
            binding: [0; 32],
            signers: self.signers.clone(),
            count,
        };
        run(&self.signers, |me| {
            let (key, setups) = self.of(me)?;
            presign(key, setups, params.clone(), &mut OsRng).map(started)
        })
    }

    /// One signature from nothing.
    pub fn sign(&self) -> anyhow::Result<Cost> {
        let params = self.request()?;
        let signed = run(&self.signers, |me| {
            let (key, setups) = self.of(me)?;
            sign(key, setups, params.clone(), &mut OsRng).map(started)
        })?;
        Ok(signed.1)
    }

    /// One signature with each signer's next presignature. None when there is none left.
    pub fn sign_online(&self, pools: &mut Pools) -> anyhow::Result<Option<Cost>> {
        let params = self.request()?;
        let mut taken = BTreeMap::new();
        for (me, pool) in pools {
            let Some(presignature) = pool.pop() else {
                return Ok(None);
            };
            taken.insert(*me, vec![presignature]);
        }
        let signed: (Outputs<Signed>, Cost) = run(&self.signers, |me| {
            let presignatures = taken.remove(&me).unwrap_or_default();
            sign_online(self.of(me)?.0, &[0; 32], presignatures, params.clone())
        })?;
        Ok(Some(signed.1))
    }

    /// To sign a digest under the key itself.
    fn request(&self) -> anyhow::Result<SigningParams> {
        let (key, _) = self.of(self.coordinator)?;
        let message = Signable {
            digest: fresh(),
            key: key.derive(&Path::default())?,
        };
        Ok(SigningParams {
            session: SessionId::new(fresh()),
            context: [0; 32],
            signers: self.signers.clone(),
            coordinator: self.coordinator,
            entropy: fresh(),
            messages: vec![message],
        })
    }

    fn of(&self, me: Participant) -> Result<(Arc<KeyPackage>, &PairSetups), Error> {
        let parts = self.keys.get(&me).zip(self.setups.get(&me));
        let (key, setups) = parts.ok_or(Error::Bug("signers have keys and setups"))?;
        Ok((Arc::clone(key), setups))
    }
}
