//! Signing: in one round with presignatures, or in three without.
//!
//! The last round of DKLs23's signing protocol (ePrint 2023/765, Protocol 3.6, steps 9 and 10), with
//! three additions: a derived key's tweak, a shift of the nonce by a hash of all that is signed (Groth-Shoup,
//! ePrint 2021/1330), and masks that hide the shares of signers whose views of the request differ.
//!
//! | round | message | what the receiver checks |
//! | --- | --- | --- |
//! | 1 share | direct to the coordinator: for each message `u_i`, `w_i` | context: presignatures, key, signers, coordinator, entropy, messages, tweaks; the signature |
//!
//! Without presignatures the first two rounds of [`presign`](super::presign) come before.

use std::collections::BTreeSet;
use std::sync::Arc;

use arca_wipe::wiped;
use k256::elliptic_curve::Field as _;
use k256::elliptic_curve::group::Group as _;
use k256::elliptic_curve::ops::Invert as _;
use k256::elliptic_curve::scalar::IsHigh as _;
use rand_core::CryptoRngCore;
use zeroize::Zeroizing;

use crate::bytes::take;
use crate::protocol::{Kind, Next, Outgoing, Protocol, Received, Round, Setup, Shape};
use crate::{
    AbortReason, Error, MAX_BATCH, Outbox, Participant, Reject, SessionId, Transition, tags,
};

use super::curve::{Curve, CurveId, P256, SCALAR_BYTES, Secp256k1};
use super::derive::DerivedKey;
use super::key::KeyPackage;
use super::presign::{After, PresigningParams, Run, check_signers, signer_bytes};
use super::presignature::{PairSetups, Presignature, PresignatureId, Presigned, Secret};

/// A signing session.
pub type Signing = Protocol<Signed>;

/// What is signed, and under which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signable {
    /// The message's digest, which the caller computed itself from a message it understands.
    pub digest: [u8; 32],
    /// A key that [`KeyPackage::derive`] gave.
    pub key: DerivedKey,
}

/// An ECDSA signature, `s` in the lower half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    /// Big-endian.
    pub r: [u8; 32],
    /// Big-endian, at most half the order.
    pub s: [u8; 32],
    /// Which point `r` came from: bit 0 whether its y is odd, bit 1 whether its x is not below the order.
    pub recovery_id: u8,
}

/// The result of a signing session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signed {
    /// At the coordinator: the signatures in the order of the messages, each verified under its key.
    Signatures(Vec<Signature>),
    /// At the others: the shares are in the outbox that came with this.
    Released,
}

/// What a signing session is about. It must be the same at all signers.
#[derive(Debug, Clone)]
pub struct SigningParams {
    /// This run. Never used before.
    pub session: SessionId,
    /// Digest of whatever else the signers must agree on: the signing request, say.
    ///
    /// Without presignatures it is also all that ties a run to the key's epoch and the signers' instances
    /// (boot ids), which presignatures have in their
    /// [`binding`](super::PresigningParams::binding): the caller puts them in here.
    pub context: [u8; 32],
    /// Who signs: at least the key's threshold of its participants; with presignatures, theirs.
    pub signers: BTreeSet<Participant>,
    /// The signer that receives the shares and makes the signatures.
    pub coordinator: Participant,
    /// 32 random bytes that nobody could know before this request was made, and that the coordinator
    /// did not choose: `docs/threshold-ecdsa.md` says what is lost where it did.
    pub entropy: [u8; 32],
    /// What is signed: 1 to [`MAX_BATCH`], in one order.
    pub messages: Vec<Signable>,
}

/// Signs with presignatures, one for each message in the same order, in one round: what it returns is
/// already the shares' outbox at all but the coordinator, which awaits them.
///
/// A signer's share is of use to someone only if all signers were started with the same parameters and
/// presignatures: any difference turns the shares into noise.
///
/// # Errors
///
/// [`Error::Reject`] when the parameters are not served, or do not fit the key or the presignatures. The
/// presignatures are spent.
///
/// # Security
///
/// `binding` is what the caller knows now: the key's epoch, the signers' instances.
pub fn sign_online(
    key: Arc<KeyPackage>,
    binding: &[u8; 32],
    presignatures: Vec<Presignature>,
    params: SigningParams,
) -> Result<Transition<Signed>, Error> {
    wiped(|| match key.curve() {
        CurveId::Secp256k1 => online::<Secp256k1>(key, binding, presignatures, params),
        CurveId::P256 => online::<P256>(key, binding, presignatures, params),
    })
}

/// Signs without presignatures, in three rounds.
///
/// # Errors
///
/// [`Error::Reject`] when the parameters are not served, do not fit the key, or a setup is missing or
/// poisoned. Where another run poisons a setup meanwhile, the run ends with [`Reject::SetupPoisoned`] and
/// no share is released.
pub fn sign(
    key: Arc<KeyPackage>,
    setups: &PairSetups,
    params: SigningParams,
    rng: &mut dyn CryptoRngCore,
) -> Result<(Signing, Outbox), Error> {
    wiped(|| match key.curve() {
        CurveId::Secp256k1 => full::<Secp256k1>(key, setups, params, rng),
        CurveId::P256 => full::<P256>(key, setups, params, rng),
    })
}

fn online<C: Presigned>(
    key: Arc<KeyPackage>,
    binding: &[u8; 32],
    presignatures: Vec<Presignature>,
    params: SigningParams,
) -> Result<Transition<Signed>, Error> {
    params.validate::<C>(&key)?;
    let fits = |presignature: &Presignature| {
        presignature.key == key.public_key_package_digest()
            && presignature.binding == *binding
            && presignature.signers == params.signers
    };
    if presignatures.len() != params.messages.len() || !presignatures.iter().all(fits) {
        return Err(Reject::Presignature.into());
    }
    let view = params.view(Kind::OnlineSigning, &key, binding, &presignatures);
    let setup = Setup {
        kind: Kind::OnlineSigning,
        session: params.session,
        context: view,
        me: key.me(),
        participants: params.signers.clone(),
    };
    match Shares::<C>::release(key, params, &view, presignatures)? {
        Next::Continue(outgoing, state) => {
            let (protocol, outbox) = setup.start(outgoing, state);
            Ok(Transition::Continue(protocol, outbox))
        }
        Next::Done(signed, outgoing) => {
            let outgoing = outgoing.ok_or(Error::Bug("shares go to the coordinator"))?;
            Ok(Transition::Done(signed, setup.send_only(&outgoing)))
        }
    }
}

fn full<C: Presigned>(
    key: Arc<KeyPackage>,
    setups: &PairSetups,
    params: SigningParams,
    rng: &mut dyn CryptoRngCore,
) -> Result<(Signing, Outbox), Error> {
    params.validate::<C>(&key)?;
    let context = params.view(Kind::EcdsaSigning, &key, &[0; 32], &[]);
    let setup = Setup {
        kind: Kind::EcdsaSigning,
        session: params.session,
        context,
        me: key.me(),
        participants: params.signers.clone(),
    };
    let presigning = PresigningParams {
        session: params.session,
        binding: context,
        signers: params.signers.clone(),
        count: params.messages.len(),
    };
    let run = Run::new(Arc::clone(&key), setups, context, presigning)?;
    run.start::<C, _>(setup, Release { key, params }, rng)
}

/// Goes on from the presignatures to the shares.
struct Release {
    key: Arc<KeyPackage>,
    params: SigningParams,
}

impl<C: Presigned> After<C> for Release {
    type Output = Signed;

    fn after(self, presignatures: Vec<Presignature>) -> Result<Next<Signed>, Error> {
        let Self { key, params } = self;
        let view = params.view(Kind::EcdsaSigning, &key, &[0; 32], &presignatures);
        Shares::<C>::release(key, params, &view, presignatures)
    }
}

impl SigningParams {
    fn validate<C: Curve>(&self, key: &KeyPackage) -> Result<(), Reject> {
        check_signers(key, &self.signers)?;
        if !self.signers.contains(&self.coordinator) {
            return Err(Reject::Coordinator);
        }
        if !(1..=MAX_BATCH).contains(&self.messages.len()) {
            return Err(Reject::Batch);
        }
        for message in &self.messages {
            if *message.key.root() != key.public_key_package_digest() {
                return Err(Reject::DerivationPath);
            }
            if C::reduce(&message.digest).is_zero().into() {
                return Err(Reject::ZeroDigest);
            }
        }
        Ok(())
    }

    /// Digest of everything that the signers must have the same view of.
    fn view(
        &self,
        kind: Kind,
        key: &KeyPackage,
        binding: &[u8; 32],
        presignatures: &[Presignature],
    ) -> [u8; 32] {
        let (kind, signers) = ([kind as u8], signer_bytes(&self.signers));
        let (key, coordinator) = (key.public_key_package_digest(), self.coordinator.to_bytes());
        let presignatures: Vec<u8> = presignatures
            .iter()
            .flat_map(|p| *p.id().as_bytes())
            .collect();
        let mut parts: Vec<&[u8]> = vec![
            &kind,
            self.session.as_bytes(),
            &self.context,
            binding,
            &key,
            &signers,
            &coordinator,
            &self.entropy,
            &presignatures,
        ];
        for message in &self.messages {
            parts.extend([message.digest.as_slice(), message.key.tweak()]);
        }
        tags::hash(tags::CONTEXT, &parts)
    }

    /// What the nonce of a presignature is shifted by.
    fn shift<C: Curve>(&self, message: &Signable, presignature: &PresignatureId) -> C::Scalar {
        C::reduce_wide(&tags::hash_wide(
            tags::RERANDOMISE,
            &[
                &[C::ID.to_byte()],
                message.key.root(),
                &message.key.public_key(),
                message.key.tweak(),
                &message.digest,
                &signer_bytes(&self.signers),
                presignature.as_bytes(),
                &self.entropy,
            ],
        ))
    }
}

/// Round 1, coordinator only: awaits the others' shares.
struct Shares<C: Curve> {
    others: Vec<Participant>,
    messages: Vec<Signable>,
    /// For each message, the shifted nonce point.
    nonces: Vec<Nonce<C>>,
    /// For each message, the sums of the `u_i` and `w_i`: so far this signer's own.
    sums: Zeroizing<Vec<[C::Scalar; 2]>>,
}

/// A signature's nonce point, as the signature has it.
struct Nonce<C: Curve> {
    /// The x-coordinate modulo the order.
    r: C::Scalar,
    recovery_id: u8,
}

impl<C: Curve> Nonce<C> {
    fn new(point: &C::Point) -> Result<Self, Error> {
        let (x, is_odd) = C::coordinates(point);
        let r = C::reduce(&x);
        if point.is_identity().into() || r.is_zero().into() {
            return Err(Error::Bug("a random nonce point has no x-coordinate"));
        }
        let is_reduced = C::scalar_bytes(&r) != x;
        Ok(Self {
            r,
            recovery_id: u8::from(is_odd) | u8::from(is_reduced) << 1,
        })
    }
}

impl<C: Presigned> Shares<C> {
    /// Computes this signer's shares, which spends the presignatures.
    fn release(
        key: Arc<KeyPackage>,
        params: SigningParams,
        view: &[u8; 32],
        presignatures: Vec<Presignature>,
    ) -> Result<Next<Signed>, Error> {
        // In full signing, another run may have failed since this one's own checks.
        if presignatures.iter().any(Presignature::is_poisoned) {
            return Err(Reject::SetupPoisoned.into());
        }
        let mut shares = Zeroizing::new(vec![C::Scalar::ZERO; 2 * params.messages.len()]);
        // Shares of zero that cancel only among signers with the same view.
        if let Some(presignature) = presignatures.first() {
            let session = tags::hash(tags::SHARE_MASK, &[view]);
            for pair in presignature.setups.values() {
                pair.add_zero_shares::<C>(&session, &mut shares);
            }
        }
        let (masked, _) = shares.as_chunks_mut::<2>();
        let mut nonces = Vec::with_capacity(params.messages.len());
        for ((message, presignature), share) in
            params.messages.iter().zip(presignatures).zip(masked)
        {
            let shift = params.shift::<C>(message, &presignature.id);
            let Secret {
                nonce_point,
                scalars,
            } = presignature.into_secret::<C>()?;
            let [mask, u, v] = **scalars;
            let nonce = Nonce::<C>::new(&(nonce_point + C::base_public(&shift)))?;
            let tweak = C::scalar(message.key.tweak()).ok_or(Error::Bug("a tweak is canonical"))?;
            let digest = C::reduce(&message.digest);
            let [u_share, w_share] = share;
            *u_share += u + shift * mask;
            *w_share += mask * (digest + nonce.r * tweak) + nonce.r * v;
            nonces.push(nonce);
        }

        if key.me() != params.coordinator {
            let mut bytes = Vec::with_capacity(shares.len() * SCALAR_BYTES);
            bytes.extend(shares.iter().flat_map(C::scalar_bytes));
            let direct = [(params.coordinator, Zeroizing::new(bytes))].into();
            return Ok(Next::Done(Signed::Released, Some(Outgoing::direct(direct))));
        }
        let me = key.me();
        let state = Self {
            others: params
                .signers
                .iter()
                .copied()
                .filter(|p| *p != me)
                .collect(),
            messages: params.messages,
            nonces,
            sums: Zeroizing::new(shares.as_chunks::<2>().0.to_vec()),
        };
        Ok(Next::Continue(Outgoing::nothing(), Box::new(state)))
    }
}

impl<C: Presigned> Round<Signed> for Shares<C> {
    fn shape(&self) -> Shape {
        Shape {
            broadcast: 0,
            direct: self.messages.len() * 2 * SCALAR_BYTES,
        }
    }

    fn next(
        self: Box<Self>,
        received: &Received<'_>,
        _: &mut dyn CryptoRngCore,
    ) -> Result<Next<Signed>, Error> {
        let Self {
            others,
            messages,
            nonces,
            mut sums,
        } = *self;
        for (from, parts) in received {
            let mut rest = parts.direct;
            for sum in sums.iter_mut().flatten() {
                let share = take(&mut rest).and_then(C::scalar);
                *sum += share.ok_or(Error::abort(AbortReason::Malformed, *from))?;
            }
        }
        let signatures = messages
            .iter()
            .zip(nonces.iter().zip(sums.iter()))
            .map(|(message, (nonce, sums))| combine::<C>(message, nonce, sums))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| super::blame(AbortReason::InvalidSignatureShare, others))?;
        Ok(Next::Done(Signed::Signatures(signatures), None))
    }
}

/// The signature from the sums of the shares, if it is one.
fn combine<C: Curve>(
    message: &Signable,
    nonce: &Nonce<C>,
    [u, w]: &[C::Scalar; 2],
) -> Option<Signature> {
    // In the paper everyone sends its shares to everyone: the sums are nothing to hide.
    let s = *w * Option::<C::Scalar>::from(u.invert_vartime())?;
    // `-s` goes with the negated nonce point: the same x, the other y.
    let (s, recovery_id) = match s.is_high().into() {
        true => (-s, nonce.recovery_id ^ 1),
        false => (s, nonce.recovery_id),
    };
    let signature = Signature {
        r: C::scalar_bytes(&nonce.r),
        s: C::scalar_bytes(&s),
        recovery_id,
    };
    let key = message.key.public_key();
    C::verify(&key, &message.digest, &signature.r, &signature.s).then_some(signature)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::key::Share;
    use super::super::pairwise::tests::setups;
    use super::super::presignature::CurveSecret;
    use super::*;

    fn p(index: u16) -> Participant {
        Participant::new(index).unwrap()
    }

    /// One share of a key of 2 of `n`, with little behind it.
    fn key(me: u16, n: u16, chain_code: u8) -> Arc<KeyPackage> {
        let at = |index: u64| k256::Scalar::from(5 + 7 * index);
        let share = Share::<Secp256k1> {
            secret: Zeroizing::new(at(me.into())),
            key: Secp256k1::base(&at(0)),
            verifying: (1..=n)
                .map(|index| (p(index), Secp256k1::base(&at(index.into()))))
                .collect(),
        };
        Arc::new(KeyPackage::new(p(me), 2, [chain_code; 32], share))
    }

    fn presignature(number: u8, signers: &BTreeSet<Participant>, with: PairSetups) -> Presignature {
        let scalars = [1_u64, 2, 3].map(|scalar| k256::Scalar::from(scalar + u64::from(number)));
        Presignature {
            id: PresignatureId::new(&[number; 32], 0),
            key: [0; 32],
            binding: [0; 32],
            signers: signers.clone(),
            setups: Arc::new(with),
            secret: CurveSecret::Secp256k1(Secret {
                nonce_point: Secp256k1::base(&k256::Scalar::from(11_u64)),
                scalars: Box::new(Zeroizing::new(scalars)),
            }),
        }
    }

    const TWEAK: [u8; 32] = [3; 32];
    const ROOT: [u8; 32] = [4; 32];
    const PUBLIC_KEY: [u8; 33] = [2; 33];

    fn params(signers: &BTreeSet<Participant>, coordinator: Participant) -> SigningParams {
        let message = |number| Signable {
            digest: [number; 32],
            key: DerivedKey::forged(ROOT, TWEAK, PUBLIC_KEY),
        };
        SigningParams {
            session: SessionId::new([5; 32]),
            context: [6; 32],
            signers: signers.clone(),
            coordinator,
            entropy: [7; 32],
            messages: vec![message(1), message(2)],
        }
    }

    /// What a view is made of.
    struct View {
        kind: Kind,
        key: Arc<KeyPackage>,
        binding: [u8; 32],
        presignatures: Vec<Presignature>,
        params: SigningParams,
    }

    #[test]
    fn everything_that_signers_must_agree_on_is_in_their_view() {
        let changes: [fn(&mut View); 15] = [
            |_| (),
            |v| v.kind = Kind::EcdsaSigning,
            |v| v.key = key(1, 3, 1),
            |v| v.binding[31] ^= 1,
            |v| v.presignatures[1].id = PresignatureId::new(&[9; 32], 0),
            |v| v.presignatures.reverse(),
            |v| v.params.session = SessionId::new([0; 32]),
            |v| v.params.context[31] ^= 1,
            |v| v.params.signers = [p(1), p(3)].into(),
            |v| v.params.coordinator = p(2),
            |v| v.params.entropy[31] ^= 1,
            |v| v.params.messages[1].digest[31] ^= 1,
            |v| v.params.messages[1].key = DerivedKey::forged(ROOT, [0; 32], PUBLIC_KEY),
            |v| v.params.messages.reverse(),
            |v| v.params.messages.truncate(1),
        ];
        let views: BTreeSet<[u8; 32]> = changes
            .iter()
            .map(|change| {
                let signers = [p(1), p(2)].into();
                let of = |number| presignature(number, &signers, PairSetups::new());
                let mut view = View {
                    kind: Kind::OnlineSigning,
                    key: key(1, 3, 0),
                    binding: [8; 32],
                    presignatures: vec![of(1), of(2)],
                    params: params(&signers, p(1)),
                };
                change(&mut view);
                let of = (&view.key, &view.binding, &view.presignatures);
                view.params.view(view.kind, of.0, of.1, of.2)
            })
            .collect();
        assert_eq!(views.len(), changes.len());
    }

    #[test]
    fn everything_that_groth_and_shoup_ask_for_is_in_the_shift() {
        fn shift<C: Curve>(change: fn(&mut SigningParams, &mut PresignatureId)) -> [u8; 32] {
            let mut params = params(&[p(1), p(2)].into(), p(1));
            let mut id = PresignatureId::new(&[1; 32], 0);
            change(&mut params, &mut id);
            C::scalar_bytes(&params.shift::<C>(&params.messages[0], &id))
        }
        let changes: [fn(&mut SigningParams, &mut PresignatureId); 8] = [
            |_, _| (),
            |s, _| s.messages[0].key = DerivedKey::forged([0; 32], TWEAK, PUBLIC_KEY),
            |s, _| s.messages[0].key = DerivedKey::forged(ROOT, [0; 32], PUBLIC_KEY),
            |s, _| s.messages[0].key = DerivedKey::forged(ROOT, TWEAK, [3; 33]),
            |s, _| s.messages[0].digest[31] ^= 1,
            |s, _| s.signers = [p(1), p(3)].into(),
            |_, id| *id = PresignatureId::new(&[1; 32], 1),
            |s, _| s.entropy[31] ^= 1,
        ];
        let mut shifts: BTreeSet<[u8; 32]> = changes.map(shift::<Secp256k1>).into();
        shifts.extend(changes.map(shift::<P256>));
        assert_eq!(shifts.len(), 2 * changes.len());
    }

    type Shares2 = [[k256::Scalar; 2]; 2];

    /// What each signer releases in its view: for each message, `u_i` and `w_i`.
    fn released(
        setups: &BTreeMap<Participant, PairSetups>,
        view: impl Fn(Participant) -> [u8; 32],
    ) -> Vec<Shares2> {
        let signers: BTreeSet<_> = setups.keys().copied().collect();
        let release = |(me, with): (&Participant, &PairSetups)| {
            // Whoever is the coordinator shows its shares to nobody.
            let coordinator = signers.iter().find(|other| *other != me).unwrap();
            let (params, view) = (params(&signers, *coordinator), view(*me));
            let of = |number| presignature(number, &signers, with.clone());
            let key = key(me.get(), 3, 0);
            let next =
                Shares::<Secp256k1>::release(key, params, &view, vec![of(1), of(2)]).unwrap();
            let Next::Done(_, Some(outgoing)) = next else {
                unreachable!("not the coordinator");
            };
            let setup = Setup {
                kind: Kind::OnlineSigning,
                session: SessionId::new([0; 32]),
                context: view,
                me: *me,
                participants: signers.clone(),
            };
            let (_, message) = setup.send_only(&outgoing).into_iter().next().unwrap();
            let shares = message[message.len() - 128..].as_chunks::<32>().0;
            let scalar = |i: usize| Secp256k1::scalar(&shares[i]).unwrap();
            [[scalar(0), scalar(1)], [scalar(2), scalar(3)]]
        };
        setups.iter().map(release).collect()
    }

    fn total(shares: &[Shares2], message: usize, part: usize) -> k256::Scalar {
        shares.iter().map(|share| share[message][part]).sum()
    }

    /// A coordinator that shows signers different requests, and makes their headers fit, gets neither
    /// sum: either alone would be an equation in the nonce or in the key.
    #[test]
    fn shares_of_different_views_add_up_to_nothing() {
        for n in [2, 3] {
            let mut all = BTreeMap::<_, PairSetups>::new();
            for (a, b) in (1..=n).flat_map(|a| (a + 1..=n).map(move |b| (p(a), p(b)))) {
                let seed = 16 * u64::from(a.get()) + u64::from(b.get());
                let (low, high) = setups(seed);
                all.entry(a).or_default().insert(b, Arc::new(low));
                all.entry(b).or_default().insert(a, Arc::new(high));
            }
            let (one, other) = (released(&all, |_| [1; 32]), released(&all, |_| [2; 32]));
            for different in 1..=n {
                let mixed = released(&all, |me| [1 + u8::from(me == p(different)); 32]);
                for (message, part) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    let sum = total(&one, message, part);
                    assert_eq!(sum, total(&other, message, part));
                    assert_ne!(sum, total(&mixed, message, part));
                }
            }
            // Nor is any single share the same in two views.
            for (one, other) in one.iter().zip(&other) {
                for (one, other) in one.as_flattened().iter().zip(other.as_flattened()) {
                    assert_ne!(one, other);
                }
            }
        }
    }
}
