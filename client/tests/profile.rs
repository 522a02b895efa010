//! What a profile may say, and what happens when it says something else.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use arca_attestation::manifest::{Administrator, Administrators, Principal, Role};
use arca_attestation::{Measurements, TrustClass, UnixMillis};
use arca_client::enroll::{Candidate, draft};
use arca_client::hsm::Authority;
use arca_client::{Error, Profile, clock, keyfile, manifest_file};
use p256::pkcs8::EncodePublicKey;

/// Of a simulated NSM, whose key is gone.
const ROOT: &[u8] = include_bytes!("simulated-root.der");

/// A folder with a profile that is in order, and everything that it names.
struct Fixture {
    folder: tempfile::TempDir,
    administrators: Vec<ed25519_dalek::SigningKey>,
    class: TrustClass,
}

impl Fixture {
    fn new(cluster: &str) -> Self {
        Self::with_class(
            cluster,
            match cluster.starts_with("sim-") {
                true => TrustClass::Simulated,
                false => TrustClass::Nitro,
            },
        )
    }

    /// With a party of this class.
    fn with_class(cluster: &str, class: TrustClass) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let administrators: Vec<_> = ["alice", "bob", "carol"]
            .iter()
            .map(|name| keyfile::generate_administrator(&path(&format!("{name}.pem"))).unwrap())
            .collect();
        let treasury = keyfile::generate_principal(&path("treasury.pem")).unwrap();
        std::fs::write(path("root.der"), ROOT).unwrap();
        let fixture = Self {
            folder,
            administrators,
            class,
        };
        fixture.write_manifest(
            "manifest.signed.json",
            cluster,
            &treasury,
            clock::now(),
            &[0, 1],
        );
        fixture.write_profile(&fixture.profile_toml(cluster));
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_manifest(
        &self,
        name: &str,
        cluster: &str,
        principal: &p256::SecretKey,
        not_before: UnixMillis,
        signers: &[usize],
    ) {
        let hsm = self.class == TrustClass::Hsm;
        let root = hsm.then(|| Authority::create("root", 30).unwrap().certificate_der());
        let party = Candidate {
            party: "ceo".to_owned(),
            address: String::new(),
            class: self.class,
            measurements: (!hsm).then_some(Measurements {
                pcr0: [1; 48],
                pcr1: [2; 48],
                pcr2: [3; 48],
            }),
            identity: match hsm {
                true => {
                    let key = p384::SecretKey::from_slice(&[5; 48]).unwrap();
                    key.public_key().to_public_key_der().unwrap().into_vec()
                }
                false => spki(&p256::SecretKey::from_slice(&[5; 32]).unwrap()),
            },
            boot_id: [0; 16],
            manifest_epoch: 0,
            evidence_time: UnixMillis(1),
            evidence_digest: [0; 32],
        };
        let administrators = ["alice", "bob", "carol"]
            .iter()
            .zip(&self.administrators)
            .map(|(name, key)| Administrator {
                name: (*name).to_owned(),
                public_key: key.verifying_key().to_bytes(),
            })
            .collect();
        let principals = vec![Principal {
            name: "treasury".to_owned(),
            identity: spki(principal),
            roles: vec![Role::Initiator],
        }];
        let hour = Duration::from_secs(3600);
        let draft = draft(
            cluster,
            &[party],
            root.into_iter().map(Result::unwrap).collect(),
            Administrators {
                quorum: 2,
                keys: administrators,
            },
            principals,
            not_before,
            hour,
        );
        let bytes = draft.to_bytes().unwrap();
        let signatures: Vec<_> = signers
            .iter()
            .map(|index| manifest_file::sign(&bytes, &self.administrators[*index]))
            .collect();
        let signed = manifest_file::assemble(bytes, &signatures).unwrap();
        manifest_file::write(&self.path(name), &signed).unwrap();
    }

    fn profile_toml(&self, cluster: &str) -> String {
        let keys: Vec<String> = self
            .administrators
            .iter()
            .map(|key| format!("\"{}\"", hex::encode(key.verifying_key().to_bytes())))
            .collect();
        format!(
            "cluster = \"{cluster}\"\nkind = \"simulated\"\nmanifest = \"manifest.signed.json\"\n\
             simulated_root = \"root.der\"\n\n[administrators]\nquorum = 2\nkeys = [{}]\n\n\
             [principal]\nkey = \"treasury.pem\"\n\n[parties]\nceo = \"127.0.0.1:7101\"\n",
            keys.join(", ")
        )
    }

    fn write_profile(&self, text: &str) {
        std::fs::write(self.path("profile.toml"), text).unwrap();
    }

    fn load(&self) -> Result<Profile, Error> {
        Profile::load(&self.path("profile.toml"))
    }

    /// The profile with one change.
    fn changed(&self, from: &str, to: &str) -> Error {
        let text = self.profile_toml("sim-acme");
        assert!(text.contains(from), "{from} is not in the profile");
        self.write_profile(&text.replace(from, to));
        self.load().expect_err(to)
    }
}

fn spki(key: &p256::SecretKey) -> Vec<u8> {
    key.public_key().to_public_key_der().unwrap().into_vec()
}

#[test]
fn a_profile_in_order_is_read() {
    let profile = Fixture::new("sim-acme").load().unwrap();
    assert!(profile.is_simulated());
    assert_eq!(profile.anchors().nsm_class(), Some(TrustClass::Simulated));
    assert_eq!(profile.manifest().cluster(), "sim-acme");
    assert_eq!(profile.principal().unwrap().0, "treasury");
    assert_eq!(profile.parties()["ceo"], "127.0.0.1:7101");
}

#[test]
fn a_missing_file_is_named() {
    let error = Profile::load(Path::new("/nowhere/profile.toml")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/profile.toml"));
    assert!(error.advice().contains("--profile"));

    let fixture = Fixture::new("sim-acme");
    for name in ["root.der", "manifest.signed.json", "treasury.pem"] {
        let error = fixture.changed(&format!("\"{name}\""), "\"missing\"");
        assert!(error.to_string().contains("missing"), "{error}");
    }
}

#[test]
fn what_the_profile_should_not_say_is_refused() {
    let fixture = Fixture::new("sim-acme");
    for (from, to, complaint) in [
        ("kind = ", "colour = \"red\"\nkind = ", "unknown field"),
        (
            "[principal]\n",
            "[principal]\nname = \"x\"\n",
            "unknown field",
        ),
        (
            "kind = \"simulated\"",
            "kind = \"production\"",
            "is simulated, and the profile says production",
        ),
        ("kind = \"simulated\"", "kind = \"real\"", "unknown variant"),
        ("simulated_root = \"root.der\"\n", "", "names no root"),
        ("quorum = 2", "quorum = 0", "pinned quorum is 0 of 3"),
        (
            "quorum = 2",
            "quorum = 3",
            "2 of 3 needed pinned administrators",
        ),
        (
            "ceo = ",
            "cfo = ",
            "names party \"cfo\", which the manifest does not",
        ),
        ("127.0.0.1:7101", "127.0.0.1", "has no port"),
        ("127.0.0.1:7101", "127.0.0.1:0", "has no valid port"),
        ("127.0.0.1:7101", "::1:7101", "has no valid host"),
        ("ceo = \"127.0.0.1:7101\"\n", "", "names no party"),
        (
            "cluster = \"sim-acme\"",
            "cluster = \"sim-other\"",
            "is for cluster \"sim-other\"",
        ),
    ] {
        let error = fixture.changed(from, to);
        assert!(error.to_string().contains(complaint), "{to}: {error}");
        assert!(!error.advice().is_empty());
    }
}

#[test]
fn a_root_that_is_none_is_refused() {
    let fixture = Fixture::new("sim-acme");
    let error = fixture.changed("root.der", "treasury.pem");
    assert!(
        error.to_string().contains("simulated root is unusable"),
        "{error}"
    );
}

#[test]
fn a_production_cluster_takes_no_simulated_root() {
    let fixture = Fixture::new("acme");
    let text = fixture
        .profile_toml("acme")
        .replace("\"simulated\"", "\"production\"");
    fixture.write_profile(&text);
    let error = fixture.load().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("simulated root for a production cluster"),
        "{error}"
    );

    fixture.write_profile(&text.replace("simulated_root = \"root.der\"\n", ""));
    let profile = fixture.load().unwrap();
    assert!(!profile.is_simulated());
    assert_eq!(profile.anchors().nsm_class(), Some(TrustClass::Nitro));
}

#[test]
fn roots_of_hsms_come_from_the_manifest() {
    // A simulated cluster of HSM parties alone has no simulated root.
    let fixture = Fixture::with_class("sim-acme", TrustClass::Hsm);
    let text = fixture.profile_toml("sim-acme");
    fixture.write_profile(&text.replace("simulated_root = \"root.der\"\n", ""));
    let profile = fixture.load().unwrap();
    assert!(profile.is_simulated());
    assert_eq!(profile.anchors().nsm_class(), None);
    assert_eq!(profile.manifest().hsm_roots().len(), 1);

    let fixture = Fixture::with_class("acme", TrustClass::Hsm);
    let text = fixture
        .profile_toml("acme")
        .replace("\"simulated\"", "\"production\"")
        .replace("simulated_root = \"root.der\"\n", "");
    fixture.write_profile(&text);
    let profile = fixture.load().unwrap();
    assert_eq!(profile.anchors().nsm_class(), Some(TrustClass::Nitro));
    assert!(!profile.is_simulated());
}

#[test]
fn a_manifest_that_the_pinned_administrators_did_not_sign_is_refused() {
    let fixture = Fixture::new("sim-acme");
    // Somebody else's cluster of the same name, in order in itself.
    let other = Fixture::new("sim-acme");
    std::fs::copy(
        other.path("manifest.signed.json"),
        fixture.path("other.json"),
    )
    .unwrap();
    let error = fixture.changed("manifest.signed.json", "other.json");
    assert!(matches!(error, Error::Unverified { .. }), "{error}");
    assert!(error.to_string().contains("pinned"), "{error}");
}

#[test]
fn a_manifest_without_its_quorum_or_out_of_its_time_is_refused() {
    let fixture = Fixture::new("sim-acme");
    let treasury = keyfile::read_principal(&fixture.path("treasury.pem")).unwrap();
    let now = clock::now().0;
    let hour = 3_600_000;
    for (name, not_before, signers, complaint) in [
        ("one.json", now, &[2][..], "1 of 2 needed"),
        ("old.json", now - 2 * hour, &[0, 1], "expired"),
        ("new.json", now + hour, &[0, 1], "not valid yet"),
    ] {
        fixture.write_manifest(name, "sim-acme", &treasury, UnixMillis(not_before), signers);
        let error = fixture.changed("manifest.signed.json", name);
        assert!(matches!(error, Error::Unverified { .. }), "{error}");
        assert!(error.to_string().contains(complaint), "{name}: {error}");
    }
}

#[test]
fn a_key_that_is_no_principals_is_refused() {
    let fixture = Fixture::new("sim-acme");
    keyfile::generate_principal(&fixture.path("stranger.pem")).unwrap();
    let error = fixture.changed("treasury.pem", "stranger.pem");
    assert!(
        error.to_string().contains("no key of a principal"),
        "{error}"
    );
    let error = fixture.changed("treasury.pem", "alice.pem");
    assert!(
        error.to_string().contains("no P-256 private key"),
        "{error}"
    );
}
