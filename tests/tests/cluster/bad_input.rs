//! Nonsense at every method and at the door: a specific refusal, and the party goes on.

use std::time::Duration;

use arca_channel::{Identity, Target};
use arca_client::{Client, Key, Payload, Scheme};
use arca_proto::v1::{
    CreateKeyRequest, CreateSigningRequestRequest, EnrollRequest, GetEvidenceRequest,
    GetKeyRequest, GetOperationRequest, GetSigningRequestRequest, ListKeysRequest,
    ListSigningRequestsRequest, PingRequest, SignedManifest, SigningPayload, WaitOperationRequest,
    WatchSigningRequestRequest, key_service_client::KeyServiceClient,
    operation_service_client::OperationServiceClient, party_service_client::PartyServiceClient,
    peer_service_client::PeerServiceClient, signing_payload::Payload as Wire,
    signing_service_client::SigningServiceClient,
};
use rand_core::OsRng;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use tonic::{Code, Status};

use crate::common::{
    PATIENCE, Running, authorize, new_key, psbt, psbt_payload, reason, running, solana_transfer,
    timestamp,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_method_refuses_nonsense_by_name_and_goes_on() {
    let running = running().await;
    let ceo = running.client("ceo").await;
    let bitcoin = new_key(&ceo, Scheme::Bip340, "bitcoin").await;
    let solana = new_key(&ceo, Scheme::Ed25519, "solana").await;

    keys(&running).await;
    parties(&running).await;
    requests(&running, &bitcoin, &solana).await;
    payloads(&running, &ceo, &bitcoin, &solana).await;

    let payload = psbt_payload(&bitcoin, 50_000);
    ceo.sign(&bitcoin.name, "afterwards", &payload, PATIENCE)
        .await
        .unwrap();
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, expected: &str) {
    let status = outcome.map(|_| ()).expect_err(expected);
    assert_eq!(reason(&status), (code, expected.to_owned()), "{status:?}");
}

async fn keys(running: &Running) {
    let channel = running.raw_treasury("ceo").await;
    let mut service = KeyServiceClient::new(channel.clone());
    let good = CreateKeyRequest {
        request_id: "x".into(),
        display_name: "x".into(),
        scheme: 1,
        threshold: 2,
        parties: Vec::new(),
        allow_raw_digest: false,
    };
    let two = vec!["ceo".to_owned(), "cto".to_owned()];
    for (bad, expected) in [
        (
            CreateKeyRequest {
                request_id: String::new(),
                ..good.clone()
            },
            "INVALID_REQUEST_ID",
        ),
        (
            CreateKeyRequest {
                request_id: "a/b".into(),
                ..good.clone()
            },
            "INVALID_REQUEST_ID",
        ),
        (
            CreateKeyRequest {
                request_id: "a".repeat(65),
                ..good.clone()
            },
            "INVALID_REQUEST_ID",
        ),
        (
            CreateKeyRequest {
                scheme: 0,
                ..good.clone()
            },
            "INVALID_ARGUMENT",
        ),
        (
            CreateKeyRequest {
                scheme: 99,
                ..good.clone()
            },
            "INVALID_ARGUMENT",
        ),
        (
            CreateKeyRequest {
                threshold: 1,
                ..good.clone()
            },
            "INVALID_ARGUMENT",
        ),
        (
            CreateKeyRequest {
                threshold: 4,
                ..good.clone()
            },
            "INVALID_ARGUMENT",
        ),
        (
            CreateKeyRequest {
                threshold: u32::MAX,
                ..good.clone()
            },
            "INVALID_ARGUMENT",
        ),
        (
            CreateKeyRequest {
                threshold: 3,
                parties: two,
                ..good.clone()
            },
            "INVALID_ARGUMENT",
        ),
        (
            CreateKeyRequest {
                parties: vec!["ceo".into(); 2],
                ..good.clone()
            },
            "INVALID_ARGUMENT",
        ),
        (
            CreateKeyRequest {
                display_name: "a".repeat(65),
                ..good.clone()
            },
            "INVALID_ARGUMENT",
        ),
        (
            CreateKeyRequest {
                display_name: "\u{1b}[2J".into(),
                ..good.clone()
            },
            "INVALID_ARGUMENT",
        ),
        (
            CreateKeyRequest {
                parties: vec!["ceo".into(), "cfo".into()],
                ..good.clone()
            },
            "UNKNOWN_PARTY",
        ),
        (
            CreateKeyRequest {
                parties: vec!["cto".into(), "cloud".into()],
                ..good.clone()
            },
            "NOT_A_PARTY_OF_THE_KEY",
        ),
    ] {
        refused(
            service.create_key(bad).await,
            Code::InvalidArgument,
            expected,
        );
    }
    for name in [
        "",
        "keys/",
        "keys/../party",
        "party",
        &"keys/0".repeat(1000),
    ] {
        let name = name.to_owned();
        refused(
            service.get_key(GetKeyRequest { name }).await,
            Code::InvalidArgument,
            "INVALID_NAME",
        );
    }
    let name = format!("keys/{}", "0".repeat(32));
    refused(
        service.get_key(GetKeyRequest { name }).await,
        Code::NotFound,
        "KEY_NOT_FOUND",
    );
    let page = ListKeysRequest {
        page_size: 1,
        page_token: "../..".into(),
    };
    refused(
        service.list_keys(page).await,
        Code::InvalidArgument,
        "INVALID_PAGE_TOKEN",
    );

    let mut service = OperationServiceClient::new(channel);
    let name = format!("operations/{}", "0".repeat(32));
    let unknown = GetOperationRequest { name: name.clone() };
    refused(
        service.get_operation(unknown).await,
        Code::NotFound,
        "OPERATION_NOT_FOUND",
    );
    let bad = GetOperationRequest {
        name: "operations".into(),
    };
    refused(
        service.get_operation(bad).await,
        Code::InvalidArgument,
        "INVALID_NAME",
    );
    let unknown = WaitOperationRequest {
        name: name.clone(),
        timeout_ms: 0,
    };
    refused(
        service.wait_operation(unknown).await,
        Code::NotFound,
        "OPERATION_NOT_FOUND",
    );
    let long = WaitOperationRequest {
        name,
        timeout_ms: u32::MAX,
    };
    refused(
        service.wait_operation(long).await,
        Code::InvalidArgument,
        "INVALID_ARGUMENT",
    );
}

async fn parties(running: &Running) {
    let mut service = PartyServiceClient::new(running.raw_treasury("ceo").await);
    for length in [0, 15, 65, 5000] {
        let request = GetEvidenceRequest {
            nonce: vec![1; length],
        };
        refused(
            service.get_evidence(request).await,
            Code::InvalidArgument,
            "INVALID_ARGUMENT",
        );
    }
    let nobody = PingRequest {
        party: "cfo\n".into(),
    };
    refused(service.ping(nobody).await, Code::NotFound, "UNKNOWN_PARTY");
    let none = EnrollRequest { manifest: None };
    refused(
        service.enroll(none).await,
        Code::InvalidArgument,
        "INVALID_ARGUMENT",
    );
    for manifest in [b"".as_slice(), b"{", &[0xff; 100], &vec![b' '; 100_000]] {
        let manifest = SignedManifest {
            manifest: manifest.to_vec(),
            signatures: Vec::new(),
        };
        let request = EnrollRequest {
            manifest: Some(manifest),
        };
        refused(
            service.enroll(request).await,
            Code::FailedPrecondition,
            "MANIFEST_REFUSED",
        );
    }
}

/// Makes a good request bad.
type Spoil = fn(&mut CreateSigningRequestRequest);

async fn requests(running: &Running, bitcoin: &Key, solana: &Key) {
    let mut service = SigningServiceClient::new(running.raw_treasury("ceo").await);
    let good = || running.authorized(&bitcoin.name, "n1", &psbt_payload(bitcoin, 50_000));
    let cases: [(&str, Code, Spoil); 9] = [
        ("INVALID_REQUEST_ID", Code::InvalidArgument, |r| {
            r.request_id = "\u{0}".into()
        }),
        ("INVALID_NAME", Code::InvalidArgument, |r| {
            r.key = "keys/x".into()
        }),
        ("INVALID_ARGUMENT", Code::InvalidArgument, |r| {
            r.payload = None
        }),
        ("INVALID_ARGUMENT", Code::InvalidArgument, |r| {
            r.expire_time = None
        }),
        ("INVALID_ARGUMENT", Code::InvalidArgument, |r| {
            r.expire_time = Some(timestamp(arca_client::clock::now().0 + 2 * 3_600_000));
        }),
        ("EXPIRED", Code::DeadlineExceeded, |r| {
            r.expire_time = Some(timestamp(1_000))
        }),
        ("NOT_AUTHORIZED_BY_INITIATOR", Code::PermissionDenied, |r| {
            r.authorization.clear()
        }),
        ("NOT_AUTHORIZED_BY_INITIATOR", Code::PermissionDenied, |r| {
            r.authorization[5] ^= 1
        }),
        ("NOT_AUTHORIZED_BY_INITIATOR", Code::PermissionDenied, |r| {
            r.request_id = "n2".into()
        }),
    ];
    for (expected, code, spoil) in cases {
        let mut request = good();
        spoil(&mut request);
        refused(
            service.create_signing_request(request).await,
            code,
            expected,
        );
    }
    // Whoever authorizes has to be the one who calls, and each field is under the signature.
    let stranger = Identity::generate(&mut OsRng).unwrap();
    let payload = psbt_payload(bitcoin, 50_000);
    for (identity, cluster, name) in [
        (&stranger, running.cluster.id(), "treasury"),
        (&running.treasury(), "sim-other", "treasury"),
        (&running.treasury(), running.cluster.id(), "cfo"),
    ] {
        let request = authorize(identity, cluster, name, &bitcoin.name, "n3", &payload);
        let outcome = service.create_signing_request(request).await;
        refused(
            outcome,
            Code::PermissionDenied,
            "NOT_AUTHORIZED_BY_INITIATOR",
        );
    }
    let mut swapped = good();
    swapped.key = solana.name.clone();
    let outcome = service.create_signing_request(swapped).await;
    refused(
        outcome,
        Code::PermissionDenied,
        "NOT_AUTHORIZED_BY_INITIATOR",
    );
    let unknown = format!("keys/{}", "0".repeat(32));
    let unknown = running.authorized(&unknown, "n4", &psbt_payload(bitcoin, 50_000));
    refused(
        service.create_signing_request(unknown).await,
        Code::NotFound,
        "KEY_NOT_FOUND",
    );

    let name = format!("signingRequests/{}", "0".repeat(32));
    let get = GetSigningRequestRequest { name: name.clone() };
    let outcome = service.get_signing_request(get).await;
    refused(outcome, Code::NotFound, "SIGNING_REQUEST_NOT_FOUND");
    let watch = WatchSigningRequestRequest {
        name,
        after_revision: u64::MAX,
    };
    let outcome = service.watch_signing_request(watch).await;
    refused(outcome, Code::NotFound, "SIGNING_REQUEST_NOT_FOUND");
    let get = GetSigningRequestRequest {
        name: bitcoin.name.clone(),
    };
    refused(
        service.get_signing_request(get).await,
        Code::InvalidArgument,
        "INVALID_NAME",
    );
    let page = ListSigningRequestsRequest {
        page_size: u32::MAX,
        page_token: "x".into(),
    };
    refused(
        service.list_signing_requests(page).await,
        Code::InvalidArgument,
        "INVALID_PAGE_TOKEN",
    );

    let mut huge = good();
    huge.payload = Some(SigningPayload {
        payload: Some(Wire::Psbt(vec![0; 2 << 20])),
    });
    let status = service.create_signing_request(huge).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
}

async fn payloads(running: &Running, ceo: &Client, bitcoin: &Key, solana: &Key) {
    let mut service = SigningServiceClient::new(running.raw_treasury("ceo").await);
    let foreign = psbt(&[2; 32], 1, 50_000).0.serialize();
    let (mut no_utxo, _) = psbt(bitcoin.public_key.bip340().unwrap(), 1, 50_000);
    no_utxo.inputs[0].witness_utxo = None;
    let transfer = solana_transfer(&[1; 32], 5);
    for (key, payload, expected) in [
        (bitcoin, Payload::Psbt(foreign), "PSBT_NO_INPUT_OF_KEY"),
        (
            bitcoin,
            Payload::Psbt(no_utxo.serialize()),
            "PSBT_MISSING_UTXO",
        ),
        (bitcoin, Payload::Psbt(vec![0xff; 300]), "PAYLOAD_MALFORMED"),
        (bitcoin, Payload::Psbt(Vec::new()), "PAYLOAD_MALFORMED"),
        (bitcoin, Payload::SolanaMessage(transfer), "SCHEME_MISMATCH"),
        (solana, psbt_payload(bitcoin, 50_000), "SCHEME_MISMATCH"),
        (solana, Payload::SolanaMessage(vec![1]), "PAYLOAD_MALFORMED"),
    ] {
        let request = running.authorized(&key.name, "p", &payload);
        let outcome = service.create_signing_request(request).await;
        refused(outcome, Code::InvalidArgument, expected);
    }
    let shut = arca_client::NewKey {
        request_id: "no-digests".into(),
        display_name: "no digests".into(),
        scheme: Scheme::Bip340,
        threshold: 2,
        parties: Vec::new(),
        allow_raw_digest: false,
    };
    let shut = ceo.create_key(&shut, PATIENCE).await.unwrap();
    let request = running.authorized(&shut.name, "p", &Payload::Digest([3; 32]));
    let outcome = service.create_signing_request(request).await;
    refused(outcome, Code::PermissionDenied, "RAW_DIGEST_NOT_ALLOWED");

    // A refused admission does not burn the request id.
    let payload = psbt_payload(bitcoin, 50_000);
    ceo.sign(&bitcoin.name, "p", &payload, PATIENCE)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_principal_gets_nothing_but_evidence() {
    let running = running().await;
    let stranger = || Identity::generate(&mut OsRng).unwrap();
    let channel = running
        .raw("ceo", stranger(), Target::Observe("ceo".into()))
        .await;
    let not_a_principal =
        |outcome: Result<(), Status>| refused(outcome, Code::Unauthenticated, "NOT_A_PRINCIPAL");
    let mut keys = KeyServiceClient::new(channel.clone());
    not_a_principal(keys.list_keys(ListKeysRequest::default()).await.map(drop));
    not_a_principal(keys.create_key(CreateKeyRequest::default()).await.map(drop));
    let mut parties = PartyServiceClient::new(channel.clone());
    not_a_principal(parties.ping(PingRequest::default()).await.map(drop));
    not_a_principal(parties.enroll(EnrollRequest::default()).await.map(drop));
    let mut signing = SigningServiceClient::new(channel.clone());
    let request = CreateSigningRequestRequest::default();
    not_a_principal(signing.create_signing_request(request).await.map(drop));
    let mut peers = PeerServiceClient::new(channel.clone());
    not_a_principal(peers.exchange(tokio_stream::empty()).await.map(drop));

    // Nor do principals get what is between parties.
    let mut peers = PeerServiceClient::new(running.raw_treasury("ceo").await);
    not_a_principal(peers.exchange(tokio_stream::empty()).await.map(drop));
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_silence_and_floods_at_the_door_leave_the_party_serving() {
    let running = running().await;
    let address = running.address("ceo");
    // From another address, never says a word, a hundred times over; stays until it is thrown out.
    let mut silent = Vec::new();
    for _ in 0..100 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        silent.push(socket.connect(address).await.unwrap());
    }
    for garbage in [
        b"GET / HTTP/1.1\r\nHost: arca\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        vec![0; 70_000],
        vec![0xff; 70_000],
        [&[0x16, 3, 1, 0xff, 0xff][..], &[1; 5000]].concat(),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The other side may hang up before it has read everything.
        let _ = stream.write_all(&garbage).await;
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer));
        // At most a TLS alert comes back, then the end of the stream or a reset.
        let _ = closed
            .await
            .expect("garbage is answered with a closed connection");
        assert!(answer.len() < 100, "{} bytes came back", answer.len());
    }
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;
    ceo.sign(&key.name, "r", &psbt_payload(&key, 50_000), PATIENCE)
        .await
        .unwrap();
    drop(silent);
}
