//! Bitcoin transactions in PSBTs (BIP-174, BIP-371), spent by the key path (BIP-341) of single-key outputs
//! (BIP-86).
//!
//! An input is the key's own when its output is P2TR under the key tweaked with the empty script tree. Every
//! signature is SIGHASH_DEFAULT, which commits to all inputs with their amounts and scripts and to all
//! outputs: a PSBT that lies about any amount gives signatures that are worth nothing.

use std::collections::BTreeSet;
use std::fmt;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode;
use bitcoin::hashes::Hash;
use bitcoin::hex::DisplayHex;
use bitcoin::key::{Secp256k1, TapTweak, UntweakedPublicKey};
use bitcoin::psbt::{Error, Input, Psbt};
use bitcoin::sighash::{Prevouts, SighashCache, TapSighashType};
use bitcoin::{Address, Amount, Network, OutPoint, Script, ScriptBuf, Transaction, TxOut};

use crate::canonical::Encoder;
use crate::{Rejection, Signable, SigningKey};

/// Bytes of a PSBT.
pub const MAX_PSBT_BYTES: usize = 256 * 1024;
/// Inputs of a transaction, whoever owns them.
pub const MAX_INPUTS: usize = 256;
/// Outputs of a transaction.
pub const MAX_OUTPUTS: usize = 256;
/// Inputs that are signed in one request.
pub const MAX_SIGNED_INPUTS: usize = 64;

/// Scripts up to this many bytes are shown whole, longer ones by their hash.
const SHOWN_SCRIPT_BYTES: usize = 128;

/// A transaction that spends at least one output of the key. Amounts are satoshi.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitcoinSpend {
    /// Transaction version.
    pub version: i32,
    /// The `nLockTime` field.
    pub lock_time: u32,
    /// In the transaction's order.
    pub inputs: Vec<BitcoinInput>,
    /// In the transaction's order.
    pub outputs: Vec<BitcoinOutput>,
    /// What the inputs hold beyond the outputs.
    pub fee: u64,
}

/// An output that the transaction spends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitcoinInput {
    /// Id of the transaction it stands in, as hashed (shown reversed).
    pub txid: [u8; 32],
    /// Its index there.
    pub vout: u32,
    /// The `nSequence` field.
    pub sequence: u32,
    /// Satoshi.
    pub amount: u64,
    /// The script that locks it.
    pub script_pubkey: Vec<u8>,
    /// Whether it is the key's, and so to be signed.
    pub own: bool,
}

/// An output that the transaction makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitcoinOutput {
    /// Satoshi.
    pub amount: u64,
    /// The script that locks it: the destination.
    pub script_pubkey: Vec<u8>,
    /// Whether it pays back to the key itself.
    pub change: bool,
}

/// Decodes a PSBT for the key with this x-only internal key, and gives the signature hashes of its own
/// inputs.
pub(crate) fn decode(
    bytes: &[u8],
    key: &[u8; 32],
) -> Result<(BitcoinSpend, Vec<Signable>), Rejection> {
    let own_script = own_script(key)?;
    let psbt = parse(bytes)?;
    let prevouts = prevouts(&psbt)?;

    let mut own = Vec::new();
    for (index, (input, prevout)) in psbt.inputs.iter().zip(&prevouts).enumerate() {
        if prevout.script_pubkey == own_script {
            check_own(index, input, key)?;
            own.push(index);
        } else if input
            .tap_internal_key
            .is_some_and(|internal| internal.serialize() == *key)
        {
            let detail = "is this key, but the output is not the key's BIP-86 output (P2TR without script tree)";
            return Err(Rejection::InputMismatch {
                input: index,
                field: "tap_internal_key",
                detail,
            });
        }
    }
    if own.is_empty() {
        return Err(Rejection::NoInputOfKey {
            inputs: psbt.inputs.len(),
        });
    }
    at_most("psbt.inputs of the key", own.len(), MAX_SIGNED_INPUTS)?;

    let fee = fee(&psbt.unsigned_tx, &prevouts)?;
    let signables = signature_hashes(&psbt.unsigned_tx, &prevouts, &own)?;
    Ok((
        describe(&psbt.unsigned_tx, &prevouts, &own_script, fee),
        signables,
    ))
}

/// The only script whose outputs are the key's: P2TR of the key tweaked with no script tree (BIP-86).
fn own_script(key: &[u8; 32]) -> Result<ScriptBuf, Rejection> {
    let internal = UntweakedPublicKey::from_slice(key).map_err(|_| Rejection::InvalidKey)?;
    // Tweaking fails for a tweak that hits the group order or the key's negation: no one can find such a key.
    let (output_key, _parity) = internal.tap_tweak(&Secp256k1::verification_only(), None);
    Ok(ScriptBuf::new_p2tr_tweaked(output_key))
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

/// The outputs that the transaction spends, one for each input: BIP-341 hashes them all, so all must be known.
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

/// An input of the key must be one that a SIGHASH_DEFAULT key-path signature completes, and say nothing else.
fn check_own(index: usize, input: &Input, key: &[u8; 32]) -> Result<(), Rejection> {
    let mismatch = |field, detail| {
        Err(Rejection::InputMismatch {
            input: index,
            field,
            detail,
        })
    };
    if let Some(sighash_type) = input.sighash_type
        && sighash_type.to_u32() != TapSighashType::Default as u32
    {
        return Err(Rejection::SighashType {
            input: index,
            actual: sighash_type.to_u32(),
        });
    }
    let signatures = [
        ("tap_key_sig", input.tap_key_sig.is_some()),
        ("final_script_witness", input.final_script_witness.is_some()),
        ("final_script_sig", input.final_script_sig.is_some()),
        ("tap_script_sig", !input.tap_script_sigs.is_empty()),
        ("partial_sig", !input.partial_sigs.is_empty()),
    ];
    if let Some((field, _)) = signatures.into_iter().find(|(_, present)| *present) {
        return Err(Rejection::AlreadySigned {
            input: index,
            field,
        });
    }
    if input
        .tap_internal_key
        .is_some_and(|internal| internal.serialize() != *key)
    {
        return mismatch(
            "tap_internal_key",
            "is not this key, though the output is this key's",
        );
    }
    if input.tap_merkle_root.is_some() {
        return mismatch(
            "tap_merkle_root",
            "is set, though the key's output has no script tree",
        );
    }
    if !input.tap_scripts.is_empty() {
        return mismatch(
            "tap_leaf_script",
            "is set, though the key's output has no script tree",
        );
    }
    if input.redeem_script.is_some() {
        return mismatch(
            "redeem_script",
            "is set, though the key's output is taproot",
        );
    }
    if input.witness_script.is_some() {
        return mismatch(
            "witness_script",
            "is set, though the key's output is taproot",
        );
    }
    Ok(())
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

fn signature_hashes(
    transaction: &Transaction,
    prevouts: &[TxOut],
    own: &[usize],
) -> Result<Vec<Signable>, Rejection> {
    let mut cache = SighashCache::new(transaction);
    let hash = |index: &usize| {
        // Both conversions fail only beyond bounds that were checked before.
        let impossible =
            |_| Rejection::malformed(format!("psbt.inputs[{index}]"), "has no signature hash");
        let hash = cache
            .taproot_key_spend_signature_hash(
                *index,
                &Prevouts::All(prevouts),
                TapSighashType::Default,
            )
            .map_err(|_| impossible(()))?;
        let input = u32::try_from(*index).map_err(|_| impossible(()))?;
        Ok(Signable {
            message: hash.to_byte_array().to_vec(),
            key: SigningKey::TaprootKeyPath,
            input,
        })
    };
    own.iter().map(hash).collect()
}

fn describe(
    transaction: &Transaction,
    prevouts: &[TxOut],
    own_script: &Script,
    fee: u64,
) -> BitcoinSpend {
    let inputs = transaction
        .input
        .iter()
        .zip(prevouts)
        .map(|(txin, prevout)| BitcoinInput {
            txid: txin.previous_output.txid.to_byte_array(),
            vout: txin.previous_output.vout,
            sequence: txin.sequence.to_consensus_u32(),
            amount: prevout.value.to_sat(),
            script_pubkey: prevout.script_pubkey.to_bytes(),
            own: prevout.script_pubkey.as_script() == own_script,
        });
    let outputs = transaction.output.iter().map(|output| BitcoinOutput {
        amount: output.value.to_sat(),
        script_pubkey: output.script_pubkey.to_bytes(),
        change: output.script_pubkey.as_script() == own_script,
    });
    BitcoinSpend {
        version: transaction.version.0,
        lock_time: transaction.lock_time.to_consensus_u32(),
        inputs: inputs.collect(),
        outputs: outputs.collect(),
        fee,
    }
}

impl BitcoinSpend {
    pub(crate) fn encode(&self, encoder: Encoder) -> Encoder {
        encoder
            // The transaction's own encoding of a signed 32-bit number.
            .bytes(&self.version.to_le_bytes())
            .number(self.lock_time)
            .list(&self.inputs, |encoder, input| {
                encoder
                    .bytes(&input.txid)
                    .number(input.vout)
                    .number(input.sequence)
                    .number(input.amount)
                    .bytes(&input.script_pubkey)
                    .flag(input.own)
            })
            .list(&self.outputs, |encoder, output| {
                encoder
                    .number(output.amount)
                    .bytes(&output.script_pubkey)
                    .flag(output.change)
            })
            .number(self.fee)
    }

    /// How many inputs are the key's, or are not, and how many satoshi they hold.
    fn inputs_where(&self, own: bool) -> (usize, u64) {
        let amounts = self
            .inputs
            .iter()
            .filter(|input| input.own == own)
            .map(|input| input.amount);
        amounts.fold((0, 0), |(count, sum), amount| {
            (count + 1, sum.saturating_add(amount))
        })
    }
}

impl fmt::Display for BitcoinSpend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (own, own_amount) = self.inputs_where(true);
        let (others, others_amount) = self.inputs_where(false);
        writeln!(f, "Bitcoin transaction (addresses in mainnet form)")?;
        writeln!(f, "  spends {own_amount} sat of this key in {own} input(s)")?;
        if others > 0 {
            writeln!(
                f,
                "  spends {others_amount} sat of others in {others} input(s)"
            )?;
        }
        for output in &self.outputs {
            let verb = if output.change { "change" } else { "pays" };
            writeln!(
                f,
                "  {verb} {} sat to {}",
                output.amount,
                Destination(&output.script_pubkey)
            )?;
        }
        let lock_time = LockTime::from_consensus(self.lock_time);
        if lock_time != LockTime::ZERO && self.inputs.iter().any(|input| input.sequence != u32::MAX)
        {
            writeln!(f, "  valid only after {lock_time:#}")?;
        }
        write!(f, "  fee {} sat", self.fee)
    }
}

struct Destination<'a>(&'a [u8]);

impl fmt::Display for Destination<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let script = Script::from_bytes(self.0);
        if let Ok(address) = Address::from_script(script, Network::Bitcoin) {
            write!(f, "{address}")
        } else if self.0.len() <= SHOWN_SCRIPT_BYTES {
            write!(f, "the script {}", self.0.as_hex())
        } else {
            let hash = bitcoin::hashes::sha256::Hash::hash(self.0);
            write!(f, "a script of {} bytes with SHA-256 {hash}", self.0.len())
        }
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
