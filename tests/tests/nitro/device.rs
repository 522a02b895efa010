//! What the platform makes of its NSM.

use std::time::Duration;

use arca_attestation::{
    Expected, Measurements, ReferenceValues, TrustAnchors, TrustClass, UnixMillis, verify_live,
};
use arca_enclave::platform::Platform as _;
use arca_enclave_nitro::nsm::extended;
use arca_enclave_nitro::{Machine, NitroPlatform, StartError};

use crate::nsm::{Fault, MEASUREMENTS, SIGNER, SoftwareNsm, anchors};
use crate::world::{World, failed};

const MANIFEST: [u8; 48] = [0x11; 48];
const OTHER_MANIFEST: [u8; 48] = [0x22; 48];

#[tokio::test(flavor = "multi_thread")]
async fn the_manifest_is_fixed_in_pcr16_and_every_register_locked() {
    let world = World::new();
    let platform = world.start();
    assert!(!world.nsm.pcr(16).0);
    platform.bind_manifest(&MANIFEST).await.unwrap();
    let value = extended(&[0; 48], &MANIFEST);
    for index in 0..32 {
        assert!(world.nsm.pcr(index).0, "{index}");
    }
    assert_eq!(world.nsm.pcr(16).1, value);
    for index in 17..32 {
        assert_eq!(world.nsm.pcr(index).1, [0; 48]);
    }
    // The evidence says so from now on.
    let reference = ReferenceValues::Simulated(vec![MEASUREMENTS]);
    let (nonce, user_data, key) = ([1; 32], [2; 48], [3; 91]);
    let document = platform.evidence(&nonce, &user_data, &key).await.unwrap();
    let expected = Expected {
        reference: &reference,
        nonce: &nonce,
        public_key: &key,
        user_data: &user_data,
    };
    let evidence = verify_live(&document, platform.anchors(), &expected, platform.now()).unwrap();
    assert_eq!(evidence.class(), TrustClass::Simulated);
    assert_eq!(evidence.pcrs().unwrap()[&16], value);
    assert!(
        verify_live(
            &document,
            &TrustAnchors::production(),
            &expected,
            platform.now()
        )
        .is_err()
    );

    // Again, as after a crash of the process; but for no other manifest.
    platform.bind_manifest(&MANIFEST).await.unwrap();
    let cause = failed(platform.bind_manifest(&OTHER_MANIFEST).await);
    assert!(cause.contains("started anew"), "{cause}");
    let restarted = world.start();
    restarted.bind_manifest(&MANIFEST).await.unwrap();
    failed(restarted.bind_manifest(&OTHER_MANIFEST).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_register_that_was_used_before_is_refused() {
    for (locked, value) in [
        (false, [9; 48]),
        (true, [9; 48]),
        (true, [0; 48]),
        (true, extended(&[0; 48], &OTHER_MANIFEST)),
    ] {
        let world = World::new();
        let platform = world.start();
        world.nsm.set_pcr(16, locked, value);
        failed(platform.bind_manifest(&MANIFEST).await);
        assert_eq!(world.nsm.pcr(16), (locked, value), "it is left alone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_register_that_is_not_locked_or_reads_otherwise_is_refused() {
    for (fault, expected) in [
        (Fault::Lock, "InternalError"),
        (Fault::LeavesOpen(16), "PCR16 is not locked"),
        (Fault::LeavesOpen(31), "PCR31 is not locked"),
        (Fault::Extend, "another value"),
        (Fault::Reads, "another value"),
    ] {
        let world = World::new();
        let platform = world.start();
        world.nsm.set_fault(fault);
        let cause = failed(platform.bind_manifest(&MANIFEST).await);
        assert!(cause.contains(expected), "{fault:?}: {cause}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn debug_mode_and_other_devices_are_refused_at_the_start() {
    let mut world = World::new();
    let debug = Measurements {
        pcr0: [0; 48],
        ..MEASUREMENTS
    };
    world.nsm = SoftwareNsm::measured(debug, SIGNER).into();
    assert!(matches!(world.try_start(), Err(StartError::DebugMode)));

    world.nsm = SoftwareNsm::new().into();
    world.nsm.set_fault(Fault::Registers(16));
    let error = world.try_start().unwrap_err().to_string();
    assert!(error.contains("16 PCRs"), "{error}");
    world.nsm.set_fault(Fault::Attestation);
    let error = world.try_start().unwrap_err().to_string();
    assert!(error.contains("making evidence"), "{error}");

    // An NSM whose documents do not verify under the roots that this enclave knows.
    world.nsm.set_fault(Fault::None);
    for trusted in [TrustAnchors::production(), TrustAnchors::hsm_only()] {
        let machine = Machine {
            nsm: world.nsm.clone(),
            transport: world.host.clone(),
            anchors: trusted,
            kms_roots: vec![world.authority.root()],
            patience: world.patience,
        };
        assert!(NitroPlatform::danger_start_on(machine, &world.config).is_err());
    }
    assert_eq!(anchors().nsm_class(), Some(TrustClass::Simulated));
}

/// There is no NSM here.
#[tokio::test]
async fn production_starts_on_the_device_alone() {
    let config = toml_of_the_example();
    match NitroPlatform::start(&config) {
        Err(StartError::NoNsm) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("started without an NSM"),
    }
}

fn toml_of_the_example() -> arca_enclave_nitro::Config {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("enclave.toml");
    std::fs::write(&file, arca_enclave_nitro::EXAMPLE).unwrap();
    arca_enclave_nitro::Config::load(&file).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn randomness_is_the_nsms_and_the_kernels() {
    let world = World::new();
    let platform = world.start();
    // An NSM that is stuck, and gives little at a time.
    for size in [1, 7, 256, 300] {
        world.nsm.set_fault(Fault::RandomPieces(size));
        let mut drawn = [[0; 600]; 2];
        for bytes in &mut drawn {
            platform.random(bytes).unwrap();
        }
        assert_ne!(drawn[0], drawn[1]);
        for window in drawn[0].chunks(24) {
            assert_ne!(window, &vec![0; window.len()]);
            assert_ne!(window, &vec![0x5a; window.len()]);
        }
    }
    for fault in [Fault::Random, Fault::RandomPieces(0)] {
        world.nsm.set_fault(fault);
        failed(platform.random(&mut [0; 32]));
    }
}

/// Waits until the platform has asked its NSM again, and says what time it told meanwhile: never an earlier one.
async fn until(platform: &NitroPlatform, reached: impl Fn(UnixMillis) -> bool) -> UnixMillis {
    let mut last = platform.now();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let waiting = async {
        loop {
            ticks.tick().await;
            let now = platform.now();
            assert!(now >= last, "{now:?} after {last:?}");
            last = now;
            if reached(now) {
                return now;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(300), waiting)
        .await
        .unwrap()
}

/// Waits until the platform has asked its NSM for the date once more, and used the answer: it asks again after that.
async fn asked_again(world: &World, platform: &NitroPlatform) {
    let before = world.nsm.dates_asked();
    until(platform, |_| world.nsm.dates_asked() > before + 1).await;
}

/// In the time of the runtime, which runs ahead; the platform's own clock does not.
#[tokio::test(start_paused = true)]
async fn time_follows_the_nsm_and_never_goes_back() {
    const HOUR: i64 = 3_600_000;
    let world = World::new();
    let platform = world.start();
    let start = platform.now();
    assert!(start.0.abs_diff(world.nsm.now().0) < 60_000);

    world.nsm.shift_clock(HOUR);
    let later = until(&platform, |now| now.0 >= start.0 + HOUR as u64).await;

    world.nsm.shift_clock(-HOUR);
    asked_again(&world, &platform).await;
    let held = platform.now();
    assert!(held >= later && held.0 - later.0 < HOUR as u64 / 2);
    // It asked, and stands still while real time goes by.
    let begin = std::time::Instant::now();
    until(&platform, |now| {
        assert_eq!(now, held);
        begin.elapsed() > Duration::from_millis(30)
    })
    .await;

    // An NSM that fails leaves the clock to itself.
    world.nsm.set_fault(Fault::Attestation);
    asked_again(&world, &platform).await;
    assert!(platform.now() >= held);
}
