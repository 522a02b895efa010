//! Key packages as bytes.

// A panic is how a test fails.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::cast_possible_truncation
)]

mod support;

use arca_threshold::{Error, KeyPackage, Reject, Scheme};

use support::schnorr::*;
use support::*;

/// The layout that `KeyPackage::to_bytes` documents, for three participants.
struct Layout {
    element: usize,
}

impl Layout {
    const SCHEME: usize = 1;
    const THRESHOLD: usize = 3;
    const COUNT: usize = 5;
    const KEY: usize = 6;

    fn of(scheme: Scheme) -> Self {
        let element = match scheme {
            Scheme::Bip340 => 33,
            Scheme::Ed25519 => 32,
        };
        Self { element }
    }

    /// Where the entry of the `i`-th participant starts, from 0.
    fn entry(&self, i: usize) -> usize {
        Self::KEY + self.element + i * (2 + self.element)
    }

    fn me(&self, participants: usize) -> usize {
        self.entry(participants)
    }

    fn share(&self, participants: usize) -> usize {
        self.me(participants) + 2
    }
}

fn bytes_of(key: &KeyPackage) -> Vec<u8> {
    key.to_bytes().unwrap().to_vec()
}

fn assert_refused(bytes: &[u8], what: &str) {
    let error = KeyPackage::from_bytes(bytes).map(|key| format!("{key:?}"));
    assert_eq!(error, Err(Error::Reject(Reject::KeyPackage)), "{what}");
}

#[test]
fn a_package_survives_its_bytes_and_signs() {
    let mut rng = rng(1);
    for scheme in SCHEMES {
        let keys = generate(scheme, 2, 3, &mut rng);
        let again: Keys = keys
            .iter()
            .map(|(me, key)| {
                let read = KeyPackage::from_bytes(&bytes_of(key)).unwrap();
                assert_eq!(bytes_of(&read), bytes_of(key));
                assert_eq!(read.me(), key.me());
                assert_eq!(read.scheme(), key.scheme());
                assert_eq!(read.threshold(), key.threshold());
                assert_eq!(read.participants(), key.participants());
                assert_eq!(read.public_key(), key.public_key());
                assert_eq!(
                    read.public_key_package_digest(),
                    key.public_key_package_digest()
                );
                (*me, read.into())
            })
            .collect();
        let messages = messages(scheme, 2);
        let starts = sign_starts(&again, &set([1, 3]), p(3), &messages, &mut rng);
        let outcomes = run(starts, &mut rng);
        for (signable, signature) in messages.iter().zip(signatures(&outcomes[&p(3)])) {
            check_signature(scheme, &keys[&p(1)].public_key(), signable, signature);
        }
    }
}

#[test]
fn every_length_of_package_round_trips() {
    let mut rng = rng(2);
    for (scheme, threshold, n) in [
        (Scheme::Bip340, 2, 2),
        (Scheme::Ed25519, 2, 2),
        (Scheme::Bip340, 16, 16),
        (Scheme::Ed25519, 9, 16),
    ] {
        for key in generate(scheme, threshold, n, &mut rng).values() {
            let bytes = bytes_of(key);
            assert_eq!(bytes_of(&KeyPackage::from_bytes(&bytes).unwrap()), bytes);
        }
    }
}

#[test]
fn every_flipped_byte_is_refused() {
    for scheme in SCHEMES {
        let keys = generate(scheme, 2, 3, &mut rng(3));
        let bytes = bytes_of(&keys[&p(2)]);
        for offset in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[offset] ^= flip;
                assert_refused(&bytes, &format!("offset {offset}, flip {flip:#x}"));
            }
        }
    }
}

#[test]
fn every_other_length_is_refused() {
    for scheme in SCHEMES {
        let keys = generate(scheme, 2, 3, &mut rng(4));
        let bytes = bytes_of(&keys[&p(2)]);
        for len in 0..bytes.len() {
            assert_refused(&bytes[..len], &format!("{len} bytes"));
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_refused(&longer, "one byte more");
    }
}

#[test]
fn a_package_of_another_threshold_is_refused() {
    for scheme in SCHEMES {
        let keys = generate(scheme, 3, 5, &mut rng(5));
        for wrong in [0, 1, 2, 4, 5, 6, 255] {
            let mut bytes = bytes_of(&keys[&p(2)]);
            bytes[Layout::THRESHOLD] = wrong;
            assert_refused(&bytes, &format!("threshold {wrong}"));
        }
    }
}

/// With one share a lone participant cannot pass for another, nor pass another key's share for its own.
#[test]
fn packages_put_together_from_several_are_refused() {
    let mut rng = rng(6);
    for scheme in SCHEMES {
        let (keys, others) = (
            generate(scheme, 2, 3, &mut rng),
            generate(scheme, 2, 3, &mut rng),
        );
        let layout = Layout::of(scheme);
        let mine = bytes_of(&keys[&p(1)]);
        let (me, share) = (layout.me(3), layout.share(3));

        let mut forged = mine.clone();
        forged[me..share].copy_from_slice(&2u16.to_be_bytes());
        assert_refused(&forged, "own share under another's index");

        for donor in [&keys[&p(2)], &others[&p(1)]] {
            let mut forged = mine.clone();
            forged[share..].copy_from_slice(&bytes_of(donor)[share..]);
            assert_refused(&forged, "another's share");
        }

        // A share and its verifying share that fit each other, but not the key.
        let other = bytes_of(&others[&p(1)]);
        let entry = layout.entry(0)..layout.entry(1);
        let mut forged = mine.clone();
        forged[entry.clone()].copy_from_slice(&other[entry]);
        forged[share..].copy_from_slice(&other[share..]);
        assert_refused(&forged, "a share of another key");

        let mut forged = mine.clone();
        let key = Layout::KEY..layout.entry(0);
        forged[key.clone()].copy_from_slice(&other[key]);
        assert_refused(&forged, "another key above the shares");
    }
}

#[test]
fn entries_in_another_order_or_twice_are_refused() {
    for scheme in SCHEMES {
        let keys = generate(scheme, 2, 3, &mut rng(7));
        let layout = Layout::of(scheme);
        let bytes = bytes_of(&keys[&p(1)]);
        let entry = |i: usize| bytes[layout.entry(i)..layout.entry(i + 1)].to_vec();
        for order in [[1, 0, 2], [0, 2, 1], [0, 0, 1], [0, 1, 1]] {
            let mut forged = bytes.clone();
            let entries = order.map(entry).concat();
            forged[layout.entry(0)..layout.entry(3)].copy_from_slice(&entries);
            assert_refused(&forged, &format!("entries {order:?}"));
        }
    }
}

#[test]
fn counts_out_of_bounds_are_refused() {
    for scheme in SCHEMES {
        let keys = generate(scheme, 2, 3, &mut rng(8));
        for count in [0, 1, 2, 4, 17, 255] {
            let mut bytes = bytes_of(&keys[&p(1)]);
            bytes[Layout::COUNT] = count;
            assert_refused(&bytes, &format!("{count} participants"));
        }
        let mut bytes = bytes_of(&keys[&p(1)]);
        bytes[Layout::SCHEME] = 3;
        assert_refused(&bytes, "unknown scheme");
    }
}

#[test]
fn debug_shows_no_secret() {
    for scheme in SCHEMES {
        let mut rng = rng(9);
        let keys = generate(scheme, 2, 3, &mut rng);
        let key = &keys[&p(1)];
        let bytes = bytes_of(key);
        let share = &bytes[Layout::of(scheme).share(3)..];
        let shown = format!("{key:?}");
        assert!(shown.contains("threshold: 2"));
        for piece in [
            hex::encode(share),
            format!("{share:?}"),
            format!("{:?}", &share[..4]),
        ] {
            assert!(!shown.contains(piece.trim_matches(['[', ']'])), "{shown}");
        }

        let starts = sign_starts(&keys, &set([1, 2]), p(1), &messages(scheme, 1), &mut rng);
        for (_, protocol, outbox) in starts {
            assert!(format!("{protocol:?}").len() < 300);
            assert_eq!(format!("{outbox:?}").matches("Participant").count(), 1);
            assert!(format!("{:?}", protocol.inbox()).len() < 100);
        }
    }
}
