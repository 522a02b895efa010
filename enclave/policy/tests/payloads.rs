//! What holds for every payload: the scheme must fit, raw digests need the grant, and no bytes make the
//! decoder panic.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use arca_policy::{Action, Intent, KeyFacts, Payload, PublicKey, Rejection, SigningKey, decode};
use proptest::prelude::*;

#[test]
fn refuses_payloads_for_another_scheme() {
    let (psbt, psbt_key) = bitcoin_vector();
    let (message, message_key) = solana_vector();
    let cases = [
        (
            Payload::Psbt(psbt),
            PublicKey::Ed25519(psbt_key),
            "a PSBT is signed with BIP-340 or ECDSA secp256k1, and this is a key for Ed25519",
        ),
        (
            Payload::SolanaMessage(message),
            PublicKey::Bip340(message_key),
            "a Solana message is signed with Ed25519, and this is a key for BIP-340",
        ),
        (
            Payload::EthereumTransaction(vec![0xc0]),
            PublicKey::EcdsaP256 {
                key: [2; 33],
                chain_code: [1; 32],
            },
            "an Ethereum transaction is signed with ECDSA secp256k1, and this is a key for ECDSA P-256",
        ),
    ];
    for (payload, public_key, text) in cases {
        let rejection = decode(
            &payload,
            &KeyFacts {
                public_key,
                allow_raw_digest: true,
            },
            &[],
        )
        .unwrap_err();
        assert_eq!(
            (rejection.reason(), rejection.to_string().as_str()),
            ("SCHEME_MISMATCH", text)
        );
    }
}

#[test]
fn raw_digests_need_the_grant() {
    for public_key in [PublicKey::Bip340([1; 32]), PublicKey::Ed25519([1; 32])] {
        let payload = Payload::Digest([0xab; 32]);
        let refused = decode(&payload, &key(public_key, false), &[]).unwrap_err();
        assert_eq!(
            (&refused, refused.reason()),
            (&Rejection::RawDigestNotAllowed, "RAW_DIGEST_NOT_ALLOWED")
        );

        let intent = decode(&payload, &key(public_key, true), &[]).unwrap();
        assert_eq!(intent.action(), &Action::Digest([0xab; 32]));
        assert_eq!(
            intent.summary(),
            format!("Raw digest {}: its meaning is unknown", "ab".repeat(32))
        );
        let [signable] = intent.signables() else {
            panic!("one signature")
        };
        // Never under the tweaked key: a digest cannot be a spend of the key's outputs.
        assert_eq!(
            (&signable.message[..], &signable.key, signable.input),
            (&[0xab; 32][..], &SigningKey::Group, 0)
        );
    }
}

#[test]
fn digest_covers_the_key() {
    let digest = |public_key, bytes| {
        let key = KeyFacts {
            public_key,
            allow_raw_digest: true,
        };
        decode(&Payload::Digest(bytes), &key, &[]).unwrap().digest()
    };
    let base = digest(PublicKey::Bip340([1; 32]), [2; 32]);
    assert_eq!(base, digest(PublicKey::Bip340([1; 32]), [2; 32]));
    assert_ne!(base, digest(PublicKey::Ed25519([1; 32]), [2; 32]));
    assert_ne!(base, digest(PublicKey::Bip340([2; 32]), [2; 32]));
    assert_ne!(base, digest(PublicKey::Bip340([1; 32]), [1; 32]));

    let p256 = |first: u8, chain_code| {
        let key = [first; 33];
        digest(PublicKey::EcdsaP256 { key, chain_code }, [2; 32])
    };
    assert_ne!(p256(2, [1; 32]), p256(3, [1; 32]));
    assert_ne!(p256(2, [1; 32]), p256(2, [2; 32]));
    // The same bytes for two curves.
    let mut key = [0; 33];
    (key[0], key[32]) = (2, 1);
    let chain_code = [1; 32];
    assert_ne!(
        digest(PublicKey::EcdsaSecp256k1 { key, chain_code }, [2; 32]),
        digest(PublicKey::EcdsaP256 { key, chain_code }, [2; 32])
    );
}

#[test]
fn digest_is_stable() {
    // Parties of neighbouring versions must agree. Computed by hand from the documented encoding: numbers and
    // lengths are 8 bytes big-endian.
    use sha2::{Digest, Sha256};
    let mut encoding = Vec::new();
    for field in [
        &b"arca/v1/intent"[..],
        b"ed25519",
        &[1; 32],
        b"digest",
        &[2; 32],
    ] {
        encoding.extend((field.len() as u64).to_be_bytes());
        encoding.extend(field);
    }
    // One signable: the message, no taproot key path, input 0.
    encoding.extend(1_u64.to_be_bytes());
    encoding.extend(32_u64.to_be_bytes());
    encoding.extend([2; 32]);
    encoding.extend([0; 9]);

    let key = KeyFacts {
        public_key: PublicKey::Ed25519([1; 32]),
        allow_raw_digest: true,
    };
    let intent = decode(&Payload::Digest([2; 32]), &key, &[]).unwrap();
    assert_eq!(intent.digest(), <[u8; 32]>::from(Sha256::digest(&encoding)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_psbt_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let with_magic = [b"psbt\xff", &bytes[..]].concat();
        for bytes in [bytes, with_magic] {
            check(Payload::Psbt(bytes), bitcoin_key())?;
        }
    }

    #[test]
    fn any_bytes_are_a_solana_message_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..1300)) {
        check(Payload::SolanaMessage(bytes), key(PublicKey::Ed25519([1; 32]), false))?;
    }

    #[test]
    fn mutated_psbts_are_decoded_or_refused(mutations in mutations()) {
        let (bytes, _) = bitcoin_vector();
        check(Payload::Psbt(mutate(bytes, &mutations)), bitcoin_key())?;
    }

    #[test]
    fn mutated_psbts_of_ecdsa_keys_are_decoded_or_refused(
        vector in any::<prop::sample::Index>(),
        mutations in mutations(),
    ) {
        let (vectors, key) = p2wpkh_vectors();
        let (bytes, path) = vector.get(&vectors);
        check_at(Payload::Psbt(mutate(bytes.clone(), &mutations)), key, path)?;
    }

    #[test]
    fn mutated_solana_messages_are_decoded_or_refused(mutations in mutations()) {
        let (bytes, public_key) = solana_vector();
        let key = key(PublicKey::Ed25519(public_key), false);
        check(Payload::SolanaMessage(mutate(bytes, &mutations)), key)?;
    }

    /// A signature over a mutated message is one over other bytes: no two messages are one intent.
    #[test]
    fn every_bit_of_a_solana_message_counts(position in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let (bytes, public_key) = solana_vector();
        let key = key(PublicKey::Ed25519(public_key), false);
        let original = decode(&Payload::SolanaMessage(bytes.clone()), &key, &[]).unwrap();
        let mut mutated = bytes;
        let position = position.index(mutated.len());
        mutated[position] ^= 1 << bit;
        if let Ok(intent) = decode(&Payload::SolanaMessage(mutated), &key, &[]) {
            prop_assert_ne!(intent.digest(), original.digest());
        }
    }
}

/// What must hold of whatever comes out.
fn check(payload: Payload, key: KeyFacts) -> Result<(), TestCaseError> {
    check_at(payload, key, &[])
}

fn check_at(payload: Payload, key: KeyFacts, path: &[u32]) -> Result<(), TestCaseError> {
    match decode(&payload, &key, path) {
        Ok(intent) => check_intent(&intent, &payload)?,
        Err(rejection) => {
            prop_assert!(!rejection.to_string().is_empty());
            prop_assert!(
                rejection
                    .reason()
                    .bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
            );
        }
    }
    prop_assert_eq!(decode(&payload, &key, path), decode(&payload, &key, path));
    Ok(())
}

fn check_intent(intent: &Intent, payload: &Payload) -> Result<(), TestCaseError> {
    prop_assert!(!intent.signables().is_empty());
    prop_assert!(
        intent
            .summary()
            .bytes()
            .all(|byte| byte == b'\n' || (0x20..0x7f).contains(&byte))
    );
    match (intent.action(), payload) {
        (Action::Bitcoin(spend), _) => {
            let sum = |amounts: Vec<u64>| amounts.into_iter().map(u128::from).sum::<u128>();
            let inputs = sum(spend.inputs.iter().map(|input| input.amount).collect());
            let outputs = sum(spend.outputs.iter().map(|output| output.amount).collect());
            prop_assert_eq!(inputs, outputs + u128::from(spend.fee));
            let own = spend.inputs.iter().filter(|input| input.own).count();
            prop_assert_eq!(own, intent.signables().len());
        }
        (Action::Solana(message), Payload::SolanaMessage(bytes)) => {
            prop_assert!(message.signers.contains(&message.key));
            prop_assert_eq!(&intent.signables()[0].message, bytes);
        }
        (action, _) => return Err(TestCaseError::fail(format!("{action:?}"))),
    }
    Ok(())
}

/// Overwrite, insert, remove.
fn mutations() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, any::<u8>()), 1..4)
}

fn mutate(mut bytes: Vec<u8>, mutations: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    for (position, kind, byte) in mutations {
        let position = position.index(bytes.len());
        match kind {
            0 => bytes[position] = *byte,
            1 => bytes.insert(position, *byte),
            _ => drop(bytes.remove(position)),
        }
    }
    bytes
}

fn key(public_key: PublicKey, allow_raw_digest: bool) -> KeyFacts {
    KeyFacts {
        public_key,
        allow_raw_digest,
    }
}

fn bitcoin_key() -> KeyFacts {
    key(PublicKey::Bip340(bitcoin_vector().1), false)
}

fn bitcoin_vector() -> (Vec<u8>, [u8; 32]) {
    let vectors = vectors();
    bytes(&vectors["bitcoin"], "psbt")
}

/// A PSBT with the path that is asked for.
type P2wpkhVector = (Vec<u8>, Vec<u32>);

fn p2wpkh_vectors() -> (Vec<P2wpkhVector>, KeyFacts) {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("vectors/p2wpkh.json")).unwrap();
    let decoded = |value: &serde_json::Value| hex::decode(value.as_str().unwrap()).unwrap();
    let public_key = PublicKey::EcdsaSecp256k1 {
        key: decoded(&vectors["key"]).try_into().unwrap(),
        chain_code: decoded(&vectors["chain_code"]).try_into().unwrap(),
    };
    let psbts = vectors["psbts"].as_array().unwrap().iter().map(|vector| {
        let path = serde_json::from_value(vector["path"].clone()).unwrap();
        (decoded(&vector["psbt"]), path)
    });
    (psbts.collect(), key(public_key, false))
}

fn solana_vector() -> (Vec<u8>, [u8; 32]) {
    let vectors = vectors();
    let lookup = &vectors["solana"].as_array().unwrap()[6];
    bytes(lookup, "message")
}

fn bytes(vector: &serde_json::Value, field: &str) -> (Vec<u8>, [u8; 32]) {
    let decoded = |field: &str| hex::decode(vector[field].as_str().unwrap()).unwrap();
    (decoded(field), decoded("key").try_into().unwrap())
}

fn vectors() -> serde_json::Value {
    serde_json::from_str(include_str!("vectors/payloads.json")).unwrap()
}
