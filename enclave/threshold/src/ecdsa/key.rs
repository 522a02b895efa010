//! Key packages: a key share with what all participants know about the key.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use arca_wipe::wiped;
use k256::elliptic_curve::Field as _;
use k256::elliptic_curve::group::Group as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::bytes::take;
use crate::{Error, MAX_PARTICIPANTS, Participant, Reject, tags};

use super::curve::{Curve, CurveId, P256, POINT_BYTES, SCALAR_BYTES, Secp256k1};
use super::shamir;

const VERSION: u8 = 1;

/// One participant's share of an ECDSA key, and the key's public data.
///
/// # Security
///
/// Holds the share: it is neither `Clone` nor serialisable by a framework, its `Debug` shows public
/// data only, and dropping it erases the share. Put it in an `Arc` to sign with it more than once.
pub struct KeyPackage {
    me: Participant,
    participants: BTreeSet<Participant>,
    threshold: u16,
    public_key: [u8; POINT_BYTES],
    chain_code: [u8; 32],
    digest: [u8; 32],
    share: CurveShare,
}

/// The share, in its curve's types.
pub(super) enum CurveShare {
    Secp256k1(Box<Share<Secp256k1>>),
    P256(Box<Share<P256>>),
}

/// One participant's share of a key, with what all participants know about the key.
pub(super) struct Share<C: Curve> {
    pub(super) secret: Zeroizing<C::Scalar>,
    pub(super) key: C::Point,
    pub(super) verifying: BTreeMap<Participant, C::Point>,
}

/// A curve whose shares a key package can hold.
pub(super) trait Stored: Curve {
    fn into_curve(share: Box<Share<Self>>) -> CurveShare;

    /// The share as this curve's, if it is.
    fn from_curve(share: &CurveShare) -> Option<&Share<Self>>;
}

impl Stored for Secp256k1 {
    fn into_curve(share: Box<Share<Self>>) -> CurveShare {
        CurveShare::Secp256k1(share)
    }

    fn from_curve(share: &CurveShare) -> Option<&Share<Self>> {
        match share {
            CurveShare::Secp256k1(share) => Some(share),
            CurveShare::P256(_) => None,
        }
    }
}

impl Stored for P256 {
    fn into_curve(share: Box<Share<Self>>) -> CurveShare {
        CurveShare::P256(share)
    }

    fn from_curve(share: &CurveShare) -> Option<&Share<Self>> {
        match share {
            CurveShare::P256(share) => Some(share),
            CurveShare::Secp256k1(_) => None,
        }
    }
}

impl KeyPackage {
    /// The curve the key is on.
    pub fn curve(&self) -> CurveId {
        match self.share {
            CurveShare::Secp256k1(_) => CurveId::Secp256k1,
            CurveShare::P256(_) => CurveId::P256,
        }
    }

    /// The participant that holds this share.
    pub fn me(&self) -> Participant {
        self.me
    }

    /// Everyone that holds a share of the key.
    pub fn participants(&self) -> &BTreeSet<Participant> {
        &self.participants
    }

    /// How many must sign together.
    pub fn threshold(&self) -> u16 {
        self.threshold
    }

    /// The key (SEC 1, compressed): the root of the tree of keys that [`KeyPackage::derive`] gives.
    pub fn public_key(&self) -> [u8; POINT_BYTES] {
        self.public_key
    }

    /// The key's chain code (BIP-32). Not secret, and not to be published without need: with it and one
    /// derived private key, which nobody ever holds here, the root key could be computed.
    pub fn chain_code(&self) -> [u8; 32] {
        self.chain_code
    }

    /// SHA-256 over curve, threshold, key, chain code and participants with their verifying shares:
    /// equal at all participants exactly when they hold shares of the same key.
    pub fn public_key_package_digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The package as bytes, share included: seal them.
    ///
    /// Version (1), curve (1; 1 secp256k1, 2 P-256), threshold (2), number of participants (2), key
    /// (33), chain code (32), for each participant in ascending order its index (2) and its verifying
    /// share (33), this participant's index (2), its share (32). Integers are big endian, points SEC 1
    /// compressed.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        wiped(|| match &self.share {
            CurveShare::Secp256k1(share) => self.encode(share),
            CurveShare::P256(share) => self.encode(share),
        })
    }

    /// Reads what [`KeyPackage::to_bytes`] wrote, and checks that it is one consistent key: the share
    /// belongs to its verifying share, and the verifying shares to the key at exactly this threshold.
    ///
    /// # Errors
    ///
    /// [`Reject::KeyPackage`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let package = match bytes {
            [VERSION, curve, rest @ ..] => match CurveId::from_byte(*curve) {
                Some(CurveId::Secp256k1) => wiped(|| decode::<Secp256k1>(rest)),
                Some(CurveId::P256) => wiped(|| decode::<P256>(rest)),
                None => None,
            },
            _ => None,
        };
        Ok(package.ok_or(Reject::KeyPackage)?)
    }

    pub(super) fn new<C: Stored>(
        me: Participant,
        threshold: u16,
        chain_code: [u8; 32],
        share: Share<C>,
    ) -> Self {
        let public = encode_public(threshold, &chain_code, &share);
        Self {
            me,
            participants: share.verifying.keys().copied().collect(),
            threshold,
            public_key: C::encode(&share.key),
            chain_code,
            digest: tags::hash(tags::ECDSA_PUBLIC_KEY_PACKAGE, &[&public]),
            share: C::into_curve(Box::new(share)),
        }
    }

    /// The share in its curve's types.
    pub(super) fn share<C: Stored>(&self) -> Result<&Share<C>, Error> {
        C::from_curve(&self.share).ok_or(Error::Bug("the types follow the key's curve"))
    }

    fn encode<C: Curve>(&self, share: &Share<C>) -> Zeroizing<Vec<u8>> {
        let public = encode_public(self.threshold, &self.chain_code, share);
        let mut secret = C::scalar_bytes(&share.secret);
        // One allocation: growing would leave a copy of the share behind.
        let len = 1 + public.len() + 2 + secret.len();
        let mut bytes = Zeroizing::new(Vec::with_capacity(len));
        bytes.push(VERSION);
        bytes.extend_from_slice(&public);
        bytes.extend_from_slice(&self.me.to_bytes());
        bytes.extend_from_slice(&secret);
        secret.zeroize();
        bytes
    }
}

impl fmt::Debug for KeyPackage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPackage")
            .field("curve", &self.curve())
            .field("me", &self.me)
            .field("participants", &self.participants)
            .field("threshold", &self.threshold)
            .finish_non_exhaustive()
    }
}

/// Curve, threshold, number of participants, key, chain code, and each participant's index and
/// verifying share.
fn encode_public<C: Curve>(threshold: u16, chain_code: &[u8; 32], share: &Share<C>) -> Vec<u8> {
    let points: Vec<C::Point> = [share.key]
        .iter()
        .chain(share.verifying.values())
        .copied()
        .collect();
    let encoded = C::encode_all(&points);
    let (key, verifying) = encoded.split_at(1);
    let mut bytes = vec![C::ID.to_byte()];
    bytes.extend(threshold.to_be_bytes());
    // At most `MAX_PARTICIPANTS`.
    bytes.extend([0, u8::try_from(verifying.len()).unwrap_or(u8::MAX)]);
    bytes.extend(key.iter().flatten());
    bytes.extend(chain_code);
    for (participant, point) in share.verifying.keys().zip(verifying) {
        bytes.extend(participant.to_bytes());
        bytes.extend(point);
    }
    bytes
}

/// Everything after version and curve.
fn decode<C: Stored>(mut bytes: &[u8]) -> Option<KeyPackage> {
    let threshold = u16::from_be_bytes(*take(&mut bytes)?);
    let count = usize::from(u16::from_be_bytes(*take(&mut bytes)?));
    if !(2..=MAX_PARTICIPANTS).contains(&count) || !(2..=count).contains(&usize::from(threshold)) {
        return None;
    }
    let key = C::decode(take(&mut bytes)?)?;
    let chain_code = *take(&mut bytes)?;
    let mut verifying = BTreeMap::new();
    for _ in 0..count {
        let participant = Participant::new(u16::from_be_bytes(*take(&mut bytes)?))?;
        let in_order = verifying
            .last_key_value()
            .is_none_or(|(last, _)| *last < participant);
        if !in_order {
            return None;
        }
        verifying.insert(participant, C::decode(take(&mut bytes)?)?);
    }
    let me = Participant::new(u16::from_be_bytes(*take(&mut bytes)?))?;
    let secret = Zeroizing::new(C::scalar(take::<SCALAR_BYTES>(&mut bytes)?)?);
    let consistent = bytes.is_empty()
        && is_one_key::<C>(&key, &verifying, threshold)?
        && C::base(&secret) == *verifying.get(&me)?;
    let share = Share::<C> {
        secret,
        key,
        verifying,
    };
    consistent.then(|| KeyPackage::new(me, threshold, chain_code, share))
}

/// Whether the verifying shares lie on one polynomial of degree exactly `threshold - 1` with the key at
/// zero.
fn is_one_key<C: Curve>(
    key: &C::Point,
    verifying: &BTreeMap<Participant, C::Point>,
    threshold: u16,
) -> Option<bool> {
    let points: Vec<(Participant, C::Point)> = verifying.iter().map(|(p, v)| (*p, *v)).collect();
    let (basis, rest) = points.split_at_checked(usize::from(threshold))?;
    let (_, too_few) = basis.split_last()?;
    let zero = C::Scalar::ZERO;
    let on_polynomial = |(participant, share): &(Participant, C::Point)| {
        shamir::interpolate::<C>(basis, &shamir::index::<C>(*participant)) == *share
    };
    Some(
        !bool::from(key.is_identity())
            && shamir::interpolate::<C>(basis, &zero) == *key
            && shamir::interpolate::<C>(too_few, &zero) != *key
            && rest.iter().all(on_polynomial),
    )
}
