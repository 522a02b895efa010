//! Two-round signing (RFC 9591, section 5) of a batch of messages in lockstep.
//!
//! | round | message | what the receiver checks |
//! | --- | --- | --- |
//! | 1 commit | broadcast: for each message the hiding and binding nonce commitments | context: key, signers, coordinator, messages, tweaks |
//! | 2 share | direct to the coordinator: for each message a signature share | echo of round 1, each share, the signature |
//!
//! A signer releases its shares only for messages it was started with, and only after every other
//! signer has shown by its context that it was started with the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arca_wipe::wiped;
use frost_core::round1::{NonceCommitment, SigningCommitments, SigningNonces};
use frost_core::round2::SignatureShare;
use frost_core::{CheaterDetection, Ciphersuite, Identifier, SigningPackage};
use frost_ed25519::Ed25519Sha512;
use frost_secp256k1_tr::Secp256K1Sha256TR;
use rand_core::CryptoRngCore;
use zeroize::Zeroizing;

use crate::bytes::take_slice;
use crate::protocol::{Kind, Next, Outgoing, Protocol, Received, Round, Setup, Shape};
use crate::{AbortReason, Error, Outbox, Participant, Reject, SessionId, tags};

use super::key::KeyPackage;
use super::suite::{SCALAR_BYTES, SIGNATURE_BYTES, Share, Suite, frost_error, identifier};
use super::{Scheme, Signable, Tweak, verify};

/// Most messages of one session.
pub const MAX_BATCH: usize = 64;
/// Longest message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 65_536;

/// A signing session.
pub type Signing = Protocol<Signed>;

/// The result of a signing session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signed {
    /// At the coordinator: the signatures in the order of the messages, each verified under its key.
    Signatures(Vec<[u8; SIGNATURE_BYTES]>),
    /// At the others: the shares are in the outbox that came with this.
    Released,
}

/// What a signing session is about. It must be the same at all signers.
#[derive(Debug, Clone)]
pub struct SigningParams {
    /// This run. Never used before.
    pub session: SessionId,
    /// Digest of whatever else the signers must agree on: the signing request, say, and the instances
    /// of the parties. A difference ends the run in round 1.
    pub context: [u8; 32],
    /// Who signs: at least the key's threshold of its participants.
    pub signers: BTreeSet<Participant>,
    /// The signer that receives the shares and makes the signatures.
    pub coordinator: Participant,
    /// What is signed: 1 to [`MAX_BATCH`], in one order.
    pub messages: Vec<Signable>,
}

/// Starts a signing session at the participant that holds `key`.
///
/// # Errors
///
/// [`Error::Reject`] when the parameters are not served or do not fit the key.
pub fn sign(
    key: Arc<KeyPackage>,
    params: SigningParams,
    rng: &mut dyn CryptoRngCore,
) -> Result<(Signing, Outbox), Error> {
    params.validate(&key)?;
    wiped(|| match key.scheme() {
        Scheme::Bip340 => start::<Secp256K1Sha256TR>(key, params, rng),
        Scheme::Ed25519 => start::<Ed25519Sha512>(key, params, rng),
    })
}

fn start<C: Suite>(
    key: Arc<KeyPackage>,
    params: SigningParams,
    rng: &mut dyn CryptoRngCore,
) -> Result<(Signing, Outbox), Error> {
    let nonces = Nonces::generate(share::<C>(&key)?, params.messages.len(), rng);
    let commitments = nonces.commitments();
    let mut broadcast = Vec::with_capacity(params.messages.len() * commitment_bytes::<C>());
    for commitment in &commitments {
        encode_commitments(commitment, &mut broadcast)?;
    }
    let setup = Setup {
        kind: Kind::Signing,
        session: params.session,
        context: params.digest(&key),
        me: key.me(),
        participants: params.signers.clone(),
    };
    let state = Commit {
        run: Run::new(key, params)?,
        nonces,
        commitments,
    };
    Ok(setup.start(Outgoing::broadcast(broadcast), Box::new(state)))
}

impl SigningParams {
    fn validate(&self, key: &KeyPackage) -> Result<(), Reject> {
        if !self.signers.is_subset(key.participants()) {
            return Err(Reject::UnknownSigner);
        }
        if !self.signers.contains(&key.me()) {
            return Err(Reject::NotAParticipant);
        }
        if self.signers.len() < usize::from(key.threshold()) {
            return Err(Reject::TooFewSigners);
        }
        if !self.signers.contains(&self.coordinator) {
            return Err(Reject::Coordinator);
        }
        if !(1..=MAX_BATCH).contains(&self.messages.len()) {
            return Err(Reject::Batch);
        }
        for Signable { message, tweak } in &self.messages {
            match (key.scheme(), tweak) {
                // BIP-340 takes any length, but whoever signs other than a hash with a key that holds
                // bitcoin has made a mistake.
                (Scheme::Bip340, _) if message.len() != 32 => return Err(Reject::MessageLength),
                (Scheme::Ed25519, _) if message.len() > MAX_MESSAGE_BYTES => {
                    return Err(Reject::MessageLength);
                }
                (Scheme::Ed25519, Tweak::TaprootKeyPath) => return Err(Reject::Tweak),
                (Scheme::Bip340 | Scheme::Ed25519, Tweak::None | Tweak::TaprootKeyPath) => {}
            }
        }
        Ok(())
    }

    fn digest(&self, key: &KeyPackage) -> [u8; 32] {
        let signers: Vec<u8> = self.signers.iter().flat_map(|p| p.to_bytes()).collect();
        let kind = [Kind::Signing as u8, key.scheme().to_byte()];
        let (key, coordinator) = (key.public_key_package_digest(), self.coordinator.to_bytes());
        let tweaks: Vec<u8> = self.messages.iter().map(|m| m.tweak.to_byte()).collect();
        let mut parts: Vec<&[u8]> = vec![
            &kind,
            self.session.as_bytes(),
            &self.context,
            &key,
            &signers,
            &coordinator,
            &tweaks,
        ];
        parts.extend(self.messages.iter().map(|m| m.message.as_slice()));
        tags::hash(tags::CONTEXT, &parts)
    }
}

/// The secret nonces of one signing session, one pair for each message.
///
/// They move: created when a session starts, consumed when its shares are computed, erased when
/// dropped. They can be neither cloned nor serialised, and no function gives them out.
pub struct Nonces<C: Ciphersuite>(Vec<SigningNonces<C>>);

impl<C: Ciphersuite> Nonces<C> {
    /// Hedged: each nonce is a hash of fresh randomness and the share (RFC 9591, section 4.1).
    fn generate(share: &Share<C>, count: usize, mut rng: &mut dyn CryptoRngCore) -> Self {
        let secret = share.secret.signing_share();
        let one = |_| SigningNonces::new(secret, &mut rng);
        // A range has an exact length, so this allocates once and leaves no copy behind.
        Self((0..count).map(one).collect())
    }

    fn commitments(&self) -> Vec<SigningCommitments<C>> {
        self.0.iter().map(SigningCommitments::from).collect()
    }
}

/// What stays the same from round to round.
struct Run<C: Suite> {
    key: Arc<KeyPackage>,
    /// The share of the taproot output key, if a message needs it.
    taproot: Option<Share<C>>,
    signers: BTreeSet<Participant>,
    coordinator: Participant,
    messages: Vec<Signable>,
}

impl<C: Suite> Run<C> {
    fn new(key: Arc<KeyPackage>, params: SigningParams) -> Result<Self, Error> {
        let mut tweaks = params.messages.iter().map(|m| m.tweak);
        let taproot = if tweaks.any(|tweak| tweak == Tweak::TaprootKeyPath) {
            C::taproot_key_path(share::<C>(&key)?)
        } else {
            None
        };
        Ok(Self {
            key,
            taproot,
            signers: params.signers,
            coordinator: params.coordinator,
            messages: params.messages,
        })
    }

    fn share(&self, tweak: Tweak) -> Result<&Share<C>, Error> {
        match tweak {
            Tweak::None => share::<C>(&self.key),
            Tweak::TaprootKeyPath => self
                .taproot
                .as_ref()
                .ok_or(Error::Bug("tweaks are checked at the start")),
        }
    }
}

/// Round 1: awaits the others' nonce commitments.
struct Commit<C: Suite> {
    run: Run<C>,
    nonces: Nonces<C>,
    commitments: Vec<SigningCommitments<C>>,
}

impl<C: Suite> Round<Signed> for Commit<C> {
    fn shape(&self) -> Shape {
        Shape {
            broadcast: self.run.messages.len() * commitment_bytes::<C>(),
            direct: 0,
        }
    }

    fn next(
        self: Box<Self>,
        received: &Received<'_>,
        _: &mut dyn CryptoRngCore,
    ) -> Result<Next<Signed>, Error> {
        let Self {
            run,
            nonces,
            commitments,
        } = *self;
        let me = run.key.me();
        let mut by_message: Vec<BTreeMap<_, _>> = Vec::with_capacity(run.messages.len());
        let id = identifier::<C>(me)?;
        by_message.extend(commitments.into_iter().map(|c| BTreeMap::from([(id, c)])));
        for (from, parts) in received {
            let id = identifier::<C>(*from)?;
            let mut rest = parts.broadcast;
            for commitments in &mut by_message {
                let theirs = decode_commitments::<C>(&mut rest)
                    .ok_or(Error::abort(AbortReason::Malformed, *from))?;
                commitments.insert(id, theirs);
            }
        }

        let mut packages = Vec::with_capacity(run.messages.len());
        let mut shares = Vec::with_capacity(run.messages.len());
        let inputs = run.messages.iter().zip(by_message).zip(nonces.0);
        for ((signable, commitments), nonces) in inputs {
            let package = SigningPackage::new(commitments, &signable.message);
            let secret = &run.share(signable.tweak)?.secret;
            let share = frost_core::round2::sign(&package, &nonces, secret)
                .map_err(|error| frost_error(&error, &run.signers))?;
            packages.push(package);
            shares.push(share);
        }

        if me == run.coordinator {
            let state = Aggregate {
                run,
                packages,
                shares,
            };
            return Ok(Next::Continue(Outgoing::nothing(), Box::new(state)));
        }
        let bytes: Vec<u8> = shares.iter().flat_map(SignatureShare::serialize).collect();
        let direct = BTreeMap::from([(run.coordinator, Zeroizing::new(bytes))]);
        Ok(Next::Done(Signed::Released, Some(Outgoing::direct(direct))))
    }
}

/// Round 2, coordinator only: awaits the others' signature shares.
struct Aggregate<C: Suite> {
    run: Run<C>,
    packages: Vec<SigningPackage<C>>,
    shares: Vec<SignatureShare<C>>,
}

impl<C: Suite> Round<Signed> for Aggregate<C> {
    fn shape(&self) -> Shape {
        Shape {
            broadcast: 0,
            direct: self.run.messages.len() * SCALAR_BYTES,
        }
    }

    fn next(
        self: Box<Self>,
        received: &Received<'_>,
        _: &mut dyn CryptoRngCore,
    ) -> Result<Next<Signed>, Error> {
        let Self {
            run,
            packages,
            shares,
        } = *self;
        let mine = identifier::<C>(run.key.me())?;
        let mut by_message: Vec<BTreeMap<Identifier<C>, _>> = Vec::with_capacity(packages.len());
        by_message.extend(shares.into_iter().map(|s| BTreeMap::from([(mine, s)])));
        for (from, parts) in received {
            let id = identifier::<C>(*from)?;
            let mut rest = parts.direct;
            for shares in &mut by_message {
                let share = take_slice(&mut rest, SCALAR_BYTES)
                    .and_then(|bytes| SignatureShare::deserialize(bytes).ok())
                    .ok_or(Error::abort(AbortReason::Malformed, *from))?;
                shares.insert(id, share);
            }
        }

        let mut signatures = Vec::with_capacity(packages.len());
        for ((signable, package), shares) in run.messages.iter().zip(&packages).zip(&by_message) {
            let public = &run.share(signable.tweak)?.public;
            let signature = frost_core::aggregate_custom(
                package,
                shares,
                public,
                CheaterDetection::AllCheaters,
            )
            .map_err(|error| frost_error(&error, &run.signers))?;
            let signature: [u8; SIGNATURE_BYTES] = signature
                .serialize()
                .ok()
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or(Error::Bug("a signature has 64 bytes"))?;
            // By other code than made it, so that a fault in one library does not get out.
            verify(C::SCHEME, &run.key.public_key(), signable, &signature)
                .map_err(|_| Error::Bug("two libraries disagree on a signature"))?;
            signatures.push(signature);
        }
        Ok(Next::Done(Signed::Signatures(signatures), None))
    }
}

fn share<C: Suite>(key: &KeyPackage) -> Result<&Share<C>, Error> {
    C::from_scheme(key.share()).ok_or(Error::Bug("the suite follows the key's scheme"))
}

/// Hiding, then binding commitment.
fn commitment_bytes<C: Suite>() -> usize {
    2 * C::ELEMENT_BYTES
}

fn encode_commitments<C: Suite>(
    commitments: &SigningCommitments<C>,
    bytes: &mut Vec<u8>,
) -> Result<(), Error> {
    for commitment in [commitments.hiding(), commitments.binding()] {
        let encoded = commitment
            .serialize()
            .map_err(|_| Error::Bug("a fresh random value encodes"))?;
        bytes.extend(encoded);
    }
    Ok(())
}

fn decode_commitments<C: Suite>(bytes: &mut &[u8]) -> Option<SigningCommitments<C>> {
    let mut element = || {
        let encoded = take_slice(bytes, C::ELEMENT_BYTES)?;
        let commitment = NonceCommitment::<C>::deserialize(encoded).ok()?;
        // The libraries read some values from more than one encoding; we take one.
        (commitment.serialize().ok()? == encoded).then_some(commitment)
    };
    Some(SigningCommitments::new(element()?, element()?))
}
