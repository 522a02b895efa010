//! Distributed key generation: the FROST paper's Figure 1 (ePrint 2020/852) through `frost-core`, with
//! a commitment round before it and a confirmation after it.
//!
//! | round | message | what the receiver checks |
//! | --- | --- | --- |
//! | 1 commit | broadcast: hash of the sender's round-2 broadcast | context |
//! | 2 open | broadcast: Feldman commitments, proof of knowledge of the constant term | hash of round 1, encodings, proof |
//! | 3 share | direct: the sender's polynomial at the recipient's index | echo of round 2, share against commitments |
//! | 4 confirm | broadcast: digest of the public key package | equality with one's own |
//!
//! Round 1 is what the paper's protocol lacks: without it the last to speak chooses its polynomial
//! after seeing the others' and so biases the key. It also binds the proofs of knowledge, whose
//! challenge in `frost-core` covers no session, to this session. Nobody accepts a key before everyone
//! has confirmed it.

use std::collections::{BTreeMap, BTreeSet};

use arca_wipe::wiped;
use frost_core::Signature;
use frost_core::keys::SigningShare;
use frost_core::keys::VerifiableSecretSharingCommitment;
use frost_core::keys::dkg::{self as frost, round1, round2};
use frost_ed25519::Ed25519Sha512;
use frost_secp256k1_tr::Secp256K1Sha256TR;
use rand_core::CryptoRngCore;
use zeroize::Zeroizing;

use crate::bytes::take_slice;
use crate::protocol::{Kind, Next, Outgoing, Protocol, Received, Round, Setup, Shape};
use crate::{AbortReason, Error, MAX_PARTICIPANTS, Outbox, Participant, Reject, SessionId, tags};

use super::Scheme;
use super::key::KeyPackage;
use super::suite::{SCALAR_BYTES, SIGNATURE_BYTES, Share, Suite, frost_error, identifier};

/// A key generation: four rounds, each all to all.
pub type Dkg = Protocol<KeyPackage>;

/// What a key generation is about. All but `me` must be the same at all participants.
#[derive(Debug, Clone)]
pub struct DkgParams {
    /// The scheme the key is for.
    pub scheme: Scheme,
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
    wiped(|| match params.scheme {
        Scheme::Bip340 => start::<Secp256K1Sha256TR>(params, rng),
        Scheme::Ed25519 => start::<Ed25519Sha512>(params, rng),
    })
}

fn start<C: Suite>(
    params: DkgParams,
    mut rng: &mut dyn CryptoRngCore,
) -> Result<(Dkg, Outbox), Error> {
    let run = Run {
        context: params.digest(),
        me: params.me,
        others: params.others(),
        threshold: params.threshold,
    };
    let count = u16::try_from(params.participants.len())
        .map_err(|_| Error::Bug("participants were counted"))?;
    let (secret, package) = frost::part1::<C, _>(
        identifier::<C>(params.me)?,
        count,
        params.threshold,
        &mut rng,
    )
    .map_err(|error| frost_error(&error, &run.others))?;
    let opening = encode_package(&package)?;
    let commitment = run.commitment(params.me, &opening);
    let setup = Setup {
        kind: Kind::Dkg,
        session: params.session,
        context: run.context,
        me: params.me,
        participants: params.participants,
    };
    let state = Commit {
        run,
        secret,
        opening,
    };
    Ok(setup.start(Outgoing::broadcast(commitment.to_vec()), Box::new(state)))
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
                &[Kind::Dkg as u8, self.scheme.to_byte()],
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
            tags::DKG_COMMITMENT,
            &[&self.context, &from.to_bytes(), opening],
        )
    }

    fn package_bytes<C: Suite>(&self) -> usize {
        usize::from(self.threshold) * C::ELEMENT_BYTES + SIGNATURE_BYTES
    }
}

/// Round 1: awaits the others' commitments.
struct Commit<C: Suite> {
    run: Run,
    secret: round1::SecretPackage<C>,
    opening: Vec<u8>,
}

impl<C: Suite> Round<KeyPackage> for Commit<C> {
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
        let state = Open {
            run: self.run,
            secret: self.secret,
            commitments,
        };
        Ok(Next::Continue(
            Outgoing::broadcast(self.opening),
            Box::new(state),
        ))
    }
}

/// Round 2: awaits the others' openings.
struct Open<C: Suite> {
    run: Run,
    secret: round1::SecretPackage<C>,
    commitments: BTreeMap<Participant, Vec<u8>>,
}

impl<C: Suite> Round<KeyPackage> for Open<C> {
    fn shape(&self) -> Shape {
        Shape {
            broadcast: self.run.package_bytes::<C>(),
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
            secret,
            commitments,
        } = *self;
        let mut packages = BTreeMap::new();
        for (from, parts) in received {
            let committed = commitments
                .get(from)
                .ok_or(Error::Bug("every round has the same senders"))?;
            if run.commitment(*from, parts.broadcast) != **committed {
                return Err(Error::abort(AbortReason::CommitmentMismatch, *from));
            }
            let package = decode_package::<C>(parts.broadcast, run.threshold)
                .ok_or(Error::abort(AbortReason::Malformed, *from))?;
            packages.insert(identifier::<C>(*from)?, package);
        }
        let (secret, shares) =
            frost::part2(secret, &packages).map_err(|error| frost_error(&error, &run.others))?;

        let mut direct = BTreeMap::new();
        for to in &run.others {
            let share = shares
                .get(&identifier::<C>(*to)?)
                .ok_or(Error::Bug("a share for every other participant"))?;
            direct.insert(*to, Zeroizing::new(share.signing_share().serialize()));
        }
        let state = Deal {
            run,
            secret,
            packages,
        };
        Ok(Next::Continue(Outgoing::direct(direct), Box::new(state)))
    }
}

/// Round 3: awaits the others' shares for this participant.
struct Deal<C: Suite> {
    run: Run,
    secret: round2::SecretPackage<C>,
    packages: BTreeMap<frost_core::Identifier<C>, round1::Package<C>>,
}

impl<C: Suite> Round<KeyPackage> for Deal<C> {
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
        let mut shares = BTreeMap::new();
        for (from, parts) in received {
            let share = SigningShare::<C>::deserialize(parts.direct)
                .map_err(|_| Error::abort(AbortReason::Malformed, *from))?;
            shares.insert(identifier::<C>(*from)?, round2::Package::new(share));
        }
        let (secret, public) = frost::part3(&self.secret, &self.packages, &shares)
            .map_err(|error| frost_error(&error, &self.run.others))?;
        let Run {
            me,
            others,
            threshold,
            ..
        } = self.run;
        let participants = others.into_iter().chain([me]).collect();
        let key = KeyPackage::new(me, participants, threshold, Share { secret, public })?;
        let digest = key.public_key_package_digest();
        Ok(Next::Continue(
            Outgoing::broadcast(digest.to_vec()),
            Box::new(Confirm { key }),
        ))
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

/// Feldman commitments, constant term first, then the proof of knowledge.
fn encode_package<C: Suite>(package: &round1::Package<C>) -> Result<Vec<u8>, Error> {
    let identity = |_| Error::Bug("a fresh random value encodes");
    let mut bytes = package.commitment().serialize_whole().map_err(identity)?;
    bytes.extend(package.proof_of_knowledge().serialize().map_err(identity)?);
    Ok(bytes)
}

fn decode_package<C: Suite>(mut bytes: &[u8], threshold: u16) -> Option<round1::Package<C>> {
    let whole = bytes;
    let commitments = take_slice(&mut bytes, usize::from(threshold) * C::ELEMENT_BYTES)?;
    let commitment = VerifiableSecretSharingCommitment::deserialize_whole(commitments).ok()?;
    let proof = Signature::deserialize(bytes).ok()?;
    let package = round1::Package::new(commitment, proof);
    // The libraries read some values from more than one encoding; we take one.
    (encode_package(&package).ok()? == whole).then_some(package)
}
