//! PSBTs: published vectors, transactions built by a library that is not ours, and every refusal.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

mod accepted;
mod p2wpkh;
mod refused;

use arca_policy::{Action, BitcoinSpend, Intent, KeyFacts, Payload, PublicKey, Rejection, decode};
use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Psbt, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid};

/// BIP-86, "Test vectors", m/86'/0'/0'/0/0: internal key and what it locks.
const INTERNAL_KEY: &str = "cc8a4bc64d897bddc5fbc2f670f7a8ba0b386779106cf1223c6fc5d7cd6fc115";
const OWN_SCRIPT: &str = "5120a60869f0dbcf1dc659c9cecbaf8050135ea9e8cdc487053f1dc6880949dc684c";
const OWN_ADDRESS: &str = "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr";
/// Witness program of somebody else (BIP-173, "Examples").
const OTHER_SCRIPT: &str = "0014751e76e8199196d454941c45d1b3a323f1433bd6";
const OTHER_ADDRESS: &str = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";

fn decode_own(psbt: &Psbt) -> Result<Intent, Rejection> {
    decode_for(psbt, INTERNAL_KEY)
}

fn decode_for(psbt: &Psbt, key: &str) -> Result<Intent, Rejection> {
    decode(&Payload::Psbt(psbt.serialize()), &facts(key), &[])
}

fn facts(key: &str) -> KeyFacts {
    let public_key = hex::decode(key).unwrap().try_into().unwrap();
    KeyFacts {
        public_key: PublicKey::Bip340(public_key),
        allow_raw_digest: false,
    }
}

fn spend(intent: &Intent) -> &BitcoinSpend {
    match intent.action() {
        Action::Bitcoin(spend) => spend,
        other => panic!("not a Bitcoin transaction: {other:?}"),
    }
}

/// A PSBT that spends such outputs, each of another transaction, and makes such.
fn psbt(inputs: &[(&str, u64)], outputs: &[(&str, u64)]) -> Psbt {
    let txin = |index: usize| TxIn {
        previous_output: OutPoint::new(Txid::hash(&index.to_le_bytes()), 0),
        sequence: Sequence::MAX,
        ..TxIn::default()
    };
    let transaction = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: (0..inputs.len()).map(txin).collect(),
        output: outputs
            .iter()
            .map(|(script, amount)| output(script, *amount))
            .collect(),
    };
    let mut psbt = Psbt::from_unsigned_tx(transaction).unwrap();
    for (input, (script, amount)) in psbt.inputs.iter_mut().zip(inputs) {
        input.witness_utxo = Some(output(script, *amount));
    }
    psbt
}

/// A PSBT whose input tells both the spent output and the whole transaction that holds it, at index 1.
fn with_previous_transaction() -> Psbt {
    let previous = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn::default()],
        output: vec![output(OTHER_SCRIPT, 1), output(OWN_SCRIPT, 1000)],
    };
    let mut psbt = psbt(&[(OWN_SCRIPT, 1000)], &[(OTHER_SCRIPT, 900)]);
    psbt.unsigned_tx.input[0].previous_output = OutPoint::new(previous.compute_txid(), 1);
    psbt.inputs[0].non_witness_utxo = Some(previous);
    psbt
}

fn output(script_pubkey: &str, amount: u64) -> TxOut {
    TxOut {
        value: Amount::from_sat(amount),
        script_pubkey: script(script_pubkey),
    }
}

fn script(script: &str) -> ScriptBuf {
    ScriptBuf::from_bytes(hex::decode(script).unwrap())
}
