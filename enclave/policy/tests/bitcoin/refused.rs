//! What is refused, and why.

use arca_policy::{
    MAX_INPUTS, MAX_OUTPUTS, MAX_PSBT_BYTES, MAX_SIGNED_INPUTS, Payload, Rejection, decode,
};
use bitcoin::hashes::Hash;
use bitcoin::psbt::PsbtSighashType;
use bitcoin::secp256k1::{ecdsa, schnorr};
use bitcoin::sighash::TapSighashType;
use bitcoin::taproot::{ControlBlock, LeafVersion, Signature, TapLeafHash, TapNodeHash};
use bitcoin::{Amount, Psbt, ScriptBuf, Witness};

use super::{
    INTERNAL_KEY, OTHER_SCRIPT, OWN_SCRIPT, decode_for, decode_own, facts, psbt, script,
    with_previous_transaction,
};

type Change = fn(&mut Psbt);

#[test]
fn another_sighash_type() {
    check(
        "PSBT_SIGHASH_TYPE",
        &[
            ("sighash_type: 0x01", |psbt| {
                psbt.inputs[1].sighash_type = Some(TapSighashType::All.into())
            }),
            ("sighash_type: 0x02", |psbt| {
                psbt.inputs[1].sighash_type = Some(TapSighashType::None.into())
            }),
            ("sighash_type: 0x83", |psbt| {
                psbt.inputs[1].sighash_type = Some(TapSighashType::SinglePlusAnyoneCanPay.into());
            }),
            // Zero in the byte that counts, and something above it.
            ("sighash_type: 0x100", |psbt| {
                psbt.inputs[1].sighash_type = Some(PsbtSighashType::from_u32(256))
            }),
        ],
    );
}

#[test]
fn inputs_that_are_signed_already() {
    check(
        "PSBT_ALREADY_SIGNED",
        &[
            ("tap_key_sig", |psbt| {
                psbt.inputs[1].tap_key_sig = Some(signature())
            }),
            ("final_script_witness", |psbt| {
                psbt.inputs[1].final_script_witness = Some(Witness::from_slice(&[[1; 64]]))
            }),
            ("final_script_sig", |psbt| {
                psbt.inputs[1].final_script_sig = Some(ScriptBuf::new())
            }),
            ("tap_script_sig", |psbt| {
                let leaf = TapLeafHash::from_byte_array([3; 32]);
                psbt.inputs[1]
                    .tap_script_sigs
                    .insert((INTERNAL_KEY.parse().unwrap(), leaf), signature());
            }),
            ("partial_sig", |psbt| {
                let signature = bitcoin::ecdsa::Signature::sighash_all(
                    ecdsa::Signature::from_compact(&[1; 64]).unwrap(),
                );
                psbt.inputs[1]
                    .partial_sigs
                    .insert(format!("02{INTERNAL_KEY}").parse().unwrap(), signature);
            }),
        ],
    );
}

#[test]
fn fields_that_contradict_the_key() {
    check(
        "PSBT_INPUT_MISMATCH",
        &[
            // The output key in place of the internal key: a mistake that wallets make.
            ("tap_internal_key", |psbt| {
                psbt.inputs[1].tap_internal_key = Some(OWN_SCRIPT[4..].parse().unwrap())
            }),
            ("tap_merkle_root", |psbt| {
                psbt.inputs[1].tap_merkle_root = Some(TapNodeHash::from_byte_array([7; 32]))
            }),
            ("tap_leaf_script", |psbt| {
                let control = [vec![0xc0], hex::decode(INTERNAL_KEY).unwrap()].concat();
                let control = ControlBlock::decode(&control).unwrap();
                psbt.inputs[1]
                    .tap_scripts
                    .insert(control, (ScriptBuf::new(), LeafVersion::TapScript));
            }),
            ("redeem_script", |psbt| {
                psbt.inputs[1].redeem_script = Some(ScriptBuf::new())
            }),
            ("witness_script", |psbt| {
                psbt.inputs[1].witness_script = Some(ScriptBuf::new())
            }),
        ],
    );
}

#[test]
fn inputs_of_which_the_amount_is_unknown() {
    check(
        "PSBT_MISSING_UTXO",
        &[("neither witness_utxo nor", |psbt| {
            psbt.inputs[1].witness_utxo = None
        })],
    );
    // Those of others too: without them the signature hash is unknown.
    let mut psbt = psbt(
        &[(OTHER_SCRIPT, 1000), (OWN_SCRIPT, 1000)],
        &[(OTHER_SCRIPT, 900)],
    );
    psbt.inputs[0].witness_utxo = None;
    assert_eq!(
        decode_own(&psbt).unwrap_err(),
        Rejection::MissingUtxo { input: 0 }
    );
}

#[test]
fn transactions_that_spend_nothing_of_the_key() {
    let other = psbt(
        &[(OTHER_SCRIPT, 1000), (OTHER_SCRIPT, 1000)],
        &[(OWN_SCRIPT, 900)],
    );
    let rejection = decode_own(&other).unwrap_err();
    assert!(
        matches!(rejection, Rejection::NoInputOfKey { inputs: 2, .. }),
        "{rejection}"
    );

    // P2TR of the key without the BIP-86 tweak: spendable with it, but no output of ours.
    let untweaked = format!("5120{INTERNAL_KEY}");
    let mut psbt = psbt(&[(&untweaked, 1000)], &[(OWN_SCRIPT, 900)]);
    let rejection = decode_own(&psbt).unwrap_err();
    assert!(
        matches!(rejection, Rejection::NoInputOfKey { inputs: 1, .. }),
        "{rejection}"
    );
    // A wallet that says this is ours is told why it is not.
    psbt.inputs[0].tap_internal_key = Some(INTERNAL_KEY.parse().unwrap());
    let rejection = decode_own(&psbt).unwrap_err();
    assert_eq!(rejection.reason(), "PSBT_INPUT_MISMATCH");
    assert!(
        rejection
            .to_string()
            .contains("psbt.inputs[0].tap_internal_key"),
        "{rejection}"
    );
}

#[test]
fn previous_transactions_that_lie() {
    let changes: [(&str, Change); 4] = [
        ("not the transaction", |psbt| {
            psbt.inputs[0].non_witness_utxo.as_mut().unwrap().output[1].value += Amount::ONE_SAT;
        }),
        ("no output at the index", |psbt| {
            psbt.unsigned_tx.input[0].previous_output.vout = 2
        }),
        ("differs from non_witness_utxo", |psbt| {
            psbt.inputs[0].witness_utxo.as_mut().unwrap().value += Amount::ONE_SAT;
        }),
        ("differs from non_witness_utxo", |psbt| {
            psbt.inputs[0].witness_utxo.as_mut().unwrap().script_pubkey = script(OTHER_SCRIPT);
        }),
    ];
    for (text, change) in changes {
        let mut psbt = with_previous_transaction();
        change(&mut psbt);
        let rejection = decode_own(&psbt).unwrap_err();
        assert_eq!(rejection.reason(), "PSBT_INPUT_MISMATCH", "{text}");
        assert!(rejection.to_string().contains(text), "{rejection}");
    }
}

#[test]
fn impossible_amounts() {
    let all_money = 2_100_000_000_000_000;
    let negative = psbt(
        &[(OWN_SCRIPT, 1000)],
        &[(OTHER_SCRIPT, 600), (OTHER_SCRIPT, 401)],
    );
    assert_eq!(
        decode_own(&negative).unwrap_err(),
        Rejection::NegativeFee {
            inputs: 1000,
            outputs: 1001
        }
    );
    let cases = [
        (
            psbt(&[(OWN_SCRIPT, all_money + 1)], &[(OTHER_SCRIPT, 1)]),
            "psbt.inputs[..=0]",
        ),
        (
            psbt(
                &[(OWN_SCRIPT, all_money), (OTHER_SCRIPT, 1)],
                &[(OTHER_SCRIPT, 1)],
            ),
            "psbt.inputs[..=1]",
        ),
        // Together 2^64, which is nothing in careless arithmetic.
        (
            psbt(
                &[(OWN_SCRIPT, 10)],
                &[(OTHER_SCRIPT, 1 << 63), (OTHER_SCRIPT, 1 << 63)],
            ),
            "psbt.outputs[..=0]",
        ),
        (
            psbt(&[(OWN_SCRIPT, u64::MAX)], &[(OTHER_SCRIPT, 1)]),
            "psbt.inputs[..=0]",
        ),
    ];
    for (psbt, field) in cases {
        assert_eq!(
            decode_own(&psbt).unwrap_err(),
            Rejection::AmountOutOfRange {
                field: field.into()
            }
        );
    }
    // The edge itself is possible.
    decode_own(&psbt(
        &[(OWN_SCRIPT, all_money)],
        &[(OTHER_SCRIPT, all_money)],
    ))
    .unwrap();
}

#[test]
fn malformed_transactions() {
    let mut twice = psbt(
        &[(OWN_SCRIPT, 1000), (OWN_SCRIPT, 1000)],
        &[(OTHER_SCRIPT, 900)],
    );
    twice.unsigned_tx.input[1].previous_output = twice.unsigned_tx.input[0].previous_output;
    let no_output = psbt(&[(OWN_SCRIPT, 1000)], &[]);
    let good = psbt(&[(OWN_SCRIPT, 1000)], &[(OTHER_SCRIPT, 900)]).serialize();
    // Behind the magic: PSBT_GLOBAL_VERSION.
    let version = |version: u8| [1, 0xfb, 4, version, 0, 0, 0];
    let with_global = |fields: &[u8]| [&good[..5], fields, &good[5..]].concat();
    decode(
        &Payload::Psbt(with_global(&version(0))),
        &facts(INTERNAL_KEY),
        &[],
    )
    .unwrap();
    let cases = [
        (
            twice.serialize(),
            "psbt.inputs[1]: spends what another input spends",
        ),
        (no_output.serialize(), "psbt.outputs: there are none"),
        ([&good[..], &[0]].concat(), "bytes follow"),
        (good[..good.len() - 1].to_vec(), "ends too early"),
        (with_global(&version(2)), "another version than 0"),
        (
            with_global(&[version(0), version(0)].concat()),
            "occurs twice",
        ),
        // Base64 is for people.
        (b"cHNidP8BAHU=".to_vec(), "magic bytes of a binary PSBT"),
        (b"psbt\xff\x00".to_vec(), "no unsigned transaction"),
        (Vec::new(), "ends too early"),
    ];
    for (bytes, text) in cases {
        let rejection = decode(&Payload::Psbt(bytes), &facts(INTERNAL_KEY), &[]).unwrap_err();
        assert_eq!(rejection.reason(), "PAYLOAD_MALFORMED", "{text}");
        assert!(rejection.to_string().contains(text), "{text}: {rejection}");
    }
}

#[test]
fn what_exceeds_the_bounds() {
    let outputs = |count| vec![(OTHER_SCRIPT, 1); count];
    let most_inputs = [
        &[(OWN_SCRIPT, 1000)],
        &vec![(OTHER_SCRIPT, 1); MAX_INPUTS - 1][..],
    ]
    .concat();
    decode_own(&psbt(&[(OWN_SCRIPT, 1000); MAX_SIGNED_INPUTS], &outputs(1))).unwrap();
    decode_own(&psbt(&most_inputs, &outputs(MAX_OUTPUTS))).unwrap();

    let refused = [
        (
            psbt(&[(OWN_SCRIPT, 1000); MAX_SIGNED_INPUTS + 1], &outputs(1)),
            "psbt.inputs of the key",
            MAX_SIGNED_INPUTS,
        ),
        (
            psbt(&[(OWN_SCRIPT, 1000); MAX_INPUTS + 1], &outputs(1)),
            "psbt.inputs",
            MAX_INPUTS,
        ),
        (
            psbt(&[(OWN_SCRIPT, 1000)], &outputs(MAX_OUTPUTS + 1)),
            "psbt.outputs",
            MAX_OUTPUTS,
        ),
    ];
    for (psbt, field, limit) in refused {
        let (actual, limit) = (limit as u64 + 1, limit as u64);
        assert_eq!(
            decode_own(&psbt).unwrap_err(),
            Rejection::TooLarge {
                field,
                actual,
                limit
            }
        );
    }
    let oversize = decode(
        &Payload::Psbt(vec![0; MAX_PSBT_BYTES + 1]),
        &facts(INTERNAL_KEY),
        &[],
    )
    .unwrap_err();
    assert_eq!(oversize.reason(), "PAYLOAD_TOO_LARGE");
}

#[test]
fn a_key_that_is_no_point() {
    // BIP-340, test vector 5: a public key not on the curve.
    let key = "eefdea4cdb677750a420fee807eacf21eb9898ae79b9768766e4faa04a2d4a34";
    let psbt = psbt(&[(OWN_SCRIPT, 1000)], &[(OTHER_SCRIPT, 900)]);
    assert_eq!(decode_for(&psbt, key).unwrap_err(), Rejection::InvalidKey);
}

/// Each change to the key's own input 1 is refused for this reason, with the input and a text that tells the field.
fn check(reason: &str, changes: &[(&str, Change)]) {
    let base = psbt(
        &[(OTHER_SCRIPT, 1000), (OWN_SCRIPT, 1000)],
        &[(OTHER_SCRIPT, 900)],
    );
    decode_own(&base).unwrap();
    for (text, change) in changes {
        let mut psbt = base.clone();
        change(&mut psbt);
        let rejection = decode_own(&psbt).unwrap_err();
        assert_eq!(rejection.reason(), reason, "{text}");
        let message = rejection.to_string();
        assert!(
            message.contains("psbt.inputs[1]") && message.contains(text),
            "{message}"
        );
    }
}

fn signature() -> Signature {
    let signature = schnorr::Signature::from_slice(&[1; 64]).unwrap();
    Signature {
        signature,
        sighash_type: TapSighashType::Default,
    }
}
