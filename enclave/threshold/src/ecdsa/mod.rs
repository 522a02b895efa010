//! ECDSA over secp256k1 and P-256: DKLs23 (ePrint 2023/765).

mod curve;

pub use self::curve::{Curve, CurveId, P256, POINT_BYTES, SCALAR_BYTES, Secp256k1};
