//! A running cluster, what to have signed, and ways to talk to it that the client does not offer.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use arca_attestation::SigningAuthorization;
use arca_channel::{Endpoint, Identity, Limits, Target};
use arca_client::{
    Client, Key, NewKey, Payload, Scheme, clock,
    local::{Binaries, LocalCluster},
};
use arca_proto::v1::{self as wire, storage_service_client::StorageServiceClient};
use bitcoin::{
    Amount, OutPoint, Psbt, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute,
    hashes::Hash as _, transaction::Version,
};
use hyper_util::rt::TokioIo;
use p256::ecdsa::{SigningKey, signature::hazmat::PrehashSigner};
use rand_core::OsRng;
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

/// Long enough for a slow machine, short enough to notice that nothing happens.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster and the folder that its processes live in.
pub struct Running {
    pub cluster: LocalCluster,
    _folder: TempDir,
}

/// Starts three parties and enrols them.
pub async fn running() -> Running {
    started(prepared()).await
}

/// The same for a cluster that was prepared.
pub async fn started(mut running: Running) -> Running {
    running.cluster.start().await.unwrap();
    let candidates = running.cluster.collect().await.unwrap();
    running.cluster.enroll(&candidates, &[0, 1]).await.unwrap();
    running
        .cluster
        .wait_connected(&["ceo", "cto", "cloud"])
        .await
        .unwrap();
    running
}

/// A cluster of which no process runs yet.
pub fn prepared() -> Running {
    let folder = TempDir::new().unwrap();
    let binaries = Binaries::find().unwrap();
    let cluster = LocalCluster::prepare(&folder.path().join("cluster"), binaries).unwrap();
    Running {
        cluster,
        _folder: folder,
    }
}

impl Running {
    /// Changes the cluster before it starts.
    pub fn map(self, change: impl FnOnce(LocalCluster) -> LocalCluster) -> Self {
        Self {
            cluster: change(self.cluster),
            _folder: self._folder,
        }
    }

    /// A client of one party, as the treasury.
    pub async fn client(&self, party: &str) -> Client {
        self.cluster.cluster().unwrap().party(party).await.unwrap()
    }

    /// The treasury's key.
    pub fn treasury(&self) -> Identity {
        let file = self.cluster.folder().join("treasury.pem");
        let secret = arca_client::keyfile::read_principal(&file).unwrap();
        let scalar: [u8; 32] = secret.to_bytes().into();
        Identity::from_scalar(&scalar.into()).unwrap()
    }

    /// An attested channel to whoever answers at `address`, for any identity and target.
    pub async fn channel(
        &self,
        address: SocketAddr,
        identity: Identity,
        target: Target,
    ) -> Result<arca_channel::Channel<TcpStream>, arca_channel::Error> {
        let anchors = arca_client::read_simulated_root(&self.file("root/root.der")).unwrap();
        let clock = Arc::new(clock::now);
        let endpoint =
            Endpoint::client(Arc::new(identity), anchors, clock, Limits::default()).unwrap();
        let profile = self.cluster.cluster().unwrap().profile().clone();
        endpoint.set_manifest(profile.manifest().clone()).unwrap();
        let stream = TcpStream::connect(address).await?;
        arca_channel::connect(stream, &Arc::new(endpoint), target, &mut OsRng).await
    }

    /// gRPC to a party over a channel of any identity and target.
    pub async fn raw(&self, party: &str, identity: Identity, target: Target) -> Channel {
        grpc_over(
            self.channel(self.address(party), identity, target)
                .await
                .unwrap(),
        )
        .await
    }

    /// gRPC to a party as the treasury, without the client's own checks.
    pub async fn raw_treasury(&self, party: &str) -> Channel {
        self.raw(party, self.treasury(), Target::Service(party.to_owned()))
            .await
    }

    /// What a host has stored for its enclave, as whoever owns the host sees it.
    pub async fn blobs(&self, party: &str) -> StorageServiceClient<Channel> {
        let socket = self.file(&format!("{party}/run/storage.sock"));
        let stream = UnixStream::connect(socket).await.unwrap();
        StorageServiceClient::new(grpc_over(stream).await)
    }

    pub fn address(&self, party: &str) -> SocketAddr {
        self.cluster.party(party).unwrap().address()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.cluster.folder().join(name)
    }

    /// A request as the treasury would make it; tests spoil it afterwards.
    pub fn authorized(
        &self,
        key: &str,
        request_id: &str,
        payload: &Payload,
    ) -> wire::CreateSigningRequestRequest {
        authorize(
            &self.treasury(),
            self.cluster.id(),
            "treasury",
            key,
            request_id,
            payload,
        )
    }
}

/// Signs a request with a principal's key.
pub fn authorize(
    identity: &Identity,
    cluster: &str,
    initiator: &str,
    key: &str,
    request_id: &str,
    payload: &Payload,
) -> wire::CreateSigningRequestRequest {
    authorize_at(identity, cluster, initiator, key, &[], request_id, payload)
}

/// Signs a request for a key below the one that the parties hold.
pub fn authorize_at(
    identity: &Identity,
    cluster: &str,
    initiator: &str,
    key: &str,
    derivation_path: &[u32],
    request_id: &str,
    payload: &Payload,
) -> wire::CreateSigningRequestRequest {
    use wire::signing_payload::Payload as Wire;
    let (payload_kind, bytes, payload) = match payload {
        Payload::Psbt(psbt) => ("psbt", psbt.as_slice(), Wire::Psbt(psbt.clone())),
        Payload::SolanaMessage(message) => (
            "solana_message",
            message.as_slice(),
            Wire::SolanaMessage(message.clone()),
        ),
        Payload::EthereumTransaction(transaction) => (
            "ethereum_transaction",
            transaction.as_slice(),
            Wire::EthereumTransaction(transaction.clone()),
        ),
        Payload::Digest(digest) => ("digest", digest.as_slice(), Wire::Digest(digest.to_vec())),
    };
    let expire_ms = clock::now().0 + 60_000;
    let digest = SigningAuthorization {
        cluster,
        initiator,
        request_id,
        key,
        payload_kind,
        payload: bytes,
        expire_ms,
        derivation_path,
    }
    .digest();
    let signing_key = SigningKey::from_slice(identity.to_scalar().unwrap().as_slice()).unwrap();
    let signature: p256::ecdsa::Signature = signing_key.sign_prehash(&digest).unwrap();
    wire::CreateSigningRequestRequest {
        request_id: request_id.to_owned(),
        key: key.to_owned(),
        payload: Some(wire::SigningPayload {
            payload: Some(payload),
        }),
        expire_time: Some(timestamp(expire_ms)),
        authorization: signature.to_bytes().to_vec(),
        derivation_path: derivation_path.to_vec(),
    }
}

pub fn timestamp(millis: u64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(millis / 1000).unwrap(),
        nanos: i32::try_from(millis % 1000 * 1_000_000).unwrap(),
    }
}

/// gRPC over a stream that is connected already.
pub async fn grpc_over<S>(stream: S) -> Channel
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let mut stream = Some(TokioIo::new(stream));
    let connector = move |_| {
        let stream = stream
            .take()
            .ok_or_else(|| std::io::Error::other("one stream, one use"));
        std::future::ready(stream)
    };
    tonic::transport::Endpoint::from_static("http://test")
        .connect_with_connector(tower::service_fn(connector))
        .await
        .unwrap()
}

/// The stable reason of a refusal, checked to be what its code promises.
pub fn reason(status: &Status) -> (Code, String) {
    let details = status.get_error_details();
    let info = details
        .error_info()
        .unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "arca");
    (status.code(), info.reason.clone())
}

/// Makes a 2-of-3 key.
pub async fn new_key(client: &Client, scheme: Scheme, request_id: &str) -> Key {
    let key = NewKey {
        request_id: request_id.to_owned(),
        display_name: format!("test {request_id}"),
        scheme,
        threshold: 2,
        parties: Vec::new(),
        allow_raw_digest: true,
    };
    client.create_key(&key, PATIENCE).await.unwrap()
}

/// A spend of taproot outputs of `internal_key`, unsigned, and what it spends.
pub fn psbt(internal_key: &[u8; 32], inputs: u32, sats: u64) -> (Psbt, Vec<TxOut>) {
    let script_pubkey = arca_client::psbt::output_script(internal_key).unwrap();
    let spent: Vec<TxOut> = (0..inputs)
        .map(|index| TxOut {
            value: Amount::from_sat(sats + u64::from(index)),
            script_pubkey: script_pubkey.clone(),
        })
        .collect();
    let transaction = Transaction {
        version: Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: (0..inputs)
            .map(|index| TxIn {
                previous_output: OutPoint::new(bitcoin::Txid::from_byte_array([7; 32]), index),
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: Witness::new(),
            })
            .collect(),
        output: vec![TxOut {
            value: Amount::from_sat(sats - 1000),
            script_pubkey,
        }],
    };
    let mut psbt = Psbt::from_unsigned_tx(transaction).unwrap();
    for (input, output) in psbt.inputs.iter_mut().zip(&spent) {
        input.witness_utxo = Some(output.clone());
    }
    (psbt, spent)
}

/// The payload of [`psbt`] with one input.
pub fn psbt_payload(key: &Key, sats: u64) -> Payload {
    Payload::Psbt(
        psbt(key.public_key.bip340().unwrap(), 1, sats)
            .0
            .serialize(),
    )
}

/// A legacy Solana message: a transfer of `lamports` from `from` to some account.
pub fn solana_transfer(from: &[u8; 32], lamports: u64) -> Vec<u8> {
    let mut message = vec![1, 0, 1, 3];
    message.extend_from_slice(from);
    message.extend_from_slice(&[9; 32]);
    message.extend_from_slice(&[0; 32]);
    message.extend_from_slice(&[5; 32]);
    message.extend_from_slice(&[1, 2, 2, 0, 1, 12, 2, 0, 0, 0]);
    message.extend_from_slice(&lamports.to_le_bytes());
    message
}
