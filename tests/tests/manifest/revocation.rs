//! Revocation wins over everything else in a manifest.

use arca_attestation::ReferenceValues;
use arca_attestation::manifest::Revocation;

use crate::common::*;

#[test]
fn a_revoked_identity_is_neither_party_nor_principal() {
    let mut draft = draft();
    draft.revoked = vec![
        Revocation::Identity(identity(2)),
        Revocation::Identity(identity(11)),
    ];
    let manifest = in_force(&draft);
    assert_eq!(manifest.party_by_identity(&identity(2)), None);
    assert_eq!(manifest.party("cto"), None);
    assert_eq!(manifest.parties().len(), 2);
    assert_eq!(manifest.reference_values("cto"), None);
    assert_eq!(manifest.principal_by_identity(&identity(11)), None);
    assert_eq!(manifest.principal("treasury"), None);
    assert_eq!(manifest.principals().len(), 1);
    assert_eq!(manifest.revoked(), &draft.revoked);
    // The others are untouched.
    assert_eq!(
        manifest.party_by_identity(&identity(1)).unwrap().name,
        "ceo"
    );
}

#[test]
fn a_revoked_image_is_no_reference_value() {
    let mut draft = draft();
    draft.revoked = vec![Revocation::Pcr0(image(1).pcr0)];
    let images = |images: Vec<_>| Some(ReferenceValues::Simulated(images));
    assert_eq!(
        in_force(&draft).reference_values("ceo"),
        images(vec![image(2)])
    );
    draft.revoked.push(Revocation::Pcr0(image(2).pcr0));
    let manifest = in_force(&draft);
    assert_eq!(manifest.reference_values("ceo"), images(vec![]));
    assert!(manifest.party("ceo").is_some());
}
