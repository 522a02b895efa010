//! A running cluster, and what to have signed.

use std::time::Duration;

use arca_client::{
    Client, Key, NewKey, Payload, Scheme,
    local::{Binaries, LocalCluster},
};
use bitcoin::{
    Amount, OutPoint, Psbt, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute,
    hashes::Hash as _, transaction::Version,
};
use tempfile::TempDir;

/// Long enough for a slow machine, short enough to notice that nothing happens.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster and the folder that its processes live in.
pub struct Running {
    pub cluster: LocalCluster,
    _folder: TempDir,
}

/// Starts three parties and enrols them.
pub async fn running() -> Running {
    let folder = TempDir::new().unwrap();
    let binaries = Binaries::find().unwrap();
    let cluster = LocalCluster::bring_up(&folder.path().join("cluster"), binaries).await.unwrap();
    Running { cluster, _folder: folder }
}

impl Running {
    /// A client of one party.
    pub async fn client(&self, party: &str) -> Client {
        self.cluster.cluster().unwrap().party(party).await.unwrap()
    }
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

/// A spend of one taproot output of `internal_key`, unsigned, and what it spends.
pub fn psbt(internal_key: &[u8; 32], sats: u64) -> (Psbt, TxOut) {
    let spent = TxOut {
        value: Amount::from_sat(sats),
        script_pubkey: arca_client::psbt::output_script(internal_key).unwrap(),
    };
    let transaction = Transaction {
        version: Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::new(bitcoin::Txid::from_byte_array([7; 32]), 0),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: Amount::from_sat(sats - 1000),
            script_pubkey: spent.script_pubkey.clone(),
        }],
    };
    let mut psbt = Psbt::from_unsigned_tx(transaction).unwrap();
    psbt.inputs[0].witness_utxo = Some(spent.clone());
    (psbt, spent)
}

/// The payload of [`psbt`].
pub fn psbt_payload(key: &Key, sats: u64) -> Payload {
    Payload::Psbt(psbt(&key.public_key, sats).0.serialize())
}
