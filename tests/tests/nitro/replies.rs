//! Replies of KMS that are not what they should be.

use arca_enclave::platform::{Platform as _, PlatformError};

use crate::standin::Mischief;
use crate::world::{World, data_key, failed, unavailable};

const HEADER: &[u8] = b"the header of a blob";

/// Sealed at an earlier start, so that opening it takes a reply of KMS.
async fn sealed(world: &World) -> Vec<u8> {
    let platform = world.start();
    platform.wrap(&data_key(1), HEADER).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_in_der_is_read_too() {
    let world = World::new();
    world.kms.set_mischief(Mischief::Der);
    let wrapped = sealed(&world).await;
    let key = world.start().unwrap(&wrapped, HEADER).await.unwrap();
    assert_eq!(key.expose(), &[1; 32]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_was_tampered_with_in_any_byte_opens_nothing() {
    let world = World::new();
    world.kms.trust_signatures();
    let wrapped = sealed(&world).await;
    // What tells the forms apart are a few headers; a part of the bytes will do for the second.
    for (form, step) in [(Mischief::None, 1), (Mischief::Der, 5)] {
        let platform = world.start();
        // The new key of this start takes two replies of its own.
        platform.wrap(&data_key(2), HEADER).await.unwrap();
        world.kms.set_mischief(form);
        // A reply for another blob of that start tells what an honest one looks like; and is not remembered, since
        // this header is not the blob's.
        let refused = platform.unwrap(&wrapped, b"another header").await;
        assert!(matches!(refused, Err(PlatformError::NotAuthentic)));
        let honest = world.kms.last_envelope();
        // [0], 20 bytes: names the recipient's key. Nobody relies on it.
        let name = honest.windows(2).position(|two| two == [0x80, 20]).unwrap() + 2;
        let unnamed = |at: &usize| !(name..name + 20).contains(at);
        for at in (0..honest.len()).step_by(step).filter(unnamed) {
            let mut tampered = honest.clone();
            tampered[at] ^= 1 << (at % 8);
            world.kms.set_mischief(Mischief::Envelope(tampered));
            match platform.unwrap(&wrapped, HEADER).await {
                Err(PlatformError::Failed { cause, .. }) => {
                    assert!(cause.contains("CiphertextForRecipient"), "{at}: {cause}");
                }
                // The IV and the content give another key, which opens nothing.
                Err(PlatformError::NotAuthentic) => {}
                other => panic!("{at}: {other:?}"),
            }
        }
        // Every length of a published reply is tried where envelopes are read.
        for length in (0..honest.len()).step_by(31) {
            world
                .kms
                .set_mischief(Mischief::Envelope(honest[..length].to_vec()));
            failed(platform.unwrap(&wrapped, HEADER).await);
        }
        world.kms.set_mischief(Mischief::Envelope(honest));
        let key = platform.unwrap(&wrapped, HEADER).await.unwrap();
        assert_eq!(key.expose(), &[1; 32]);
        world.kms.set_mischief(Mischief::None);
    }
}

/// The host, say, recorded the reply to another enclave and plays it to this one: were TLS not in its way.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_to_another_enclaves_key_does_not_open() {
    let world = World::new();
    let wrapped = sealed(&world).await;
    let to_another = world.kms.last_envelope();
    let platform = world.start();
    world.kms.set_mischief(Mischief::Envelope(to_another));
    let cause = failed(platform.unwrap(&wrapped, HEADER).await);
    assert!(cause.contains("not for this enclave's key"), "{cause}");
    failed(platform.wrap(&data_key(2), HEADER).await);
    world.kms.set_mischief(Mischief::None);
    platform.unwrap(&wrapped, HEADER).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_of_another_key_or_in_the_clear_is_refused() {
    let world = World::new();
    let wrapped = sealed(&world).await;
    let mut causes = Vec::new();
    for mischief in [
        Mischief::KeyId(
            "arn:aws:kms:eu-central-1:444455556666:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        ),
        Mischief::Lacks("KeyId"),
        Mischief::Plaintext,
        Mischief::Lacks("CiphertextForRecipient"),
    ] {
        let platform = world.start();
        world.kms.set_mischief(mischief);
        let new = failed(platform.wrap(&data_key(2), HEADER).await);
        assert_eq!(failed(platform.unwrap(&wrapped, HEADER).await), new);
        causes.push(new);
        world.kms.set_mischief(Mischief::None);
    }
    for (cause, expected) in causes.iter().zip([
        "of another key",
        "of another key",
        "in the clear",
        "no CiphertextForRecipient",
    ]) {
        assert!(cause.contains(expected), "{cause}");
    }
    world.kms.set_mischief(Mischief::Lacks("CiphertextBlob"));
    let cause = failed(world.start().wrap(&data_key(2), HEADER).await);
    assert!(cause.contains("no CiphertextBlob"), "{cause}");
}

/// Sealed under a key that KMS does not have, everything would be lost at the next start.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_that_was_spoilt_on_its_way_is_not_sealed_under() {
    let world = World::new();
    world.kms.set_mischief(Mischief::SpoilsNewKeys);
    let platform = world.start();
    let cause = failed(platform.wrap(&data_key(1), HEADER).await);
    assert!(cause.contains("another one when opened again"), "{cause}");
    world.kms.set_mischief(Mischief::None);
    let wrapped = platform.wrap(&data_key(1), HEADER).await.unwrap();
    let key = world.start().unwrap(&wrapped, HEADER).await.unwrap();
    assert_eq!(key.expose(), &[1; 32]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_cut_huge_or_no_answer_is_refused() {
    let world = World::new();
    let head = |length: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
    let huge = [head(70_000).into_bytes(), vec![b' '; 70_000]].concat();
    let chunked = [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n11170\r\n".to_vec(),
        vec![b' '; 70_000],
        b"\r\n0\r\n\r\n".to_vec(),
    ]
    .concat();
    let long_head = [
        b"HTTP/1.1 200 OK\r\nx: ".to_vec(),
        vec![b'x'; 70_000],
        b"\r\n\r\n{}".to_vec(),
    ]
    .concat();
    for (bytes, expected) in [
        (huge, "more than 65536 bytes"),
        (chunked, "more than 65536 bytes"),
        (long_head, "refused"),
        (format!("{}{{}}", head(2)).into_bytes(), "no CiphertextBlob"),
        (format!("{}[]", head(2)).into_bytes(), "no reply of KMS"),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "refused"),
        (
            b"HTTP/1.1 403 Forbidden\r\ncontent-length: 9\r\n\r\n<html/>\r\n".to_vec(),
            "an error without a type",
        ),
    ] {
        world.kms.set_mischief(Mischief::Says(bytes));
        let cause = failed(world.start().wrap(&data_key(1), HEADER).await);
        assert!(cause.contains(expected), "{expected}: {cause}");
    }
    for bytes in [
        head(100).into_bytes(),
        b"HTTP/1.1 200 OK\r\ncontent-le".to_vec(),
        Vec::new(),
    ] {
        world.kms.set_mischief(Mischief::Says(bytes));
        unavailable(world.start().wrap(&data_key(1), HEADER).await);
    }
}
