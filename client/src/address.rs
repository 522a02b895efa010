//! Addresses of a key on the chains that its scheme serves.

use bitcoin::key::Secp256k1;
use bitcoin::secp256k1::XOnlyPublicKey;

use crate::error::{Error, Result};

/// A Bitcoin network. Testnet and signet share their address format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// The main chain: `bc1...`
    Bitcoin,
    /// `tb1...`
    Testnet,
    /// `tb1...`
    Signet,
    /// `bcrt1...`
    Regtest,
}

impl From<Network> for bitcoin::Network {
    fn from(network: Network) -> Self {
        match network {
            Network::Bitcoin => Self::Bitcoin,
            Network::Testnet => Self::Testnet,
            Network::Signet => Self::Signet,
            Network::Regtest => Self::Regtest,
        }
    }
}

/// The P2TR address of an internal key, without a script tree: the output key of BIP-86, in bech32m.
///
/// `internal_key` is a 32-byte x coordinate.
///
/// # Errors
/// [`Error::Input`] when it is no x coordinate on the curve.
pub fn taproot(internal_key: &[u8; 32], network: Network) -> Result<bitcoin::Address> {
    let key = internal(internal_key)?;
    let secp = Secp256k1::verification_only();
    Ok(bitcoin::Address::p2tr(
        &secp,
        key,
        None,
        bitcoin::Network::from(network),
    ))
}

/// The P2WPKH address of a compressed key (BIP-141), in bech32.
///
/// # Errors
/// [`Error::Input`] when it is no point of secp256k1.
pub fn p2wpkh(public_key: &[u8; 33], network: Network) -> Result<bitcoin::Address> {
    let key = bitcoin::CompressedPublicKey::from_slice(public_key)
        .map_err(|_| Error::input("public key", "is no point of secp256k1"))?;
    Ok(bitcoin::Address::p2wpkh(
        &key,
        bitcoin::Network::from(network),
    ))
}

/// The Ethereum address of a compressed key, with the checksum of EIP-55.
///
/// # Errors
/// [`Error::Input`] when it is no point of secp256k1.
pub fn ethereum(public_key: &[u8; 33]) -> Result<String> {
    arca_policy::ethereum_address(public_key)
        .map(|address| arca_policy::ethereum_checksum(&address))
        .map_err(|problem| Error::input("public key", problem))
}

/// The Solana address of an Ed25519 public key: its 32 bytes in base58.
pub fn solana(public_key: &[u8; 32]) -> String {
    bs58::encode(public_key).into_string()
}

pub(crate) fn internal(internal_key: &[u8; 32]) -> Result<XOnlyPublicKey> {
    XOnlyPublicKey::from_slice(internal_key).map_err(|_| {
        Error::input(
            "public key",
            "is not the x coordinate of a point on secp256k1",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> [u8; 32] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    /// The three test vectors of BIP-86.
    #[test]
    fn taproot_addresses_are_those_of_bip86() {
        for (internal_key, address) in [
            (
                "cc8a4bc64d897bddc5fbc2f670f7a8ba0b386779106cf1223c6fc5d7cd6fc115",
                "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr",
            ),
            (
                "83dfe85a3151d2517290da461fe2815591ef69f2b18a2ce63f01697a8b313145",
                "bc1p4qhjn9zdvkux4e44uhx8tc55attvtyu358kutcqkudyccelu0was9fqzwh",
            ),
            (
                "399f1b2f4393f29a18c937859c5dd8a77350103157eb880f02e8c08214277cef",
                "bc1p3qkhfews2uk44qtvauqyr2ttdsw7svhkl9nkm9s9c3x4ax5h60wqwruhk7",
            ),
        ] {
            let ours = taproot(&bytes(internal_key), Network::Bitcoin).unwrap();
            assert_eq!(ours.to_string(), address);
        }
    }

    #[test]
    fn networks_differ_in_their_prefix() {
        let key = bytes("cc8a4bc64d897bddc5fbc2f670f7a8ba0b386779106cf1223c6fc5d7cd6fc115");
        for (network, prefix) in [
            (Network::Bitcoin, "bc1p"),
            (Network::Testnet, "tb1p"),
            (Network::Signet, "tb1p"),
            (Network::Regtest, "bcrt1p"),
        ] {
            assert!(
                taproot(&key, network)
                    .unwrap()
                    .to_string()
                    .starts_with(prefix)
            );
        }
    }

    #[test]
    fn what_is_no_x_coordinate_is_refused() {
        assert!(taproot(&[0xff; 32], Network::Bitcoin).is_err());
    }

    /// BIP-84's test vector, its first receiving address.
    #[test]
    fn p2wpkh_addresses_are_those_of_bip84() {
        let key = hex::decode("0330d54fd0dd420a6e5f8d3624f5f3482cae350f79d5f0753bf5beef9c2d91af3c");
        let key: [u8; 33] = key.unwrap().try_into().unwrap();
        for (network, address) in [
            (
                Network::Bitcoin,
                "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu",
            ),
            (
                Network::Regtest,
                "bcrt1qcr8te4kr609gcawutmrza0j4xv80jy8zeqchgx",
            ),
        ] {
            assert_eq!(p2wpkh(&key, network).unwrap().to_string(), address);
        }
        assert!(p2wpkh(&[4; 33], Network::Bitcoin).is_err());
    }

    /// The account of EIP-155's example, secret 0x46 thirty-two times.
    #[test]
    fn ethereum_addresses_are_checksummed() {
        let key = hex::decode("024bc2a31265153f07e70e0bab08724e6b85e217f8cd628ceb62974247bb493382");
        let key: [u8; 33] = key.unwrap().try_into().unwrap();
        assert_eq!(
            ethereum(&key).unwrap(),
            "0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F"
        );
        assert!(ethereum(&[4; 33]).is_err());
    }

    /// The system program's address is 32 zero bytes; the second is RFC 8032's first public key.
    #[test]
    fn solana_addresses_are_base58() {
        assert_eq!(solana(&[0; 32]), "11111111111111111111111111111111");
        let key = bytes("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        assert_eq!(solana(&key), "FVen3X669xLzsi6N2V91DoiyzHzg1uAgqiT8jZ9nS96Z");
    }
}
