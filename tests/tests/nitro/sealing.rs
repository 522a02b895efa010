//! Wrapping and unwrapping, with KMS as it should be and as it should not.

use std::time::Duration;

use arca_attestation::{Measurements, UnixMillis};
use arca_enclave::platform::{Platform as _, PlatformError};
use tonic::Status;

use crate::nsm::{MEASUREMENTS, SIGNER, SoftwareNsm};
use crate::standin::{ACCESS_KEY_ID, Authority, Mischief, Policy, SECRET, SERVER, TOKEN};
use crate::world::{POLICY, World, data_key, failed, unavailable};

const HEADER: &[u8] = b"the header of a blob";

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sealed_is_unsealed_after_a_restart_and_kms_is_asked_once_a_start() {
    let world = World::new();
    let first = world.start();
    let mut wrapped = Vec::new();
    for byte in 0..20 {
        wrapped.push(first.wrap(&data_key(byte), HEADER).await.unwrap());
    }
    let key = first.unwrap(&wrapped[7], HEADER).await.unwrap();
    assert_eq!(key.expose(), &[7; 32]);
    // A new key, and a look at whether it can be had again.
    assert_eq!(world.kms.take_calls(), ["GenerateDataKey", "Decrypt"]);
    assert_eq!(
        first.kek_id(),
        "kms:eu-central-1:1234abcd-12ab-34cd-56ef-1234567890ab"
    );
    drop(first);

    let second = world.start();
    let another = second.wrap(&data_key(99), HEADER).await.unwrap();
    assert_eq!(world.kms.take_calls(), ["GenerateDataKey", "Decrypt"]);
    for (byte, wrapped) in wrapped.iter().enumerate() {
        let key = second.unwrap(wrapped, HEADER).await.unwrap();
        assert_eq!(key.expose(), &[byte as u8; 32]);
    }
    assert_eq!(world.kms.take_calls(), ["Decrypt"]);
    let key = second.unwrap(&another, HEADER).await.unwrap();
    assert_eq!(key.expose(), &[99; 32]);
    assert!(world.kms.take_calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapped_key_that_was_altered_or_is_another_blobs_is_refused() {
    let world = World::new();
    world.kms.trust_signatures();
    let wrapped = {
        let platform = world.start();
        platform.wrap(&data_key(1), HEADER).await.unwrap()
    };
    let platform = world.start();
    for at in 0..wrapped.len() {
        let mut altered = wrapped.clone();
        altered[at] ^= 0x10;
        let refused = platform.unwrap(&altered, HEADER).await;
        assert!(matches!(refused, Err(PlatformError::NotAuthentic)), "{at}");
        let refused = platform.unwrap(&wrapped[..at], HEADER).await;
        assert!(matches!(refused, Err(PlatformError::NotAuthentic)), "{at}");
    }
    let refused = platform.unwrap(&wrapped, b"of another blob").await;
    assert!(matches!(refused, Err(PlatformError::NotAuthentic)));
    platform.unwrap(&wrapped, HEADER).await.unwrap();
}

/// KMS decides by the registers of the document, whatever the credentials.
#[tokio::test(flavor = "multi_thread")]
async fn another_image_or_signer_gets_nothing() {
    let mut world = World::new();
    let wrapped = world.start().wrap(&data_key(1), HEADER).await.unwrap();
    let other = Measurements {
        pcr0: [0xee; 48],
        ..MEASUREMENTS
    };
    for (measurements, signer) in [(other, SIGNER), (MEASUREMENTS, [0xee; 48])] {
        world.nsm = SoftwareNsm::measured(measurements, signer).into();
        let platform = world.start();
        for cause in [
            failed(platform.wrap(&data_key(2), HEADER).await),
            failed(platform.unwrap(&wrapped, HEADER).await),
        ] {
            assert!(cause.contains("AccessDeniedException"), "{cause}");
            assert!(cause.contains("PCR0 and PCR8"), "{cause}");
            assert!(cause.contains("request 0af2ad2c-"), "{cause}");
        }
        // A policy that is changed is in force at once, for whoever owns the key.
        world.kms.set_policy(Policy {
            pcr0: measurements.pcr0,
            pcr8: signer,
            ..POLICY
        });
        platform.unwrap(&wrapped, HEADER).await.unwrap();
        world.kms.set_policy(POLICY);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_would_not_give_the_key_out_again_shows_before_anything_is_sealed() {
    let world = World::new();
    world.kms.set_policy(Policy {
        allows_decrypt: false,
        ..POLICY
    });
    let platform = world.start();
    let refused = platform.wrap(&data_key(1), HEADER).await;
    let text = refused.unwrap_err().to_string();
    assert!(
        text.starts_with("opening a new key of AWS KMS again failed"),
        "{text}"
    );
    assert!(text.contains("AccessDeniedException"), "{text}");
    world.kms.set_policy(POLICY);
    platform.wrap(&data_key(1), HEADER).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_encryption_context_does_not_open() {
    let mut world = World::new();
    let wrapped = world.start().wrap(&data_key(1), HEADER).await.unwrap();
    for (cluster, party) in [
        (Some("sim-test"), Some("cto")),
        (Some("sim-other"), Some("ceo")),
        (None, Some("ceo")),
        (None, None),
    ] {
        world.config.cluster = cluster.map(str::to_owned);
        world.config.party = party.map(str::to_owned);
        let refused = world.start().unwrap(&wrapped, HEADER).await;
        assert!(matches!(refused, Err(PlatformError::NotAuthentic)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_refused_and_named() {
    let world = World::new();
    let platform = world.start();
    for (id, secret, token, kind) in [
        (
            ACCESS_KEY_ID,
            "another/SECRET",
            TOKEN,
            "InvalidSignatureException",
        ),
        ("ASIAOTHER", SECRET, TOKEN, "UnrecognizedClientException"),
        (ACCESS_KEY_ID, SECRET, "", "UnrecognizedClientException"),
    ] {
        world.host.set_credentials(Ok((id, secret, token)));
        let fresh = world.start();
        let cause = failed(fresh.wrap(&data_key(1), HEADER).await);
        assert!(cause.contains(kind), "{cause}");
        assert!(cause.contains("[kms] in host.toml"), "{cause}");
        assert!(!cause.contains(secret), "{cause}");
    }
    world
        .host
        .set_credentials(Err(Status::unavailable("no\u{1b}[31m role")));
    let fresh = world.start();
    let cause = unavailable(fresh.wrap(&data_key(1), HEADER).await);
    assert!(cause.contains(r"no\u{1b}[31m role"), "{cause}");
    world
        .host
        .set_credentials(Ok(("AKID\r\nx: y", SECRET, TOKEN)));
    let cause = unavailable(fresh.wrap(&data_key(1), HEADER).await);
    assert!(cause.contains("malformed"), "{cause}");

    world
        .host
        .set_credentials(Ok((ACCESS_KEY_ID, SECRET, TOKEN)));
    fresh.wrap(&data_key(1), HEADER).await.unwrap();
    drop(platform);
}

/// The host ends TLS itself, or shows a certificate that is not KMS', or not any more.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_prove_to_be_kms_is_told_nothing() {
    let world = World::new();
    let now = world.nsm.now();
    let hosts_own = Authority::new("root of the tests");
    for (tls, why) in [
        (hosts_own.server(SERVER, now, -3600, 3600), "certificate"),
        (
            world
                .authority
                .server("kms.us-east-1.amazonaws.com", now, -3600, 3600),
            "certificate",
        ),
        (world.authority.server(SERVER, now, -3600, -60), "expired"),
        (
            world.authority.server(SERVER, now, 600, 3600),
            "not valid yet",
        ),
    ] {
        world.kms.set_tls(tls);
        let cause = failed(world.start().wrap(&data_key(1), HEADER).await);
        assert!(cause.contains("does not prove to be KMS"), "{cause}");
        assert!(cause.contains(why), "{why}: {cause}");
    }
    assert!(world.kms.take_calls().is_empty());
    world
        .kms
        .set_tls(world.authority.server(SERVER, now, -3600, 3600));
    world.start().wrap(&data_key(1), HEADER).await.unwrap();
}

/// The host's clock, which is this machine's, has no part in it.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_judged_by_the_nsms_time() {
    let world = World::new();
    world.nsm.shift_clock(4 * 3600 * 1000);
    let ahead: UnixMillis = world.nsm.now();
    let cause = failed(world.start().wrap(&data_key(1), HEADER).await);
    assert!(cause.contains("expired"), "{cause}");
    world
        .kms
        .set_tls(world.authority.server(SERVER, ahead, -60, 3600));
    world.start().wrap(&data_key(1), HEADER).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn kms_may_go_away_and_come_back_while_the_enclave_serves() {
    let world = World::new();
    let earlier = world.start().wrap(&data_key(1), HEADER).await.unwrap();
    let platform = world.start();
    let own = platform.wrap(&data_key(2), HEADER).await.unwrap();

    world.host.set_up(false);
    let more = platform.wrap(&data_key(3), HEADER).await.unwrap();
    for (wrapped, byte) in [(&own, 2), (&more, 3)] {
        let key = platform.unwrap(wrapped, HEADER).await.unwrap();
        assert_eq!(key.expose(), &[byte; 32]);
    }
    let cause = unavailable(platform.unwrap(&earlier, HEADER).await);
    assert!(cause.contains("through the host"), "{cause}");
    let starting = world.start();
    unavailable(starting.wrap(&data_key(4), HEADER).await);

    world.host.set_up(true);
    let key = platform.unwrap(&earlier, HEADER).await.unwrap();
    assert_eq!(key.expose(), &[1; 32]);
    starting.wrap(&data_key(4), HEADER).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_kms_is_asked_again_for_a_while() {
    let world = World::new();
    for (status, kind) in [
        (400, "ThrottlingException"),
        (500, "KMSInternalException"),
        (503, "SomethingNew"),
    ] {
        world.kms.set_mischief(Mischief::Fails(status, kind, 2));
        let platform = world.start();
        platform.wrap(&data_key(1), HEADER).await.unwrap();

        world
            .kms
            .set_mischief(Mischief::Fails(status, kind, usize::MAX));
        let cause = unavailable(world.start().wrap(&data_key(1), HEADER).await);
        assert!(cause.contains(kind), "{cause}");
    }
    // What will not pass is not tried again.
    for kind in [
        "DisabledException",
        "KMSInvalidStateException",
        "NotFoundException",
    ] {
        world
            .kms
            .set_mischief(Mischief::Fails(400, kind, usize::MAX));
        let cause = failed(world.start().wrap(&data_key(1), HEADER).await);
        assert!(cause.contains(kind), "{cause}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_come_or_comes_too_slowly_is_given_up() {
    let mut world = World::new();
    world.patience.attempt = Duration::from_millis(700);
    world.patience.attempts = 2;
    for mischief in [Mischief::Silent, Mischief::Slow, Mischief::HangsUp] {
        world.kms.set_mischief(mischief);
        let platform = world.start();
        let cause = unavailable(platform.wrap(&data_key(1), HEADER).await);
        assert!(cause.contains("cannot be reached"), "{cause}");
    }
    world.patience.attempt = Duration::from_secs(20);
    world.kms.set_mischief(Mischief::None);
    world.start().wrap(&data_key(1), HEADER).await.unwrap();
}
