//! Derivation against published vectors and another implementation, and signatures under derived keys.

// A panic is how a test fails.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::cast_possible_truncation
)]

mod support;

use std::sync::Arc;

use arca_threshold::ecdsa::{
    Curve, CurveId, KeyPackage, MAX_PATH, P256, Path, Secp256k1, Signable,
};
use arca_threshold::{Error, Reject};
use bitcoin::bip32::{ChildNumber, Xpriv, Xpub};
use bitcoin::secp256k1::Secp256k1 as Libsecp256k1;
use proptest::prelude::*;

use support::ecdsa::*;
use support::*;

/// Shares a known key 2 of 3, in the bytes that `KeyPackage::to_bytes` documents.
fn deal<C: Curve>(secret: &[u8; 32], chain_code: &[u8; 32], seed: u64) -> Keys {
    let constant = C::scalar(secret).unwrap();
    let slope = C::random(&mut rng(seed));
    let share = |i: u16| constant + slope * C::Scalar::from(u64::from(i));
    let key = |me: u16| {
        let mut bytes = vec![1, if C::ID == CurveId::Secp256k1 { 1 } else { 2 }];
        bytes.extend([0, 2, 0, 3]);
        bytes.extend(C::encode(&C::base(&constant)));
        bytes.extend(chain_code);
        for i in 1..=3u16 {
            bytes.extend(i.to_be_bytes());
            bytes.extend(C::encode(&C::base(&share(i))));
        }
        bytes.extend(me.to_be_bytes());
        bytes.extend(C::scalar_bytes(&share(me)));
        (p(me), Arc::new(KeyPackage::from_bytes(&bytes).unwrap()))
    };
    [1, 2, 3].map(key).into()
}

/// Non-hardened steps of BIP-32's test vectors 1 and 2: parent, steps, child.
const BIP32: [(&str, &[u32], &str); 5] = [
    (
        "xprv9uHRZZhk6KAJC1avXpDAp4MDc3sQKNxDiPvvkX8Br5ngLNv1TxvUxt4cV1rGL5hj6KCesnDYUhd7oWgT11eZG7XnxHrnYeSvkzY7d2bhkJ7",
        &[1],
        "xpub6ASuArnXKPbfEwhqN6e3mwBcDTgzisQN1wXN9BJcM47sSikHjJf3UFHKkNAWbWMiGj7Wf5uMash7SyYq527Hqck2AxYysAA7xmALppuCkwQ",
    ),
    (
        "xprv9z4pot5VBttmtdRTWfWQmoH1taj2axGVzFqSb8C9xaxKymcFzXBDptWmT7FwuEzG3ryjH4ktypQSAewRiNMjANTtpgP4mLTj34bhnZX7UiM",
        &[2, 1_000_000_000],
        "xpub6H1LXWLaKsWFhvm6RVpEL9P4KfRZSW7abD2ttkWP3SSQvnyA8FSVqNTEcYFgJS2UaFcxupHiYkro49S8yGasTvXEYBVPamhGW6cFJodrTHy",
    ),
    (
        "xprv9s21ZrQH143K31xYSDQpPDxsXRTUcvj2iNHm5NUtrGiGG5e2DtALGdso3pGz6ssrdK4PFmM8NSpSBHNqPqm55Qn3LqFtT2emdEXVYsCzC2U",
        &[0],
        "xpub69H7F5d8KSRgmmdJg2KhpAK8SR3DjMwAdkxj3ZuxV27CprR9LgpeyGmXUbC6wb7ERfvrnKZjXoUmmDznezpbZb7ap6r1D3tgFxHmwMkQTPH",
    ),
    (
        "xprv9wSp6B7kry3Vj9m1zSnLvN3xH8RdsPP1Mh7fAaR7aRLcQMKTR2vidYEeEg2mUCTAwCd6vnxVrcjfy2kRgVsFawNzmjuHc2YmYRmagcEPdU9",
        &[1],
        "xpub6DF8uhdarytz3FWdA8TvFSvvAh8dP3283MY7p2V4SeE2wyWmG5mg5EwVvmdMVCQcoNJxGoWaU9DCWh89LojfZ537wTfunKau47EL2dhHKon",
    ),
    (
        "xprvA1RpRA33e1JQ7ifknakTFpgNXPmW2YvmhqLQYMmrj4xJXXWYpDPS3xz7iAxn8L39njGVyuoseXzU6rcxFLJ8HFsTjSyQbLYnMpCqE2VbFWc",
        &[2],
        "xpub6FnCn6nSzZAw5Tw7cgR9bi15UV96gLZhjDstkXXxvCLsUXBGXPdSnLFbdpq8p9HmGsApME5hQTZ3emM2rnY5agb9rXpVGyy3bdW6EEgAtqt",
    ),
];

#[test]
fn bip32_vectors_derive_and_sign() {
    let mut rng = rng(1);
    let setups = pair_up(3, &mut rng);
    for (parent, steps, child) in BIP32 {
        let parent: Xpriv = parent.parse().unwrap();
        let child: Xpub = child.parse().unwrap();
        let secret = parent.private_key.secret_bytes();
        let keys = deal::<Secp256k1>(&secret, &parent.chain_code.to_bytes(), 2);
        let path = Path::new(steps.to_vec()).unwrap();
        for key in keys.values() {
            let derived = key.derive(&path).unwrap();
            assert_eq!(derived.public_key(), child.public_key.serialize());
            assert_eq!(derived.chain_code(), child.chain_code.to_bytes());
            assert_eq!(derived.path(), &path);
        }
        let key = keys[&p(1)].derive(&path).unwrap();
        let messages = [Signable {
            digest: [0x42; 32],
            key,
        }];
        let params = signing_params(&set([1, 3]), p(3), &messages, &mut rng);
        let outcomes = run(sign_starts(&keys, &setups, &params, &mut rng), &mut rng);
        check(CurveId::Secp256k1, &messages, coordinators(&outcomes, p(3)));
        let pools = presign_all(&keys, &setups, &set([1, 3]), 1, &mut rng);
        let signed = online(&keys, pools, &params, &mut rng);
        check(CurveId::Secp256k1, &messages, signatures(&signed));
    }
}

/// Non-hardened steps of SLIP-10's test vectors for P-256: parent's private key and chain code, step,
/// child's public key and chain code. The last takes a second hash, since the first is not below the
/// order.
const SLIP10: [(&str, &str, u32, &str, &str); 4] = [
    (
        "6939694369114c67917a182c59ddb8cafc3004e63ca5d3b84403ba8613debc0c",
        "3460cea53e6a6bb5fb391eeef3237ffd8724bf0a40e94943c98b83825342ee11",
        1,
        "03526c63f8d0b4bbbf9c80df553fe66742df4676b241dabefdef67733e070f6844",
        "4187afff1aafa8445010097fb99d23aee9f599450c7bd140b6826ac22ba21d0c",
    ),
    (
        "694596e8a54f252c960eb771a3c41e7e32496d03b954aeb90f61635b8e092aa7",
        "98c7514f562e64e74170cc3cf304ee1ce54d6b6da4f880f313e8204c2a185318",
        2,
        "029f871f4cb9e1c97f9f4de9ccd0d4a2f2a171110c61178f84430062230833ff20",
        "ba96f776a5c3907d7fd48bde5620ee374d4acfd540378476019eab70790c63a0",
    ),
    (
        "5996c37fd3dd2679039b23ed6f70b506c6b56b3cb5e424681fb0fa64caf82aaa",
        "ba96f776a5c3907d7fd48bde5620ee374d4acfd540378476019eab70790c63a0",
        1_000_000_000,
        "02216cd26d31147f72427a453c443ed2cde8a1e53c9cc44e5ddf739725413fe3f4",
        "b9b7b82d326bb9cb5b5b121066feea4eb93d5241103c9e7a18aad40f1dde8059",
    ),
    (
        "06f0db126f023755d0b8d86d4591718a5210dd8d024e3e14b6159d63f53aa669",
        "e94c8ebe30c2250a14713212f6449b20f3329105ea15b652ca5bdfc68f6c65c2",
        33941,
        "0235bfee614c0d5b2cae260000bb1d0d84b270099ad790022c1ae0b2e782efe120",
        "9e87fe95031f14736774cd82f25fd885065cb7c358c1edf813c72af535e83071",
    ),
];

#[test]
fn slip10_vectors_derive_and_sign() {
    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }
    let mut rng = rng(1);
    let setups = pair_up(2, &mut rng);
    for (secret, parent_code, step, public_key, chain_code) in SLIP10 {
        let keys = deal::<P256>(&bytes(secret), &bytes(parent_code), 2);
        let key = keys[&p(2)].derive(&Path::new(vec![step]).unwrap()).unwrap();
        assert_eq!(key.public_key(), bytes(public_key));
        assert_eq!(key.chain_code(), bytes(chain_code));
        let messages = [Signable {
            digest: [0x42; 32],
            key,
        }];
        let params = signing_params(&set([1, 2]), p(1), &messages, &mut rng);
        let outcomes = run(sign_starts(&keys, &setups, &params, &mut rng), &mut rng);
        check(CurveId::P256, &messages, coordinators(&outcomes, p(1)));
    }
}

#[test]
fn no_steps_lead_to_the_key_itself() {
    for curve in CURVES {
        let keys = generate(curve, 2, 2, &mut rng(1));
        let key = &keys[&p(1)];
        let derived = key.derive(&Path::default()).unwrap();
        assert_eq!(derived.public_key(), key.public_key());
        assert_eq!(derived.chain_code(), key.chain_code());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Any path, as the `bitcoin` crate derives it.
    #[test]
    fn any_path_is_derived_as_by_another_implementation(
        seed: u64,
        steps in prop::collection::vec(0u32..1 << 31, 0..=MAX_PATH),
    ) {
        let keys = generate(CurveId::Secp256k1, 2, 2, &mut rng(seed));
        let derived = keys[&p(1)].derive(&Path::new(steps.clone()).unwrap()).unwrap();
        let root = Xpub {
            network: bitcoin::NetworkKind::Main,
            depth: 0,
            parent_fingerprint: Default::default(),
            child_number: ChildNumber::Normal { index: 0 },
            public_key: bitcoin::secp256k1::PublicKey::from_slice(&keys[&p(1)].public_key()).unwrap(),
            chain_code: keys[&p(1)].chain_code().into(),
        };
        let steps: Vec<ChildNumber> = steps.into_iter().map(|index| ChildNumber::Normal { index }).collect();
        let expected = root.derive_pub(&Libsecp256k1::verification_only(), &steps).unwrap();
        prop_assert_eq!(derived.public_key(), expected.public_key.serialize());
        prop_assert_eq!(derived.chain_code(), expected.chain_code.to_bytes());
    }
}

#[test]
fn paths_are_read_as_written() {
    let path: Path = "m/44/60/0/0/7".parse().unwrap();
    assert_eq!(path.steps(), [44, 60, 0, 0, 7]);
    assert_eq!(path.to_string(), "m/44/60/0/0/7");
    assert_eq!("m".parse::<Path>().unwrap(), Path::default());
    assert_eq!(
        "m/2147483647".parse::<Path>().unwrap().steps(),
        [2_147_483_647]
    );
    let long = format!("m{}", "/1".repeat(MAX_PATH));
    assert_eq!(long.parse::<Path>().unwrap().steps().len(), MAX_PATH);
    let too_long = format!("{long}/1");
    for refused in [
        "",
        "44",
        "/44",
        "M/1",
        "m/",
        "m//1",
        "m/1/",
        "m/0'",
        "m/0h",
        "m/+1",
        "m/-1",
        "m/ 1",
        "m/2147483648",
        "m/4294967296",
        "m/1x",
        &too_long,
    ] {
        let expected = Err(Error::Reject(Reject::DerivationPath));
        assert_eq!(refused.parse::<Path>(), expected, "{refused}");
    }
    assert!(Path::new(vec![1 << 31]).is_err());
}
