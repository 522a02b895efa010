//! Distributed key generation: Feldman sharing by all, committed to before it is opened (the relaxed key
//! generation that DKLs23 asks for, ePrint 2023/602, Protocol 9.1), with proofs of knowledge, a chain
//! code, and a confirmation.
//!
//! | round | message | what the receiver checks |
//! | --- | --- | --- |
//! | 1 commit | broadcast: hash of the sender's round-2 broadcast | context |
//! | 2 open | broadcast: Feldman commitments, proof of knowledge of the constant term, part of the chain code | hash of round 1, encodings, proof |
//! | 3 share | direct: the sender's polynomial at the recipient's index | echo of round 2, share against commitments |
//! | 4 confirm | broadcast: digest of the public key package | equality with one's own |
//!
//! No multiplication is set up here: that belongs to pairs of enclaves, not to keys.

use std::collections::{BTreeMap, BTreeSet};

use arca_wipe::wiped;
use k256::elliptic_curve::group::Group as _;
use rand_core::CryptoRngCore;
use zeroize::Zeroizing;

use crate::bytes::take;
use crate::protocol::{Kind, Next, Outgoing, Protocol, Received, Round, Setup, Shape};
use crate::{AbortReason, Error, MAX_PARTICIPANTS, Outbox, Participant, Reject, SessionId, tags};

use super::curve::{Curve, CurveId, P256, POINT_BYTES, SCALAR_BYTES, Secp256k1};
use super::key::{KeyPackage, Share, Stored};
use super::shamir;

/// A key generation: four rounds, each all to all.
pub type Dkg = Protocol<KeyPackage>;

/// What a key generation is about. All but `me` must be the same at all participants.
#[derive(Debug, Clone)]
pub struct DkgParams {
    /// The curve the key is on.
    pub curve: CurveId,
    /// This run. Never used before.
    pub session: SessionId,
    /// Digest of whatever else the participants must agree on: names behind the indices, key epoch,
    /// what the key is for. A difference ends the run in round 1.
    pub context: [u8; 32],
    /// This participant.
    pub me: Participant,
    /// Everyone, `me` included: 2 to [`MAX_PARTICIPANTS`].
    pub participants: BTreeSet<Participant>,
    /// How many must sign together: at least 2.
    pub threshold: u16,
}

/// Starts a key generation.
///
/// # Errors
///
/// [`Error::Reject`] when the parameters are not served.
pub fn dkg(params: DkgParams, rng: &mut dyn CryptoRngCore) -> Result<(Dkg, Outbox), Error> {
    params.validate()?;
    wiped(|| match params.curve {
        CurveId::Secp256k1 => Ok(start::<Secp256k1>(params, rng)),
        CurveId::P256 => Ok(start::<P256>(params, rng)),
    })
}

fn start<C: Stored>(params: DkgParams, rng: &mut dyn CryptoRngCore) -> (Dkg, Outbox) {
    let run = Run {
        context: params.digest(),
        me: params.me,
        others: params.others(),
        threshold: params.threshold,
    };
    let mut polynomial = Zeroizing::new(Vec::with_capacity(usize::from(run.threshold)));
    polynomial.extend((0..run.threshold).map(|_| C::random(rng)));
    let opening = Opening::<C>::new(&run, &polynomial, rng);
    let commitment = run.commitment(params.me, &opening.bytes);
    let setup = Setup {
        kind: Kind::EcdsaDkg,
        session: params.session,
        context: run.context,
        me: params.me,
        participants: params.participants,
    };
    let state = Commit {
        run,
        polynomial,
        opening,
    };
    setup.start(Outgoing::broadcast(commitment.to_vec()), Box::new(state))
}

impl DkgParams {
    fn validate(&self) -> Result<(), Reject> {
        let count = self.participants.len();
        if !(2..=MAX_PARTICIPANTS).contains(&count) {
            return Err(Reject::Participants);
        }
        if !(2..=count).contains(&usize::from(self.threshold)) {
            return Err(Reject::Threshold);
        }
        if !self.participants.contains(&self.me) {
            return Err(Reject::NotAParticipant);
        }
        Ok(())
    }

    fn digest(&self) -> [u8; 32] {
        let participants: Vec<u8> = self
            .participants
            .iter()
            .flat_map(|p| p.to_bytes())
            .collect();
        tags::hash(
            tags::CONTEXT,
            &[
                &[Kind::EcdsaDkg as u8, self.curve.to_byte()],
                self.session.as_bytes(),
                &self.context,
                &participants,
                &self.threshold.to_be_bytes(),
            ],
        )
    }

    fn others(&self) -> BTreeSet<Participant> {
        let others = self.participants.iter().copied();
        others.filter(|p| *p != self.me).collect()
    }
}

/// What stays the same from round to round.
struct Run {
    context: [u8; 32],
    me: Participant,
    others: BTreeSet<Participant>,
    threshold: u16,
}

impl Run {
    /// Binding because the hash is, hiding because the opening holds random group elements.
    fn commitment(&self, from: Participant, opening: &[u8]) -> [u8; 32] {
        tags::hash(
            tags::ECDSA_DKG_COMMITMENT,
            &[&self.context, &from.to_bytes(), opening],
        )
    }

    /// The challenge of the proof of knowledge (Schnorr, Fiat-Shamir): bound to session and prover.
    fn challenge<C: Curve>(
        &self,
        prover: Participant,
        constant_term: &[u8; POINT_BYTES],
        nonce: &[u8; POINT_BYTES],
    ) -> C::Scalar {
        C::reduce_wide(&tags::hash_wide(
            tags::ECDSA_DKG_PROOF,
            &[&self.context, &prover.to_bytes(), constant_term, nonce],
        ))
    }

    fn opening_bytes(&self) -> usize {
        usize::from(self.threshold) * POINT_BYTES + POINT_BYTES + SCALAR_BYTES + 32
    }
}

/// A participant's broadcast of round 2: Feldman commitments, constant term first; the proof's nonce
/// point and response; the part of the chain code.
struct Opening<C: Curve> {
    commitments: Vec<C::Point>,
    chain_code: [u8; 32],
    bytes: Vec<u8>,
}

impl<C: Curve> Opening<C> {
    fn new(run: &Run, polynomial: &[C::Scalar], rng: &mut dyn CryptoRngCore) -> Self {
        let nonce = Zeroizing::new(C::random(rng));
        let mut points: Vec<C::Point> = polynomial.iter().map(C::base).collect();
        points.push(C::base(&nonce));
        let encoded = C::encode_all(&points);
        points.pop();
        let mut chain_code = [0; 32];
        rng.fill_bytes(&mut chain_code);

        let mut bytes: Vec<u8> = encoded.iter().flatten().copied().collect();
        // Both exist: a polynomial has two coefficients or more.
        if let (Some(constant_term), Some(nonce_point), Some(secret)) =
            (encoded.first(), encoded.last(), polynomial.first())
        {
            let challenge = run.challenge::<C>(run.me, constant_term, nonce_point);
            bytes.extend(C::scalar_bytes(&(*nonce + challenge * secret)));
        }
        bytes.extend(chain_code);
        Self {
            commitments: points,
            chain_code,
            bytes,
        }
    }

    /// Reads an opening and checks its proof.
    fn verify(run: &Run, from: Participant, mut bytes: &[u8]) -> Result<Self, AbortReason> {
        let whole = bytes;
        let mut read = || -> Option<_> {
            let constant_term = bytes.first_chunk::<POINT_BYTES>()?;
            let commitments = (0..run.threshold)
                .map(|_| C::decode(take(&mut bytes)?))
                .collect::<Option<Vec<_>>>()?;
            let nonce_point = take::<POINT_BYTES>(&mut bytes)?;
            let challenge = run.challenge::<C>(from, constant_term, nonce_point);
            let nonce = C::decode(nonce_point)?;
            let response = C::scalar(take(&mut bytes)?)?;
            let proven = C::base(&response) == nonce + *commitments.first()? * challenge;
            Some((commitments, proven, *take(&mut bytes)?))
        };
        let (commitments, proven, chain_code) = read().ok_or(AbortReason::Malformed)?;
        if !proven {
            return Err(AbortReason::InvalidProof);
        }
        Ok(Self {
            commitments,
            chain_code,
            bytes: whole.to_vec(),
        })
    }
}

/// Round 1: awaits the others' commitments.
struct Commit<C: Curve> {
    run: Run,
    polynomial: Zeroizing<Vec<C::Scalar>>,
    opening: Opening<C>,
}

impl<C: Stored> Round<KeyPackage> for Commit<C> {
    fn shape(&self) -> Shape {
        Shape {
            broadcast: 32,
            direct: 0,
        }
    }

    fn next(
        self: Box<Self>,
        received: &Received<'_>,
        _: &mut dyn CryptoRngCore,
    ) -> Result<Next<KeyPackage>, Error> {
        let commitments = received
            .iter()
            .map(|(from, parts)| (*from, parts.broadcast.to_vec()))
            .collect();
        let outgoing = Outgoing::broadcast(self.opening.bytes.clone());
        let state = Open {
            run: self.run,
            polynomial: self.polynomial,
            opening: self.opening,
            commitments,
        };
        Ok(Next::Continue(outgoing, Box::new(state)))
    }
}

/// Round 2: awaits the others' openings.
struct Open<C: Curve> {
    run: Run,
    polynomial: Zeroizing<Vec<C::Scalar>>,
    opening: Opening<C>,
    commitments: BTreeMap<Participant, Vec<u8>>,
}

impl<C: Stored> Round<KeyPackage> for Open<C> {
    fn shape(&self) -> Shape {
        Shape {
            broadcast: self.run.opening_bytes(),
            direct: 0,
        }
    }

    fn next(
        self: Box<Self>,
        received: &Received<'_>,
        _: &mut dyn CryptoRngCore,
    ) -> Result<Next<KeyPackage>, Error> {
        let Self {
            run,
            polynomial,
            opening,
            commitments,
        } = *self;
        let mut openings = BTreeMap::from([(run.me, opening)]);
        for (from, parts) in received {
            let committed = commitments
                .get(from)
                .ok_or(Error::Bug("every round has the same senders"))?;
            if run.commitment(*from, parts.broadcast) != **committed {
                return Err(Error::abort(AbortReason::CommitmentMismatch, *from));
            }
            let opening = Opening::<C>::verify(&run, *from, parts.broadcast)
                .map_err(|reason| Error::abort(reason, *from))?;
            openings.insert(*from, opening);
        }
        let share_for = |to: &Participant| {
            let share = shamir::evaluate::<C>(&polynomial, *to);
            (*to, Zeroizing::new(C::scalar_bytes(&share).to_vec()))
        };
        let direct = run.others.iter().map(share_for).collect();
        let state = Deal {
            share: shamir::evaluate::<C>(&polynomial, run.me),
            run,
            openings,
        };
        Ok(Next::Continue(Outgoing::direct(direct), Box::new(state)))
    }
}

/// Round 3: awaits the others' shares for this participant.
struct Deal<C: Curve> {
    run: Run,
    /// This participant's own polynomial at its own index.
    share: Zeroizing<C::Scalar>,
    openings: BTreeMap<Participant, Opening<C>>,
}

impl<C: Stored> Round<KeyPackage> for Deal<C> {
    fn shape(&self) -> Shape {
        Shape {
            broadcast: 0,
            direct: SCALAR_BYTES,
        }
    }

    fn next(
        self: Box<Self>,
        received: &Received<'_>,
        _: &mut dyn CryptoRngCore,
    ) -> Result<Next<KeyPackage>, Error> {
        let Self {
            run,
            share: mut secret,
            openings,
        } = *self;
        let mut culprits = Vec::new();
        for (from, parts) in received {
            let opening = openings
                .get(from)
                .ok_or(Error::Bug("every round has the same senders"))?;
            let mut bytes = parts.direct;
            let share = take(&mut bytes)
                .and_then(C::scalar)
                .map(Zeroizing::new)
                .ok_or(Error::abort(AbortReason::Malformed, *from))?;
            if C::base(&share) != shamir::evaluate_points::<C>(&opening.commitments, run.me) {
                culprits.push(*from);
            }
            *secret += *share;
        }
        if !culprits.is_empty() {
            return Err(Error::abort_all(AbortReason::InvalidShare, culprits));
        }
        let key = run.assemble(secret, &openings)?;
        let digest = key.public_key_package_digest();
        Ok(Next::Continue(
            Outgoing::broadcast(digest.to_vec()),
            Box::new(Confirm { key }),
        ))
    }
}

impl Run {
    fn assemble<C: Stored>(
        &self,
        secret: Zeroizing<C::Scalar>,
        openings: &BTreeMap<Participant, Opening<C>>,
    ) -> Result<KeyPackage, Error> {
        let mut openings_of_all = openings.values();
        let mut sums = openings_of_all
            .next()
            .map(|opening| opening.commitments.clone())
            .ok_or(Error::Bug("there is one's own opening"))?;
        for opening in openings_of_all {
            for (sum, commitment) in sums.iter_mut().zip(&opening.commitments) {
                *sum += commitment;
            }
        }
        let key = *sums.first().ok_or(Error::Bug("a threshold is not zero"))?;
        // A constant term that cancels the others' was proven known before it was opened.
        if key.is_identity().into() {
            return Err(Error::Bug("the key is the identity"));
        }
        let verifying = openings
            .keys()
            .map(|p| (*p, shamir::evaluate_points::<C>(&sums, *p)))
            .collect();
        let parts: Vec<&[u8]> = [self.context.as_slice()]
            .into_iter()
            .chain(openings.values().map(|o| o.chain_code.as_slice()))
            .collect();
        let chain_code = tags::hash(tags::ECDSA_CHAIN_CODE, &parts);
        let share = Share::<C> {
            secret,
            key,
            verifying,
        };
        Ok(KeyPackage::new(self.me, self.threshold, chain_code, share))
    }
}

/// Round 4: awaits the others' confirmations.
struct Confirm {
    key: KeyPackage,
}

impl Round<KeyPackage> for Confirm {
    fn shape(&self) -> Shape {
        Shape {
            broadcast: 32,
            direct: 0,
        }
    }

    fn next(
        self: Box<Self>,
        received: &Received<'_>,
        _: &mut dyn CryptoRngCore,
    ) -> Result<Next<KeyPackage>, Error> {
        // All inputs to the public key package were echo-checked, so a different one is the sender's.
        let digest = self.key.public_key_package_digest();
        let different = received
            .iter()
            .filter(|(_, parts)| parts.broadcast != digest);
        let culprits: Vec<Participant> = different.map(|(from, _)| *from).collect();
        if !culprits.is_empty() {
            return Err(Error::abort_all(AbortReason::KeyMismatch, culprits));
        }
        Ok(Next::Done(self.key, None))
    }
}
