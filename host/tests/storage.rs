//! The storage service, through its socket.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

mod common;

use arca_host::{ArchivePlace, Error, Host, STORAGE_SOCKET};
use arca_proto::v1::storage_service_client::StorageServiceClient;
use arca_proto::v1::{GetBlobRequest, ListBlobsRequest};
use common::{Running, config_in, folder, sockets_of, soon, storage_at, to_put};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Status};

type Storage = StorageServiceClient<Channel>;

const MIB: usize = 1024 * 1024;

async fn put(storage: &mut Storage, name: &str, blob: &[u8]) -> Result<(), Status> {
    soon(storage.put_blobs(to_put(&[(name, blob)])))
        .await
        .map(|_| ())
}

async fn get(storage: &mut Storage, name: &str) -> Result<Vec<u8>, Status> {
    let request = GetBlobRequest { name: name.into() };
    soon(storage.get_blob(request))
        .await
        .map(|response| response.into_inner().blob)
}

async fn list(
    storage: &mut Storage,
    prefix: &str,
    after: &str,
    page_size: u32,
) -> Result<Vec<String>, Status> {
    let request = ListBlobsRequest {
        prefix: prefix.into(),
        after: after.into(),
        page_size,
    };
    soon(storage.list_blobs(request))
        .await
        .map(|response| response.into_inner().names)
}

#[tokio::test]
async fn what_was_put_comes_back_and_is_replaced_whole() {
    let running = Running::start().await;
    let mut storage = running.storage().await;
    assert_eq!(
        get(&mut storage, "keys/1").await.unwrap_err().code(),
        Code::NotFound
    );
    put(&mut storage, "keys/1", b"first, and longer")
        .await
        .unwrap();
    assert_eq!(
        get(&mut storage, "keys/1").await.unwrap(),
        b"first, and longer"
    );
    put(&mut storage, "keys/1", b"second").await.unwrap();
    assert_eq!(get(&mut storage, "keys/1").await.unwrap(), b"second");
    put(&mut storage, "keys/1", b"").await.unwrap();
    assert_eq!(get(&mut storage, "keys/1").await.unwrap(), b"");
}

#[tokio::test]
async fn the_largest_blob_fits_and_one_byte_more_is_refused_by_name() {
    let running = Running::start().await;
    let mut storage = running.storage().await;
    let largest: Vec<u8> = (0..MIB).map(|i| ((i * 7) >> 4) as u8).collect();
    put(&mut storage, "largest", &largest).await.unwrap();
    assert!(get(&mut storage, "largest").await.unwrap() == largest);
    let refused = put(&mut storage, "larger", &vec![0; MIB + 1])
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(
        refused.message().contains("1048577"),
        "{}",
        refused.message()
    );
    // Far too large: refused while it comes in.
    put(&mut storage, "huge", &vec![0; 16 * MIB])
        .await
        .unwrap_err();
    assert_eq!(list(&mut storage, "", "", 0).await.unwrap(), ["largest"]);
}

#[tokio::test]
async fn names_are_checked_in_every_call() {
    let running = Running::start().await;
    let mut storage = running.storage().await;
    let longest = "a".repeat(256);
    put(&mut storage, &longest, b"x").await.unwrap();
    put(&mut storage, "az09/._-", b"x").await.unwrap();
    let too_long = "a".repeat(257);
    for (name, says) in [
        ("Upper", "0x55 at offset 0"),
        ("spa ce", "0x20 at offset 3"),
        ("umlaut-\u{e4}", "0xc3"),
        ("nul\0", "0x00"),
        ("back\\slash", "0x5c"),
        (too_long.as_str(), "257"),
    ] {
        let refusals = [
            put(&mut storage, name, b"x").await.unwrap_err(),
            get(&mut storage, name).await.unwrap_err(),
            list(&mut storage, name, "", 0).await.unwrap_err(),
            list(&mut storage, "", name, 0).await.unwrap_err(),
        ];
        for refusal in refusals {
            assert_eq!(refusal.code(), Code::InvalidArgument, "{name:?}");
            assert!(
                refusal.message().contains(says),
                "{name:?}: {}",
                refusal.message()
            );
        }
    }
    for refusal in [
        put(&mut storage, "", b"x").await,
        get(&mut storage, "").await.map(|_| ()),
    ] {
        assert_eq!(refusal.unwrap_err().code(), Code::InvalidArgument);
    }
    assert_eq!(
        list(&mut storage, "", "", 0).await.unwrap(),
        [&longest, "az09/._-"]
    );
}

#[tokio::test]
async fn listing_goes_page_by_page_in_order_within_a_prefix() {
    let running = Running::start().await;
    let mut storage = running.storage().await;
    let mut puts = JoinSet::new();
    for i in 0..1100_u32 {
        let mut storage = storage.clone();
        puts.spawn(async move { put(&mut storage, &format!("keys/{i:04}"), b"").await });
    }
    for result in soon(puts.join_all()).await {
        result.unwrap();
    }
    for outside in ["keyring", "keys", "keys.", "keyt", "log/1"] {
        put(&mut storage, outside, b"x").await.unwrap();
    }
    let expected: Vec<String> = (0..1100).map(|i| format!("keys/{i:04}")).collect();

    let first = list(&mut storage, "keys/", "", 0).await.unwrap();
    assert!(first == expected[..1000], "the default page is 1000");
    assert_eq!(
        list(&mut storage, "keys/", "", 5000).await.unwrap().len(),
        1000,
        "and the largest"
    );
    let mut names: Vec<String> = Vec::new();
    loop {
        let after = names.last().map_or("", String::as_str).to_owned();
        let page = list(&mut storage, "keys/", &after, 333).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 333);
        names.extend(page);
    }
    assert!(names == expected);

    assert_eq!(
        list(&mut storage, "keys/", "keys/1098", 9).await.unwrap(),
        ["keys/1099"]
    );
    assert_eq!(
        list(&mut storage, "keys/1", "a", 1).await.unwrap(),
        ["keys/1000"]
    );
    assert_eq!(
        list(&mut storage, "keys/", "zzz", 9).await.unwrap(),
        [""; 0]
    );
    assert_eq!(list(&mut storage, "none", "", 9).await.unwrap(), [""; 0]);
    assert_eq!(
        list(&mut storage, "", "keys/1099", 9).await.unwrap(),
        ["keyt", "log/1"]
    );
}

#[tokio::test]
async fn the_quota_refuses_growth_and_nothing_else() {
    let running = Running::start_with(|config| config.storage.quota_bytes = 1000).await;
    let mut storage = running.storage().await;
    put(&mut storage, "a", &[1; 599]).await.unwrap();
    put(&mut storage, "b", &[2; 399]).await.unwrap();
    let refused = put(&mut storage, "c", &[3; 1]).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("quota"), "{}", refused.message());
    let refused = put(&mut storage, "b", &[2; 400]).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(
        get(&mut storage, "b").await.unwrap(),
        [2; 399],
        "the old blob stays"
    );

    put(&mut storage, "a", &[4; 599]).await.unwrap();
    put(&mut storage, "a", &[5; 99]).await.unwrap();
    put(&mut storage, "c", &[3; 499]).await.unwrap();
    assert_eq!(running.metric("arca_host_storage_bytes", &[]).await, 1000.0);
    let full = [("operation", "put"), ("outcome", "full")];
    assert_eq!(
        running
            .metric("arca_host_storage_operations_total", &full)
            .await,
        2.0
    );
    assert_eq!(get(&mut storage, "a").await.unwrap(), [5; 99]);
}

#[tokio::test]
async fn a_lowered_quota_lets_the_storage_shrink() {
    let folder = folder();
    let mut config = config_in(folder.path());
    let host = Host::start(config.clone()).await.unwrap();
    let mut storage = storage_at(&sockets_of(&config).join(STORAGE_SOCKET)).await;
    put(&mut storage, "a", &[1; 1000]).await.unwrap();
    soon(host.shutdown()).await;

    config.storage.quota_bytes = 500;
    let host = Host::start(config.clone()).await.unwrap();
    let mut storage = storage_at(&sockets_of(&config).join(STORAGE_SOCKET)).await;
    let refused = put(&mut storage, "b", &[]).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    put(&mut storage, "a", &[1; 900]).await.unwrap();
    soon(host.shutdown()).await;
}

#[tokio::test]
async fn concurrent_puts_share_commits_and_each_is_there() {
    let running = Running::start().await;
    let storage = running.storage().await;
    let mut puts = JoinSet::new();
    for i in 0..500_u32 {
        let mut storage = storage.clone();
        puts.spawn(async move {
            put(&mut storage, &format!("blob/{i}"), &i.to_be_bytes())
                .await
                .unwrap();
        });
    }
    soon(puts.join_all()).await;
    let commits = running.metric("arca_host_storage_commits_total", &[]).await;
    assert!(commits <= 250.0, "500 puts took {commits} commits");
    let mut storage = storage;
    for i in 0..500_u32 {
        assert_eq!(
            get(&mut storage, &format!("blob/{i}")).await.unwrap(),
            i.to_be_bytes()
        );
    }
}

/// The bound on calls at once has to be one on HTTP/2 streams. With a bound behind it, streams that wait for
/// their turn fill the connection's window, and those whose turn it is wait for the window: some hundred
/// puts of 1 MiB then stand still for ever.
#[tokio::test]
async fn a_client_is_told_how_many_calls_it_may_have_at_once() {
    use tokio::io::AsyncWriteExt;
    let running = Running::start().await;
    let socket = running.socket(STORAGE_SOCKET);
    let mut stream = soon(tokio::net::UnixStream::connect(&socket))
        .await
        .unwrap();
    let empty_settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    stream.write_all(&empty_settings).await.unwrap();
    // RFC 9113: a frame is length (3), type (1), flags (1), stream (4); a setting is id (2), value (4).
    let header = common::read(&mut stream, 9).await;
    assert_eq!(header[3], 4, "the first frame is SETTINGS");
    let settings = common::read(&mut stream, usize::from(header[2])).await;
    let most_streams = settings.chunks(6).find(|setting| setting[..2] == [0, 3]);
    assert_eq!(most_streams.unwrap()[2..], [0, 0, 0, 64]);
}

#[tokio::test]
async fn puts_of_one_name_take_effect_in_the_order_they_were_accepted() {
    let running = Running::start().await;
    let storage = running.storage().await;
    let mut puts = JoinSet::new();
    for i in 0..200_u32 {
        let mut storage = storage.clone();
        puts.spawn(async move { put(&mut storage, "one", &i.to_be_bytes()).await.unwrap() });
    }
    soon(puts.join_all()).await;
    let mut storage = storage;
    put(&mut storage, "one", b"last").await.unwrap();
    assert_eq!(get(&mut storage, "one").await.unwrap(), b"last");
    assert_eq!(running.metric("arca_host_storage_bytes", &[]).await, 7.0);
}

#[tokio::test]
async fn blobs_and_their_sum_outlive_a_restart() {
    let folder = folder();
    let config = config_in(folder.path());
    let socket = sockets_of(&config).join(STORAGE_SOCKET);
    for life in 0..3_u8 {
        let host = Host::start(config.clone()).await.unwrap();
        let mut storage = storage_at(&socket).await;
        for earlier in 0..life {
            assert_eq!(
                get(&mut storage, &format!("life/{earlier}")).await.unwrap(),
                [earlier; 50]
            );
        }
        put(&mut storage, &format!("life/{life}"), &[life; 50])
            .await
            .unwrap();
        let page = common::get(host.metrics_address().unwrap(), "/metrics")
            .await
            .1;
        let sum = format!(
            "arca_host_storage_bytes{{party=\"ceo\"}} {}\n",
            56 * (u32::from(life) + 1)
        );
        assert!(page.contains(&sum), "{page}");
        soon(host.shutdown()).await;
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&config.storage.path)
            .unwrap()
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_put_in_progress_at_shutdown_is_kept_or_refused_but_never_lost() {
    let folder = folder();
    let config = config_in(folder.path());
    let socket = sockets_of(&config).join(STORAGE_SOCKET);
    let host = Host::start(config.clone()).await.unwrap();
    let storage = storage_at(&socket).await;
    let mut puts = JoinSet::new();
    for i in 0..200_u32 {
        let mut storage = storage.clone();
        puts.spawn(async move {
            let name = format!("blob/{i}");
            put(&mut storage, &name, name.as_bytes())
                .await
                .is_ok()
                .then_some(name)
        });
    }
    let first = soon(puts.join_next()).await.unwrap().unwrap();
    soon(host.shutdown()).await;
    let mut acknowledged: Vec<String> = soon(puts.join_all()).await.into_iter().flatten().collect();
    acknowledged.extend(first);
    assert!(!acknowledged.is_empty());

    let host = Host::start(config).await.unwrap();
    let mut storage = storage_at(&socket).await;
    for name in acknowledged {
        assert_eq!(get(&mut storage, &name).await.unwrap(), name.as_bytes());
    }
    soon(host.shutdown()).await;
}

#[tokio::test]
async fn a_storage_file_that_cannot_be_used_is_refused_with_its_reason() {
    let folder = folder();
    let config = config_in(folder.path());
    let path = config.storage.path.clone();
    let refused = async |says: &str| {
        let error = Host::start(config.clone()).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Storage { .. }), "{text}");
        assert!(
            text.contains(&*path.to_string_lossy()) && text.contains(says),
            "{text}"
        );
    };

    std::fs::write(&path, b"this is no database, whatever its name").unwrap();
    refused("restore it from a backup").await;
    std::fs::write(&path, vec![0; 100_000]).unwrap();
    refused("restore it from a backup").await;
    std::fs::write(&path, b"").unwrap();
    refused("the file is empty").await;
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    refused("Is a directory").await;
    std::fs::remove_dir(&path).unwrap();

    let host = Host::start(config.clone()).await.unwrap();
    soon(host.shutdown()).await;
    let whole = std::fs::read(&path).unwrap();
    for length in [1, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        refused("restore it from a backup").await;
    }
    let mut config = config.clone();
    config.storage.path = folder.path().join("no/such/folder/ceo.redb");
    let error = Host::start(config).await.unwrap_err().to_string();
    assert!(
        error.contains("No such file") && error.contains("mounted"),
        "{error}"
    );
}

#[tokio::test]
async fn a_start_that_was_killed_while_it_made_the_file_does_not_hinder_the_next() {
    let folder = folder();
    let config = config_in(folder.path());
    std::fs::write(folder.path().join("ceo.redb.unfinished"), b"half a file").unwrap();
    let host = Host::start(config.clone()).await.unwrap();
    let mut storage = storage_at(&sockets_of(&config).join(STORAGE_SOCKET)).await;
    put(&mut storage, "a", b"x").await.unwrap();
    soon(host.shutdown()).await;
    assert!(!folder.path().join("ceo.redb.unfinished").exists());
}

#[tokio::test]
async fn a_second_host_on_the_same_storage_archive_or_sockets_is_refused() {
    let running = Running::start().await;
    let mut second = config_in(running.folder.path());
    let error = Host::start(second.clone()).await.unwrap_err().to_string();
    assert!(error.contains("another process has it open"), "{error}");
    second.storage.path = running.folder.path().join("other.redb");
    let error = Host::start(second.clone()).await.unwrap_err().to_string();
    assert!(error.contains("another host archives there"), "{error}");
    second.storage.path = running.folder.path().join("third.redb");
    second.archive.place = ArchivePlace::Folder(running.folder.path().join("other"));
    let error = Host::start(second).await.unwrap_err().to_string();
    assert!(error.contains("another host is listening"), "{error}");
    // The first is unharmed.
    put(&mut running.storage().await, "a", b"x").await.unwrap();
}

#[tokio::test]
async fn garbage_on_the_storage_socket_hurts_nobody() {
    use tokio::io::AsyncWriteExt;
    let running = Running::start().await;
    let socket = running.socket(STORAGE_SOCKET);
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4096],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0",
    ] {
        let mut stream = soon(tokio::net::UnixStream::connect(&socket))
            .await
            .unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        common::read_to_end(&mut stream).await;
    }
    put(&mut running.storage().await, "a", b"x").await.unwrap();
}
