//! What lies between the enclaves: a host or a router that alters, cuts or stalls what it carries.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use arca_channel::{Identity, Target};
use arca_client::{Client, Key, Scheme};
use rand_core::OsRng;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::common::{PATIENCE, Running, new_key, psbt_payload, running};

/// A man in the middle who flips one bit: of the byte at this position, towards the server (positive, from 1) or
/// towards the client (negative); 0 leaves everything as it is.
#[derive(Clone)]
struct Meddler {
    address: SocketAddr,
    position: Arc<AtomicI64>,
    /// Bytes carried so far, in both directions.
    carried: [Arc<Mutex<Vec<u8>>>; 2],
}

impl Meddler {
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let meddler = Self {
            address: listener.local_addr().unwrap(),
            position: Arc::default(),
            carried: Default::default(),
        };
        let this = meddler.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else {
                    continue;
                };
                let position = this.position.load(Ordering::SeqCst);
                let ((client_in, client_out), (server_in, server_out)) =
                    (client.into_split(), server.into_split());
                let [up, down] = this.carried.clone();
                tokio::spawn(carry(client_in, server_out, position, up));
                tokio::spawn(carry(server_in, client_out, -position, down));
            }
        });
        meddler
    }

    fn flip(&self, position: i64) {
        self.position.store(position, Ordering::SeqCst);
        for carried in &self.carried {
            carried.lock().unwrap().clear();
        }
    }

    fn carried(&self) -> [i64; 2] {
        [0, 1].map(|direction: usize| {
            i64::try_from(self.carried[direction].lock().unwrap().len()).unwrap()
        })
    }

    /// Whether the byte that was altered is one that nobody reads: the version in the header of a record that is not
    /// encrypted (RFC 8446, section 5.1: it "MUST be ignored for all purposes").
    fn altered_what_is_ignored(&self) -> bool {
        let position = self.position.load(Ordering::SeqCst);
        let stream = self.carried[usize::from(position < 0)].lock().unwrap();
        let altered = usize::try_from(position.unsigned_abs()).unwrap() - 1;
        let mut record = 0;
        while let Some(&[kind, _, _, high, low]) = stream.get(record..record + 5) {
            let is_plain = matches!(kind, 20 | 22);
            if is_plain && (altered == record + 1 || altered == record + 2) {
                return true;
            }
            record += 5 + usize::from(u16::from_be_bytes([high, low]));
        }
        false
    }
}

/// Carries bytes, flipping a bit of the one at `position` (from 1).
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    position: i64,
    carried: Arc<Mutex<Vec<u8>>>,
) {
    let (mut buffer, mut seen) = (vec![0; 1 << 14], 0i64);
    while let Ok(length) = from.read(&mut buffer).await {
        let chunk = &mut buffer[..length];
        if let Ok(index) = usize::try_from(position - 1 - seen)
            && let Some(byte) = chunk.get_mut(index)
        {
            *byte ^= 0x10;
        }
        seen += i64::try_from(length).unwrap();
        carried.lock().unwrap().extend_from_slice(chunk);
        if length == 0 || to.write_all(chunk).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// Positions spread over `length` bytes, the first and last ones among them.
fn positions(length: i64, count: i64) -> impl Iterator<Item = i64> {
    (0..count).map(move |step| 1 + step * (length - 1) / (count - 1))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_altered_between_client_and_enclave_is_a_refused_connection() {
    let running = running().await;
    let meddler = Meddler::before(running.address("ceo")).await;
    // The handshake alone: what a client says and reads before there is any HTTP/2.
    let observe = async || {
        let stranger = Identity::generate(&mut OsRng).unwrap();
        let target = Target::Observe("ceo".into());
        running
            .channel(meddler.address, stranger, target)
            .await
            .map(drop)
    };

    meddler.flip(0);
    observe()
        .await
        .expect("the meddler carries what it does not alter");
    let [up, down] = meddler.carried();
    assert!(
        up > 300 && down > 2_000,
        "a handshake with evidence was carried: {up}, {down}"
    );
    // Last come the end of TLS from the client, and from the enclave what it says first in HTTP/2.
    for position in positions(up - 50, 40).chain(positions(down - 300, 60).map(|p| -p)) {
        meddler.flip(position);
        let outcome = observe().await;
        assert!(
            outcome.is_err() || meddler.altered_what_is_ignored(),
            "byte {position} was altered and {outcome:?}"
        );
    }
    meddler.flip(0);
    observe()
        .await
        .expect("and afterwards everything is as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_altered_between_parties_break_the_link_and_never_a_signature() {
    let mut running = running().await;
    let ceo = running.client("ceo").await;
    let key = new_key(&ceo, Scheme::Bip340, "k").await;

    // `ceo` reaches the two others through meddlers from now on.
    let to_cto = Meddler::before(running.address("cto")).await;
    let to_cloud = Meddler::before(running.address("cloud")).await;
    let host = running.cluster.party_mut("ceo").unwrap();
    host.stop().await;
    let file = host.paths().host;
    let mut text = std::fs::read_to_string(&file).unwrap();
    for (name, meddler) in [("cto", &to_cto), ("cloud", &to_cloud)] {
        let direct = format!("{name} = \"{}\"", running.address(name));
        assert!(text.contains(&direct), "{text}");
        text = text.replace(&direct, &format!("{name} = \"{}\"", meddler.address));
    }
    std::fs::write(&file, text).unwrap();
    running.cluster.start_party("ceo").await.unwrap();
    running
        .cluster
        .wait_connected(&["ceo", "cloud", "cto"])
        .await
        .unwrap();
    let ceo = running.client("ceo").await;
    let handshake = to_cto.carried();

    // In the handshake, in what comes after it, in both directions.
    for (round, position) in [200, handshake[0] + 300, -(handshake[1] + 200), -1_500]
        .into_iter()
        .enumerate()
    {
        to_cto.flip(position);
        to_cloud.flip(position);
        relink(&mut running).await;
        // Every new link breaks at that byte; signatures wait, fail by name, or come from an honest stretch.
        let short = std::time::Duration::from_secs(4);
        let outcome = ceo
            .sign(
                &key.name,
                &format!("m{round}"),
                &psbt_payload(&key, 30_000),
                short,
            )
            .await;
        if let Ok(signed) = outcome {
            verify(&key, &signed.signatures[0].signature);
        }
        to_cto.flip(0);
        to_cloud.flip(0);
        running
            .cluster
            .wait_connected(&["ceo", "cloud", "cto"])
            .await
            .unwrap();
        sign(&ceo, &key, &format!("after{round}")).await;
    }
}

/// Makes the links of `ceo` anew, through the meddlers as they are now.
async fn relink(running: &mut Running) {
    let party = running.cluster.party_mut("ceo").unwrap();
    party.kill_enclave().await;
    running.cluster.start_party("ceo").await.unwrap();
}

async fn sign(client: &Client, key: &Key, request_id: &str) {
    let payload = psbt_payload(key, 30_000);
    let signed = client
        .sign(&key.name, request_id, &payload, PATIENCE)
        .await
        .unwrap();
    verify(key, &signed.signatures[0].signature);
}

fn verify(key: &Key, signature: &[u8; 64]) {
    let internal_key = key.public_key.bip340().unwrap();
    let (unsigned, _) = crate::common::psbt(internal_key, 1, 30_000);
    arca_client::psbt::finalise(unsigned, internal_key, &[(0, *signature)]).unwrap();
}
