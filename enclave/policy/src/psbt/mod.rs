//! Bitcoin transactions in PSBTs (BIP-174, BIP-371).
//!
//! | key | its outputs | spent with |
//! | --- | --- | --- |
//! | BIP-340 | P2TR of the key without script tree (BIP-86) | the key path, SIGHASH_DEFAULT (BIP-341): [`taproot`] |
//! | ECDSA secp256k1 | P2WPKH of the key, and of keys below it (BIP-84 without hardening) | SIGHASH_ALL (BIP-143): [`p2wpkh`] |
//!
//! Inputs of others may be of any kind: they are told and left alone. Every signature commits to all inputs and
//! to all outputs. To the amounts that the inputs hold a taproot signature commits too, all of them: a PSBT that
//! lies about any gives signatures that are worth nothing. One for P2WPKH does not, see [`p2wpkh`].

mod p2wpkh;
mod spend;
mod taproot;

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::consensus::encode;
use bitcoin::hashes::Hash;
use bitcoin::psbt::{Error, Input, Output, Psbt};
use bitcoin::sighash::SighashCache;
use bitcoin::{Amount, OutPoint, Script, Transaction, TxOut};

use crate::{PublicKey, Rejection, Signable, SigningKey};
use p2wpkh::P2wpkh;
pub use spend::{BitcoinInput, BitcoinOutput, BitcoinSpend};
use taproot::Taproot;

/// Bytes of a PSBT.
pub const MAX_PSBT_BYTES: usize = 256 * 1024;
/// Inputs of a transaction, whoever owns them.
pub const MAX_INPUTS: usize = 256;
/// Outputs of a transaction.
pub const MAX_OUTPUTS: usize = 256;
/// Inputs that are signed in one request.
pub const MAX_SIGNED_INPUTS: usize = 64;

/// The outputs that are a key's, and how they are spent.
trait Owner {
    /// What the key's outputs are, to complete "none of the inputs spends …".
    const OUTPUTS: &str;
    /// The signature hash type that is signed, as a PSBT writes it, and its name.
    const SIGHASH_TYPE: (u32, &str);

    /// Where below the group's key the script belongs that this input spends; none if it is not the key's.
    fn input(
        &self,
        index: usize,
        input: &Input,
        script: &Script,
    ) -> Result<Option<Path>, Rejection>;

    /// Where below the group's key this output pays to; none if it is not the key's.
    fn output(
        &self,
        index: usize,
        output: &Output,
        script: &Script,
    ) -> Result<Option<Path>, Rejection>;

    /// Refuses what an input of the key must not say.
    fn check_own(&self, index: usize, input: &Input) -> Result<(), Rejection>;

    /// Refuses a PSBT that could lie about amounts.
    fn check_amounts(&self, psbt: &Psbt) -> Result<(), Rejection>;

    /// The key that signs at this path.
    fn signing_key(&self, path: Path) -> Result<SigningKey, Rejection>;

    /// What is signed; none beyond bounds that are checked before.
    fn signature_hash(
        cache: &mut SighashCache<&Transaction>,
        index: usize,
        prevouts: &[TxOut],
    ) -> Option<[u8; 32]>;
}

/// A derivation path below the group's key.
type Path = Vec<u32>;

/// Decodes a PSBT for the BIP-340 key with this x-only internal key, and gives the signature hashes of its own
/// inputs.
pub(crate) fn decode_taproot(
    bytes: &[u8],
    key: &[u8; 32],
) -> Result<(BitcoinSpend, Vec<Signable>), Rejection> {
    decode(bytes, &Taproot::new(key)?)
}

/// Decodes a PSBT for the ECDSA key, and gives the signature hashes of its own inputs: of the key at `path`, and
/// of those below the group's key that the PSBT tells of.
pub(crate) fn decode_p2wpkh(
    bytes: &[u8],
    key: &PublicKey,
    path: &[u32],
) -> Result<(BitcoinSpend, Vec<Signable>), Rejection> {
    decode(bytes, &P2wpkh::new(key, path)?)
}

fn decode<O: Owner>(bytes: &[u8], owner: &O) -> Result<(BitcoinSpend, Vec<Signable>), Rejection> {
    let psbt = parse(bytes)?;
    let prevouts = prevouts(&psbt)?;

    let mut own = BTreeMap::new();
    for (index, (input, prevout)) in psbt.inputs.iter().zip(&prevouts).enumerate() {
        if let Some(path) = owner.input(index, input, &prevout.script_pubkey)? {
            check_unsigned::<O>(index, input)?;
            owner.check_own(index, input)?;
            own.insert(index, path);
        }
    }
    if own.is_empty() {
        return Err(Rejection::NoInputOfKey {
            inputs: psbt.inputs.len(),
            expected: O::OUTPUTS,
        });
    }
    at_most("psbt.inputs of the key", own.len(), MAX_SIGNED_INPUTS)?;
    owner.check_amounts(&psbt)?;

    let outputs = psbt.outputs.iter().zip(&psbt.unsigned_tx.output);
    let change = outputs
        .enumerate()
        .map(|(index, (output, txout))| owner.output(index, output, &txout.script_pubkey))
        .collect::<Result<Vec<_>, _>>()?;
    let fee = fee(&psbt.unsigned_tx, &prevouts)?;
    let spend = describe(&psbt.unsigned_tx, &prevouts, &own, change, fee);
    Ok((spend, signables(&psbt.unsigned_tx, &prevouts, own, owner)?))
}

/// Well-formed, within the bounds, nothing behind it, and no output spent twice.
fn parse(bytes: &[u8]) -> Result<Psbt, Rejection> {
    at_most("psbt", bytes.len(), MAX_PSBT_BYTES)?;
    let mut rest = bytes;
    let psbt = Psbt::deserialize_from_reader(&mut rest)
        .map_err(|error| Rejection::malformed("psbt", parse_failure(&error)))?;
    if !rest.is_empty() {
        return Err(Rejection::malformed(
            "psbt",
            "bytes follow the last output's map",
        ));
    }
    let transaction = &psbt.unsigned_tx;
    at_most("psbt.inputs", transaction.input.len(), MAX_INPUTS)?;
    at_most("psbt.outputs", transaction.output.len(), MAX_OUTPUTS)?;
    if transaction.output.is_empty() {
        return Err(Rejection::malformed("psbt.outputs", "there are none"));
    }
    let mut spent = BTreeSet::new();
    for (index, input) in transaction.input.iter().enumerate() {
        if !spent.insert(input.previous_output) {
            return Err(Rejection::malformed(
                format!("psbt.inputs[{index}]"),
                "spends what another input spends",
            ));
        }
    }
    Ok(psbt)
}

/// The outputs that the transaction spends, one for each input: the fee comes of them all, and BIP-341 hashes them
/// all, so all must be known.
fn prevouts(psbt: &Psbt) -> Result<Vec<TxOut>, Rejection> {
    let inputs = psbt.unsigned_tx.input.iter().zip(&psbt.inputs).enumerate();
    inputs
        .map(|(index, (txin, input))| prevout(index, txin.previous_output, input))
        .collect()
}

/// Takes `witness_utxo` or the output that the whole previous transaction tells; both must agree.
fn prevout(index: usize, outpoint: OutPoint, input: &Input) -> Result<TxOut, Rejection> {
    let mismatch = |field, detail| Rejection::InputMismatch {
        input: index,
        field,
        detail,
    };
    let Some(previous) = &input.non_witness_utxo else {
        return input
            .witness_utxo
            .clone()
            .ok_or(Rejection::MissingUtxo { input: index });
    };
    if previous.compute_txid() != outpoint.txid {
        return Err(mismatch(
            "non_witness_utxo",
            "is not the transaction that the input spends from",
        ));
    }
    let output = usize::try_from(outpoint.vout)
        .ok()
        .and_then(|vout| previous.output.get(vout));
    let output = output.ok_or_else(|| {
        mismatch(
            "non_witness_utxo",
            "has no output at the index that is spent",
        )
    })?;
    match &input.witness_utxo {
        Some(claimed) if claimed != output => {
            Err(mismatch("witness_utxo", "differs from non_witness_utxo"))
        }
        _ => Ok(output.clone()),
    }
}

/// An input of the key is signed here first, and with one signature hash type alone.
fn check_unsigned<O: Owner>(index: usize, input: &Input) -> Result<(), Rejection> {
    let (expected, name) = O::SIGHASH_TYPE;
    if let Some(sighash_type) = input.sighash_type
        && sighash_type.to_u32() != expected
    {
        return Err(Rejection::SighashType {
            input: index,
            actual: sighash_type.to_u32(),
            expected: name,
        });
    }
    let signatures = [
        ("tap_key_sig", input.tap_key_sig.is_some()),
        ("final_script_witness", input.final_script_witness.is_some()),
        ("final_script_sig", input.final_script_sig.is_some()),
        ("tap_script_sig", !input.tap_script_sigs.is_empty()),
        ("partial_sig", !input.partial_sigs.is_empty()),
    ];
    match signatures.into_iter().find(|(_, present)| *present) {
        Some((field, _)) => Err(Rejection::AlreadySigned {
            input: index,
            field,
        }),
        None => Ok(()),
    }
}

/// Fields that belong to outputs of another kind than the key's.
fn check_absent(
    index: usize,
    fields: &[(&'static str, bool)],
    detail: &'static str,
) -> Result<(), Rejection> {
    match fields.iter().find(|(_, present)| *present) {
        Some((field, _)) => Err(Rejection::InputMismatch {
            input: index,
            field,
            detail,
        }),
        None => Ok(()),
    }
}

fn fee(transaction: &Transaction, prevouts: &[TxOut]) -> Result<u64, Rejection> {
    let inputs = sum("psbt.inputs", prevouts)?;
    let outputs = sum("psbt.outputs", &transaction.output)?;
    inputs
        .checked_sub(outputs)
        .ok_or(Rejection::NegativeFee { inputs, outputs })
}

/// No amount and no sum of amounts may exceed what exists, so that nothing can overflow either.
fn sum(field: &'static str, outputs: &[TxOut]) -> Result<u64, Rejection> {
    let mut sum = 0_u64;
    for (index, output) in outputs.iter().enumerate() {
        sum = sum
            .checked_add(output.value.to_sat())
            .filter(|sum| *sum <= Amount::MAX_MONEY.to_sat())
            .ok_or_else(|| Rejection::AmountOutOfRange {
                field: format!("{field}[..={index}]"),
            })?;
    }
    Ok(sum)
}

fn signables<O: Owner>(
    transaction: &Transaction,
    prevouts: &[TxOut],
    own: BTreeMap<usize, Path>,
    owner: &O,
) -> Result<Vec<Signable>, Rejection> {
    let mut cache = SighashCache::new(transaction);
    let signable = |(index, path)| {
        // Both fail only beyond bounds that were checked before.
        let impossible =
            || Rejection::malformed(format!("psbt.inputs[{index}]"), "has no signature hash");
        let hash = O::signature_hash(&mut cache, index, prevouts).ok_or_else(impossible)?;
        Ok(Signable {
            message: hash.to_vec(),
            key: owner.signing_key(path)?,
            input: u32::try_from(index).map_err(|_| impossible())?,
        })
    };
    own.into_iter().map(signable).collect()
}

fn describe(
    transaction: &Transaction,
    prevouts: &[TxOut],
    own: &BTreeMap<usize, Path>,
    change: Vec<Option<Path>>,
    fee: u64,
) -> BitcoinSpend {
    let inputs = transaction.input.iter().zip(prevouts).enumerate();
    let inputs = inputs.map(|(index, (txin, prevout))| BitcoinInput {
        txid: txin.previous_output.txid.to_byte_array(),
        vout: txin.previous_output.vout,
        sequence: txin.sequence.to_consensus_u32(),
        amount: prevout.value.to_sat(),
        script_pubkey: prevout.script_pubkey.to_bytes(),
        own: own.contains_key(&index),
    });
    let outputs = transaction.output.iter().zip(change);
    let outputs = outputs.map(|(output, change)| BitcoinOutput {
        amount: output.value.to_sat(),
        script_pubkey: output.script_pubkey.to_bytes(),
        change,
    });
    BitcoinSpend {
        version: transaction.version.0,
        lock_time: transaction.lock_time.to_consensus_u32(),
        inputs: inputs.collect(),
        outputs: outputs.collect(),
        fee,
    }
}

fn at_most(field: &'static str, actual: usize, limit: usize) -> Result<(), Rejection> {
    if actual <= limit {
        return Ok(());
    }
    Err(Rejection::TooLarge {
        field,
        actual: actual as u64,
        limit: limit as u64,
    })
}

/// The parser's errors carry the caller's bytes; these texts do not.
fn parse_failure(error: &Error) -> &'static str {
    match error {
        Error::InvalidMagic | Error::InvalidSeparator => {
            "does not begin with the magic bytes of a binary PSBT"
        }
        Error::Version(_) => "is of another version than 0",
        Error::MustHaveUnsignedTx => "has no unsigned transaction",
        Error::UnsignedTxHasScriptSigs | Error::UnsignedTxHasScriptWitnesses => {
            "the unsigned transaction carries signatures"
        }
        Error::DuplicateKey(_) => "a field occurs twice",
        Error::InvalidKey(_) | Error::InvalidProprietaryKey => "a field's key is malformed",
        Error::ConsensusEncoding(encode::Error::Io(_)) | Error::Io(_) => "ends too early",
        Error::PartialDataConsumption => "bytes are left behind a value",
        _ => "a field's value is malformed",
    }
}
