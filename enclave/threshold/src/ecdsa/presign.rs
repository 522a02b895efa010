//! Presigning: the rounds of DKLs23's signing protocol (ePrint 2023/765, Protocol 3.6) that need no
//! message, for a batch of presignatures in lockstep.
//!
//! | round | message | what the receiver checks |
//! | --- | --- | --- |
//! | 1 commit | broadcast: hash of all nonce points `R_i`. direct: the id of the pair's setup and the multiplications' first message, sender as Bob | context, setup |
//! | 2 multiply | broadcast: all `R_i`, and key share points `pk_i`. direct: the multiplications' answer, sender as Alice; for each presignature `Γ^u`, `Γ^v`, `ψ` | echo of round 1, hash, encodings, the multiplications' checks, both products in the exponent, the sum of the `pk_i` |
//! | 3 confirm | nothing but the echo of round 2 | echo of round 2 |
//!
//! Letters are the paper's: for signers `i`, `j`, nonce share `r_i`, key share `sk_i` (interpolated and
//! re-randomised with a share of zero), mask `φ_i`, and `χ_{i,j}`, `d_{i,j}` what `i` has as Bob, `c_{i,j}`
//! what it has as Alice of a multiplication with `j`. Full signing runs the first two rounds and goes on
//! with the shares.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arca_wipe::wiped;
use k256::elliptic_curve::group::Group as _;
use k256::elliptic_curve::{Field as _, PrimeField as _};
use rand_core::CryptoRngCore;
use zeroize::Zeroizing;

use crate::bytes::{take, take_slice};
use crate::protocol::{Kind, Next, Outgoing, Protocol, Received, Round, Setup, Shape};
use crate::{AbortReason, Error, MAX_BATCH, Outbox, Participant, Reject, SessionId, tags};

use super::curve::{Curve, CurveId, P256, POINT_BYTES, SCALAR_BYTES, Secp256k1};
use super::key::KeyPackage;
use super::multiples::{self, Product};
use super::pairwise;
use super::presignature::{PairSetups, Presignature, PresignatureId, Presigned, Secret};
use super::shamir;

/// A presigning session: three rounds, each all to all.
pub type Presigning = Protocol<Vec<Presignature>>;

/// What a presigning session is about. It must be the same at all signers.
#[derive(Debug, Clone)]
pub struct PresigningParams {
    /// This run. Never used before.
    pub session: SessionId,
    /// Digest of what the presignatures live and die with: the key's epoch and the instances (boot ids)
    /// of all signers. A difference ends the run in round 1, and the presignatures are refused where
    /// another is given.
    pub binding: [u8; 32],
    /// Who will sign: at least the key's threshold of its participants.
    pub signers: BTreeSet<Participant>,
    /// How many presignatures: 1 to [`MAX_BATCH`].
    pub count: usize,
}

/// Starts a presigning session at the participant that holds `key`.
///
/// All signers end with the same presignatures in the same order, or with none; only a last message
/// that does not arrive leaves some with and some without.
///
/// # Errors
///
/// [`Error::Reject`] when the parameters are not served, do not fit the key, or a setup is missing or
/// poisoned.
pub fn presign(
    key: Arc<KeyPackage>,
    setups: &PairSetups,
    params: PresigningParams,
    rng: &mut dyn CryptoRngCore,
) -> Result<(Presigning, Outbox), Error> {
    wiped(|| match key.curve() {
        CurveId::Secp256k1 => start::<Secp256k1>(key, setups, params, rng),
        CurveId::P256 => start::<P256>(key, setups, params, rng),
    })
}

fn start<C: Presigned>(
    key: Arc<KeyPackage>,
    setups: &PairSetups,
    params: PresigningParams,
    rng: &mut dyn CryptoRngCore,
) -> Result<(Presigning, Outbox), Error> {
    if !(1..=MAX_BATCH).contains(&params.count) {
        return Err(Reject::Batch.into());
    }
    let (kind, count) = ([Kind::Presigning as u8], params.count as u64);
    let (digest, signers) = (
        key.public_key_package_digest(),
        signer_bytes(&params.signers),
    );
    let context = tags::hash(
        tags::CONTEXT,
        &[
            &kind,
            params.session.as_bytes(),
            &params.binding,
            &digest,
            &signers,
            &count.to_be_bytes(),
        ],
    );
    let setup = Setup {
        kind: Kind::Presigning,
        session: params.session,
        context,
        me: key.me(),
        participants: params.signers.clone(),
    };
    let run = Run::new(key, setups, context, params)?;
    run.start::<C, _>(setup, Finish, rng)
}

/// Ends with the presignatures, once all have confirmed.
struct Finish;

impl<C: Presigned> After<C> for Finish {
    type Output = Vec<Presignature>;

    fn after(self, presignatures: Vec<Presignature>) -> Result<Next<Self::Output>, Error> {
        let state = Confirm { presignatures };
        Ok(Next::Continue(
            Outgoing::broadcast(Vec::new()),
            Box::new(state),
        ))
    }
}

/// Round 3: awaits the others' echoes. What was sent in rounds 1 and 2 determines the presignatures'
/// names, so equal echoes are all there is to confirm.
struct Confirm {
    presignatures: Vec<Presignature>,
}

impl Round<Vec<Presignature>> for Confirm {
    fn shape(&self) -> Shape {
        Shape {
            broadcast: 0,
            direct: 0,
        }
    }

    fn next(
        self: Box<Self>,
        _: &Received<'_>,
        _: &mut dyn CryptoRngCore,
    ) -> Result<Next<Vec<Presignature>>, Error> {
        Ok(Next::Done(self.presignatures, None))
    }
}

/// What is done with the presignatures of a run.
pub(super) trait After<C>: Send + 'static {
    type Output: 'static;

    fn after(self, presignatures: Vec<Presignature>) -> Result<Next<Self::Output>, Error>;
}

/// What stays the same from round to round.
pub(super) struct Run {
    key: Arc<KeyPackage>,
    setups: Arc<PairSetups>,
    context: [u8; 32],
    binding: [u8; 32],
    signers: BTreeSet<Participant>,
    count: usize,
}

impl Run {
    pub(super) fn new(
        key: Arc<KeyPackage>,
        setups: &PairSetups,
        context: [u8; 32],
        params: PresigningParams,
    ) -> Result<Self, Error> {
        check_signers(&key, &params.signers)?;
        let others = params.signers.iter().filter(|p| **p != key.me());
        let setup_with = |other: &Participant| {
            let setup = setups.get(other).ok_or(Reject::PairSetup)?;
            if setup.is_poisoned() {
                return Err(Reject::SetupPoisoned);
            }
            Ok((*other, Arc::clone(setup)))
        };
        let setups = others.map(setup_with).collect::<Result<_, Reject>>()?;
        Ok(Self {
            key,
            setups: Arc::new(setups),
            context,
            binding: params.binding,
            signers: params.signers,
            count: params.count,
        })
    }

    /// Steps 4 to 6 of the protocol: nonce shares, masks, the first message of the multiplications as Bob. And
    /// of step 7 what is broadcast later.
    pub(super) fn start<C: Presigned, A: After<C>>(
        self,
        setup: Setup,
        after: A,
        rng: &mut dyn CryptoRngCore,
    ) -> Result<(Protocol<A::Output>, Outbox), Error> {
        let nonces = random::<C>(self.count, rng);
        let masks = random::<C>(self.count, rng);
        let keys = self.key_shares::<C>()?;
        let mut inputs = Zeroizing::new(Vec::with_capacity(self.count));
        inputs.extend(nonces.iter().zip(keys.iter()).map(|(r, sk)| [*r, *sk]));
        let own = Points::<C> {
            nonces: nonces.iter().map(C::base).collect(),
            keys: keys.iter().map(C::base).collect(),
        };
        let broadcast = own.encode();
        let (opening, _) = broadcast.split_at(self.count * POINT_BYTES);
        let commitment = self.commitment(self.key.me(), opening);

        let mut bobs = BTreeMap::new();
        let mut direct = BTreeMap::new();
        for (peer, pair) in self.setups.iter() {
            let session = self.pair_session(self.key.me(), *peer);
            let (bob, message) = pairwise::bob_start::<C>(pair, &session, self.count, rng)
                .map_err(|failure| failure.by(*peer))?;
            bobs.insert(*peer, bob);
            direct.insert(*peer, message.into());
        }
        let state = Commit {
            run: self,
            inputs,
            masks,
            own,
            broadcast,
            bobs,
            after,
        };
        let outgoing = Outgoing::both(commitment.to_vec(), direct);
        Ok(setup.start(outgoing, Box::new(state)))
    }

    /// Binding because the hash is, hiding because the opening holds random group elements that are
    /// used nowhere else.
    fn commitment(&self, from: Participant, opening: &[u8]) -> [u8; 32] {
        tags::hash(
            tags::PRESIGN_COMMITMENT,
            &[&self.context, &from.to_bytes(), opening],
        )
    }

    /// The session of the multiplications of `alice` and `bob` in this run.
    fn pair_session(&self, bob: Participant, alice: Participant) -> [u8; 32] {
        tags::hash(
            tags::PRESIGN_PAIR,
            &[&self.context, &bob.to_bytes(), &alice.to_bytes()],
        )
    }

    /// `sk_i`: this signer's summand of the key, made fresh for each presignature by a share of zero.
    fn key_shares<C: Presigned>(&self) -> Result<Zeroizing<Vec<C::Scalar>>, Error> {
        let me = self.key.me();
        let share = &self.key.share::<C>()?.secret;
        let summand = Zeroizing::new(shamir::lagrange::<C>(me, &self.signers) * **share);
        let mut shares = Zeroizing::new(vec![*summand; self.count]);
        for pair in self.setups.values() {
            pair.add_zero_shares::<C>(&self.context, &mut shares);
        }
        Ok(shares)
    }

    fn broadcast_bytes(&self) -> usize {
        self.count * 2 * POINT_BYTES
    }

    /// Names the batch: everything that was broadcast, under the run's context.
    fn transcript(&self, broadcasts: &BTreeMap<Participant, &[u8]>) -> [u8; 32] {
        let mut parts = vec![self.context.as_slice()];
        parts.extend(broadcasts.values());
        tags::hash(tags::PRESIGN_TRANSCRIPT, &parts)
    }
}

/// The parameters' check that all kinds of signing share.
pub(super) fn check_signers(
    key: &KeyPackage,
    signers: &BTreeSet<Participant>,
) -> Result<(), Reject> {
    if !signers.is_subset(key.participants()) {
        return Err(Reject::UnknownSigner);
    }
    if !signers.contains(&key.me()) {
        return Err(Reject::NotAParticipant);
    }
    if signers.len() < usize::from(key.threshold()) {
        return Err(Reject::TooFewSigners);
    }
    Ok(())
}

pub(super) fn signer_bytes(signers: &BTreeSet<Participant>) -> Vec<u8> {
    signers.iter().flat_map(|p| p.to_bytes()).collect()
}

fn random<C: Curve>(count: usize, rng: &mut dyn CryptoRngCore) -> Zeroizing<Vec<C::Scalar>> {
    // A range has an exact length, so this allocates once and leaves no copy behind.
    Zeroizing::new((0..count).map(|_| C::random(rng)).collect())
}

/// Round 1: awaits the others' commitments and first messages.
struct Commit<C: Curve, A> {
    run: Run,
    /// For each presignature, nonce share and key share.
    inputs: Zeroizing<Vec<[C::Scalar; 2]>>,
    masks: Zeroizing<Vec<C::Scalar>>,
    own: Points<C>,
    /// What this signer will broadcast.
    broadcast: Vec<u8>,
    bobs: BTreeMap<Participant, pairwise::Bob<C>>,
    after: A,
}

impl<C: Presigned, A: After<C>> Round<A::Output> for Commit<C, A> {
    fn shape(&self) -> Shape {
        Shape {
            broadcast: 32,
            direct: pairwise::bob_message_bytes(self.run.count),
        }
    }

    /// Step 7: both multiplications with each peer as Alice, and what lets it check them.
    fn next(
        self: Box<Self>,
        received: &Received<'_>,
        rng: &mut dyn CryptoRngCore,
    ) -> Result<Next<A::Output>, Error> {
        let Self {
            run,
            inputs,
            masks,
            own,
            broadcast,
            bobs,
            after,
        } = *self;
        let me = run.key.me();

        // `u` and `v` without what the peers have yet to send.
        let mut sums = Zeroizing::new(vec![[C::Scalar::ZERO; 2]; run.count]);
        let mut commitments = BTreeMap::new();
        let mut direct = BTreeMap::new();
        for (peer, parts) in received {
            let (pair, bob) = match (run.setups.get(peer), bobs.get(peer)) {
                (Some(pair), Some(bob)) => (pair, bob),
                _ => return Err(Error::Bug("every round has the same senders")),
            };
            let session = run.pair_session(*peer, me);
            let (products, answer) =
                pairwise::alice_respond::<C>(pair, &session, &inputs, parts.direct, rng)
                    .map_err(|failure| failure.by(*peer))?;
            let gammas: Vec<C::Point> = products.iter().flatten().map(C::base).collect();
            let gammas = C::encode_all(&gammas);
            let (gammas, _) = gammas.as_chunks::<2>();

            let len = answer.len() + run.count * PROOF_BYTES;
            let mut message = Zeroizing::new(Vec::with_capacity(len));
            message.extend_from_slice(&answer);
            for ((gammas, mask), chi) in gammas.iter().zip(masks.iter()).zip(bob.inputs()) {
                message.extend_from_slice(gammas.as_flattened());
                message.extend_from_slice(&C::scalar_bytes(&(*mask - chi)));
            }
            direct.insert(*peer, message);
            for (sums, products) in sums.iter_mut().zip(products.iter()) {
                for (sum, product) in sums.iter_mut().zip(products) {
                    *sum += product;
                }
            }
            commitments.insert(*peer, parts.broadcast.to_vec());
        }

        let state = Open {
            run,
            inputs,
            masks,
            sums,
            own,
            broadcast: broadcast.clone(),
            commitments,
            bobs,
            after,
        };
        Ok(Next::Continue(
            Outgoing::both(broadcast, direct),
            Box::new(state),
        ))
    }
}

/// For each presignature, `Γ^u`, `Γ^v`, `ψ`.
const PROOF_BYTES: usize = 2 * POINT_BYTES + SCALAR_BYTES;

/// Round 2: awaits the others' openings and answers.
struct Open<C: Curve, A> {
    run: Run,
    /// For each presignature, nonce share and key share.
    inputs: Zeroizing<Vec<[C::Scalar; 2]>>,
    masks: Zeroizing<Vec<C::Scalar>>,
    sums: Zeroizing<Vec<[C::Scalar; 2]>>,
    own: Points<C>,
    broadcast: Vec<u8>,
    commitments: BTreeMap<Participant, Vec<u8>>,
    bobs: BTreeMap<Participant, pairwise::Bob<C>>,
    after: A,
}

impl<C: Presigned, A: After<C>> Round<A::Output> for Open<C, A> {
    fn shape(&self) -> Shape {
        let count = self.run.count;
        Shape {
            broadcast: self.run.broadcast_bytes(),
            direct: pairwise::alice_message_bytes(count) + count * PROOF_BYTES,
        }
    }

    /// Steps 8 and 9: the checks, and this signer's part of the presignatures.
    fn next(
        self: Box<Self>,
        received: &Received<'_>,
        rng: &mut dyn CryptoRngCore,
    ) -> Result<Next<A::Output>, Error> {
        let Self {
            run,
            inputs,
            mut masks,
            mut sums,
            own,
            broadcast,
            commitments,
            mut bobs,
            after,
        } = *self;
        let mut total = own;
        let mut broadcasts = BTreeMap::from([(run.key.me(), broadcast.as_slice())]);
        // `φ_i + Σ_j ψ_{j,i}`.
        let mut factors = Zeroizing::new(masks.to_vec());
        for (peer, parts) in received {
            let opened = parts.broadcast.split_at(run.count * POINT_BYTES).0;
            let committed = commitments.get(peer);
            if committed.is_none_or(|hash| *hash != run.commitment(*peer, opened)) {
                return Err(Error::abort(AbortReason::CommitmentMismatch, *peer));
            }
            let malformed = || Error::abort(AbortReason::Malformed, *peer);
            let points = Points::<C>::decode(parts.broadcast, run.count).ok_or_else(malformed)?;
            let mut rest = parts.direct;
            let answer = take_slice(&mut rest, pairwise::alice_message_bytes(run.count))
                .ok_or_else(malformed)?;
            let proofs = decode_proofs::<C>(rest, run.count).ok_or_else(malformed)?;

            let (pair, bob) = match (run.setups.get(peer), bobs.remove(peer)) {
                (Some(pair), Some(bob)) => (pair, bob),
                _ => return Err(Error::Bug("every round has the same senders")),
            };
            let chis = Zeroizing::new(bob.inputs().to_vec());
            let products = pairwise::bob_finish::<C>(pair, bob, answer)
                .map_err(|failure| failure.by(*peer))?;
            if !points.verify(&proofs, &chis, &products, rng) {
                return Err(pair.fail(AbortReason::ConsistencyCheck).by(*peer));
            }

            for (sums, products) in sums.iter_mut().zip(products.iter()) {
                for (sum, product) in sums.iter_mut().zip(products) {
                    *sum += product;
                }
            }
            for (factor, proof) in factors.iter_mut().zip(&proofs) {
                *factor += proof.psi;
            }
            total.add(&points);
            broadcasts.insert(*peer, parts.broadcast);
        }

        let key = run.key.share::<C>()?.key;
        if total.keys.iter().any(|sum| *sum != key) {
            return Err(run.one_of_the_others(AbortReason::ConsistencyCheck));
        }
        if total.nonces.iter().any(|sum| sum.is_identity().into()) {
            return Err(Error::Bug("the nonce is zero"));
        }
        let transcript = run.transcript(&broadcasts);
        let mut presignatures = Vec::with_capacity(run.count);
        let parts = masks.iter_mut().zip(factors.iter()).zip(sums.iter());
        let parts = parts.zip(inputs.iter()).zip(total.nonces);
        for (position, ((((mask, factor), sums), inputs), nonce_point)) in parts.enumerate() {
            let [[nonce, key], [u, v]] = [inputs, sums];
            let scalars = [*mask, *nonce * factor + u, *key * factor + v];
            let secret = Secret {
                nonce_point,
                scalars: Box::new(Zeroizing::new(scalars)),
            };
            presignatures.push(Presignature {
                id: PresignatureId::new(&transcript, position),
                key: run.key.public_key_package_digest(),
                binding: run.binding,
                signers: run.signers.clone(),
                setups: Arc::clone(&run.setups),
                secret: C::into_curve_secret(secret),
            });
        }
        after.after(presignatures)
    }
}

impl Run {
    /// Someone else deviated; who, only two signers know.
    fn one_of_the_others(&self, reason: AbortReason) -> Error {
        let others = self.setups.keys().copied().collect();
        super::blame(reason, others)
    }
}

/// What a signer broadcasts: for each presignature, `R_i` and `pk_i`.
struct Points<C: Curve> {
    nonces: Vec<C::Point>,
    keys: Vec<C::Point>,
}

impl<C: Curve> Points<C> {
    fn encode(&self) -> Vec<u8> {
        let all = [self.nonces.as_slice(), &self.keys].concat();
        C::encode_all(&all).concat()
    }

    fn decode(mut bytes: &[u8], count: usize) -> Option<Self> {
        let mut points = || -> Option<Vec<C::Point>> {
            let next = |_| C::decode(take(&mut bytes)?);
            (0..count).map(next).collect()
        };
        Some(Self {
            nonces: points()?,
            keys: points()?,
        })
    }

    fn add(&mut self, other: &Self) {
        let all = self.nonces.iter_mut().chain(&mut self.keys);
        for (sum, point) in all.zip(other.nonces.iter().chain(&other.keys)) {
            *sum += point;
        }
    }

    /// That the peer's inputs as Alice were `r_j` and `sk_j`: `χ R_j - Γ^u = d^u G` and
    /// `χ pk_j - Γ^v = d^v G`, for every presignature. (The paper prints the interpolated share
    /// without its share of zero in the second check's place of `sk_j`; an honest peer would fail that.)
    ///
    /// All at once: each equation but the first is multiplied by a random number of 128 bits, and the sum has
    /// to hold. Where one of them does not, one choice of its number in 2^128 at most makes the sum do; where
    /// the first alone does not, none.
    fn verify(
        &self,
        proofs: &[Proof<C>],
        chis: &[C::Scalar],
        products: &[[C::Scalar; 2]],
        rng: &mut dyn CryptoRngCore,
    ) -> bool {
        let points = self.nonces.iter().zip(&self.keys);
        let parts = points.zip(proofs).zip(chis).zip(products);
        let mut terms = Zeroizing::new(Vec::<Product<C>>::with_capacity(4 * chis.len()));
        let mut shares = Zeroizing::new(C::Scalar::ZERO);
        let (mut number, mut bits) = (C::Scalar::ONE, 1);
        for ((((nonce, key), proof), chi), [u, v]) in parts {
            for (point, gamma, share) in [(nonce, proof.gammas.0, u), (key, proof.gammas.1, v)] {
                terms.push(Product::new(*point, 256, number * chi));
                terms.push(Product::new(-gamma, bits, number));
                *shares += number * share;
                let mut random = [0; 16];
                rng.fill_bytes(&mut random);
                (number, bits) = (C::Scalar::from_u128(u128::from_le_bytes(random)), 128);
            }
        }
        multiples::sum(&terms) == C::base(&shares)
    }
}

/// What a peer sends as Alice about its inputs.
struct Proof<C: Curve> {
    gammas: (C::Point, C::Point),
    psi: C::Scalar,
}

fn decode_proofs<C: Curve>(mut bytes: &[u8], count: usize) -> Option<Vec<Proof<C>>> {
    let mut proof = || -> Option<Proof<C>> {
        Some(Proof {
            gammas: (C::decode(take(&mut bytes)?)?, C::decode(take(&mut bytes)?)?),
            psi: C::scalar(take(&mut bytes)?)?,
        })
    };
    let proofs = (0..count).map(|_| proof()).collect::<Option<_>>();
    bytes.is_empty().then_some(proofs).flatten()
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng as _;

    use super::super::key::Share;
    use super::super::pairwise::{PairSetupParams, pair_setup};
    use super::super::{DkgParams, dkg};
    use super::*;
    use crate::Transition;

    type Starts<O> = Vec<(Participant, Protocol<O>, Outbox)>;

    /// Runs to the end, everyone for themselves.
    fn run<O>(starts: Starts<O>, rng: &mut ChaCha20Rng) -> BTreeMap<Participant, Result<O, Error>> {
        let (mut outcomes, mut running, mut letters) = (BTreeMap::new(), Vec::new(), Vec::new());
        for (me, protocol, outbox) in starts {
            letters.extend(outbox.into_iter().map(|(to, bytes)| (me, to, bytes)));
            running.push((me, protocol));
        }
        while !running.is_empty() {
            let (mut next, mut posted) = (Vec::new(), Vec::new());
            for (me, protocol) in running {
                let mut inbox = protocol.inbox();
                for (from, _, bytes) in letters.iter().filter(|(_, to, _)| *to == me) {
                    inbox.insert(*from, bytes.clone()).expect("well formed");
                }
                let outbox = match protocol.advance(inbox, rng) {
                    Ok(Transition::Continue(protocol, outbox)) => {
                        next.push((me, protocol));
                        outbox
                    }
                    Ok(Transition::Done(output, outbox)) => {
                        outcomes.insert(me, Ok(output));
                        outbox
                    }
                    Err(error) => {
                        outcomes.insert(me, Err(error));
                        continue;
                    }
                };
                posted.extend(outbox.into_iter().map(|(to, bytes)| (me, to, bytes)));
            }
            (running, letters) = (next, posted);
        }
        outcomes
    }

    fn generate(n: u16, rng: &mut ChaCha20Rng) -> BTreeMap<Participant, KeyPackage> {
        let participants: BTreeSet<_> = (1..=n).filter_map(Participant::new).collect();
        let start = |me: &Participant| {
            let params = DkgParams {
                curve: CurveId::Secp256k1,
                session: SessionId::new([1; 32]),
                context: [0; 32],
                me: *me,
                participants: participants.clone(),
                threshold: 2,
            };
            let (protocol, outbox) = dkg(params, rng).expect("served");
            (*me, protocol, outbox)
        };
        let outcomes = run(participants.iter().map(start).collect(), rng).into_iter();
        outcomes
            .map(|(me, key)| (me, key.expect("honest")))
            .collect()
    }

    fn pair_up(
        of: &BTreeSet<Participant>,
        rng: &mut ChaCha20Rng,
    ) -> BTreeMap<Participant, PairSetups> {
        let mut setups: BTreeMap<_, PairSetups> = BTreeMap::new();
        for (a, b) in of.iter().flat_map(|a| of.range(..a).map(|b| (*a, *b))) {
            let start = |(me, peer)| {
                let params = PairSetupParams {
                    session: SessionId::new([2; 32]),
                    context: [0; 32],
                    me,
                    peer,
                };
                let (protocol, outbox) = pair_setup(params, rng).expect("served");
                (me, protocol, outbox)
            };
            for (me, setup) in run([(a, b), (b, a)].map(start).into(), rng) {
                let peer = if me == a { b } else { a };
                let setup = Arc::new(setup.expect("honest"));
                setups.entry(me).or_default().insert(peer, setup);
            }
        }
        setups
    }

    /// A signer that multiplies with another share than its own, and says so in its `pk_i`, passes every
    /// check between two.
    #[test]
    fn a_wrong_key_share_gives_no_presignature() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        for n in [2, 3] {
            let mut keys = generate(n, &mut rng);
            let signers: BTreeSet<_> = keys.keys().copied().collect();
            let setups = pair_up(&signers, &mut rng);
            let (first, key) = keys.pop_first().expect("participants");
            let share = key.share::<Secp256k1>().expect("the curve");
            let forged = Share::<Secp256k1> {
                secret: Zeroizing::new(*share.secret + k256::Scalar::ONE),
                key: share.key,
                verifying: share.verifying.clone(),
            };
            let forged = KeyPackage::new(first, key.threshold(), key.chain_code(), forged);
            keys.insert(first, forged);

            let start = |(me, key): (Participant, KeyPackage)| {
                let params = PresigningParams {
                    session: SessionId::new([3; 32]),
                    binding: [0; 32],
                    signers: signers.clone(),
                    count: 2,
                };
                let setups = setups.get(&me).expect("a setup");
                let (protocol, outbox) =
                    presign(Arc::new(key), setups, params, &mut rng).expect("served");
                (me, protocol, outbox)
            };
            let starts = keys.into_iter().map(start).collect();
            for (me, outcome) in run(starts, &mut rng) {
                let others = signers.iter().copied().filter(|p| *p != me).collect();
                let expected = super::super::blame(AbortReason::ConsistencyCheck, others);
                assert_eq!(outcome.expect_err("no presignature"), expected);
            }
        }
    }
}
