//! The platform's promises to the enclave: what it wraps, what it remembers, what it signs and where it listens.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use arca_attestation::{Error, Expected, ReferenceValues, TrustAnchors, TrustClass, verify_live};
use arca_enclave::platform::{DataKey, HostEndpoint, Platform as _, PlatformError};
use arca_enclave_simulated::nsm::LocalRoot;
use arca_enclave_simulated::{Config, SimulatedPlatform, StartError, measure_myself};
use rand_core::OsRng;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

const HEADER: &[u8] = b"which blob this key is for";

/// A folder with a root, a folder for sockets, and hardware that has never been switched on.
fn machine() -> (TempDir, Config) {
    let folder = TempDir::new().unwrap();
    let config = Config {
        sockets: folder.path().join("sockets"),
        root: folder.path().join("root"),
        hardware: folder.path().join("hardware"),
        presignatures: 256,
        danger_without_log: false,
    };
    fs::create_dir(&config.sockets).unwrap();
    fs::create_dir(&config.root).unwrap();
    let root = LocalRoot::create(&mut OsRng, arca_attestation::UnixMillis(1_700_000_000_000));
    root.unwrap().save(&config.root).unwrap();
    (folder, config)
}

fn data_key(byte: u8) -> DataKey {
    DataKey::copy(&[byte; 32]).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_wrapped_key_survives_a_restart_and_nothing_else() {
    let (_folder, config) = machine();
    let platform = SimulatedPlatform::start(&config).unwrap();
    let wrapped = platform.wrap(&data_key(7), HEADER).await.unwrap();
    let again = platform.wrap(&data_key(7), HEADER).await.unwrap();
    assert_ne!(wrapped, again, "a fresh nonce each time");
    assert!(!wrapped.windows(32).any(|window| window == [7; 32]));
    let kek_id = platform.kek_id();
    drop(platform);

    let platform = SimulatedPlatform::start(&config).unwrap();
    assert_eq!(platform.kek_id(), kek_id);
    let key = platform.unwrap(&wrapped, HEADER).await.unwrap();
    assert_eq!(key.expose(), &[7; 32]);

    let (_elsewhere, other) = machine();
    let other = SimulatedPlatform::start(&other).unwrap();
    assert_ne!(other.kek_id(), kek_id);
    let refused = other.unwrap(&wrapped, HEADER).await;
    assert!(matches!(refused, Err(PlatformError::NotAuthentic)));
}

#[tokio::test]
async fn a_wrapped_key_that_was_tampered_with_is_refused() {
    let (_folder, config) = machine();
    let platform = SimulatedPlatform::start(&config).unwrap();
    let wrapped = platform.wrap(&data_key(7), HEADER).await.unwrap();
    for index in 0..wrapped.len() {
        let mut flipped = wrapped.clone();
        flipped[index] ^= 1;
        let refused = platform.unwrap(&flipped, HEADER).await;
        assert!(
            matches!(refused, Err(PlatformError::NotAuthentic)),
            "{index}"
        );
        let refused = platform.unwrap(&wrapped[..index], HEADER).await;
        assert!(
            matches!(refused, Err(PlatformError::NotAuthentic)),
            "{index}"
        );
    }
    let longer = [wrapped.as_slice(), &[0]].concat();
    for (bytes, header) in [
        (longer.as_slice(), HEADER),
        (&wrapped, b"another blob".as_slice()),
        (&wrapped, b"".as_slice()),
    ] {
        let refused = platform.unwrap(bytes, header).await;
        assert!(matches!(refused, Err(PlatformError::NotAuthentic)));
    }
}

#[tokio::test]
async fn the_key_encryption_key_is_the_owners_alone() {
    let (_folder, config) = machine();
    let kek = config.hardware.join("kek");
    let first = SimulatedPlatform::start(&config).unwrap().kek_id();
    assert_eq!(mode(&config.hardware), 0o700);
    assert_eq!(mode(&kek), 0o600);
    assert_eq!(fs::read_dir(&config.hardware).unwrap().count(), 1);

    fs::set_permissions(&kek, fs::Permissions::from_mode(0o640)).unwrap();
    let error = SimulatedPlatform::start(&config).unwrap_err().to_string();
    assert!(
        error.contains("chmod 600") && error.contains("kek"),
        "{error}"
    );
    fs::set_permissions(&kek, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(SimulatedPlatform::start(&config).unwrap().kek_id(), first);
}

/// A damaged key is reported. A new one in its place would lose everything that was sealed.
#[tokio::test]
async fn a_damaged_key_encryption_key_is_never_replaced() {
    let (_folder, config) = machine();
    drop(SimulatedPlatform::start(&config).unwrap());
    let kek = config.hardware.join("kek");
    for damaged in [&[][..], &[1; 31], &[1; 33]] {
        fs::write(&kek, damaged).unwrap();
        let error = SimulatedPlatform::start(&config).unwrap_err();
        assert!(matches!(error, StartError::File(_)), "{error}");
        assert_eq!(fs::read(&kek).unwrap(), damaged);
    }
}

/// Killed while it wrote the key for the first time.
#[tokio::test]
async fn an_unfinished_key_encryption_key_is_made_again() {
    let (_folder, config) = machine();
    fs::create_dir(&config.hardware).unwrap();
    fs::write(config.hardware.join("kek.unfinished"), [1; 5]).unwrap();
    drop(SimulatedPlatform::start(&config).unwrap());
    assert_eq!(fs::read(config.hardware.join("kek")).unwrap().len(), 32);
}

#[tokio::test]
async fn evidence_verifies_under_the_local_root_and_not_in_production() {
    let (_folder, config) = machine();
    let platform = SimulatedPlatform::start(&config).unwrap();
    assert_eq!(platform.class(), TrustClass::Simulated);
    let (nonce, binder, key) = ([1; 32], [2; 48], [3; 91]);
    let document = platform.evidence(&nonce, &binder, &key).await.unwrap();
    let reference = ReferenceValues::Simulated(vec![measure_myself().unwrap()]);
    let expected = Expected {
        reference: &reference,
        nonce: &nonce,
        public_key: &key,
        user_data: &binder,
    };
    let now = platform.now();
    let evidence = verify_live(&document, platform.anchors(), &expected, now).unwrap();
    assert_eq!(evidence.class(), TrustClass::Simulated);
    let production = TrustAnchors::production();
    let refused = verify_live(&document, &production, &expected, now);
    let class = TrustClass::Simulated;
    assert_eq!(refused.unwrap_err(), Error::NoTrustAnchor { class });
    let as_nitro = ReferenceValues::Nitro(vec![measure_myself().unwrap()]);
    let expected = Expected {
        reference: &as_nitro,
        ..expected
    };
    let refused = verify_live(&document, &production, &expected, now);
    let class = TrustClass::Nitro;
    assert_eq!(refused.unwrap_err(), Error::UntrustedRoot { class });

    let refused = platform.evidence(&[1; 513], &binder, &key).await;
    assert!(matches!(refused, Err(PlatformError::Failed { .. })));
}

#[tokio::test]
async fn randomness_is_not_repeated() {
    let (_folder, config) = machine();
    let platform = SimulatedPlatform::start(&config).unwrap();
    let mut drawn = [[0; 32]; 2];
    for bytes in &mut drawn {
        platform.random(bytes).unwrap();
    }
    assert_ne!(drawn[0], drawn[1]);
    assert_ne!(drawn[0], [0; 32]);
}

#[tokio::test]
async fn streams_go_to_the_endpoints_they_are_for() {
    let (_folder, config) = machine();
    let platform = SimulatedPlatform::start(&config).unwrap();
    for (endpoint, socket) in [
        (HostEndpoint::Storage, "storage.sock"),
        (HostEndpoint::Dial, "dial.sock"),
    ] {
        assert!(platform.connect(endpoint).await.is_err(), "nobody listens");
        let host = UnixListener::bind(config.sockets.join(socket)).unwrap();
        let mut near = platform.connect(endpoint).await.unwrap();
        let (mut far, _) = host.accept().await.unwrap();
        near.write_all(b"up").await.unwrap();
        let mut word = [0; 2];
        far.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"up");
    }
    let socket = config.sockets.join("enclave.sock");
    let (near, far) = tokio::join!(UnixStream::connect(&socket), platform.accept());
    near.unwrap().write_all(b"in").await.unwrap();
    let mut word = [0; 2];
    far.unwrap().read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"in");
}

#[tokio::test]
async fn one_enclave_listens_and_a_dead_ones_socket_is_replaced() {
    let (_folder, config) = machine();
    let running = SimulatedPlatform::start(&config).unwrap();
    let error = SimulatedPlatform::start(&config).unwrap_err().to_string();
    assert!(error.contains("another enclave listens here"), "{error}");
    drop(running);
    drop(SimulatedPlatform::start(&config).unwrap());

    let socket = config.sockets.join("enclave.sock");
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "precious").unwrap();
    let error = SimulatedPlatform::start(&config).unwrap_err().to_string();
    assert!(error.contains("is no socket"), "{error}");
    assert_eq!(fs::read(&socket).unwrap(), b"precious");
}

#[tokio::test]
async fn a_root_that_is_none_names_its_file() {
    let (_folder, config) = machine();
    fs::write(config.root.join("root.der"), b"no certificate").unwrap();
    let error = SimulatedPlatform::start(&config).unwrap_err().to_string();
    assert!(error.contains("root.der"), "{error}");
    fs::remove_file(config.root.join("root.key")).unwrap();
    let error = SimulatedPlatform::start(&config).unwrap_err().to_string();
    assert!(error.contains("root.key"), "{error}");
}
