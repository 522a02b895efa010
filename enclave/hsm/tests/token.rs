//! The platform on real modules, SoftHSM2 and Kryoptic: what it does, and what it does when they fail it.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::{
    fs,
    time::{Duration, Instant},
};

use arca_attestation::{Expected, ReferenceValues, TrustAnchors, TrustClass, verify_live};
use arca_enclave::platform::{DataKey, Platform as _, PlatformError};
use arca_enclave_hsm::HsmError;
use cryptoki::{
    mechanism::Mechanism,
    object::{Attribute, KeyType, ObjectClass},
    session::Session,
};
use support::{Kind, LABEL, PIN, World, runtime, start, text, until};

mod support;

const HEADER: &[u8] = b"which blob this key is for";

fn key() -> DataKey {
    DataKey::take(&mut [7; 32])
}

scenario!(keys_are_made_and_used_across_restarts, |world| {
    let config = world.plain_party();
    let wrapped = runtime().block_on(async {
        let platform = start(&config).await.unwrap();
        assert_eq!(platform.class(), TrustClass::Hsm);
        let identity = platform.identity().unwrap();
        let evidence = platform
            .evidence(&[3; 32], b"bound to", identity.spki())
            .await
            .unwrap();
        let reference = ReferenceValues::Hsm(vec![support::root_of(&world.at("certificates"))]);
        let expected = Expected {
            reference: &reference,
            nonce: &[3; 32],
            public_key: identity.spki(),
            user_data: b"bound to",
        };
        let anchors = TrustAnchors::hsm_only();
        let verified = verify_live(&evidence, &anchors, &expected, platform.now()).unwrap();
        assert_eq!(verified.class(), TrustClass::Hsm);
        // For no other key, whatever a caller says.
        let other = platform.evidence(&[3; 32], b"", b"another key").await;
        assert!(matches!(other, Err(PlatformError::Failed { .. })));

        // TLS: a DER signature under the same key, checked by what does not know the token.
        let signature = identity.sign(b"handshake").unwrap();
        use p384::ecdsa::{DerSignature, VerifyingKey, signature::Verifier as _};
        use p384::pkcs8::DecodePublicKey as _;
        let verifier = VerifyingKey::from_public_key_der(identity.spki()).unwrap();
        let signature = DerSignature::from_bytes(&signature).unwrap();
        verifier.verify(b"handshake", &signature).unwrap();

        let (mut one, mut two) = ([0; 32], [0; 32]);
        platform.random(&mut one).unwrap();
        platform.random(&mut two).unwrap();
        assert!(one != two && one != [0; 32]);

        let wrapped = platform.wrap(&key(), HEADER).await.unwrap();
        assert_ne!(wrapped, platform.wrap(&key(), HEADER).await.unwrap());
        assert!(!wrapped.windows(32).any(|window| window == [7; 32]));
        let unwrapped = platform.unwrap(&wrapped, HEADER).await.unwrap();
        assert_eq!(unwrapped.expose(), &[7; 32]);
        (wrapped, platform.kek_id())
    });
    // A restart, which in this process only the program can do: a child of this test starts over and unwraps.
    fs::write(world.at("wrapped"), &wrapped.0).unwrap();
    fs::write(world.at("kek_id"), wrapped.1).unwrap();
    again(&world, "after_a_restart");
});

/// Runs a part of a scenario in a fresh process on the same token.
fn again(_world: &World, part: &str) {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", part, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    assert!(
        child.status.success() && text(&child.stdout).contains("1 passed"),
        "{}\n{}",
        text(&child.stdout),
        text(&child.stderr)
    );
}

#[test]
#[ignore = "a part of a scenario"]
fn after_a_restart() {
    let Some(world) = World::here() else { return };
    let config = arca_enclave_hsm::Config::load(&world.at("enclave.toml")).unwrap();
    runtime().block_on(async {
        let platform = start(&config).await.unwrap();
        let kek_id = fs::read_to_string(world.at("kek_id")).unwrap();
        assert_eq!(platform.kek_id(), kek_id);
        let wrapped = fs::read(world.at("wrapped")).unwrap();
        let unwrapped = platform.unwrap(&wrapped, HEADER).await.unwrap();
        assert_eq!(unwrapped.expose(), &[7; 32]);
    });
}

scenario!(an_altered_wrapped_key_is_not_authentic, |world| {
    let config = world.plain_party();
    runtime().block_on(async {
        let platform = start(&config).await.unwrap();
        let wrapped = platform.wrap(&key(), HEADER).await.unwrap();
        for index in 0..wrapped.len() {
            let mut flipped = wrapped.clone();
            flipped[index] ^= 1;
            let refused = platform.unwrap(&flipped, HEADER).await;
            assert!(
                matches!(refused, Err(PlatformError::NotAuthentic)),
                "{index}: {refused:?}"
            );
        }
        for length in [0, 12, 59, 61, 4096] {
            let mut other = wrapped.clone();
            other.resize(length, 0);
            let refused = platform.unwrap(&other, HEADER).await;
            assert!(
                matches!(refused, Err(PlatformError::NotAuthentic)),
                "{length}: {refused:?}"
            );
        }
        let refused = platform.unwrap(&wrapped, b"another blob").await;
        assert!(
            matches!(refused, Err(PlatformError::NotAuthentic)),
            "{refused:?}"
        );
        // And the token has taken no harm.
        let unwrapped = platform.unwrap(&wrapped, HEADER).await.unwrap();
        assert_eq!(unwrapped.expose(), &[7; 32]);
    });
});

scenario!(a_wrapped_key_of_another_token_is_not_authentic, |world| {
    let config = world.plain_party();
    runtime().block_on(async {
        let platform = start(&config).await.unwrap();
        fs::write(
            world.at("wrapped"),
            platform.wrap(&key(), HEADER).await.unwrap(),
        )
        .unwrap();
        fs::write(world.at("kek_id"), platform.kek_id()).unwrap();
    });
    // Another token in the place of the first.
    let tokens = world.at("tokens");
    fs::rename(&tokens, world.at("tokens-of-the-first")).unwrap();
    fs::create_dir(&tokens).unwrap();
    again(&world, "on_another_token");
});

#[test]
#[ignore = "a part of a scenario"]
fn on_another_token() {
    let Some(world) = World::here() else { return };
    let config = world.plain_party();
    runtime().block_on(async {
        let platform = start(&config).await.unwrap();
        let kek_id = fs::read_to_string(world.at("kek_id")).unwrap();
        assert_ne!(platform.kek_id(), kek_id);
        let wrapped = fs::read(world.at("wrapped")).unwrap();
        let refused = platform.unwrap(&wrapped, HEADER).await;
        assert!(
            matches!(refused, Err(PlatformError::NotAuthentic)),
            "{refused:?}"
        );
    });
}

scenario!(a_wrong_pin_is_tried_once, |world| {
    let config = world.shimmed_party();
    world.write_pin("9999zzzz", 0o600);
    let before = world.logins();
    runtime().block_on(async {
        let refused = start(&config).await.unwrap_err();
        assert!(refused.is_about_pin(), "{refused}");
        let message = refused.to_string();
        assert!(
            message.contains("the PIN is wrong") && message.contains(LABEL),
            "{message}"
        );
        assert!(message.contains("correct the PIN file"), "{message}");
        assert!(!message.contains("9999"), "{message}");
    });
    assert_eq!(world.logins(), before + 1);
    // The program says the same, tries once, and its exit code tells a supervisor not to start it again.
    let output = world.program(&[]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("the PIN is wrong"));
    assert_eq!(world.logins(), before + 2);
});

scenario!(a_pin_that_changes_while_serving_is_tried_once, |world| {
    let config = world.shimmed_party();
    runtime().block_on(async {
        let platform = start(&config).await.unwrap();
        // Somebody changes the PIN by another program; then the session is lost.
        change_pin(&world);
        // SoftHSM knows the old PIN until it is initialised again.
        world.trigger(Some("error 32"));
        let refused = async || platform.wrap(&key(), HEADER).await.unwrap_err().to_string();
        let first = refused().await;
        assert!(first.contains("the PIN is wrong"), "{first}");
        world.trigger(None);
        let before = world.logins();
        for _ in 0..10 {
            let again = refused().await;
            assert!(again.contains("until this program is restarted"), "{again}");
        }
        assert_eq!(world.logins(), before);
    });
});

/// In another process, as a security officer would.
fn change_pin(_world: &World) {
    again(_world, "changing_the_pin");
}

#[test]
#[ignore = "a part of a scenario"]
fn changing_the_pin() {
    let Some(world) = World::here() else { return };
    world.with_session(|session| {
        let (old, new) = (PIN.to_owned().into(), "another1".to_owned().into());
        session.set_pin(&old, &new).unwrap();
    });
}

/// Kryoptic counts wrong PINs and locks at ten: the last try is never ours. SoftHSM counts none.
#[test]
fn the_last_try_is_never_made() {
    support::run(Kind::Kryoptic, "one_try_left");
}

#[test]
#[ignore = "a part of a scenario"]
fn one_try_left() {
    let Some(world) = World::here() else { return };
    let config = world.shimmed_party();
    let state = world.with_module(|pkcs11| {
        let slot = support::slot_of(pkcs11, LABEL);
        let wrong = "9999zzzz".to_owned().into();
        for _ in 0..20 {
            let token = pkcs11.get_token_info(slot).unwrap();
            if token.user_pin_final_try() || token.user_pin_locked() {
                break;
            }
            let session = pkcs11.open_rw_session(slot).unwrap();
            let _ = session.login(cryptoki::session::UserType::User, Some(&wrong));
        }
        let token = pkcs11.get_token_info(slot).unwrap();
        (token.user_pin_final_try(), token.user_pin_locked())
    });
    assert_ne!(state, (false, false));
    let before = world.logins();
    runtime().block_on(async {
        let refused = start(&config).await.unwrap_err();
        assert!(refused.is_about_pin(), "{refused}");
        let expected = if state.1 {
            "is locked"
        } else {
            "one more wrong PIN locks the token"
        };
        assert!(refused.to_string().contains(expected), "{refused}");
    });
    assert_eq!(world.logins(), before, "the PIN was tried");
}

scenario!(a_token_that_is_missing_at_the_start_is_named, |world| {
    let config = world.plain_party();
    fs::rename(world.at("tokens"), world.at("away")).unwrap();
    fs::create_dir(world.at("tokens")).unwrap();
    let output = world.program(&[]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(
        error.contains(&format!("no token with label `{LABEL}` is present")),
        "{error}"
    );
    let mut config = config;
    config.token = arca_enclave_hsm::TokenChoice::Serial("0000".to_owned());
    runtime().block_on(async {
        let refused = start(&config).await.unwrap_err();
        assert!(matches!(refused, HsmError::NoToken { .. }), "{refused}");
    });
});

scenario!(a_token_that_vanishes_comes_back, |world| {
    let config = world.plain_party();
    runtime().block_on(async {
        let platform = start(&config).await.unwrap();
        let wrapped = platform.wrap(&key(), HEADER).await.unwrap();
        fs::rename(world.at("tokens"), world.at("away")).unwrap();
        // Modules may serve from memory for a while; a token that is looked for again is not found.
        let seen = until("the loss shows, or the module needs no files", async || {
            match platform.unwrap(&wrapped, HEADER).await {
                Err(PlatformError::Failed { cause, .. }) => Some(Some(cause)),
                Err(error) => panic!("a token that is away makes no statement on keys: {error}"),
                // Kryoptic has its database open.
                Ok(_) if world.kind == Kind::Kryoptic => Some(None),
                Ok(_) => None,
            }
        })
        .await;
        if let Some(cause) = seen {
            assert!(!cause.is_empty());
            // Fails fast meanwhile: nobody waits for a token that is not there.
            let begin = Instant::now();
            assert!(platform.wrap(&key(), HEADER).await.is_err());
            assert!(begin.elapsed() < Duration::from_secs(5));
        }
        fs::rename(world.at("away"), world.at("tokens")).unwrap();
        let unwrapped = until("the token is back", async || {
            platform.unwrap(&wrapped, HEADER).await.ok()
        })
        .await;
        assert_eq!(unwrapped.expose(), &[7; 32]);
        platform.identity().unwrap().sign(b"again").unwrap();
    });
});

scenario!(lost_sessions_are_opened_again, |world| {
    let config = world.shimmed_party();
    runtime().block_on(async {
        let platform = start(&config).await.unwrap();
        for _ in 0..5 {
            world.trigger(Some("sessions"));
            let wrapped = platform.wrap(&key(), HEADER).await.unwrap();
            world.trigger(Some("sessions"));
            let unwrapped = platform.unwrap(&wrapped, HEADER).await.unwrap();
            assert_eq!(unwrapped.expose(), &[7; 32]);
            world.trigger(Some("sessions"));
            platform.identity().unwrap().sign(b"message").unwrap();
        }
    });
});

scenario!(a_broken_token_is_no_judge_of_keys, |world| {
    let config = world.shimmed_party();
    runtime().block_on(async {
        let platform = start(&config).await.unwrap();
        let wrapped = platform.wrap(&key(), HEADER).await.unwrap();
        // CKR_GENERAL_ERROR is also what a bad tag gives on SoftHSM; CKR_DEVICE_ERROR; CKR_DEVICE_REMOVED.
        for code in ["5", "30", "32", "40"] {
            world.trigger(Some(&format!("error {code}")));
            let failed = platform.unwrap(&wrapped, HEADER).await;
            assert!(
                matches!(failed, Err(PlatformError::Failed { .. })),
                "{code}: {failed:?}"
            );
            assert!(
                platform.random(&mut [0; 32]).is_err(),
                "{code}: no half randomness"
            );
            world.trigger(None);
            let unwrapped = until("the token works again", async || {
                platform.unwrap(&wrapped, HEADER).await.ok()
            })
            .await;
            assert_eq!(unwrapped.expose(), &[7; 32]);
        }
    });
});

scenario!(a_slow_module_only_takes_longer, |world| {
    let config = world.shimmed_party();
    runtime().block_on(async {
        let platform = start(&config).await.unwrap();
        world.trigger(Some("delay 300"));
        let begin = Instant::now();
        platform.wrap(&key(), HEADER).await.unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(300));
    });
});

scenario!(a_hanging_module_blocks_nobody, |world| {
    let config = world.shimmed_party();
    // One thread for the runtime: were it blocked, no timer would fire.
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let platform = start(&config).await.unwrap();
        world.trigger(Some("hang"));
        let ticking = tokio::spawn(async {
            let mut interval = tokio::time::interval(Duration::from_millis(10));
            let begin = Instant::now();
            let mut worst = Duration::ZERO;
            let mut last = Instant::now();
            while begin.elapsed() < Duration::from_millis(1500) {
                interval.tick().await;
                worst = worst.max(last.elapsed());
                last = Instant::now();
            }
            worst
        });
        let begin = Instant::now();
        let error = platform.wrap(&key(), HEADER).await.unwrap_err().to_string();
        assert!(
            error.contains("the module did not answer within 2 s"),
            "{error}"
        );
        assert!(begin.elapsed() < Duration::from_secs(6));
        assert!(
            ticking.await.unwrap() < Duration::from_secs(1),
            "the runtime stood still"
        );
        // Also for those who cannot await, and once every thread hangs.
        let signing = platform.identity().unwrap().sign(b"message").unwrap_err();
        assert!(signing.to_string().contains("did not answer"), "{signing}");
        assert!(platform.random(&mut [0; 8]).is_err());
    });
    // Threads that hang in the module for ever are left behind.
    runtime.shutdown_background();
});

scenario!(
    a_module_that_crashes_the_process_leaves_a_token_that_starts_again,
    |world| {
        let config = world.shimmed_party();
        runtime().block_on(async {
            let platform = start(&config).await.unwrap();
            fs::write(
                world.at("wrapped"),
                platform.wrap(&key(), HEADER).await.unwrap(),
            )
            .unwrap();
            fs::write(world.at("kek_id"), platform.kek_id()).unwrap();
        });
        world.trigger(Some("abort"));
        let crashed = world.program(&[]);
        assert_eq!(
            crashed.status.code(),
            None,
            "a signal ended it: {crashed:?}"
        );
        world.trigger(None);
        again(&world, "after_a_restart");
    }
);

scenario!(a_missing_key_is_named, |world| {
    let config = world.plain_party();
    world.with_session(|session| {
        let kek = labelled(session, ObjectClass::SECRET_KEY, "arca-kek");
        session.destroy_object(kek[0]).unwrap();
    });
    runtime().block_on(async {
        let error = start(&config).await.unwrap_err();
        assert!(matches!(error, HsmError::MissingObject { .. }), "{error}");
        let message = error.to_string();
        for part in ["no secret key", "`arca-kek`", LABEL, "restore the token"] {
            assert!(message.contains(part), "{message}");
        }
    });
});

scenario!(two_keys_of_one_label_are_refused, |world| {
    let config = world.plain_party();
    world.with_session(|session| {
        session
            .generate_key(&Mechanism::AesKeyGen, &kek(true, false))
            .unwrap();
    });
    runtime().block_on(async {
        let error = start(&config).await.unwrap_err();
        assert!(
            matches!(error, HsmError::ManyObjects { count: 2, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("`arca-kek`"), "{error}");
    });
});

scenario!(a_key_is_never_replaced, |world| {
    world.plain_party();
    let again = world.program(&["init"]);
    assert_eq!(again.status.code(), Some(1));
    let error = text(&again.stderr);
    assert!(
        error.contains("already has an object labelled `arca-kek`"),
        "{error}"
    );
    world.with_session(|session| {
        assert_eq!(
            labelled(session, ObjectClass::SECRET_KEY, "arca-kek").len(),
            1
        );
        assert_eq!(
            labelled(session, ObjectClass::PRIVATE_KEY, "arca-identity").len(),
            1
        );
    });
});

scenario!(a_key_that_can_be_taken_out_is_refused, |world| {
    let config = world.plain_party();
    world.with_session(|session| {
        let real = labelled(session, ObjectClass::SECRET_KEY, "arca-kek");
        session.destroy_object(real[0]).unwrap();
        session
            .generate_key(&Mechanism::AesKeyGen, &kek(true, true))
            .unwrap();
    });
    refuses_the_kek(&world, "CKA_EXTRACTABLE");
    drop(config);
});

scenario!(a_key_that_came_from_outside_is_refused, |world| {
    world.plain_party();
    world.with_session(|session| {
        let real = labelled(session, ObjectClass::SECRET_KEY, "arca-kek");
        session.destroy_object(real[0]).unwrap();
        let mut imported: Vec<_> = kek(true, false)
            .into_iter()
            .filter(|one| !matches!(one, Attribute::ValueLen(_)))
            .collect();
        imported.push(Attribute::Value(vec![9; 32]));
        session.create_object(&imported).unwrap();
    });
    refuses_the_kek(&world, "CKA_ALWAYS_SENSITIVE");
});

fn refuses_the_kek(world: &World, attribute: &str) {
    let output = world.program(&[]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(
        error.contains("key `arca-kek` is refused") && error.contains(attribute),
        "{error}"
    );
    assert!(error.contains("never imported"), "{error}");
}

/// As `init` makes it, but for what the test is about.
fn kek(sensitive: bool, extractable: bool) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::ValueLen(32_u64.into()),
        Attribute::Label(b"arca-kek".to_vec()),
        Attribute::Id(vec![1; 16]),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(sensitive),
        Attribute::Extractable(extractable),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ]
}

fn labelled(
    session: &Session,
    class: ObjectClass,
    label: &str,
) -> Vec<cryptoki::object::ObjectHandle> {
    let template = [
        Attribute::Class(class),
        Attribute::Label(label.as_bytes().to_vec()),
    ];
    session.find_objects(&template).unwrap()
}

scenario!(a_certificate_of_another_key_is_refused, |world| {
    let config = world.plain_party();
    let other = p384::ecdsa::SigningKey::random(&mut rand_core::OsRng);
    let other = spki::SubjectPublicKeyInfoOwned::from_key(*other.verifying_key()).unwrap();
    support::certify(&other, &world.at("certificates"));
    runtime().block_on(async {
        let error = start(&config).await.unwrap_err();
        assert!(matches!(error, HsmError::Certificates(_)), "{error}");
        assert!(
            error.to_string().contains("arca-enclave-hsm request"),
            "{error}"
        );
    });
});

scenario!(pin_files_that_others_may_read_are_refused, |world| {
    let config = world.plain_party();
    for mode in [0o640, 0o604, 0o620, 0o666, 0o700] {
        world.write_pin(PIN, mode);
        // The umask takes bits away.
        let path = world.at("pin");
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(&path, permissions).unwrap();
        let error = config.pin.read().unwrap_err().to_string();
        assert!(error.contains("chmod 0600"), "{mode:o}: {error}");
    }
    for (pin, fails) in [
        ("", true),
        ("\n", true),
        (&"1".repeat(257), true),
        (PIN, false),
    ] {
        world.write_pin(pin, 0o600);
        assert_eq!(config.pin.read().is_err(), fails, "{pin:?}");
    }
    world.write_pin(PIN, 0o400);
    let output = world.program(&["request", "--cluster", "demo", "--party", "ceo"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
});

scenario!(a_probe_says_what_is_there, |world| {
    world.plain_party();
    let output = world.program(&["probe", "--output", "json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = text(&output.stdout);
    for part in [
        "CKM_AES_GCM",
        "ECDSA on a new P-384 key",
        "keys cannot be taken out",
    ] {
        assert!(report.contains(part), "{report}");
    }
    assert!(!report.contains("missing\""), "{report}");
    let table = text(&world.program(&["probe"]).stdout);
    assert!(table.contains("ok       CKM_AES_KEY_GEN"), "{table}");
});
