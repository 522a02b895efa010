//! The public key of a key that is held in shares.

use arca_policy::PublicKey;
use bitcoin::NetworkKind;
use bitcoin::bip32::{ChainCode, ChildNumber, Fingerprint, Xpub};
use serde::Serialize;
use serde::ser::SerializeStruct;

use crate::error::{Error, Result};
use crate::path::DerivationPath;
use crate::resources::Scheme;

/// A public key of any scheme: valid on its curve, and with a chain code where keys lie below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupKey(PublicKey);

impl GroupKey {
    /// Takes a key as it is on the wire.
    ///
    /// # Errors
    /// [`Error::Input`] when a length is wrong for the scheme, or the key is no point of its curve.
    pub fn new(scheme: Scheme, public_key: &[u8], chain_code: &[u8]) -> Result<Self> {
        let invalid =
            |problem: &str| Error::input(format!("{} public key", scheme.as_str()), problem);
        let no_chain_code = || match chain_code {
            [] => Ok(()),
            _ => Err(invalid("has a chain code, and this scheme has none")),
        };
        let short = || <[u8; 32]>::try_from(public_key).map_err(|_| invalid("is not 32 bytes"));
        let long = || {
            let key = <[u8; 33]>::try_from(public_key)
                .map_err(|_| invalid("is not 33 bytes, a compressed point"))?;
            let chain_code = <[u8; 32]>::try_from(chain_code)
                .map_err(|_| invalid("has a chain code that is not 32 bytes"))?;
            Ok((key, chain_code))
        };
        let no_point = |_| invalid("is no point of its curve");
        Ok(Self(match scheme {
            Scheme::Bip340 => {
                no_chain_code()?;
                let key = short()?;
                bitcoin::XOnlyPublicKey::from_slice(&key)
                    .map_err(|_| invalid("is no point of its curve"))?;
                PublicKey::Bip340(key)
            }
            Scheme::Ed25519 => {
                no_chain_code()?;
                let key = short()?;
                ed25519_dalek::VerifyingKey::from_bytes(&key).map_err(no_point)?;
                PublicKey::Ed25519(key)
            }
            Scheme::EcdsaSecp256k1 => {
                let (key, chain_code) = long()?;
                bitcoin::secp256k1::PublicKey::from_slice(&key)
                    .map_err(|_| invalid("is no point of its curve"))?;
                PublicKey::EcdsaSecp256k1 { key, chain_code }
            }
            Scheme::EcdsaP256 => {
                let (key, chain_code) = long()?;
                p256::ecdsa::VerifyingKey::from_sec1_bytes(&key).map_err(no_point)?;
                PublicKey::EcdsaP256 { key, chain_code }
            }
        }))
    }

    /// What it signs with.
    pub fn scheme(&self) -> Scheme {
        match self.0 {
            PublicKey::Bip340(_) => Scheme::Bip340,
            PublicKey::Ed25519(_) => Scheme::Ed25519,
            PublicKey::EcdsaSecp256k1 { .. } => Scheme::EcdsaSecp256k1,
            PublicKey::EcdsaP256 { .. } => Scheme::EcdsaP256,
        }
    }

    /// BIP-340: 32 bytes, the x coordinate of the untweaked internal key. Ed25519: 32 bytes as in RFC 8032.
    /// ECDSA: 33 bytes, SEC 1 compressed.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            PublicKey::Bip340(key) | PublicKey::Ed25519(key) => key,
            PublicKey::EcdsaSecp256k1 { key, .. } | PublicKey::EcdsaP256 { key, .. } => key,
        }
    }

    /// The chain code of an ECDSA key, for BIP-32.
    pub fn chain_code(&self) -> Option<&[u8; 32]> {
        match &self.0 {
            PublicKey::Bip340(_) | PublicKey::Ed25519(_) => None,
            PublicKey::EcdsaSecp256k1 { chain_code, .. }
            | PublicKey::EcdsaP256 { chain_code, .. } => Some(chain_code),
        }
    }

    /// The internal key of a BIP-340 key: an x coordinate.
    ///
    /// # Errors
    /// [`Error::Input`] for another scheme.
    pub fn bip340(&self) -> Result<&[u8; 32]> {
        match &self.0 {
            PublicKey::Bip340(key) => Ok(key),
            _ => Err(self.other_than(Scheme::Bip340)),
        }
    }

    /// An Ed25519 key, as in RFC 8032.
    ///
    /// # Errors
    /// [`Error::Input`] for another scheme.
    pub fn ed25519(&self) -> Result<&[u8; 32]> {
        match &self.0 {
            PublicKey::Ed25519(key) => Ok(key),
            _ => Err(self.other_than(Scheme::Ed25519)),
        }
    }

    /// The ECDSA key at a path below this one, compressed, derived here (BIP-32, by libsecp256k1); with the
    /// empty path this one.
    ///
    /// # Errors
    /// [`Error::Declined`] when this key is none for ECDSA, or has no keys below it and the path is not empty.
    pub fn derive(&self, path: &DerivationPath) -> Result<[u8; 33]> {
        arca_policy::derive(&self.0, path.steps())
            .map_err(|rejection| Error::declined(format!("key at {path}"), &rejection))
    }

    /// An ECDSA secp256k1 key as wallets take it to watch all keys below it (BIP-32, "Serialization format"):
    /// depth 0, no parent. None for other schemes.
    pub fn xpub(&self, network: NetworkKind) -> Option<Xpub> {
        let PublicKey::EcdsaSecp256k1 { key, chain_code } = &self.0 else {
            return None;
        };
        Some(Xpub {
            network,
            depth: 0,
            parent_fingerprint: Fingerprint::default(),
            child_number: ChildNumber::Normal { index: 0 },
            public_key: bitcoin::secp256k1::PublicKey::from_slice(key).ok()?,
            chain_code: ChainCode::from(*chain_code),
        })
    }

    pub(crate) fn policy(&self) -> PublicKey {
        self.0
    }

    fn other_than(&self, needed: Scheme) -> Error {
        Error::input(
            "key",
            format!(
                "has the scheme {}; this needs {}",
                self.scheme().as_str(),
                needed.as_str()
            ),
        )
    }
}

impl Serialize for GroupKey {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        let chain_code = self.chain_code();
        let fields = 1 + usize::from(chain_code.is_some());
        let mut key = serializer.serialize_struct("GroupKey", fields)?;
        key.serialize_field("public_key", &hex::encode(self.as_bytes()))?;
        if let Some(chain_code) = chain_code {
            key.serialize_field("chain_code", &hex::encode(chain_code))?;
        }
        key.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    /// BIP-32, test vector 2: the master key and its child m/0.
    fn root() -> GroupKey {
        GroupKey::new(
            Scheme::EcdsaSecp256k1,
            &bytes("03cbcaa9c98c877a26977d00825c956a238e8dddfbd322cce4f74b0b5bd6ace4a7"),
            &bytes("60499f801b896d83179a4374aeb7822aaeaceaa0db1f85ee3e904c4defbd9689"),
        )
        .unwrap()
    }

    #[test]
    fn children_are_those_of_bip32() {
        let key = root();
        assert_eq!(
            key.xpub(NetworkKind::Main).unwrap().to_string(),
            "xpub661MyMwAqRbcFW31YEwpkMuc5THy2PSt5bDMsktWQcFF8syAmRUapSCGu8ED9W6oDMSgv6Zz8idoc4a6mr8BDzTJY47LJhkJ8UB7WEGuduB"
        );
        assert_eq!(key.derive(&DerivationPath::root()).unwrap(), key.as_bytes());
        assert_eq!(
            hex::encode(key.derive(&"m/0".parse().unwrap()).unwrap()),
            "02fc9e5af0ac8d9b3cecfe2a888e2117ba3d089d8585886c9c826b6b22a98d12ea"
        );
    }

    #[test]
    fn a_key_has_the_length_and_chain_code_of_its_scheme() {
        let (point, chain_code) = (root().as_bytes().to_vec(), [7; 32]);
        let x = &point[1..];
        let ed25519 = bytes("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let p256 = bytes("036b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296");
        for (scheme, good, chain_code) in [
            (Scheme::Bip340, x, &[][..]),
            (Scheme::Ed25519, &ed25519, &[]),
            (Scheme::EcdsaSecp256k1, &point, &chain_code),
            (Scheme::EcdsaP256, &p256, &chain_code),
        ] {
            let key = GroupKey::new(scheme, good, chain_code).unwrap();
            assert_eq!(key.as_bytes(), good);
            assert_eq!(key.scheme(), scheme);
            let wrong: &[u8] = if chain_code.is_empty() { &[7; 32] } else { &[] };
            assert!(GroupKey::new(scheme, good, wrong).is_err());
            assert!(GroupKey::new(scheme, &good[1..], chain_code).is_err());
        }
    }

    #[test]
    fn what_is_no_point_is_refused() {
        let mut compressed = [0xff; 33];
        compressed[0] = 2;
        // RFC 8032, 5.1.3: y = 2 has no x.
        let mut no_point = [0; 32];
        no_point[0] = 2;
        for (scheme, key, chain_code) in [
            (Scheme::Bip340, &[0xff; 32][..], &[][..]),
            (Scheme::Ed25519, &no_point, &[]),
            (Scheme::EcdsaSecp256k1, &compressed, &[7; 32]),
            (Scheme::EcdsaP256, &compressed, &[7; 32]),
        ] {
            let error = GroupKey::new(scheme, key, chain_code).unwrap_err();
            assert!(error.to_string().contains("no point"), "{error}");
        }
    }

    #[test]
    fn only_secp256k1_has_keys_below() {
        let p256 = GroupKey::new(
            Scheme::EcdsaP256,
            &bytes("036b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"),
            &[7; 32],
        )
        .unwrap();
        assert!(p256.derive(&DerivationPath::root()).is_ok());
        let error = p256.derive(&"m/1".parse().unwrap()).unwrap_err();
        assert_eq!(error.reason(), "DERIVATION_PATH");
        assert!(error.to_string().contains("m/1"), "{error}");
    }
}
