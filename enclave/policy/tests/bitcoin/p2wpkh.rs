//! PSBTs of ECDSA keys.

use arca_policy::{
    KeyFacts, MAX_PATH_STEPS, Payload, PublicKey, Rejection, SigningKey, decode, derive,
    p2wpkh_script,
};
use bitcoin::bip32::{ChildNumber, DerivationPath, Fingerprint};
use bitcoin::consensus::encode::{deserialize_hex, serialize};
use bitcoin::hashes::{Hash, hash160, sha256d};
use bitcoin::psbt::PsbtSighashType;
use bitcoin::secp256k1::{self, ecdsa};
use bitcoin::sighash::EcdsaSighashType;
use bitcoin::taproot::TapNodeHash;
use bitcoin::{Amount, Psbt, ScriptBuf, Transaction, TxOut, Witness};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{INTERNAL_KEY, OTHER_SCRIPT, OWN_SCRIPT, output, spend};

type Change = fn(&mut Psbt);

const REQUESTED: &[u32] = &[44, 7];
const CLAIMED: &[u32] = &[0, 5];

#[test]
fn hashes_as_bip_143_publishes() {
    // BIP-143, "Native P2WPKH": its second input is the key's.
    let mut transaction: Transaction = deserialize_hex(BIP_143_TRANSACTION).unwrap();
    let key: [u8; 33] =
        hex_array("025476c2e83188368da1ff3e292e7acafcdb3566bb0ad253f62fc70f07aeee6357");
    let txout = TxOut {
        value: Amount::from_sat(600_000_000),
        script_pubkey: ScriptBuf::from_bytes(p2wpkh_script(&key)),
    };
    assert_eq!(
        hex::encode(bip_143(&transaction, 1, &key, txout.value)),
        "c37af31116d1b27caf68aae9e3ac82f1477929014d5b917657d0eb49478cb670"
    );

    // The transactions that it spends from are not published, so it cannot be signed as it is.
    let facts = facts(PublicKey::EcdsaSecp256k1 {
        key,
        chain_code: [0; 32],
    });
    let decode = |transaction: &Transaction, utxos: &[TxOut]| {
        let mut psbt = Psbt::from_unsigned_tx(transaction.clone()).unwrap();
        for (input, utxo) in psbt.inputs.iter_mut().zip(utxos) {
            input.witness_utxo = Some(utxo.clone());
        }
        decode(&Payload::Psbt(psbt.serialize()), &facts, &[])
    };
    for input in &mut transaction.input {
        input.script_sig = ScriptBuf::new();
    }
    let refused = decode(
        &transaction,
        &[output(OTHER_SCRIPT, 625_000_000), txout.clone()],
    );
    assert_eq!(refused.unwrap_err(), Rejection::UnprovenAmount { input: 0 });

    // Alone, its amount is what the signature commits to.
    transaction.input.remove(0);
    let intent = decode(&transaction, std::slice::from_ref(&txout)).unwrap();
    let [signable] = intent.signables() else {
        panic!("one input")
    };
    assert_eq!(
        signable.message,
        bip_143(&transaction, 0, &key, txout.value)
    );
    let expected = SigningKey::Derived {
        path: Vec::new(),
        public_key: key,
    };
    assert_eq!((signable.input, &signable.key), (0, &expected));
}

#[test]
fn agrees_with_another_library() {
    // Made by @scure/btc-signer, see vectors/p2wpkh.mjs.
    let vectors = vectors();
    for vector in list(&vectors["psbts"]) {
        let name = &vector["name"];
        let psbt = hex::decode(text(&vector["psbt"])).unwrap();
        let intent = decode(
            &Payload::Psbt(psbt),
            &facts(group()),
            &path(&vector["path"]),
        );
        let intent = intent.unwrap_or_else(|rejection| panic!("{name}: {rejection}"));

        let signables = intent.signables().iter();
        let signed: Vec<_> = signables
            .map(|each| (each.input, each.key.clone(), hex::encode(&each.message)))
            .collect();
        let expected = list(&vector["signed"]).iter().map(|each| {
            let key = SigningKey::Derived {
                path: path(&each["path"]),
                public_key: hex_array(text(&each["public_key"])),
            };
            let input = u32::try_from(each["input"].as_u64().unwrap()).unwrap();
            (input, key, text(&each["sighash"]).to_owned())
        });
        assert_eq!(signed, expected.collect::<Vec<_>>(), "{name}");

        for (output, expected) in spend(&intent).outputs.iter().zip(list(&vector["outputs"])) {
            let change = &expected["change"];
            let change = (!change.is_null()).then(|| path(change));
            assert_eq!(output.change, change, "{name}");
            let at = match change.unwrap_or_default() {
                path if path.is_empty() => String::new(),
                path => path
                    .iter()
                    .map(|step| format!("/{step}"))
                    .fold(" at m".to_owned(), |at, step| at + &step),
            };
            let verb = if output.change.is_some() {
                "change"
            } else {
                "pays"
            };
            let (amount, address) = (text(&expected["amount"]), text(&expected["address"]));
            let line = format!("  {verb} {amount} sat to {address}{at}\n");
            assert!(
                intent.summary().contains(&line),
                "{line}\nis not in\n{}",
                intent.summary()
            );
        }
        assert_eq!(
            spend(&intent).fee.to_string(),
            text(&vector["fee"]),
            "{name}"
        );
    }
}

#[test]
fn one_input_needs_no_proof_of_its_amount() {
    let mut psbt = psbt(&[(REQUESTED, 1000)]);
    decode_own(&psbt).unwrap();
    psbt.inputs[0].non_witness_utxo = None;
    let intent = decode_own(&psbt).unwrap();
    // The amount that is told is the amount that is signed.
    let hash = |amount| {
        let key = derive(&group(), REQUESTED).unwrap();
        bip_143(&psbt.unsigned_tx, 0, &key, Amount::from_sat(amount)).to_vec()
    };
    assert_eq!(intent.signables()[0].message, hash(1000));
    psbt.inputs[0].witness_utxo.as_mut().unwrap().value = Amount::from_sat(2000);
    assert_eq!(
        decode_own(&psbt).unwrap().signables()[0].message,
        hash(2000)
    );
}

#[test]
fn amounts_that_are_only_claimed() {
    // Whichever input it is, the key's or another's.
    for input in 0..3 {
        let mut psbt = two_inputs();
        add_input(&mut psbt, output(OTHER_SCRIPT, 1000));
        assert_eq!(signed_inputs(&decode_own(&psbt).unwrap()), [0, 1]);
        psbt.inputs[input].non_witness_utxo = None;
        let rejection = decode_own(&psbt).unwrap_err();
        assert_eq!(rejection, Rejection::UnprovenAmount { input });
        assert_eq!(rejection.reason(), "PSBT_UNPROVEN_AMOUNT");

        // And what proves it must be the transaction that is spent.
        let mut psbt = two_inputs();
        add_input(&mut psbt, output(OTHER_SCRIPT, 1000));
        let previous = psbt.inputs[input].non_witness_utxo.as_mut().unwrap();
        previous.output[0].value += Amount::ONE_SAT;
        psbt.inputs[input].witness_utxo = None;
        let rejection = decode_own(&psbt).unwrap_err();
        let start = format!("psbt.inputs[{input}].non_witness_utxo: is not the transaction");
        assert!(rejection.to_string().starts_with(&start), "{rejection}");
    }
}

#[test]
fn claims_that_are_wrong() {
    let derivation = |psbt: &mut Psbt, path: &[u32], public_key: [u8; 33]| {
        psbt.inputs[1].bip32_derivation.clear();
        claim(&mut psbt.inputs[1].bip32_derivation, path, public_key);
    };
    let at = |path: &[u32]| derive(&group(), path).unwrap();
    type Wrong<'a> = Box<dyn Fn(&mut Psbt) + 'a>;
    let cases: Vec<(&str, Wrong<'_>)> = vec![
        (
            "not at this path",
            Box::new(|psbt| derivation(psbt, &[0, 6], at(CLAIMED))),
        ),
        (
            "not P2WPKH of it",
            Box::new(|psbt| derivation(psbt, &[0, 6], at(&[0, 6]))),
        ),
        (
            "hardened step",
            Box::new(|psbt| derivation(psbt, &[0, 5 | 1 << 31], at(CLAIMED))),
        ),
        (
            "more than 16",
            Box::new(|psbt| derivation(psbt, &[0; MAX_PATH_STEPS + 1], at(CLAIMED))),
        ),
        (
            "several keys",
            Box::new(|psbt| claim(&mut psbt.inputs[1].bip32_derivation, &[1], at(&[1]))),
        ),
        // The right key and path, under a script of another kind.
        (
            "not P2WPKH of it",
            Box::new(|psbt| {
                let script = ScriptBuf::new_p2pkh(&bitcoin::PubkeyHash::hash(&at(CLAIMED)));
                replace_utxo(psbt, 1, script);
            }),
        ),
    ];
    for (text, change) in cases {
        let mut psbt = two_inputs();
        decode_own(&psbt).unwrap();
        change(&mut psbt);
        let rejection = decode_own(&psbt).unwrap_err();
        assert_eq!(rejection.reason(), "PSBT_INPUT_MISMATCH", "{text}");
        let message = rejection.to_string();
        assert!(
            message.starts_with("psbt.inputs[1].bip32_derivation: "),
            "{message}"
        );
        assert!(message.contains(text), "{text}: {message}");
    }

    // The same for change: a wrong path is money that nobody finds, or that somebody else has.
    let mut psbt = two_inputs();
    psbt.unsigned_tx.output[0].script_pubkey = ScriptBuf::from_bytes(p2wpkh_script(&at(&[1, 9])));
    claim(&mut psbt.outputs[0].bip32_derivation, &[1, 9], at(&[1, 9]));
    let change = |psbt: &Psbt| spend(&decode_own(psbt).unwrap()).outputs[0].change.clone();
    assert_eq!(change(&psbt), Some(vec![1, 9]));
    psbt.outputs[0].bip32_derivation.clear();
    assert_eq!(change(&psbt), None);
    claim(&mut psbt.outputs[0].bip32_derivation, &[1, 8], at(&[1, 9]));
    let rejection = decode_own(&psbt).unwrap_err();
    assert_eq!(rejection.reason(), "PSBT_OUTPUT_MISMATCH");
    assert!(
        rejection
            .to_string()
            .starts_with("psbt.outputs[0].bip32_derivation: names a key that is not at")
    );

    psbt.outputs[0].bip32_derivation.clear();
    psbt.unsigned_tx.output[0] = output(OTHER_SCRIPT, 900);
    claim(&mut psbt.outputs[0].bip32_derivation, &[1, 9], at(&[1, 9]));
    let rejection = decode_own(&psbt).unwrap_err();
    assert!(
        rejection.to_string().contains("not P2WPKH of it"),
        "{rejection}"
    );
}

#[test]
fn claims_of_other_masters_are_left_alone() {
    // Another fingerprint: the same key and path say nothing.
    let mut psbt = two_inputs();
    for (_, (fingerprint, _)) in &mut psbt.inputs[1].bip32_derivation.iter_mut() {
        *fingerprint = Fingerprint::from([1, 2, 3, 4]);
    }
    let intent = decode_own(&psbt).unwrap();
    assert_eq!(signed_inputs(&intent), [0]);

    // Beside the key's own claim it does not disturb.
    let mut psbt = two_inputs();
    let stranger = secp256k1::PublicKey::from_slice(&derive(&group(), &[9]).unwrap()).unwrap();
    psbt.inputs[1].bip32_derivation.insert(
        stranger,
        (Fingerprint::from([1, 2, 3, 4]), DerivationPath::master()),
    );
    assert_eq!(signed_inputs(&decode_own(&psbt).unwrap()), [0, 1]);
}

#[test]
fn paths_tell_whose_the_inputs_are() {
    let psbt = two_inputs();
    // At another path the first input is nobody's, and the claimed one is the key's still.
    let other = decode(&Payload::Psbt(psbt.serialize()), &facts(group()), &[44, 8]).unwrap();
    assert_eq!(signed_inputs(&other), [1]);
    assert_ne!(other.digest(), decode_own(&psbt).unwrap().digest());

    let mut unclaimed = psbt.clone();
    unclaimed.inputs[1].bip32_derivation.clear();
    let refused = decode(
        &Payload::Psbt(unclaimed.serialize()),
        &facts(group()),
        &[44, 8],
    );
    let rejection = refused.unwrap_err();
    assert_eq!(rejection.reason(), "PSBT_NO_INPUT_OF_KEY");
    assert!(
        rejection
            .to_string()
            .contains("a P2WPKH output of the key at the requested path"),
        "{rejection}"
    );

    // Another group's keys are none of this one's.
    let PublicKey::EcdsaSecp256k1 { key, .. } = group() else {
        unreachable!()
    };
    let other = PublicKey::EcdsaSecp256k1 {
        key,
        chain_code: [9; 32],
    };
    let refused = decode(
        &Payload::Psbt(unclaimed.serialize()),
        &facts(other),
        REQUESTED,
    );
    assert_eq!(refused.unwrap_err().reason(), "PSBT_NO_INPUT_OF_KEY");
}

#[test]
fn inputs_that_ask_for_more_than_a_signature() {
    let cases: [(&str, &str, Change); 13] = [
        (
            "PSBT_SIGHASH_TYPE",
            "sighash_type: 0x02 is refused, only SIGHASH_ALL",
            |psbt| psbt.inputs[1].sighash_type = Some(EcdsaSighashType::None.into()),
        ),
        ("PSBT_SIGHASH_TYPE", "sighash_type: 0x81", |psbt| {
            psbt.inputs[1].sighash_type = Some(EcdsaSighashType::AllPlusAnyoneCanPay.into())
        }),
        ("PSBT_SIGHASH_TYPE", "sighash_type: 0x00", |psbt| {
            psbt.inputs[1].sighash_type = Some(PsbtSighashType::from_u32(0))
        }),
        ("PSBT_SIGHASH_TYPE", "sighash_type: 0x101", |psbt| {
            psbt.inputs[1].sighash_type = Some(PsbtSighashType::from_u32(0x101))
        }),
        ("PSBT_ALREADY_SIGNED", "partial_sig", |psbt| {
            let signature = ecdsa::Signature::from_compact(&[1; 64]).unwrap();
            let key = format!("02{INTERNAL_KEY}").parse().unwrap();
            let signature = bitcoin::ecdsa::Signature::sighash_all(signature);
            psbt.inputs[1].partial_sigs.insert(key, signature);
        }),
        ("PSBT_ALREADY_SIGNED", "final_script_witness", |psbt| {
            psbt.inputs[1].final_script_witness = Some(Witness::from_slice(&[[1; 64]]))
        }),
        ("PSBT_ALREADY_SIGNED", "final_script_sig", |psbt| {
            psbt.inputs[1].final_script_sig = Some(ScriptBuf::new())
        }),
        ("PSBT_INPUT_MISMATCH", "redeem_script", |psbt| {
            psbt.inputs[1].redeem_script = Some(ScriptBuf::new())
        }),
        ("PSBT_INPUT_MISMATCH", "witness_script", |psbt| {
            psbt.inputs[1].witness_script = Some(ScriptBuf::new())
        }),
        ("PSBT_INPUT_MISMATCH", "tap_internal_key", |psbt| {
            psbt.inputs[1].tap_internal_key = Some(INTERNAL_KEY.parse().unwrap())
        }),
        ("PSBT_INPUT_MISMATCH", "tap_merkle_root", |psbt| {
            psbt.inputs[1].tap_merkle_root = Some(TapNodeHash::from_byte_array([7; 32]))
        }),
        ("PSBT_MISSING_UTXO", "neither witness_utxo nor", |psbt| {
            psbt.inputs[1].witness_utxo = None;
            psbt.inputs[1].non_witness_utxo = None;
        }),
        (
            "PSBT_INPUT_MISMATCH",
            "differs from non_witness_utxo",
            |psbt| psbt.inputs[1].witness_utxo.as_mut().unwrap().value += Amount::ONE_SAT,
        ),
    ];
    for (reason, text, change) in cases {
        let mut psbt = two_inputs();
        psbt.inputs[1].sighash_type = Some(EcdsaSighashType::All.into());
        decode_own(&psbt).unwrap();
        change(&mut psbt);
        let rejection = decode_own(&psbt).unwrap_err();
        assert_eq!(rejection.reason(), reason, "{text}: {rejection}");
        let message = rejection.to_string();
        assert!(
            message.starts_with("psbt.inputs[1]") && message.contains(text),
            "{message}"
        );
    }
}

#[test]
fn taproot_inputs_of_others_are_told() {
    let mut psbt = psbt(&[(REQUESTED, 1000)]);
    add_input(&mut psbt, output(OWN_SCRIPT, 500));
    psbt.inputs[1].tap_internal_key = Some(INTERNAL_KEY.parse().unwrap());
    let intent = decode_own(&psbt).unwrap();
    assert_eq!(signed_inputs(&intent), [0]);
    assert!(
        intent
            .summary()
            .contains("spends 500 sat of others in 1 input(s)")
    );
}

#[test]
fn digest_covers_where_change_goes() {
    let at = |path: &[u32]| derive(&group(), path).unwrap();
    let mut psbt = two_inputs();
    psbt.unsigned_tx.output[0].script_pubkey = ScriptBuf::from_bytes(p2wpkh_script(&at(&[])));
    let payment = decode_own(&psbt).unwrap().digest();
    claim(&mut psbt.outputs[0].bip32_derivation, &[], at(&[]));
    let change = decode_own(&psbt).unwrap();
    assert_eq!(spend(&change).outputs[0].change, Some(Vec::new()));
    assert_ne!(change.digest(), payment);
}

#[test]
fn digest_covers_every_field() {
    // The hash that is signed would hide a field that is missing, so the encoding is written out: numbers and
    // lengths are 8 bytes big-endian.
    let counted = |bytes: &[u8]| [&(bytes.len() as u64).to_be_bytes(), bytes].concat();
    let count = |number: u64| number.to_be_bytes().to_vec();
    let PublicKey::EcdsaSecp256k1 { key, chain_code } = group() else {
        unreachable!()
    };
    let mut psbt = psbt(&[(REQUESTED, 1000)]);
    let change = derive(&group(), &[1, 9]).unwrap();
    psbt.unsigned_tx.output[0].script_pubkey = ScriptBuf::from_bytes(p2wpkh_script(&change));
    claim(&mut psbt.outputs[0].bip32_derivation, &[1, 9], change);
    psbt.unsigned_tx.output.push(output(OTHER_SCRIPT, 60));
    psbt.outputs.push(bitcoin::psbt::Output::default());
    let intent = decode_own(&psbt).unwrap();
    let public_key = derive(&group(), REQUESTED).unwrap();
    let outpoint = psbt.unsigned_tx.input[0].previous_output;
    let encoding = [
        counted(b"arca/v1/intent"),
        counted(b"ecdsa-secp256k1"),
        counted(&key),
        counted(&chain_code),
        counted(b"bitcoin"),
        counted(&2_i32.to_le_bytes()),
        count(0),
        // One input, the key's.
        count(1),
        counted(outpoint.txid.as_byte_array()),
        count(0),
        count(0xffff_ffff),
        count(1000),
        counted(&p2wpkh_script(&public_key)),
        vec![1],
        // Change, and where it is; a payment.
        count(2),
        count(900),
        counted(&p2wpkh_script(&change)),
        vec![2],
        [count(2), count(1), count(9)].concat(),
        count(60),
        counted(&hex::decode(OTHER_SCRIPT).unwrap()),
        vec![0],
        // The fee.
        count(40),
        // One signature.
        count(1),
        counted(&intent.signables()[0].message),
        vec![2],
        [count(2), count(44), count(7)].concat(),
        counted(&public_key),
        count(0),
    ];
    let expected: [u8; 32] = Sha256::digest(encoding.concat()).into();
    assert_eq!(intent.digest(), expected);
}

/// BIP-143, "Specification", for SIGHASH_ALL and P2WPKH.
fn bip_143(transaction: &Transaction, index: usize, key: &[u8; 33], amount: Amount) -> [u8; 32] {
    let double = |bytes: Vec<u8>| sha256d::Hash::hash(&bytes).to_byte_array();
    let inputs = &transaction.input;
    let outpoints = inputs
        .iter()
        .flat_map(|input| serialize(&input.previous_output));
    let sequences = inputs.iter().flat_map(|input| serialize(&input.sequence));
    let outputs = transaction.output.iter().flat_map(serialize);
    let key_hash = hash160::Hash::hash(key).to_byte_array();
    let preimage = [
        &transaction.version.0.to_le_bytes()[..],
        &double(outpoints.collect()),
        &double(sequences.collect()),
        &serialize(&inputs[index].previous_output),
        &[0x19, 0x76, 0xa9, 0x14],
        &key_hash,
        &[0x88, 0xac],
        &amount.to_sat().to_le_bytes(),
        &serialize(&inputs[index].sequence),
        &double(outputs.collect()),
        &transaction.lock_time.to_consensus_u32().to_le_bytes(),
        &1_u32.to_le_bytes(),
    ];
    double(preimage.concat())
}

fn decode_own(psbt: &Psbt) -> Result<arca_policy::Intent, Rejection> {
    decode(&Payload::Psbt(psbt.serialize()), &facts(group()), REQUESTED)
}

fn signed_inputs(intent: &arca_policy::Intent) -> Vec<u32> {
    intent
        .signables()
        .iter()
        .map(|signable| signable.input)
        .collect()
}

/// One input at the requested path, and one that the PSBT claims.
fn two_inputs() -> Psbt {
    let mut psbt = psbt(&[(REQUESTED, 1000), (CLAIMED, 1000)]);
    let claimed = derive(&group(), CLAIMED).unwrap();
    claim(&mut psbt.inputs[1].bip32_derivation, CLAIMED, claimed);
    psbt
}

/// A PSBT that spends such outputs of keys below the group's, with the transactions that hold them.
fn psbt(inputs: &[(&[u32], u64)]) -> Psbt {
    let mut psbt = super::psbt(&[], &[(OTHER_SCRIPT, 900)]);
    for (path, amount) in inputs {
        let script = hex::encode(p2wpkh_script(&derive(&group(), path).unwrap()));
        add_input(&mut psbt, output(&script, *amount));
    }
    psbt
}

fn add_input(psbt: &mut Psbt, utxo: TxOut) {
    let index = psbt.inputs.len();
    psbt.inputs.push(bitcoin::psbt::Input::default());
    psbt.unsigned_tx.input.push(bitcoin::TxIn::default());
    psbt.inputs[index].witness_utxo = Some(utxo.clone());
    let previous = previous_transaction(index, utxo);
    psbt.unsigned_tx.input[index].previous_output.txid = previous.compute_txid();
    psbt.unsigned_tx.input[index].previous_output.vout = 0;
    psbt.inputs[index].non_witness_utxo = Some(previous);
}

fn replace_utxo(psbt: &mut Psbt, index: usize, script_pubkey: ScriptBuf) {
    let utxo = psbt.inputs[index].witness_utxo.as_mut().unwrap();
    utxo.script_pubkey = script_pubkey;
    let previous = previous_transaction(index, utxo.clone());
    psbt.unsigned_tx.input[index].previous_output.txid = previous.compute_txid();
    psbt.inputs[index].non_witness_utxo = Some(previous);
}

/// No two are the same.
fn previous_transaction(index: usize, output: TxOut) -> Transaction {
    let mut input = bitcoin::TxIn::default();
    input.previous_output.vout = u32::try_from(index).unwrap();
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![input],
        output: vec![output],
    }
}

/// Says that this key is at this path below the group's.
fn claim(
    claims: &mut std::collections::BTreeMap<secp256k1::PublicKey, bitcoin::bip32::KeySource>,
    path: &[u32],
    public_key: [u8; 33],
) {
    let PublicKey::EcdsaSecp256k1 { key, .. } = group() else {
        unreachable!()
    };
    // BIP-32, "Key identifiers".
    let hash = hash160::Hash::hash(&key).to_byte_array();
    let fingerprint = Fingerprint::from([hash[0], hash[1], hash[2], hash[3]]);
    let path: Vec<_> = path.iter().map(|step| ChildNumber::from(*step)).collect();
    let public_key = secp256k1::PublicKey::from_slice(&public_key).unwrap();
    claims.insert(public_key, (fingerprint, path.into()));
}

fn facts(public_key: PublicKey) -> KeyFacts {
    KeyFacts {
        public_key,
        allow_raw_digest: false,
    }
}

/// The key that the vectors are made for.
fn group() -> PublicKey {
    let vectors = vectors();
    PublicKey::EcdsaSecp256k1 {
        key: hex_array(text(&vectors["key"])),
        chain_code: hex_array(text(&vectors["chain_code"])),
    }
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/p2wpkh.json")).unwrap()
}

fn path(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn hex_array<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).unwrap().try_into().unwrap()
}

const BIP_143_TRANSACTION: &str = concat!(
    "0100000002fff7f7881a8099afa6940d42d1e7f6362bec38171ea3edf433541db4e4ad969f0000000000eeffffffef51e1b804cc89",
    "d182d279655c3aa89e815b1b309fe287d9b2b55d57b90ec68a0100000000ffffffff02202cb206000000001976a9148280b37df378",
    "db99f66f85c95a783a76ac7a6d5988ac9093510d000000001976a9143bde42dbee7e4dbe6a21b2d50ce2f0167faa815988ac110000",
    "00",
);
