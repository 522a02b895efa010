//! Published vectors for verification.

// A panic is how a test fails.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::cast_possible_truncation
)]

use arca_threshold::{Error, Reject, Scheme, Signable, Tweak, verify};

fn array<const N: usize>(hex: &str) -> [u8; N] {
    hex::decode(hex).unwrap().try_into().unwrap()
}

fn signable(message: &str, tweak: Tweak) -> Signable {
    Signable {
        message: hex::decode(message).unwrap(),
        tweak,
    }
}

/// BIP-340, `test-vectors.csv`, without the columns that only signing needs.
#[test]
fn bip340() {
    let mut lines = include_str!("vectors/bip340.csv").lines();
    lines.next();
    let mut counts = [0, 0];
    for line in lines {
        let [index, public_key, message, signature, verdict] =
            line.split(',').collect::<Vec<_>>().try_into().unwrap();
        let message = signable(message, Tweak::None);
        let result = verify(
            Scheme::Bip340,
            &array(public_key),
            &message,
            &array(signature),
        );
        assert_eq!(result.is_ok(), verdict == "TRUE", "vector {index}");
        counts[usize::from(result.is_ok())] += 1;
    }
    assert_eq!(counts, [10, 9]);
}

/// BIP-341, `wallet-test-vectors.json`, key path spending, input 0: no script tree.
#[test]
fn bip341_key_path() {
    let internal_key = array("d6889cb081036e0faefa3a35157ad71086b123b2b144b649798b494c300a961d");
    let sighash = "2514a6272f85cfa0f45eb907fcb0d121b808ed37c6ea160a5a9046ed5526d555";
    let signature = array(
        "ed7c1647cb97379e76892be0cacff57ec4a7102aa24296ca39af7541246d8ff1\
         4d38958d4cc1e2e478e4d4a764bbfd835b16d4e314b72937b29833060b87276c",
    );
    let tweaked = signable(sighash, Tweak::TaprootKeyPath);
    verify(Scheme::Bip340, &internal_key, &tweaked, &signature).unwrap();
    // The output key of the same vector, as it is.
    let output_key = array("53a1f6e454df1aa2776a2814a721372d6258050de330b3c6d10ee8f4e0dda343");
    let plain = signable(sighash, Tweak::None);
    verify(Scheme::Bip340, &output_key, &plain, &signature).unwrap();

    for (key, signable) in [(&internal_key, &plain), (&output_key, &tweaked)] {
        assert_eq!(
            verify(Scheme::Bip340, key, signable, &signature),
            Err(Error::Reject(Reject::Signature))
        );
    }
}

/// RFC 8032, section 7.1, tests 1 to 3; RFC 9591, appendix E.1, the group's signature.
const ED25519: [(&str, &str, &str); 4] = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "15d21ccd7ee42959562fc8aa63224c8851fb3ec85a3faf66040d380fb9738673",
        "74657374",
        "36282629c383bb820a88b71cae937d41f2f2adfcc3d02e55507e2fb9e2dd3cbebd9d2b0844e49ae0f3fa935161e1419aab7b47d21a37ebeae1f17d4987b3160b",
    ),
];

#[test]
fn ed25519() {
    for (public_key, message, signature) in ED25519 {
        let (key, signature) = (array(public_key), array::<64>(signature));
        let signable = signable(message, Tweak::None);
        verify(Scheme::Ed25519, &key, &signable, &signature).unwrap();
        for offset in 0..64 {
            let mut wrong = signature;
            wrong[offset] ^= 1;
            let result = verify(Scheme::Ed25519, &key, &signable, &wrong);
            assert_eq!(result, Err(Error::Reject(Reject::Signature)));
        }
    }
}

/// RFC 8032, section 5.1.7: S must be below the group's order, or everyone could make a second
/// signature out of a first.
#[test]
fn ed25519_is_not_malleable() {
    let order: [u8; 32] = array("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    for (public_key, message, signature) in ED25519 {
        let mut malleated = array::<64>(signature);
        let mut carry = 0;
        for (byte, order) in malleated[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            *byte = sum as u8;
            carry = sum >> 8;
        }
        assert_eq!(carry, 0);
        let message = signable(message, Tweak::None);
        let result = verify(Scheme::Ed25519, &array(public_key), &message, &malleated);
        assert_eq!(result, Err(Error::Reject(Reject::Signature)));
    }
}

/// A key of small order, under which one signature verifies for almost every message.
#[test]
fn ed25519_keys_of_small_order_are_refused() {
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    let message = signable("00", Tweak::None);
    let result = verify(Scheme::Ed25519, &identity, &message, &signature);
    assert_eq!(result, Err(Error::Reject(Reject::Signature)));
}

#[test]
fn keys_and_tweaks_that_the_scheme_does_not_have_are_refused() {
    let plain = signable("00", Tweak::None);
    let tweaked = signable("00", Tweak::TaprootKeyPath);
    let no_key = [0xff; 32];
    for (scheme, signable, reject) in [
        (Scheme::Bip340, &plain, Reject::PublicKey),
        (Scheme::Bip340, &tweaked, Reject::PublicKey),
        (Scheme::Ed25519, &tweaked, Reject::Tweak),
    ] {
        let result = verify(scheme, &no_key, signable, &[1; 64]);
        assert_eq!(result, Err(Error::Reject(reject)));
    }
}
