//! A manifest that is in order, for tests to break.

use arca_attestation::manifest::{
    Administrator, Administrators, Draft, Manifest, Party, PolicyDigest, Principal, Role,
    SignedManifest, signing_bytes,
};
use arca_attestation::{Measurements, TrustClass, UnixMillis};
use arca_enclave_simulated::nsm::LocalRoot;
use ed25519_dalek::{Signer as _, SigningKey};
use p256::pkcs8::EncodePublicKey as _;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

pub const NOW: UnixMillis = UnixMillis(1_780_000_000_000);
pub const DAY: u64 = 24 * 60 * 60 * 1000;

pub fn administrator(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

pub fn administrator_keys(numbers: &[u8]) -> Vec<Administrator> {
    let key = |number: &u8| Administrator {
        name: format!("admin-{number}"),
        public_key: administrator(*number).verifying_key().to_bytes(),
    };
    numbers.iter().map(key).collect()
}

pub fn identity(number: u8) -> Vec<u8> {
    let key = p256::SecretKey::from_slice(&[number; 32]).unwrap();
    key.public_key().to_public_key_der().unwrap().into_vec()
}

pub fn identity_384(number: u8) -> Vec<u8> {
    let key = p384::SecretKey::from_slice(&[number; 48]).unwrap();
    key.public_key().to_public_key_der().unwrap().into_vec()
}

/// The certificate of some P-384 authority.
pub fn authority(number: u8) -> Vec<u8> {
    let mut rng = ChaCha20Rng::seed_from_u64(number.into());
    let authority = LocalRoot::create(&mut rng, NOW).unwrap();
    authority.certificate_der().unwrap()
}

pub fn image(number: u8) -> Measurements {
    Measurements {
        pcr0: [number; 48],
        pcr1: [number; 48],
        pcr2: [number; 48],
    }
}

pub fn party(name: &str, number: u8) -> Party {
    Party {
        name: name.to_owned(),
        class: TrustClass::Simulated,
        identity: identity(number),
        measurements: vec![image(1), image(2)],
    }
}

/// Three parties, three administrators of whom two have to sign, two principals.
pub fn draft() -> Draft {
    let principal = |name: &str, number, roles: &[Role]| Principal {
        name: name.to_owned(),
        identity: identity(number),
        roles: roles.to_vec(),
    };
    Draft {
        hsm_roots: Vec::new(),
        version: Draft::VERSION,
        cluster: "sim-treasury".to_owned(),
        epoch: 5,
        not_before: UnixMillis(NOW.0 - DAY),
        not_after: UnixMillis(NOW.0 + DAY),
        parties: vec![party("ceo", 1), party("cto", 2), party("cloud", 3)],
        administrators: Administrators {
            quorum: 2,
            keys: administrator_keys(&[1, 2, 3]),
        },
        principals: vec![
            principal("treasury", 11, &[Role::Initiator]),
            principal("ops", 12, &[Role::Operator, Role::Auditor]),
        ],
        policy_digest: Some(PolicyDigest([8; 32])),
        revoked: Vec::new(),
    }
}

pub fn signed_bytes(bytes: Vec<u8>, signers: &[u8]) -> SignedManifest {
    let message = signing_bytes(&bytes);
    let sign = |number: &u8| {
        let key = administrator(*number);
        (
            key.verifying_key().to_bytes(),
            key.sign(&message).to_bytes(),
        )
    };
    SignedManifest {
        signatures: signers.iter().map(sign).collect(),
        bytes,
    }
}

pub fn signed(draft: &Draft, signers: &[u8]) -> SignedManifest {
    signed_bytes(draft.to_bytes().unwrap(), signers)
}

pub fn in_force(draft: &Draft) -> Manifest {
    signed(draft, &[1, 2]).verify_first(NOW).unwrap()
}
