//! What goes into `user_data`: everything that a relayed, reflected or replayed document would get wrong. And
//! what initiators sign.

use std::collections::BTreeSet;

use arca_attestation::SigningAuthorization;
use arca_attestation::binder::{Binder, EXPORTER_INITIATOR, EXPORTER_RESPONDER, Role, Statement};
use sha2::{Digest as _, Sha256, Sha384};

const BINDER: Binder<'static> = Binder {
    role: Role::Initiator,
    exporter: &[1; 32],
    nonce: &[2; 32],
    own_spki: &[3; 91],
    peer_spki: &[4; 91],
    cluster: "sim-treasury",
    party: "ceo",
    boot_id: &[5; 16],
    manifest_epoch: 6,
};

const STATEMENT: Statement<'static> = Statement {
    nonce: BINDER.nonce,
    cluster: BINDER.cluster,
    party: BINDER.party,
    boot_id: BINDER.boot_id,
    manifest_epoch: BINDER.manifest_epoch,
};

#[test]
fn every_field_of_the_binder_changes_its_digest() {
    let other = [9; 91];
    let variants = [
        BINDER,
        Binder {
            role: Role::Responder,
            ..BINDER
        },
        Binder {
            exporter: &[9; 32],
            ..BINDER
        },
        Binder {
            nonce: &[9; 32],
            ..BINDER
        },
        Binder {
            own_spki: &other,
            ..BINDER
        },
        Binder {
            peer_spki: &other,
            ..BINDER
        },
        Binder {
            cluster: "sim-treasure",
            ..BINDER
        },
        Binder {
            party: "cto",
            ..BINDER
        },
        Binder {
            boot_id: &[9; 16],
            ..BINDER
        },
        Binder {
            manifest_epoch: 7,
            ..BINDER
        },
        // Reflection: the same connection, seen from the other end.
        Binder {
            own_spki: BINDER.peer_spki,
            peer_spki: BINDER.own_spki,
            ..BINDER
        },
        // Bytes that move from one field into the next.
        Binder {
            cluster: "sim-treasuryc",
            party: "eo",
            ..BINDER
        },
        Binder {
            nonce: &[2; 31],
            ..BINDER
        },
    ];
    let digests: BTreeSet<_> = variants.iter().map(Binder::digest).collect();
    assert_eq!(digests.len(), variants.len());
}

#[test]
fn every_field_of_the_statement_changes_its_digest() {
    let variants = [
        STATEMENT,
        Statement {
            nonce: &[9; 32],
            ..STATEMENT
        },
        Statement {
            cluster: "sim-treasure",
            ..STATEMENT
        },
        Statement {
            party: "cto",
            ..STATEMENT
        },
        Statement {
            boot_id: &[9; 16],
            ..STATEMENT
        },
        Statement {
            manifest_epoch: 7,
            ..STATEMENT
        },
        Statement {
            cluster: "sim-treasuryc",
            party: "eo",
            ..STATEMENT
        },
    ];
    let digests: BTreeSet<_> = variants.iter().map(Statement::digest).collect();
    assert_eq!(digests.len(), variants.len());
    assert!(!digests.contains(&BINDER.digest()));
}

#[test]
fn the_binder_is_what_its_documentation_says() {
    let mut hash = Sha384::new();
    for part in [
        &b"arca/v1/channel-binder"[..],
        &[1],
        &[1],
        &[1; 32],
        &[2; 32],
        &[3; 91],
        &[4; 91],
        b"sim-treasury",
        b"ceo",
        &[5; 16],
        &6u64.to_be_bytes(),
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    assert_eq!(BINDER.digest()[..], hash.finalize()[..]);
}

#[test]
fn labels_are_directional() {
    assert_ne!(EXPORTER_INITIATOR, EXPORTER_RESPONDER);
    assert_eq!(Role::Initiator.exporter_label(), EXPORTER_INITIATOR);
    assert_eq!(Role::Responder.exporter_label(), EXPORTER_RESPONDER);
    assert_eq!(Role::Initiator.peer(), Role::Responder);
    assert_eq!(Role::Responder.peer(), Role::Initiator);
}

const AUTHORIZATION: SigningAuthorization<'static> = SigningAuthorization {
    cluster: "sim-treasury",
    initiator: "treasury",
    request_id: "invoice-1",
    key: "keys/cold",
    payload_kind: "psbt",
    payload: &[1, 2, 3],
    expire_ms: 1_780_000_000_000,
    derivation_path: &[44, 60],
};

#[test]
fn every_field_of_an_authorization_changes_its_digest() {
    let variants = [
        AUTHORIZATION,
        SigningAuthorization {
            cluster: "sim-treasure",
            ..AUTHORIZATION
        },
        SigningAuthorization {
            initiator: "ops",
            ..AUTHORIZATION
        },
        SigningAuthorization {
            request_id: "invoice-2",
            ..AUTHORIZATION
        },
        SigningAuthorization {
            key: "keys/hot",
            ..AUTHORIZATION
        },
        SigningAuthorization {
            payload_kind: "solana_message",
            ..AUTHORIZATION
        },
        SigningAuthorization {
            payload: &[1, 2],
            ..AUTHORIZATION
        },
        SigningAuthorization {
            expire_ms: AUTHORIZATION.expire_ms + 1,
            ..AUTHORIZATION
        },
        SigningAuthorization {
            derivation_path: &[44, 61],
            ..AUTHORIZATION
        },
        SigningAuthorization {
            derivation_path: &[44],
            ..AUTHORIZATION
        },
        SigningAuthorization {
            cluster: "sim-treasuryt",
            initiator: "reasury",
            ..AUTHORIZATION
        },
    ];
    let digests: BTreeSet<_> = variants.iter().map(SigningAuthorization::digest).collect();
    assert_eq!(digests.len(), variants.len());
}

#[test]
fn an_authorization_is_what_its_documentation_says() {
    let mut hash = Sha256::new();
    for part in [
        &b"arca/v1/signing-authorization"[..],
        b"sim-treasury",
        b"treasury",
        b"invoice-1",
        b"keys/cold",
        b"psbt",
        &[1, 2, 3],
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.update(1_780_000_000_000_u64.to_be_bytes());
    hash.update(8_u64.to_be_bytes());
    hash.update([0, 0, 0, 44, 0, 0, 0, 60]);
    assert_eq!(AUTHORIZATION.digest()[..], hash.finalize()[..]);
}
