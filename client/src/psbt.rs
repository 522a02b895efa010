//! From a PSBT and the cluster's signatures to a transaction that the network accepts.

use bitcoin::base64::Engine;
use bitcoin::base64::engine::general_purpose::STANDARD;
use bitcoin::consensus::encode;
use bitcoin::hashes::Hash;
use bitcoin::key::{Secp256k1, TapTweak};
use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::{Message, schnorr};
use bitcoin::sighash::{Prevouts, SighashCache, TapSighashType};
use bitcoin::{Amount, ScriptBuf, Transaction, TxOut, Witness, taproot};

use crate::address;
use crate::error::{Error, Result};

/// What verifies a finished spend here.
pub const VERIFIER: &str = "libsecp256k1 over the BIP-341 signature hash";

/// Reads a PSBT: BIP-174 binary, or that in base64 or hex.
///
/// # Errors
/// [`Error::Input`] with what does not parse.
pub fn parse(input: &[u8]) -> Result<Psbt> {
    let subject = "PSBT";
    let binary = if input.starts_with(b"psbt\xff") {
        input.to_vec()
    } else {
        let text = std::str::from_utf8(input)
            .map_err(|_| Error::input(subject, "is neither BIP-174 binary, base64 nor hex"))?;
        let text: String = text.split_whitespace().collect();
        match hex::decode(&text) {
            Ok(binary) => binary,
            Err(_) => STANDARD
                .decode(&text)
                .map_err(|_| Error::input(subject, "is neither BIP-174 binary, base64 nor hex"))?,
        }
    };
    Psbt::deserialize(&binary).map_err(|cause| Error::input(subject, cause))
}

/// A PSBT with the cluster's signatures in it.
#[derive(Debug)]
pub enum Signed {
    /// Every input is final.
    Final(Box<Spend>),
    /// Inputs of others still miss their signatures.
    Partial {
        /// The PSBT to hand to the other signers.
        psbt: Box<Psbt>,
        /// Indices of the inputs without a final witness.
        open: Vec<usize>,
    },
}

/// A finished transaction, verified.
#[derive(Debug)]
pub struct Spend {
    /// As it goes to the network.
    pub transaction: Transaction,
    /// What the inputs hold more than the outputs.
    pub fee: Amount,
    /// The inputs that the cluster signed and [`VERIFIER`] verified.
    pub verified: Vec<usize>,
}

impl Spend {
    /// The transaction in hex, as `sendrawtransaction` takes it.
    pub fn hex(&self) -> String {
        encode::serialize_hex(&self.transaction)
    }
}

/// Puts key-path signatures into their inputs, finalises these, and verifies the outcome.
///
/// `signatures` are pairs of an input's index and its 64-byte BIP-340 signature, made with SIGHASH_DEFAULT
/// under the BIP-86 output key of `internal_key`.
///
/// # Errors
/// [`Error::Unverified`] when a signature does not fit its input; nothing of it is returned then.
pub fn finalise(
    mut psbt: Psbt,
    internal_key: &[u8; 32],
    signatures: &[(u32, [u8; 64])],
) -> Result<Signed> {
    if signatures.is_empty() {
        return Err(Error::unverified("signed PSBT", "no input was signed"));
    }
    let mut signed = Vec::with_capacity(signatures.len());
    for (index, bytes) in signatures {
        let index = usize::try_from(*index).map_err(Error::bug)?;
        let input = psbt
            .inputs
            .get_mut(index)
            .ok_or_else(|| Error::unverified("signed PSBT", format!("it has no input {index}")))?;
        let signature = taproot::Signature {
            signature: schnorr::Signature::from_slice(bytes).map_err(Error::bug)?,
            sighash_type: TapSighashType::Default,
        };
        input.final_script_witness = Some(Witness::p2tr_key_spend(&signature));
        // What BIP-371 tells a finaliser to remove.
        input.sighash_type = None;
        input.tap_key_sig = None;
        input.tap_internal_key = None;
        input.tap_merkle_root = None;
        input.tap_key_origins.clear();
        input.tap_scripts.clear();
        input.tap_script_sigs.clear();
        signed.push(index);
    }
    let prevouts = prevouts(&psbt)?;
    let script = output_script(internal_key)?;
    let mut transaction = psbt.unsigned_tx.clone();
    for (input, from) in transaction.input.iter_mut().zip(&psbt.inputs) {
        input.witness = from.final_script_witness.clone().unwrap_or_default();
        input.script_sig = from.final_script_sig.clone().unwrap_or_default();
    }
    verify(&transaction, &prevouts, &script, &signed)?;

    let open: Vec<usize> = psbt
        .inputs
        .iter()
        .enumerate()
        .filter(|(_, input)| {
            input.final_script_witness.is_none() && input.final_script_sig.is_none()
        })
        .map(|(index, _)| index)
        .collect();
    if open.is_empty() {
        let fee = psbt.fee().map_err(|cause| Error::input("PSBT", cause))?;
        Ok(Signed::Final(Box::new(Spend {
            transaction,
            fee,
            verified: signed,
        })))
    } else {
        Ok(Signed::Partial {
            psbt: Box::new(psbt),
            open,
        })
    }
}

/// Verifies that `inputs` of `transaction` spend outputs of `script` by taproot's key path.
///
/// `prevouts` are the outputs that the transaction spends, all of them, in its inputs' order: BIP-341 hashes
/// their amounts and scripts. Of the transaction nothing but its bytes is believed: signature and key are
/// read from its witness and from `script`.
///
/// # Errors
/// [`Error::Unverified`] for the first input that does not verify.
pub fn verify(
    transaction: &Transaction,
    prevouts: &[TxOut],
    script: &ScriptBuf,
    inputs: &[usize],
) -> Result<()> {
    let failed = |index: usize, problem: &str| {
        Error::unverified(format!("input {index} of the transaction"), problem)
    };
    let secp = Secp256k1::verification_only();
    let output_key = script
        .as_bytes()
        .get(2..)
        .filter(|_| script.is_p2tr())
        .and_then(|key| bitcoin::XOnlyPublicKey::from_slice(key).ok())
        .ok_or_else(|| Error::bug("verify() needs a P2TR script"))?;
    let mut cache = SighashCache::new(transaction);
    for &index in inputs {
        let prevout = prevouts
            .get(index)
            .ok_or_else(|| failed(index, "spends nothing known"))?;
        if prevout.script_pubkey != *script {
            return Err(failed(index, "does not spend an output of this key"));
        }
        let witness = transaction
            .input
            .get(index)
            .map(|input| input.witness.to_vec())
            .ok_or_else(|| failed(index, "does not exist"))?;
        let [signature] = witness.as_slice() else {
            return Err(failed(index, "is no key-path spend"));
        };
        // 64 bytes mean SIGHASH_DEFAULT; this program asks for nothing else.
        let signature = schnorr::Signature::from_slice(signature)
            .map_err(|_| failed(index, "has no 64-byte signature"))?;
        let hash = cache
            .taproot_key_spend_signature_hash(
                index,
                &Prevouts::All(prevouts),
                TapSighashType::Default,
            )
            .map_err(|cause| failed(index, &cause.to_string()))?;
        secp.verify_schnorr(
            &signature,
            &Message::from_digest(hash.to_byte_array()),
            &output_key,
        )
        .map_err(|_| {
            failed(
                index,
                "has a signature that is not this key's over this transaction",
            )
        })?;
    }
    Ok(())
}

/// The script of an internal key's P2TR output without a script tree (BIP-86).
///
/// # Errors
/// As [`address::taproot`].
pub fn output_script(internal_key: &[u8; 32]) -> Result<ScriptBuf> {
    let secp = Secp256k1::verification_only();
    let (output_key, _) = address::internal(internal_key)?.tap_tweak(&secp, None);
    Ok(ScriptBuf::new_p2tr_tweaked(output_key))
}

/// Verifies a BIP-340 signature over a digest under an untweaked key.
///
/// # Errors
/// [`Error::Unverified`] when it does not verify, [`Error::Input`] when the key is no x coordinate.
pub fn verify_digest(public_key: &[u8; 32], digest: &[u8; 32], signature: &[u8; 64]) -> Result<()> {
    let failed = || Error::unverified("BIP-340 signature", "it is not this key's over this digest");
    let signature = schnorr::Signature::from_slice(signature).map_err(|_| failed())?;
    Secp256k1::verification_only()
        .verify_schnorr(
            &signature,
            &Message::from_digest(*digest),
            &address::internal(public_key)?,
        )
        .map_err(|_| failed())
}

fn prevouts(psbt: &Psbt) -> Result<Vec<TxOut>> {
    psbt.iter_funding_utxos()
        .map(|utxo| utxo.cloned().map_err(|cause| Error::input("PSBT", cause)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::absolute::LockTime;
    use bitcoin::key::Keypair;
    use bitcoin::transaction::Version;
    use bitcoin::{OutPoint, Sequence, TxIn};

    const INTERNAL_SECRET: [u8; 32] = [7; 32];

    fn keypair() -> Keypair {
        Keypair::from_seckey_slice(&Secp256k1::new(), &INTERNAL_SECRET).unwrap()
    }

    fn internal_key() -> [u8; 32] {
        keypair().x_only_public_key().0.serialize()
    }

    /// Two inputs of the key, and whatever `more` outputs to spend besides.
    fn unsigned(more: &[ScriptBuf]) -> Psbt {
        let ours = output_script(&internal_key()).unwrap();
        let mut scripts = vec![ours.clone(), ours];
        scripts.extend_from_slice(more);
        let input = |vout| TxIn {
            previous_output: OutPoint::new(bitcoin::Txid::from_byte_array([9; 32]), vout),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        };
        let transaction = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: (0..scripts.len())
                .map(|i| input(u32::try_from(i).unwrap()))
                .collect(),
            output: vec![TxOut {
                value: Amount::from_sat(15_000),
                script_pubkey: ScriptBuf::new_op_return([1]),
            }],
        };
        let mut psbt = Psbt::from_unsigned_tx(transaction).unwrap();
        for (input, script_pubkey) in psbt.inputs.iter_mut().zip(scripts) {
            input.witness_utxo = Some(TxOut {
                value: Amount::from_sat(10_000),
                script_pubkey,
            });
        }
        psbt
    }

    fn signature(psbt: &Psbt, index: usize) -> (u32, [u8; 64]) {
        let secp = Secp256k1::new();
        let prevouts = prevouts(psbt).unwrap();
        let hash = SighashCache::new(&psbt.unsigned_tx)
            .taproot_key_spend_signature_hash(
                index,
                &Prevouts::All(&prevouts),
                TapSighashType::Default,
            )
            .unwrap();
        let key = keypair().tap_tweak(&secp, None).to_keypair();
        let message = Message::from_digest(hash.to_byte_array());
        let signature = secp.sign_schnorr_no_aux_rand(&message, &key).serialize();
        (u32::try_from(index).unwrap(), signature)
    }

    #[test]
    fn every_form_of_a_psbt_is_read() {
        let psbt = unsigned(&[]);
        let binary = psbt.serialize();
        assert_eq!(parse(&binary).unwrap(), psbt);
        assert_eq!(parse(hex::encode(&binary).as_bytes()).unwrap(), psbt);
        let base64 = format!("{}\n", STANDARD.encode(&binary));
        assert_eq!(parse(base64.as_bytes()).unwrap(), psbt);
        for garbage in [&b""[..], b"psbt\xff", b"cHNid", b"\xff\xfe", b"00"] {
            assert!(matches!(parse(garbage), Err(Error::Input { .. })));
        }
    }

    #[test]
    fn a_signed_psbt_becomes_a_transaction() {
        let psbt = unsigned(&[]);
        let signatures = [signature(&psbt, 0), signature(&psbt, 1)];
        let Signed::Final(spend) = finalise(psbt, &internal_key(), &signatures).unwrap() else {
            panic!("both inputs are signed");
        };
        assert_eq!(spend.fee, Amount::from_sat(5_000));
        assert_eq!(spend.verified, [0, 1]);
        let read: Transaction = encode::deserialize_hex(&spend.hex()).unwrap();
        assert_eq!(read, spend.transaction);
        assert!(read.input.iter().all(|input| input.witness.len() == 1));
    }

    #[test]
    fn a_signature_of_another_input_is_refused() {
        let psbt = unsigned(&[]);
        let (_, first) = signature(&psbt, 0);
        let outcome = finalise(psbt, &internal_key(), &[(0, first), (1, first)]);
        assert!(
            matches!(outcome, Err(Error::Unverified { object, .. }) if object.contains("input 1"))
        );
    }

    #[test]
    fn a_tampered_signature_is_refused() {
        let psbt = unsigned(&[]);
        let (_, mut first) = signature(&psbt, 0);
        first[40] ^= 1;
        assert!(finalise(psbt.clone(), &internal_key(), &[(0, first)]).is_err());
        assert!(finalise(psbt.clone(), &internal_key(), &[(7, first)]).is_err());
        assert!(finalise(psbt, &internal_key(), &[]).is_err());
    }

    #[test]
    fn an_input_of_somebody_else_is_not_taken_for_ours() {
        let other = output_script(&hex_key(
            "cc8a4bc64d897bddc5fbc2f670f7a8ba0b386779106cf1223c6fc5d7cd6fc115",
        ))
        .unwrap();
        let psbt = unsigned(&[other]);
        let ours = [signature(&psbt, 0), signature(&psbt, 1)];
        let Signed::Partial {
            psbt: partial,
            open,
        } = finalise(psbt.clone(), &internal_key(), &ours).unwrap()
        else {
            panic!("input 2 is not ours");
        };
        assert_eq!(open, [2]);
        assert!(partial.inputs[0].final_script_witness.is_some());

        let third = signature(&psbt, 2);
        assert!(finalise(psbt, &internal_key(), &[third]).is_err());
    }

    fn hex_key(text: &str) -> [u8; 32] {
        hex::decode(text).unwrap().try_into().unwrap()
    }
}
