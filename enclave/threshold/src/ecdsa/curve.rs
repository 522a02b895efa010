//! The two curves, behind one trait: scalars, points, encodings and reductions.

use std::fmt::Debug;
use std::ops::{AddAssign, Neg};
use std::sync::{LazyLock, OnceLock};

use k256::elliptic_curve::bigint::{U256, U512};
use k256::elliptic_curve::group::Group;
use k256::elliptic_curve::ops::{Invert, LinearCombination, MulByGenerator, Reduce};
use k256::elliptic_curve::point::AffineCoordinates;
use k256::elliptic_curve::scalar::IsHigh;
use k256::elliptic_curve::sec1::{FromEncodedPoint as _, ToEncodedPoint as _};
use k256::elliptic_curve::{BatchNormalize, FieldBytes, PrimeField};
use rand_core::CryptoRngCore;
use subtle::{ConditionallySelectable, CtOption};
use zeroize::Zeroize;

use super::multiples::GeneratorTable;

/// Bytes of an encoded scalar, on both curves.
pub const SCALAR_BYTES: usize = 32;
/// Bytes of an encoded point (SEC 1, compressed), on both curves.
pub const POINT_BYTES: usize = 33;

/// A curve ECDSA keys are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CurveId {
    /// secp256k1 (SEC 2, section 2.4.1): Ethereum, Bitcoin.
    Secp256k1,
    /// NIST P-256 (FIPS 186-4, D.1.2.3).
    P256,
}

impl CurveId {
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Secp256k1 => 1,
            Self::P256 => 2,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Secp256k1),
            2 => Some(Self::P256),
            _ => None,
        }
    }
}

/// secp256k1 (SEC 2, section 2.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Secp256k1;

/// NIST P-256 (FIPS 186-4, D.1.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct P256;

/// A curve of prime order with 32-byte scalars.
///
/// All operations are constant-time in scalars and points, except those that say otherwise.
pub trait Curve: Debug + Copy + Eq + Send + Sync + 'static {
    /// Which curve, as a value. Its byte separates the curves' hashes from each other.
    const ID: CurveId;

    /// Integers modulo the group's order. `to_repr` and `from_repr` are big-endian and canonical.
    type Scalar: PrimeField<Repr = FieldBytes<k256::Secp256k1>>
        + Invert<Output = CtOption<Self::Scalar>>
        + IsHigh
        + Zeroize;

    /// Group elements.
    type Point: Group<Scalar = Self::Scalar>
        + MulByGenerator
        + LinearCombination
        + AddAssign<Self::Affine>
        + ConditionallySelectable
        + Default
        + Zeroize;

    /// The same with two coordinates: smaller, quicker to add, and costs an inversion to make.
    type Affine: ConditionallySelectable
        + Neg<Output = Self::Affine>
        + Default
        + Debug
        + Send
        + Sync;

    /// 32 bytes, big-endian, modulo the order. The bias of a uniform input is the distance of the order
    /// from 2^256: 2^-128 for secp256k1, 2^-32 for P-256. For digests and coordinates, where it is what
    /// ECDSA prescribes; not for secrets.
    fn reduce(bytes: &[u8; 32]) -> Self::Scalar;

    /// 64 bytes, big-endian, modulo the order: uniform up to 2^-256 for a uniform input.
    fn reduce_wide(bytes: &[u8; 64]) -> Self::Scalar;

    /// The points with two coordinates; on secp256k1 at one field inversion for all of them.
    fn normalize_all(points: &[Self::Point]) -> Vec<Self::Affine>;

    /// A point's encoding. The identity's is zeros, which [`Curve::decode`] refuses.
    fn compress(point: &Self::Affine) -> [u8; POINT_BYTES];

    /// The generator's multiples, computed once.
    fn generator_table() -> &'static GeneratorTable<Self>;

    /// The point of a compressed encoding: on the curve, not the identity, and no other encoding of it
    /// is taken. Variable-time.
    fn decode(bytes: &[u8; POINT_BYTES]) -> Option<Self::Point>;

    /// The x-coordinate as an integer of 32 bytes, big-endian, and whether y is odd. For public points;
    /// zero for the identity.
    fn coordinates(point: &Self::Point) -> ([u8; 32], bool);

    /// Whether a signature under this encoded key verifies (FIPS 186-4, section 6.4; low and high `s`).
    /// For secp256k1 by libsecp256k1, which shares no code with what makes signatures. Variable-time.
    fn verify(key: &[u8; POINT_BYTES], digest: &[u8; 32], r: &[u8; 32], s: &[u8; 32]) -> bool;

    /// The points' encodings, as cheap as [`Curve::normalize_all`].
    fn encode_all(points: &[Self::Point]) -> Vec<[u8; POINT_BYTES]> {
        let affine = Self::normalize_all(points);
        affine.iter().map(Self::compress).collect()
    }

    /// One point's encoding.
    fn encode(point: &Self::Point) -> [u8; POINT_BYTES] {
        let encoded = Self::encode_all(std::slice::from_ref(point));
        encoded.first().copied().unwrap_or([0; POINT_BYTES])
    }

    /// `scalar` times the generator.
    fn base(scalar: &Self::Scalar) -> Self::Point {
        Self::Point::mul_by_generator(scalar)
    }

    /// The same for a scalar that everybody may know. Variable-time.
    fn base_public(scalar: &Self::Scalar) -> Self::Point {
        Self::generator_table().multiply_public(scalar)
    }

    /// A uniform scalar; constant-time, unlike rejection sampling.
    fn random(rng: &mut dyn CryptoRngCore) -> Self::Scalar {
        let mut wide = [0; 64];
        rng.fill_bytes(&mut wide);
        let scalar = Self::reduce_wide(&wide);
        wide.zeroize();
        scalar
    }

    /// The scalar's 32 bytes, big-endian.
    fn scalar_bytes(scalar: &Self::Scalar) -> [u8; SCALAR_BYTES] {
        scalar.to_repr().into()
    }

    /// The scalar of a canonical encoding: below the order.
    fn scalar(bytes: &[u8; SCALAR_BYTES]) -> Option<Self::Scalar> {
        Self::Scalar::from_repr((*bytes).into()).into()
    }
}

impl Curve for Secp256k1 {
    const ID: CurveId = CurveId::Secp256k1;
    type Scalar = k256::Scalar;
    type Point = k256::ProjectivePoint;
    type Affine = k256::AffinePoint;

    fn reduce(bytes: &[u8; 32]) -> Self::Scalar {
        <k256::Scalar as Reduce<U256>>::reduce_bytes(&(*bytes).into())
    }

    fn reduce_wide(bytes: &[u8; 64]) -> Self::Scalar {
        <k256::Scalar as Reduce<U512>>::reduce(U512::from_be_slice(bytes))
    }

    fn normalize_all(points: &[Self::Point]) -> Vec<Self::Affine> {
        <k256::ProjectivePoint as BatchNormalize<[_]>>::batch_normalize(points)
    }

    fn compress(point: &Self::Affine) -> [u8; POINT_BYTES] {
        compressed(&point.to_encoded_point(true))
    }

    fn generator_table() -> &'static GeneratorTable<Self> {
        static TABLE: OnceLock<GeneratorTable<Secp256k1>> = OnceLock::new();
        TABLE.get_or_init(GeneratorTable::new)
    }

    fn decode(bytes: &[u8; POINT_BYTES]) -> Option<Self::Point> {
        let encoded = parse(bytes)?;
        let affine =
            Option::<k256::AffinePoint>::from(k256::AffinePoint::from_encoded_point(&encoded))?;
        Some(affine.into())
    }

    fn coordinates(point: &Self::Point) -> ([u8; 32], bool) {
        let affine = point.to_affine();
        (affine.x().into(), affine.y_is_odd().into())
    }

    fn verify(key: &[u8; POINT_BYTES], digest: &[u8; 32], r: &[u8; 32], s: &[u8; 32]) -> bool {
        use secp256k1::ecdsa::Signature;
        use secp256k1::{Message, PublicKey};
        let signature = [*r, *s];
        let (Ok(key), Ok(mut signature)) = (
            PublicKey::from_slice(key),
            Signature::from_compact(signature.as_flattened()),
        ) else {
            return false;
        };
        // The library takes low `s` only; `(r, s)` and `(r, -s)` verify alike.
        signature.normalize_s();
        static LIBRARY: LazyLock<secp256k1::Secp256k1<secp256k1::VerifyOnly>> =
            LazyLock::new(secp256k1::Secp256k1::verification_only);
        LIBRARY
            .verify_ecdsa(&Message::from_digest(*digest), &signature, &key)
            .is_ok()
    }
}

impl Curve for P256 {
    const ID: CurveId = CurveId::P256;
    type Scalar = p256::Scalar;
    type Point = p256::ProjectivePoint;
    type Affine = p256::AffinePoint;

    fn reduce(bytes: &[u8; 32]) -> Self::Scalar {
        <p256::Scalar as Reduce<U256>>::reduce_bytes(&(*bytes).into())
    }

    fn reduce_wide(bytes: &[u8; 64]) -> Self::Scalar {
        let number = U512::from_be_slice(bytes);
        let (high, low) = number.split();
        // 2^256 modulo the order; the library reduces 256 bits only.
        let radix = <p256::Scalar as Reduce<U256>>::reduce(U256::MAX) + p256::Scalar::ONE;
        <p256::Scalar as Reduce<U256>>::reduce(high) * radix
            + <p256::Scalar as Reduce<U256>>::reduce(low)
    }

    fn normalize_all(points: &[Self::Point]) -> Vec<Self::Affine> {
        // The library offers no common inversion on this curve.
        points.iter().map(|p| p.to_affine()).collect()
    }

    fn compress(point: &Self::Affine) -> [u8; POINT_BYTES] {
        compressed(&point.to_encoded_point(true))
    }

    fn generator_table() -> &'static GeneratorTable<Self> {
        static TABLE: OnceLock<GeneratorTable<P256>> = OnceLock::new();
        TABLE.get_or_init(GeneratorTable::new)
    }

    fn decode(bytes: &[u8; POINT_BYTES]) -> Option<Self::Point> {
        let encoded = parse(bytes)?;
        let affine =
            Option::<p256::AffinePoint>::from(p256::AffinePoint::from_encoded_point(&encoded))?;
        Some(affine.into())
    }

    fn coordinates(point: &Self::Point) -> ([u8; 32], bool) {
        let affine = point.to_affine();
        (affine.x().into(), affine.y_is_odd().into())
    }

    /// By our table: the library has none on this curve, and takes six times as long.
    fn base(scalar: &Self::Scalar) -> Self::Point {
        Self::generator_table().multiply(scalar)
    }

    fn verify(key: &[u8; POINT_BYTES], digest: &[u8; 32], r: &[u8; 32], s: &[u8; 32]) -> bool {
        use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
        use p256::ecdsa::{Signature, VerifyingKey};
        let (Ok(key), Ok(signature)) = (
            VerifyingKey::from_sec1_bytes(key),
            Signature::from_scalars(*r, *s),
        ) else {
            return false;
        };
        key.verify_prehash(digest, &signature).is_ok()
    }
}

/// The points' common encoding type: both curves' fields have 32 bytes.
type Sec1 = k256::EncodedPoint;

fn compressed(point: &Sec1) -> [u8; POINT_BYTES] {
    // The identity's encoding is a single byte.
    point.as_bytes().try_into().unwrap_or([0; POINT_BYTES])
}

/// Compressed form only: the libraries also read others from as many bytes.
fn parse(bytes: &[u8; POINT_BYTES]) -> Option<Sec1> {
    match bytes {
        [2 | 3, ..] => Sec1::from_bytes(bytes).ok(),
        _ => None,
    }
}
