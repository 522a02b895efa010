//! Addresses of accounts.

use bitcoin::hex::DisplayHex;
use bitcoin::secp256k1;
use sha3::{Digest, Keccak256};

use crate::Rejection;

/// The address of the account of this compressed secp256k1 key: the last 20 bytes of the Keccak-256 hash of its
/// coordinates (Ethereum yellow paper, appendix F).
///
/// # Errors
///
/// [`Rejection::InvalidKey`]: the key is no point of secp256k1.
pub fn ethereum_address(public_key: &[u8; 33]) -> Result<[u8; 20], Rejection> {
    let point = secp256k1::PublicKey::from_slice(public_key).map_err(|_| Rejection::InvalidKey)?;
    // Without the byte that says that both coordinates follow.
    let [_, coordinates @ ..] = point.serialize_uncompressed();
    let [_, _, _, _, _, _, _, _, _, _, _, _, address @ ..] = keccak256(&coordinates);
    Ok(address)
}

/// The address as text, `0x` and 40 digits of which some are capitals: the checksum of EIP-55.
pub fn ethereum_checksum(address: &[u8; 20]) -> String {
    let digits = address.to_lower_hex_string();
    let hash = keccak256(digits.as_bytes()).to_lower_hex_string();
    let digits = digits.chars().zip(hash.chars());
    let digits = digits.map(|(digit, hash)| match hash {
        '8'..='9' | 'a'..='f' => digit.to_ascii_uppercase(),
        _ => digit,
    });
    "0x".chars().chain(digits).collect()
}

pub(crate) fn keccak256(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}
