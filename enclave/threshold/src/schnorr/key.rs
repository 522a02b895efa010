//! Key packages: a key share with what all participants know about the key.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use arca_wipe::wiped;
use frost_core::keys::{self, PublicKeyPackage, SigningShare, VerifyingShare};
use frost_core::{Element, Field, Group, Scalar, VerifyingKey};
use frost_ed25519::Ed25519Sha512;
use frost_secp256k1_tr::Secp256K1Sha256TR;
use zeroize::Zeroizing;

use crate::bytes::{take, take_slice};
use crate::{Error, MAX_PARTICIPANTS, Participant, Reject, tags};

use super::Scheme;
use super::suite::{SCALAR_BYTES, Share, Suite, identifier};

const VERSION: u8 = 1;

/// One participant's share of a key, and the key's public data.
///
/// # Security
///
/// Holds the share: it is neither `Clone` nor serialisable by a framework, its `Debug` shows public
/// data only, and dropping it erases the share. Put it in an `Arc` to sign with it more than once.
///
/// A BIP-340 key commits to an unspendable script path below the group's key (BIP-341, by
/// `frost-secp256k1-tr` at the end of key generation), so that no participant can have hidden one.
pub struct KeyPackage {
    me: Participant,
    participants: BTreeSet<Participant>,
    threshold: u16,
    public_key: [u8; 32],
    digest: [u8; 32],
    share: SchemeShare,
}

/// The share, in its scheme's types.
pub(super) enum SchemeShare {
    Bip340(Box<Share<Secp256K1Sha256TR>>),
    Ed25519(Box<Share<Ed25519Sha512>>),
}

impl KeyPackage {
    /// The scheme the key is for.
    pub fn scheme(&self) -> Scheme {
        match self.share {
            SchemeShare::Bip340(_) => Scheme::Bip340,
            SchemeShare::Ed25519(_) => Scheme::Ed25519,
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

    /// The group's key. BIP-340: x-only, the taproot *internal* key for
    /// [`Tweak::TaprootKeyPath`](crate::Tweak::TaprootKeyPath). Ed25519: the public key of RFC 8032.
    pub fn public_key(&self) -> [u8; 32] {
        self.public_key
    }

    /// SHA-256 over scheme, threshold, participants with their verifying shares, and the key: equal at
    /// all participants exactly when they hold shares of the same key.
    pub fn public_key_package_digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The package as bytes, share included: seal them.
    ///
    /// Version (1), scheme (1), threshold (2), number of participants (2), the key as a compressed group
    /// element, for each participant in ascending order its index (2) and its verifying share (a
    /// compressed group element), this participant's index (2), its share (32). Integers are big
    /// endian; a group element has 33 bytes for BIP-340 and 32 for Ed25519.
    ///
    /// # Errors
    ///
    /// [`Error::Bug`] only.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        wiped(|| match &self.share {
            SchemeShare::Bip340(share) => self.encode(share),
            SchemeShare::Ed25519(share) => self.encode(share),
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
            [VERSION, scheme, rest @ ..] => match Scheme::from_byte(*scheme) {
                Some(Scheme::Bip340) => wiped(|| decode::<Secp256K1Sha256TR>(rest)),
                Some(Scheme::Ed25519) => wiped(|| decode::<Ed25519Sha512>(rest)),
                None => None,
            },
            _ => None,
        };
        let package = package.ok_or(Reject::KeyPackage)?;
        // The libraries read some values from more than one encoding; we take one.
        if *package.to_bytes()? != bytes {
            return Err(Reject::KeyPackage.into());
        }
        Ok(package)
    }

    pub(super) fn new<C: Suite>(
        me: Participant,
        participants: BTreeSet<Participant>,
        threshold: u16,
        share: Share<C>,
    ) -> Result<Self, Error> {
        let key = element_bytes(share.public.verifying_key().serialize())?;
        let public_key = *key
            .last_chunk()
            .ok_or(Error::Bug("a group element has at least 32 bytes"))?;
        let public = encode_public(&participants, threshold, &share)?;
        Ok(Self {
            me,
            participants,
            threshold,
            public_key,
            digest: tags::hash(tags::PUBLIC_KEY_PACKAGE, &[&public]),
            share: C::into_scheme(Box::new(share)),
        })
    }

    pub(super) fn share(&self) -> &SchemeShare {
        &self.share
    }

    fn encode<C: Suite>(&self, share: &Share<C>) -> Result<Zeroizing<Vec<u8>>, Error> {
        let public = encode_public(&self.participants, self.threshold, share)?;
        let secret = Zeroizing::new(share.secret.signing_share().serialize());
        // One allocation: growing would leave a copy of the share behind.
        let len = 1 + public.len() + 2 + secret.len();
        let mut bytes = Zeroizing::new(Vec::with_capacity(len));
        bytes.push(VERSION);
        bytes.extend_from_slice(&public);
        bytes.extend_from_slice(&self.me.to_bytes());
        bytes.extend_from_slice(&secret);
        Ok(bytes)
    }
}

impl fmt::Debug for KeyPackage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPackage")
            .field("scheme", &self.scheme())
            .field("me", &self.me)
            .field("participants", &self.participants)
            .field("threshold", &self.threshold)
            .finish_non_exhaustive()
    }
}

/// Scheme, threshold, number of participants, key, and each participant's index and verifying share.
fn encode_public<C: Suite>(
    participants: &BTreeSet<Participant>,
    threshold: u16,
    share: &Share<C>,
) -> Result<Vec<u8>, Error> {
    let count =
        u16::try_from(participants.len()).map_err(|_| Error::Bug("participants were counted"))?;
    let mut bytes = vec![C::SCHEME.to_byte()];
    bytes.extend(threshold.to_be_bytes());
    bytes.extend(count.to_be_bytes());
    bytes.extend(element_bytes(share.public.verifying_key().serialize())?);
    for participant in participants {
        let verifying_share = share
            .public
            .verifying_shares()
            .get(&identifier::<C>(*participant)?)
            .ok_or(Error::Bug("a verifying share for every participant"))?;
        bytes.extend(participant.to_bytes());
        bytes.extend(element_bytes(verifying_share.serialize())?);
    }
    Ok(bytes)
}

fn element_bytes<E>(encoded: Result<Vec<u8>, E>) -> Result<Vec<u8>, Error> {
    encoded.map_err(|_| Error::Bug("only the identity does not encode"))
}

/// Everything after version and scheme.
fn decode<C: Suite>(mut bytes: &[u8]) -> Option<KeyPackage> {
    let threshold = u16::from_be_bytes(*take(&mut bytes)?);
    let count = usize::from(u16::from_be_bytes(*take(&mut bytes)?));
    if !(2..=MAX_PARTICIPANTS).contains(&count) || !(2..=count).contains(&usize::from(threshold)) {
        return None;
    }
    let key = take_slice(&mut bytes, C::ELEMENT_BYTES)?;
    let mut shares = BTreeMap::new();
    for _ in 0..count {
        let participant = Participant::new(u16::from_be_bytes(*take(&mut bytes)?))?;
        shares.insert(participant, take_slice(&mut bytes, C::ELEMENT_BYTES)?);
    }
    let me = Participant::new(u16::from_be_bytes(*take(&mut bytes)?))?;
    let secret = SigningShare::<C>::deserialize(take_slice(&mut bytes, SCALAR_BYTES)?).ok()?;
    if !bytes.is_empty() || shares.len() != count || !is_one_key::<C>(key, &shares, threshold)? {
        return None;
    }

    let verifying_key = VerifyingKey::<C>::deserialize(key).ok()?;
    let verifying_share = VerifyingShare::deserialize(shares.get(&me)?).ok()?;
    if VerifyingShare::from(secret) != verifying_share {
        return None;
    }
    let verifying_shares = shares
        .iter()
        .map(|(participant, share)| {
            let id = identifier::<C>(*participant).ok()?;
            Some((id, VerifyingShare::deserialize(share).ok()?))
        })
        .collect::<Option<_>>()?;
    let id = identifier::<C>(me).ok()?;
    let share = Share {
        secret: keys::KeyPackage::new(id, secret, verifying_share, verifying_key, threshold),
        public: PublicKeyPackage::new(verifying_shares, verifying_key, Some(threshold)),
    };
    KeyPackage::new(me, shares.into_keys().collect(), threshold, share).ok()
}

/// Whether the verifying shares lie on one polynomial of degree exactly `threshold - 1` with the key at
/// zero.
fn is_one_key<C: Suite>(
    key: &[u8],
    shares: &BTreeMap<Participant, &[u8]>,
    threshold: u16,
) -> Option<bool> {
    let key = element::<C>(key)?;
    let points = shares
        .iter()
        .map(|(participant, share)| Some((scalar::<C>(*participant)?, element::<C>(share)?)))
        .collect::<Option<Vec<_>>>()?;
    let zero = <C::Group as Group>::Field::zero();
    let (basis, rest) = points.split_at_checked(usize::from(threshold))?;
    let (_, too_few) = basis.split_last()?;
    let mut consistent = interpolate::<C>(basis, zero)? == key;
    consistent &= interpolate::<C>(too_few, zero)? != key;
    for (at, share) in rest {
        consistent &= interpolate::<C>(basis, *at)? == *share;
    }
    Some(consistent)
}

/// The value at `at` of the polynomial of lowest degree through the points (Lagrange, in the
/// exponent). Public data only.
fn interpolate<C: Suite>(points: &[(Scalar<C>, Element<C>)], at: Scalar<C>) -> Option<Element<C>> {
    type F<C> = <<C as frost_core::Ciphersuite>::Group as Group>::Field;
    let mut sum = C::Group::identity();
    for (x, y) in points {
        let (mut numerator, mut denominator) = (F::<C>::one(), F::<C>::one());
        for (other, _) in points.iter().filter(|(other, _)| other != x) {
            numerator = numerator * (at - *other);
            denominator = denominator * (*x - *other);
        }
        sum = sum + *y * (numerator * F::<C>::invert(&denominator).ok()?);
    }
    Some(sum)
}

fn scalar<C: Suite>(participant: Participant) -> Option<Scalar<C>> {
    let bytes = identifier::<C>(participant).ok()?.serialize();
    <C::Group as Group>::Field::deserialize(&bytes.as_slice().try_into().ok()?).ok()
}

fn element<C: Suite>(bytes: &[u8]) -> Option<Element<C>> {
    C::Group::deserialize(&bytes.try_into().ok()?).ok()
}
