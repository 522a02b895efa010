//! A taproot key-path spend of a made-up coin.

use anyhow::Context as _;
use arca_client::address::{Network, taproot};
use arca_client::{Key, SigningRequest, psbt};
use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, OutPoint, Psbt, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
};
use rand_core::{OsRng, RngCore};

use super::report::Item;

const FUNDS: Amount = Amount::from_sat(5_000_000);
const PAYMENT: Amount = Amount::from_sat(1_500_000);
const FEE: Amount = Amount::from_sat(200);

/// Where the payment goes: the first address of BIP-86's test vectors, on regtest.
const RECIPIENT_KEY: &str = "cc8a4bc64d897bddc5fbc2f670f7a8ba0b386779106cf1223c6fc5d7cd6fc115";

/// The key's address.
pub(super) fn address(key: &Key) -> anyhow::Result<String> {
    Ok(taproot(key.public_key.bip340()?, Network::Regtest)?.to_string())
}

/// A spend on its way.
pub(super) struct Spend {
    psbt: Psbt,
    /// What it spends.
    coins: Vec<TxOut>,
    script: ScriptBuf,
    recipient: String,
}

impl Spend {
    /// Makes a funding transaction that pays the key's address twice, and a PSBT that spends both to somebody
    /// else, with change.
    pub fn prepare(key: &Key) -> anyhow::Result<Self> {
        let script = psbt::output_script(key.public_key.bip340()?)?;
        let recipient_key: [u8; 32] = hex::decode(RECIPIENT_KEY)?
            .try_into()
            .ok()
            .context("a key of 32 bytes")?;
        let mut origin = [0; 32];
        OsRng.fill_bytes(&mut origin);
        let half = TxOut {
            value: FUNDS / 2,
            script_pubkey: script.clone(),
        };
        let funding = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![input(OutPoint::new(Txid::from_byte_array(origin), 0))],
            output: vec![half.clone(), half],
        };
        let txid = funding.compute_txid();
        let change = FUNDS - PAYMENT - FEE;
        let spending = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![input(OutPoint::new(txid, 0)), input(OutPoint::new(txid, 1))],
            output: vec![
                TxOut {
                    value: PAYMENT,
                    script_pubkey: psbt::output_script(&recipient_key)?,
                },
                TxOut {
                    value: change,
                    script_pubkey: script.clone(),
                },
            ],
        };
        let mut psbt = Psbt::from_unsigned_tx(spending)?;
        for (input, coin) in psbt.inputs.iter_mut().zip(&funding.output) {
            input.witness_utxo = Some(coin.clone());
        }
        Ok(Self {
            psbt,
            coins: funding.output,
            script,
            recipient: taproot(&recipient_key, Network::Regtest)?.to_string(),
        })
    }

    pub fn psbt(&self) -> Vec<u8> {
        self.psbt.serialize()
    }

    /// Finalises, and verifies the transaction once more from its bytes alone.
    pub fn finish(self, key: &Key, signed: &SigningRequest) -> anyhow::Result<Item> {
        let signatures: Vec<(u32, [u8; 64])> = signed
            .signatures
            .iter()
            .map(|one| (one.input, one.signature))
            .collect();
        let psbt::Signed::Final(spend) =
            psbt::finalise(self.psbt, key.public_key.bip340()?, &signatures)?
        else {
            anyhow::bail!("an input of the transaction was not signed");
        };
        let hex = spend.hex();
        let read: Transaction = encode::deserialize_hex(&hex)?;
        psbt::verify(&read, &self.coins, &self.script, &[0, 1])?;
        let txid = read.compute_txid().to_string();
        Ok(Item::new(format!(
            "Bitcoin: {} sat to {}, fee {} sat",
            PAYMENT.to_sat(),
            self.recipient,
            spend.fee.to_sat()
        ))
        .detail("txid", &txid)
        .detail("verified by", psbt::VERIFIER)
        .with("chain", &"bitcoin")
        .with("txid", &txid)
        .with("transaction", &hex)
        .with("fee_sat", &spend.fee.to_sat())
        .with("verified_by", &psbt::VERIFIER))
    }
}

fn input(previous_output: OutPoint) -> TxIn {
    TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    }
}
