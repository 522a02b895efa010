//! The simulated NSM: its documents take the same way through the verifier, and never into production.

use std::os::unix::fs::PermissionsExt as _;

use arca_attestation::{
    CertificateFault, Error, Evidence, Expected, ReferenceValues, TrustAnchors, TrustClass,
    UnixMillis, inspect, verify_live,
};
use arca_enclave_simulated::nsm::{
    LocalRoot, Nsm, NsmError, ROOT_CERTIFICATE, ROOT_KEY, Request, measure,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use sha2::{Digest as _, Sha384};

use crate::forge::{EXPECTED, MEASUREMENTS, NONCE, NOW, PUBLIC_KEY, USER_DATA};
use crate::vectors;

const HOUR: u64 = 60 * 60 * 1000;
const REQUEST: Request<'static> = Request {
    nonce: Some(NONCE),
    user_data: Some(USER_DATA),
    public_key: Some(PUBLIC_KEY),
};

struct Simulation {
    rng: ChaCha20Rng,
    root: LocalRoot,
    nsm: Nsm,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let root = LocalRoot::create(&mut rng, NOW).unwrap();
        let nsm = Nsm::new(&root, "i-5eed-enc5eed", &MEASUREMENTS, &mut rng, NOW).unwrap();
        Self { rng, root, nsm }
    }

    fn anchors(&self) -> TrustAnchors {
        TrustAnchors::simulated(&self.root.certificate_der().unwrap()).unwrap()
    }

    fn document(&mut self, now: UnixMillis) -> Vec<u8> {
        self.nsm.attest(&REQUEST, now, &mut self.rng).unwrap()
    }

    fn evidence(&mut self, now: UnixMillis) -> Evidence {
        verify_live(&self.document(now), &self.anchors(), &EXPECTED, now).unwrap()
    }
}

#[test]
fn a_simulated_document_verifies_under_its_own_root_and_no_other() {
    let mut simulation = Simulation::new(1);
    let document = simulation.document(NOW);
    let evidence = verify_live(&document, &simulation.anchors(), &EXPECTED, NOW).unwrap();
    assert_eq!(evidence.class(), TrustClass::Simulated);
    assert_eq!(evidence.module_id(), Some("i-5eed-enc5eed"));
    assert_eq!(evidence.pcrs().unwrap().len(), 16);

    let class = TrustClass::Simulated;
    for anchors in [TrustAnchors::production(), TrustAnchors::hsm_only()] {
        let error = verify_live(&document, &anchors, &EXPECTED, NOW).unwrap_err();
        assert_eq!(error, Error::NoTrustAnchor { class });
    }
    // Whoever expects a Nitro enclave is not served with it either.
    let nitro = Expected {
        reference: &ReferenceValues::Nitro(vec![MEASUREMENTS]),
        ..*EXPECTED
    };
    let class = TrustClass::Nitro;
    let error = verify_live(&document, &TrustAnchors::production(), &nitro, NOW).unwrap_err();
    assert_eq!(error, Error::UntrustedRoot { class });
    for anchors in [simulation.anchors(), TrustAnchors::hsm_only()] {
        let error = verify_live(&document, &anchors, &nitro, NOW).unwrap_err();
        assert_eq!(error, Error::NoTrustAnchor { class });
    }

    let other = Simulation::new(2).anchors();
    let error = verify_live(&document, &other, &EXPECTED, NOW).unwrap_err();
    assert_eq!(
        error,
        Error::UntrustedRoot {
            class: TrustClass::Simulated
        }
    );
}

#[test]
fn a_real_document_is_refused_under_a_simulated_root() {
    let anchors = Simulation::new(1).anchors();
    for document in [vectors::PRODUCTION_2025, vectors::DEBUG_2021] {
        let made = inspect(document).unwrap().claimed_timestamp;
        let error = verify_live(document, &anchors, &EXPECTED, made).unwrap_err();
        assert_eq!(
            error,
            Error::UntrustedRoot {
                class: TrustClass::Simulated
            }
        );
    }
}

#[test]
fn the_production_root_cannot_be_made_a_simulated_one() {
    let root = &inspect(vectors::PRODUCTION_2025).unwrap().claimed_path[0];
    assert_eq!(
        TrustAnchors::simulated(root).unwrap_err(),
        Error::ProductionRootAsSimulated
    );
    let fault = CertificateFault::Encoding;
    assert_eq!(
        TrustAnchors::simulated(b"root").unwrap_err(),
        Error::SimulatedRoot { fault }
    );
    assert_eq!(
        TrustAnchors::production().nsm_class(),
        Some(TrustClass::Nitro)
    );
}

#[test]
fn documents_have_the_shape_of_real_ones() {
    let mut simulation = Simulation::new(1);
    let ours = simulation.document(NOW);
    // Array of four, then ES384 in the protected header, then an empty map, then the payload: a map of nine.
    assert_eq!(ours[..8], vectors::PRODUCTION_2025[..8]);
    assert_eq!(ours[10..21], vectors::PRODUCTION_2025[10..21]);
    assert!(inspect(&ours).unwrap().claimed_path.len() >= 3);
}

#[test]
fn what_was_not_asked_for_is_null() {
    let mut simulation = Simulation::new(1);
    let document = simulation
        .nsm
        .attest(&Request::default(), NOW, &mut simulation.rng)
        .unwrap();
    let inspection = inspect(&document).unwrap();
    assert_eq!(inspection.claimed_nonce, None);
    assert_eq!(inspection.claimed_user_data, None);
    assert_eq!(inspection.claimed_public_key, None);
    let error = verify_live(&document, &simulation.anchors(), &EXPECTED, NOW).unwrap_err();
    assert_eq!(error, Error::NonceMissing);
}

#[test]
fn one_leaf_serves_many_documents_and_is_replaced_before_it_expires() {
    let mut simulation = Simulation::new(1);
    let first = simulation.evidence(NOW);
    assert_eq!(first.not_after(), UnixMillis(NOW.0 + 3 * HOUR));
    let at = |hours: u64| UnixMillis(NOW.0 + hours * HOUR);
    assert_eq!(simulation.evidence(at(1)).not_after(), first.not_after());
    let mut until = first.not_after();
    for hours in [2, 4, 6, 100] {
        let evidence = simulation.evidence(at(hours));
        assert!(evidence.not_after() > until, "after {hours} hours");
        until = evidence.not_after();
    }
    // A clock that was set back gets a certificate that is valid by that clock.
    assert_eq!(simulation.evidence(at(1)).not_after(), at(4));
}

#[test]
fn a_verifier_whose_clock_is_behind_accepts_a_new_leaf() {
    let mut simulation = Simulation::new(1);
    let document = simulation.document(NOW);
    let behind = UnixMillis(NOW.0 - 4 * 60 * 1000);
    verify_live(&document, &simulation.anchors(), &EXPECTED, behind).unwrap();
}

#[test]
fn values_that_the_device_would_not_take_are_refused() {
    let mut simulation = Simulation::new(1);
    let long = vec![1; 1025];
    for (request, field, max) in [
        (
            Request {
                nonce: Some(&long[..513]),
                ..REQUEST
            },
            "nonce",
            512,
        ),
        (
            Request {
                user_data: Some(&long[..513]),
                ..REQUEST
            },
            "user_data",
            512,
        ),
        (
            Request {
                public_key: Some(&long),
                ..REQUEST
            },
            "public_key",
            1024,
        ),
    ] {
        let error = simulation
            .nsm
            .attest(&request, NOW, &mut simulation.rng)
            .unwrap_err();
        let size = max + 1;
        assert!(
            matches!(error, NsmError::TooLong { field: f, size: s, max: m } if (f, s, m) == (field, size, max)),
            "{error}"
        );
    }
    let longest = Request {
        nonce: Some(&long[..512]),
        user_data: Some(&long[..512]),
        public_key: Some(&long[..1024]),
    };
    let document = simulation
        .nsm
        .attest(&longest, NOW, &mut simulation.rng)
        .unwrap();
    let expected = Expected {
        nonce: &long[..512],
        user_data: &long[..512],
        public_key: &long[..1024],
        ..*EXPECTED
    };
    verify_live(&document, &simulation.anchors(), &expected, NOW).unwrap();
}

#[test]
fn a_root_comes_back_from_its_folder_and_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let mut simulation = Simulation::new(1);
    simulation.root.save(folder.path()).unwrap();
    let mode = folder
        .path()
        .join(ROOT_KEY)
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let loaded = LocalRoot::load(folder.path()).unwrap();
    assert_eq!(
        loaded.certificate_der().unwrap(),
        simulation.root.certificate_der().unwrap()
    );
    simulation.nsm =
        Nsm::new(&loaded, "i-2-enc2", &MEASUREMENTS, &mut simulation.rng, NOW).unwrap();
    simulation.evidence(NOW);

    let error = Simulation::new(2).root.save(folder.path()).unwrap_err();
    assert!(matches!(error, NsmError::File { .. }), "{error}");
    assert_eq!(
        LocalRoot::load(folder.path())
            .unwrap()
            .certificate_der()
            .unwrap(),
        simulation.root.certificate_der().unwrap()
    );
}

#[test]
fn a_damaged_or_foreign_root_is_refused_by_the_name_of_its_file() {
    let ours = tempfile::tempdir().unwrap();
    let theirs = tempfile::tempdir().unwrap();
    let missing = LocalRoot::load(ours.path()).unwrap_err().to_string();
    assert!(missing.contains(ROOT_KEY), "{missing}");

    Simulation::new(1).root.save(ours.path()).unwrap();
    Simulation::new(2).root.save(theirs.path()).unwrap();
    let certificate = ours.path().join(ROOT_CERTIFICATE);
    std::fs::copy(theirs.path().join(ROOT_CERTIFICATE), &certificate).unwrap();
    let mixed = LocalRoot::load(ours.path()).unwrap_err();
    assert!(
        matches!(&mixed, NsmError::Contents { path, .. } if path.ends_with(ROOT_CERTIFICATE)),
        "{mixed}"
    );

    std::fs::write(ours.path().join(ROOT_KEY), b"key").unwrap();
    let damaged = LocalRoot::load(ours.path()).unwrap_err();
    assert!(
        matches!(&damaged, NsmError::Contents { path, .. } if path.ends_with(ROOT_KEY)),
        "{damaged}"
    );
}

#[test]
fn measurements_extend_a_pcr_of_zeros() {
    let extended = [&[0; 48][..], &Sha384::digest(b"image")].concat();
    assert_eq!(measure(b"image")[..], Sha384::digest(extended)[..]);
}
