//! Keys below a group's key: published vectors of BIP-32, and the paths that are refused.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use arca_policy::{
    KeyFacts, MAX_PATH_STEPS, Payload, PublicKey, Rejection, SigningKey, decode, derive,
    p2wpkh_script,
};
use bitcoin::base58;
use bitcoin::secp256k1::{Secp256k1, SecretKey};

#[test]
fn bip_32_vectors() {
    // BIP-32, "Test vectors" 1 and 2: each public key with the steps to the next one that need no private key.
    let chains: [&[(&str, &[u32])]; 3] = [
        &[
            (
                "xpub68Gmy5EdvgibQVfPdqkBBCHxA5htiqg55crXYuXoQRKfDBFA1WEjWgP6LHhwBZeNK1VTsfTFUHCdrfp1bgwQ9xv5ski8PX9rL2dZXvgGDnw",
                &[1],
            ),
            (
                "xpub6ASuArnXKPbfEwhqN6e3mwBcDTgzisQN1wXN9BJcM47sSikHjJf3UFHKkNAWbWMiGj7Wf5uMash7SyYq527Hqck2AxYysAA7xmALppuCkwQ",
                &[],
            ),
        ],
        &[
            (
                "xpub6D4BDPcP2GT577Vvch3R8wDkScZWzQzMMUm3PWbmWvVJrZwQY4VUNgqFJPMM3No2dFDFGTsxxpG5uJh7n7epu4trkrX7x7DogT5Uv6fcLW5",
                &[2, 1_000_000_000],
            ),
            (
                "xpub6H1LXWLaKsWFhvm6RVpEL9P4KfRZSW7abD2ttkWP3SSQvnyA8FSVqNTEcYFgJS2UaFcxupHiYkro49S8yGasTvXEYBVPamhGW6cFJodrTHy",
                &[],
            ),
        ],
        &[
            (
                "xpub661MyMwAqRbcFW31YEwpkMuc5THy2PSt5bDMsktWQcFF8syAmRUapSCGu8ED9W6oDMSgv6Zz8idoc4a6mr8BDzTJY47LJhkJ8UB7WEGuduB",
                &[0],
            ),
            (
                "xpub69H7F5d8KSRgmmdJg2KhpAK8SR3DjMwAdkxj3ZuxV27CprR9LgpeyGmXUbC6wb7ERfvrnKZjXoUmmDznezpbZb7ap6r1D3tgFxHmwMkQTPH",
                &[],
            ),
        ],
    ];
    for chain in chains {
        for pair in chain.windows(2) {
            let [(parent, path), (child, _)] = pair else {
                unreachable!()
            };
            let (expected, _) = extended(child);
            assert_eq!(derive(&key(parent), path).unwrap(), expected);
            assert_eq!(derive(&key(parent), &[]).unwrap(), extended(parent).0);
        }
    }
}

#[test]
fn bip_84_vectors() {
    // BIP-84, "Test vectors": the account's key, and the keys and addresses below it.
    let account = key(
        "zpub6rFR7y4Q2AijBEqTUquhVz398htDFrtymD9xYYfG1m4wAcvPhXNfE3EfH1r1ADqtfSdVCToUG868RvUUkgDKf31mGDtKsAYz2oz2AGutZYs",
    );
    let vectors = [
        (
            [0, 0],
            "0330d54fd0dd420a6e5f8d3624f5f3482cae350f79d5f0753bf5beef9c2d91af3c",
            "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu",
        ),
        (
            [0, 1],
            "03e775fd51f0dfb8cd865d9ff1cca2a158cf651fe997fdc9fee9c1d3b5e995ea77",
            "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g",
        ),
        (
            [1, 0],
            "03025324888e429ab8e3dbaf1f7802648b9cd01e9b418485c5fa4c1b9b5700e1a6",
            "bc1q8c6fshw2dlwun7ekn9qwf37cu2rn755upcp6el",
        ),
    ];
    for (path, public_key, address) in vectors {
        let derived = derive(&account, &path).unwrap();
        assert_eq!(hex::encode(derived), public_key);
        let address: bitcoin::Address<_> = address.parse().unwrap();
        let script = address.assume_checked().script_pubkey();
        assert_eq!(p2wpkh_script(&derived), script.as_bytes());
    }
}

#[test]
fn signatures_are_asked_of_the_key_at_the_path() {
    let facts = |public_key| KeyFacts {
        public_key,
        allow_raw_digest: true,
    };
    let secp256k1 = secp256k1_key();
    let path = [7; MAX_PATH_STEPS];
    let expected = |path: &[u32], public_key| SigningKey::Derived {
        path: path.to_vec(),
        public_key,
    };
    for path in [&path[..], &[0], &[]] {
        let intent = decode(&Payload::Digest([1; 32]), &facts(secp256k1), path).unwrap();
        let [signable] = intent.signables() else {
            panic!("one signature")
        };
        assert_eq!(
            signable.key,
            expected(path, derive(&secp256k1, path).unwrap())
        );
        assert_eq!(signable.message, [1; 32]);
    }
    let intent = decode(&Payload::Digest([1; 32]), &facts(p256_key()), &[]).unwrap();
    assert_eq!(intent.signables()[0].key, expected(&[], [3; 33]));
}

#[test]
fn paths_that_lead_nowhere() {
    let refused = |public_key: PublicKey, path: &[u32], text: &str| {
        let facts = KeyFacts {
            public_key,
            allow_raw_digest: true,
        };
        let rejections = [
            decode(&Payload::Digest([1; 32]), &facts, path).unwrap_err(),
            derive(&public_key, path).unwrap_err(),
        ];
        for rejection in rejections {
            assert_eq!(rejection.reason(), "DERIVATION_PATH");
            assert!(rejection.to_string().contains(text), "{rejection}");
        }
    };
    refused(
        secp256k1_key(),
        &[0; MAX_PATH_STEPS + 1],
        "more than 16 steps",
    );
    refused(secp256k1_key(), &[1 << 31], "hardened");
    refused(secp256k1_key(), &[0, u32::MAX, 0], "hardened");
    refused(p256_key(), &[0], "P-256");
    refused(PublicKey::Bip340([1; 32]), &[0], "only ECDSA");
    refused(PublicKey::Ed25519([1; 32]), &[0], "only ECDSA");
    // 2^31 - 1 is the last that is not hardened.
    derive(&secp256k1_key(), &[u32::MAX >> 1]).unwrap();
}

#[test]
fn keys_that_have_none_below_them() {
    for public_key in [PublicKey::Bip340([1; 32]), PublicKey::Ed25519([1; 32])] {
        assert_eq!(
            derive(&public_key, &[]).unwrap_err().reason(),
            "SCHEME_MISMATCH"
        );
    }
    // x = 5 is on no point of secp256k1, and 4 begins no compressed point.
    for first in [2, 4] {
        let mut key = [0; 33];
        (key[0], key[32]) = (first, 5);
        let public_key = PublicKey::EcdsaSecp256k1 {
            key,
            chain_code: [0; 32],
        };
        for path in [&[][..], &[1]] {
            assert_eq!(
                derive(&public_key, path).unwrap_err(),
                Rejection::InvalidKey
            );
        }
    }
}

#[test]
fn digests_of_nothing_are_not_signed_with_ecdsa() {
    for public_key in [secp256k1_key(), p256_key()] {
        let mut facts = KeyFacts {
            public_key,
            allow_raw_digest: true,
        };
        let rejection = decode(&Payload::Digest([0; 32]), &facts, &[]).unwrap_err();
        assert_eq!(
            (&rejection, rejection.reason()),
            (&Rejection::ZeroDigest, "ZERO_DIGEST")
        );
        facts.allow_raw_digest = false;
        let rejection = decode(&Payload::Digest([1; 32]), &facts, &[]).unwrap_err();
        assert_eq!(rejection, Rejection::RawDigestNotAllowed);
    }
}

fn secp256k1_key() -> PublicKey {
    let secret = SecretKey::from_slice(&[1; 32]).unwrap();
    PublicKey::EcdsaSecp256k1 {
        key: secret.public_key(&Secp256k1::new()).serialize(),
        chain_code: [2; 32],
    }
}

fn p256_key() -> PublicKey {
    PublicKey::EcdsaP256 {
        key: [3; 33],
        chain_code: [2; 32],
    }
}

/// The key and the chain code of an extended public key (BIP-32, "Serialization format").
fn extended(text: &str) -> ([u8; 33], [u8; 32]) {
    let bytes = base58::decode_check(text).unwrap();
    assert_eq!(bytes.len(), 78);
    (
        bytes[45..].try_into().unwrap(),
        bytes[13..45].try_into().unwrap(),
    )
}

fn key(text: &str) -> PublicKey {
    let (key, chain_code) = extended(text);
    PublicKey::EcdsaSecp256k1 { key, chain_code }
}
