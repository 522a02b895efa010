//! From a PSBT and the cluster's signatures to a transaction that the network accepts.

use bitcoin::base64::Engine;
use bitcoin::base64::engine::general_purpose::STANDARD;
use bitcoin::consensus::encode;
use bitcoin::hashes::Hash;
use bitcoin::key::{Secp256k1, TapTweak};
use bitcoin::psbt::{Input, Psbt};
use bitcoin::secp256k1::{self, Message, schnorr};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::{Amount, CompressedPublicKey, ScriptBuf, Transaction, TxOut, Witness, taproot};

use crate::error::{Error, Result};
use crate::{address, ecdsa};

/// What verifies a finished taproot spend here.
pub const VERIFIER: &str = "libsecp256k1 over the BIP-341 signature hash";
/// What verifies a finished P2WPKH spend here.
pub const P2WPKH_VERIFIER: &str = "libsecp256k1 over the BIP-143 signature hash";

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
    /// The inputs that the cluster signed and libsecp256k1 verified.
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
    psbt: Psbt,
    internal_key: &[u8; 32],
    signatures: &[(u32, [u8; 64])],
) -> Result<Signed> {
    let script = output_script(internal_key)?;
    let spends = signatures.iter().map(|(input, bytes)| {
        let signature = taproot::Signature {
            signature: schnorr::Signature::from_slice(bytes).map_err(Error::bug)?,
            sighash_type: TapSighashType::Default,
        };
        Ok((*input, script.clone(), Witness::p2tr_key_spend(&signature)))
    });
    complete(psbt, spends.collect::<Result<_>>()?)
}

/// As [`finalise`], for P2WPKH inputs: each with the compressed key that it belongs to and its ECDSA signature,
/// r and s, made with SIGHASH_ALL.
///
/// # Errors
/// As [`finalise`].
pub fn finalise_p2wpkh(psbt: Psbt, signatures: &[(u32, [u8; 33], [u8; 64])]) -> Result<Signed> {
    let spends = signatures.iter().map(|(input, public_key, signature)| {
        let mut der = ecdsa::der(signature)?;
        der.push(SIGHASH_ALL);
        let witness = Witness::from_slice(&[der.as_slice(), public_key]);
        let script = ScriptBuf::from_bytes(arca_policy::p2wpkh_script(public_key));
        Ok((*input, script, witness))
    });
    complete(psbt, spends.collect::<Result<_>>()?)
}

/// The signature hash type at the end of an ECDSA signature.
const SIGHASH_ALL: u8 = 1;

/// Finalises inputs, each with the script that it has to spend and its witness.
fn complete(mut psbt: Psbt, spends: Vec<(u32, ScriptBuf, Witness)>) -> Result<Signed> {
    if spends.is_empty() {
        return Err(Error::unverified("signed PSBT", "no input was signed"));
    }
    let mut signed = Vec::with_capacity(spends.len());
    for (index, script, witness) in spends {
        let index = usize::try_from(index).map_err(Error::bug)?;
        let input = psbt
            .inputs
            .get_mut(index)
            .ok_or_else(|| Error::unverified("signed PSBT", format!("it has no input {index}")))?;
        // What BIP-174 and BIP-371 tell a finaliser to keep: the coin, and what nobody here knows.
        *input = Input {
            witness_utxo: input.witness_utxo.take(),
            non_witness_utxo: input.non_witness_utxo.take(),
            final_script_witness: Some(witness),
            proprietary: std::mem::take(&mut input.proprietary),
            unknown: std::mem::take(&mut input.unknown),
            ..Input::default()
        };
        signed.push((index, script));
    }
    let prevouts = prevouts(&psbt)?;
    let mut transaction = psbt.unsigned_tx.clone();
    for (input, from) in transaction.input.iter_mut().zip(&psbt.inputs) {
        input.witness = from.final_script_witness.clone().unwrap_or_default();
        input.script_sig = from.final_script_sig.clone().unwrap_or_default();
    }
    for (index, script) in &signed {
        verify(&transaction, &prevouts, script, &[*index])?;
    }

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
            verified: signed.into_iter().map(|(index, _)| index).collect(),
        })))
    } else {
        Ok(Signed::Partial {
            psbt: Box::new(psbt),
            open,
        })
    }
}

/// Verifies that `inputs` of `transaction` spend outputs of `script`: P2TR by the key path, or P2WPKH.
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
        let outcome = if script.is_p2tr() {
            verify_key_path(&mut cache, prevouts, script, index, &witness)
        } else if script.is_p2wpkh() {
            verify_witness_key(&mut cache, prevout, index, &witness)
        } else {
            return Err(Error::bug("verify() needs a P2TR or P2WPKH script"));
        };
        outcome.map_err(|problem| failed(index, &problem))?;
    }
    Ok(())
}

const NOT_THIS_KEYS: &str = "has a signature that is not this key's over this transaction";

fn verify_key_path(
    cache: &mut SighashCache<&Transaction>,
    prevouts: &[TxOut],
    script: &ScriptBuf,
    index: usize,
    witness: &[Vec<u8>],
) -> std::result::Result<(), String> {
    let output_key = script
        .as_bytes()
        .get(2..)
        .and_then(|key| bitcoin::XOnlyPublicKey::from_slice(key).ok())
        .ok_or("spends an output whose key is no point")?;
    let [signature] = witness else {
        return Err("is no key-path spend".to_owned());
    };
    // 64 bytes mean SIGHASH_DEFAULT; this program asks for nothing else.
    let signature =
        schnorr::Signature::from_slice(signature).map_err(|_| "has no 64-byte signature")?;
    let hash = cache
        .taproot_key_spend_signature_hash(index, &Prevouts::All(prevouts), TapSighashType::Default)
        .map_err(|cause| cause.to_string())?;
    Secp256k1::verification_only()
        .verify_schnorr(
            &signature,
            &Message::from_digest(hash.to_byte_array()),
            &output_key,
        )
        .map_err(|_| NOT_THIS_KEYS.to_owned())
}

fn verify_witness_key(
    cache: &mut SighashCache<&Transaction>,
    prevout: &TxOut,
    index: usize,
    witness: &[Vec<u8>],
) -> std::result::Result<(), String> {
    let [signature, key] = witness else {
        return Err("is no P2WPKH spend".to_owned());
    };
    let key = CompressedPublicKey::from_slice(key).map_err(|_| "has a key that is no point")?;
    if ScriptBuf::new_p2wpkh(&key.wpubkey_hash()) != prevout.script_pubkey {
        return Err("has another key than the output that it spends".to_owned());
    }
    let Some((&SIGHASH_ALL, der)) = signature.split_last() else {
        return Err("has a signature of another type than SIGHASH_ALL".to_owned());
    };
    let signature =
        secp256k1::ecdsa::Signature::from_der(der).map_err(|_| "has no signature in DER")?;
    let hash = cache
        .p2wpkh_signature_hash(
            index,
            &prevout.script_pubkey,
            prevout.value,
            EcdsaSighashType::All,
        )
        .map_err(|cause| cause.to_string())?;
    // libsecp256k1 refuses a high s here, as the network's policy does.
    Secp256k1::verification_only()
        .verify_ecdsa(
            &Message::from_digest(hash.to_byte_array()),
            &signature,
            &key.0,
        )
        .map_err(|_| NOT_THIS_KEYS.to_owned())
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

    const SECRETS: [[u8; 32]; 2] = [[3; 32], [5; 32]];

    fn compressed(secret: &[u8; 32]) -> [u8; 33] {
        let secret = secp256k1::SecretKey::from_slice(secret).unwrap();
        secret.public_key(&Secp256k1::new()).serialize()
    }

    /// Two P2WPKH inputs of two keys of one tree, and one of somebody else unless `all_ours`.
    fn unsigned_p2wpkh(all_ours: bool) -> Psbt {
        let mut psbt = unsigned(&[ScriptBuf::new_op_return([2])]);
        if all_ours {
            psbt.inputs.pop();
            psbt.unsigned_tx.input.pop();
        }
        for (input, secret) in psbt.inputs.iter_mut().zip(SECRETS) {
            let script = arca_policy::p2wpkh_script(&compressed(&secret));
            input.witness_utxo.as_mut().unwrap().script_pubkey = ScriptBuf::from_bytes(script);
        }
        psbt
    }

    fn ecdsa_signature(psbt: &Psbt, index: usize) -> (u32, [u8; 33], [u8; 64]) {
        let coin = psbt.inputs[index].witness_utxo.clone().unwrap();
        let hash = SighashCache::new(&psbt.unsigned_tx)
            .p2wpkh_signature_hash(
                index,
                &coin.script_pubkey,
                coin.value,
                EcdsaSighashType::All,
            )
            .unwrap();
        let secret = secp256k1::SecretKey::from_slice(&SECRETS[index]).unwrap();
        let signature =
            Secp256k1::new().sign_ecdsa(&Message::from_digest(hash.to_byte_array()), &secret);
        (
            u32::try_from(index).unwrap(),
            compressed(&SECRETS[index]),
            signature.serialize_compact(),
        )
    }

    #[test]
    fn p2wpkh_inputs_become_a_transaction() {
        let psbt = unsigned_p2wpkh(true);
        let signatures = [ecdsa_signature(&psbt, 0), ecdsa_signature(&psbt, 1)];
        let Signed::Final(spend) = finalise_p2wpkh(psbt, &signatures).unwrap() else {
            panic!("both inputs are signed");
        };
        assert_eq!(spend.fee, Amount::from_sat(5_000));
        let read: Transaction = encode::deserialize_hex(&spend.hex()).unwrap();
        for (input, secret) in read.input.iter().zip(&SECRETS) {
            assert!(input.script_sig.is_empty());
            let [signature, key] = input.witness.to_vec().try_into().unwrap();
            assert_eq!(*signature.last().unwrap(), SIGHASH_ALL);
            assert_eq!(key, compressed(secret));
        }
    }

    #[test]
    fn a_p2wpkh_input_takes_no_other_signature_or_key() {
        let psbt = unsigned_p2wpkh(true);
        let (first, second) = (ecdsa_signature(&psbt, 0), ecdsa_signature(&psbt, 1));
        let problem = |signatures: &[_]| {
            let outcome = finalise_p2wpkh(psbt.clone(), signatures);
            assert!(matches!(outcome, Err(Error::Unverified { .. })));
            outcome.unwrap_err().to_string()
        };
        assert!(problem(&[(0, first.1, second.2)]).contains("not this key's"));
        assert!(problem(&[(0, second.1, second.2)]).contains("does not spend"));
        assert!(problem(&[(9, first.1, first.2)]).contains("no input 9"));
        assert!(problem(&[]).contains("no input was signed"));
        let mut tampered = first.2;
        tampered[50] ^= 1;
        assert!(problem(&[(0, first.1, tampered)]).contains("not this key's"));
    }

    #[test]
    fn other_signers_inputs_stay_as_they_are() {
        let mut psbt = unsigned_p2wpkh(false);
        let other = psbt.inputs[2].clone();
        psbt.inputs[0].sighash_type = Some(EcdsaSighashType::All.into());
        let key = CompressedPublicKey::from_slice(&compressed(&SECRETS[0])).unwrap();
        psbt.inputs[0]
            .bip32_derivation
            .insert(key.0, (Default::default(), "m/1".parse().unwrap()));
        let signatures = [ecdsa_signature(&psbt, 0), ecdsa_signature(&psbt, 1)];
        let Signed::Partial { psbt, open } = finalise_p2wpkh(psbt, &signatures).unwrap() else {
            panic!("input 2 is not ours");
        };
        assert_eq!(open, [2]);
        assert_eq!(psbt.inputs[2], other);
        // BIP-174, "Input Finalizer": nothing but the coin and the final witness is left.
        assert!(psbt.inputs[0].bip32_derivation.is_empty());
        assert!(psbt.inputs[0].sighash_type.is_none());
        assert!(psbt.inputs[0].witness_utxo.is_some());
    }

    fn hex_key(text: &str) -> [u8; 32] {
        hex::decode(text).unwrap().try_into().unwrap()
    }
}
