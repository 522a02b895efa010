//! Steps 4 and 5, one broken thing at a time: the pinned root and the path from it to the leaf.

use arca_attestation::{CertificateFault, Error, TrustAnchors, TrustClass, verify_live};
use ciborium::Value;
use der::Any;
use der::oid::AssociatedOid as _;
use p384::ecdsa::SigningKey;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use x509_cert::certificate::Version;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};

use crate::forge::{
    EXPECTED, Forge, NOW, algorithm, basic_constraints, bytes, certificate, extension, key_usage,
    validity,
};

// Step 4: the pinned root.

#[test]
fn a_path_under_another_root_is_refused() {
    let forge = Forge::new();
    let mut other = Forge::new();
    other.path[0].key = SigningKey::random(&mut ChaCha20Rng::seed_from_u64(99));
    let class = TrustClass::Simulated;
    let error = verify_live(&other.document(), &forge.anchors(), &EXPECTED, NOW).unwrap_err();
    assert_eq!(error, Error::UntrustedRoot { class });
}

#[test]
fn a_bundle_that_is_leaf_first_or_lacks_the_root_is_refused() {
    let forge = Forge::new();
    let mut bundle: Vec<_> = forge.certificates().into_iter().map(Value::Bytes).collect();
    bundle.pop();
    let reversed = bundle.iter().rev().cloned().collect();
    let rootless = bundle[1..].to_vec();
    for bundle in [reversed, rootless] {
        let error = Forge::refusal(|forge| forge.set("cabundle", Value::Array(bundle)));
        assert_eq!(
            error,
            Error::UntrustedRoot {
                class: TrustClass::Simulated
            }
        );
    }
}

#[test]
fn the_pinned_root_in_front_of_a_foreign_path_does_not_help() {
    let mut foreign = Forge::new();
    foreign.path[0].key = SigningKey::random(&mut ChaCha20Rng::seed_from_u64(99));
    let mut bundle: Vec<_> = foreign
        .certificates()
        .into_iter()
        .map(Value::Bytes)
        .collect();
    bundle.pop();
    bundle[0] = Value::Bytes(Forge::new().root_der());
    foreign.set("cabundle", Value::Array(bundle));
    let error =
        verify_live(&foreign.document(), &Forge::new().anchors(), &EXPECTED, NOW).unwrap_err();
    assert_eq!(error, certificate(1, CertificateFault::Signature));
}

// Step 5: the path. Position 0 is the root, 3 the leaf.

#[test]
fn certificates_that_are_no_certificates_are_refused() {
    let error = Forge::refusal(|forge| forge.set("certificate", bytes(b"leaf")));
    assert_eq!(error, certificate(3, CertificateFault::Encoding));

    let mut leaf = Forge::new().certificates().pop().unwrap();
    leaf.push(0);
    let error = Forge::refusal(|forge| forge.set("certificate", bytes(&leaf)));
    assert_eq!(error, certificate(3, CertificateFault::Encoding));

    let error = Forge::refusal(|forge| forge.path[3].tbs.version = Version::V2);
    assert_eq!(error, certificate(3, CertificateFault::Encoding));
}

#[test]
fn certificates_signed_with_other_algorithms_are_refused() {
    let sha256 = algorithm("1.2.840.10045.4.3.2", None);
    let with_parameters = algorithm("1.2.840.10045.4.3.3", Some(Any::null()));
    for other in [sha256, with_parameters] {
        let error = Forge::refusal(|forge| {
            forge.path[2].tbs.signature = other.clone();
            forge.path[2].algorithm = other.clone();
        });
        assert_eq!(error, certificate(2, CertificateFault::Algorithm));
        // Inside and outside have to agree.
        let error = Forge::refusal(|forge| forge.path[2].algorithm = other.clone());
        assert_eq!(error, certificate(2, CertificateFault::Algorithm));
        let error = Forge::refusal(|forge| forge.path[2].tbs.signature = other.clone());
        assert_eq!(error, certificate(2, CertificateFault::Algorithm));
    }
}

#[test]
fn certificates_for_keys_on_other_curves_are_refused() {
    let p256 = p256::SecretKey::from_slice(&[7; 32]).unwrap().public_key();
    let spki = spki::SubjectPublicKeyInfoOwned::from_key(p256).unwrap();
    let error = Forge::refusal(|forge| forge.path[3].tbs.subject_public_key_info = spki);
    assert_eq!(error, certificate(3, CertificateFault::Key));
}

#[test]
fn a_point_off_the_curve_is_no_key() {
    let error = Forge::refusal(|forge| {
        let key = &mut forge.path[3].tbs.subject_public_key_info.subject_public_key;
        let mut point = key.raw_bytes().to_vec();
        *point.last_mut().unwrap() ^= 1;
        *key = der::asn1::BitString::from_bytes(&point).unwrap();
    });
    assert_eq!(error, certificate(3, CertificateFault::Key));
}

#[test]
fn every_certificate_names_the_one_before_it_as_its_issuer() {
    for position in 1..4 {
        let error =
            Forge::refusal(|forge| forge.path[position].tbs.issuer = "CN=other".parse().unwrap());
        assert_eq!(error, certificate(position, CertificateFault::Issuer));
    }
}

#[test]
fn every_certificate_is_signed_by_the_one_before_it() {
    for position in 1..4 {
        let forge = Forge::new();
        let mut certificates = forge.certificates();
        // The last byte belongs to s.
        *certificates[position].last_mut().unwrap() ^= 1;
        let leaf = certificates.pop().unwrap();
        let bundle = certificates.into_iter().map(Value::Bytes).collect();
        let error = Forge::refusal(|forge| {
            forge.set("cabundle", Value::Array(bundle));
            forge.set("certificate", Value::Bytes(leaf));
        });
        assert_eq!(error, certificate(position, CertificateFault::Signature));
    }
}

#[test]
fn every_certificate_is_valid_at_the_time_of_verification() {
    for position in 0..4 {
        let error =
            Forge::refusal(|forge| forge.path[position].tbs.validity = validity(NOW, 1, 60));
        assert_eq!(error, certificate(position, CertificateFault::NotYetValid));
        let error =
            Forge::refusal(|forge| forge.path[position].tbs.validity = validity(NOW, -60, -1));
        assert_eq!(error, certificate(position, CertificateFault::Expired));
    }
    let mut forge = Forge::new();
    forge.path[3].tbs.validity = validity(NOW, 0, 0);
    forge.verify().unwrap();
}

#[test]
fn issuers_say_that_they_are_authorities() {
    for position in 0..3 {
        // The root's absence of constraints would already stop it from being an anchor.
        let constraints = BasicConstraints {
            ca: false,
            path_len_constraint: None,
        };
        for extension in [None, Some(basic_constraints(constraints.clone()))] {
            let mut forge = Forge::new();
            forge.path[position].set_extension(BasicConstraints::OID, extension);
            if position == 0 {
                let fault = CertificateFault::NotAnAuthority;
                let error = TrustAnchors::simulated(&forge.root_der()).unwrap_err();
                assert_eq!(error, Error::SimulatedRoot { fault });
            } else {
                let error = forge.verify().unwrap_err();
                assert_eq!(
                    error,
                    certificate(position, CertificateFault::NotAnAuthority)
                );
            }
        }
    }
}

#[test]
fn path_lengths_are_kept() {
    let limit = |forge: &mut Forge, position: usize, path_len_constraint| {
        let constraints = BasicConstraints {
            ca: true,
            path_len_constraint,
        };
        forge.path[position]
            .set_extension(BasicConstraints::OID, Some(basic_constraints(constraints)));
    };
    for (position, enough) in [(0, 2), (1, 1)] {
        let mut forge = Forge::new();
        limit(&mut forge, position, Some(enough));
        forge.verify().unwrap();
        let error = Forge::refusal(|forge| limit(forge, position, Some(enough - 1)));
        assert_eq!(error, certificate(position, CertificateFault::PathLength));
    }
}

#[test]
fn issuers_may_sign_certificates() {
    for position in 1..3 {
        for usage in [
            None,
            Some(key_usage(KeyUsages::DigitalSignature | KeyUsages::CRLSign)),
        ] {
            let error =
                Forge::refusal(|forge| forge.path[position].set_extension(KeyUsage::OID, usage));
            assert_eq!(error, certificate(position, CertificateFault::KeyUsage));
        }
    }
}

#[test]
fn the_leaf_may_sign_documents_and_no_certificates() {
    for usage in [None, Some(key_usage(KeyUsages::KeyAgreement.into()))] {
        let error = Forge::refusal(|forge| forge.path[3].set_extension(KeyUsage::OID, usage));
        assert_eq!(error, certificate(3, CertificateFault::KeyUsage));
    }
    let authority = BasicConstraints {
        ca: true,
        path_len_constraint: None,
    };
    let error = Forge::refusal(|forge| {
        forge.path[3].set_extension(BasicConstraints::OID, Some(basic_constraints(authority)));
    });
    assert_eq!(error, certificate(3, CertificateFault::LeafIsAuthority));
}

#[test]
fn a_leaf_without_basic_constraints_is_no_authority() {
    let mut forge = Forge::new();
    forge.path[3].set_extension(BasicConstraints::OID, None);
    forge.verify().unwrap();
}

#[test]
fn unknown_extensions_pass_unless_they_are_critical() {
    let oid = der::asn1::ObjectIdentifier::new("1.3.6.1.4.1.99999.1").unwrap();
    for position in 1..4 {
        let mut forge = Forge::new();
        forge.path[position].set_extension(oid, Some(extension(oid, false, vec![5, 0])));
        forge.verify().unwrap();
        let critical = extension(oid, true, vec![5, 0]);
        let error = Forge::refusal(|forge| forge.path[position].set_extension(oid, Some(critical)));
        assert_eq!(
            error,
            certificate(position, CertificateFault::CriticalExtension)
        );
    }
}

#[test]
fn an_extension_that_stands_twice_is_refused() {
    let error = Forge::refusal(|forge| {
        let extensions = forge.path[3].tbs.extensions.as_mut().unwrap();
        extensions.push(key_usage(KeyUsages::DigitalSignature.into()));
    });
    assert_eq!(error, certificate(3, CertificateFault::DuplicateExtension));
}

#[test]
fn malformed_constraints_are_refused() {
    for oid in [BasicConstraints::OID, KeyUsage::OID] {
        let malformed = extension(oid, true, vec![0x30, 0x05]);
        let error = Forge::refusal(|forge| forge.path[2].set_extension(oid, Some(malformed)));
        assert_eq!(error, certificate(2, CertificateFault::Encoding));
    }
}
