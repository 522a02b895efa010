//! What is decoded, and into what.

use arca_policy::{Payload, SigningKey, decode};
use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::key::TapTweak;
use bitcoin::secp256k1::{Keypair, Message, Secp256k1, SecretKey};
use bitcoin::sighash::TapSighashType;
use bitcoin::transaction::Version;
use bitcoin::{Amount, Psbt, ScriptBuf, Sequence, Transaction, XOnlyPublicKey};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    INTERNAL_KEY, OTHER_ADDRESS, OTHER_SCRIPT, OWN_ADDRESS, OWN_SCRIPT, decode_for, decode_own,
    facts, output, psbt, script, spend, with_previous_transaction,
};

#[test]
fn recognises_bip_86_outputs() {
    // BIP-86, "Test vectors": internal key, scriptPubKey, address.
    let vectors = [
        (INTERNAL_KEY, OWN_SCRIPT, OWN_ADDRESS),
        (
            "83dfe85a3151d2517290da461fe2815591ef69f2b18a2ce63f01697a8b313145",
            "5120a82f29944d65b86ae6b5e5cc75e294ead6c59391a1edc5e016e3498c67fc7bbb",
            "bc1p4qhjn9zdvkux4e44uhx8tc55attvtyu358kutcqkudyccelu0was9fqzwh",
        ),
        (
            "399f1b2f4393f29a18c937859c5dd8a77350103157eb880f02e8c08214277cef",
            "5120882d74e5d0572d5a816cef0041a96b6c1de832f6f9676d9605c44d5e9a97d3dc",
            "bc1p3qkhfews2uk44qtvauqyr2ttdsw7svhkl9nkm9s9c3x4ax5h60wqwruhk7",
        ),
    ];
    for (key, script, address) in vectors {
        let psbt = psbt(&[(script, 1000)], &[(script, 900)]);
        let intent = decode_for(&psbt, key).unwrap();
        assert_eq!(intent.signables().len(), 1);
        assert!(
            intent
                .summary()
                .contains(&format!("change 900 sat to {address}")),
            "{}",
            intent.summary()
        );
    }
}

#[test]
fn hashes_as_bip_341_publishes() {
    // BIP-341, wallet-test-vectors.json, keyPathSpending[0]. Its input 0 is a BIP-86 output, though signed
    // there with SIGHASH_SINGLE; its input 4 has a script tree and is signed with SIGHASH_DEFAULT. Signature
    // messages of one hash type differ in the input's index alone, which ends them.
    let key = "d6889cb081036e0faefa3a35157ad71086b123b2b144b649798b494c300a961d";
    let transaction: Transaction = deserialize_hex(BIP_341_TRANSACTION).unwrap();
    let prevouts = [
        (
            "512053a1f6e454df1aa2776a2814a721372d6258050de330b3c6d10ee8f4e0dda343",
            420_000_000,
        ),
        (
            "5120147c9c57132f6e7ecddba9800bb0c4449251c92a1e60371ee77557b6620f3ea3",
            462_000_000,
        ),
        (
            "76a914751e76e8199196d454941c45d1b3a323f1433bd688ac",
            294_000_000,
        ),
        (
            "5120e4d810fd50586274face62b8a807eb9719cef49c04177cc6b76a9a4251d5450e",
            504_000_000,
        ),
        (
            "512091b64d5324723a985170e4dc5a0f84c041804f2cd12660fa5dec09fc21783605",
            630_000_000,
        ),
        ("00147dd65592d0ab2fe0d0257d571abf032cd9db93dc", 378_000_000),
        (
            "512075169f4001aa68f15bbed28b218df1d0a62cbbcf1188c6665110c293c907b831",
            672_000_000,
        ),
        (
            "5120712447206d7a5238acc7ff53fbe94a3b64539ad291c7cdbc490b7577e4b17df5",
            546_000_000,
        ),
        (
            "512077e30a5522dd9f894c3f8b8bd4c4b2cf82ca7da8a3ea6a239655c39c050ab220",
            588_000_000,
        ),
    ];
    let mut message = hex::decode(BIP_341_MESSAGE_OF_INPUT_4).unwrap();
    let published = "4f900a0bae3f1446fd48490c2958b5a023228f01661cda3496a11da502a7f7ef";
    assert_eq!(hex::encode(tagged_hash(&message)), published);
    let index = message.len() - 4;
    message[index..].copy_from_slice(&0_u32.to_le_bytes());

    let mut psbt = Psbt::from_unsigned_tx(transaction).unwrap();
    for (input, (script, amount)) in psbt.inputs.iter_mut().zip(prevouts) {
        input.witness_utxo = Some(output(script, amount));
    }
    let intent = decode_for(&psbt, key).unwrap();
    let [signable] = intent.signables() else {
        panic!("one input is the key's")
    };
    assert_eq!(
        (signable.input, &signable.key),
        (0, &SigningKey::TaprootKeyPath)
    );
    assert_eq!(signable.message, tagged_hash(&message));
    // The published amounts: 4,494,000,000 in, 4,410,000,000 out.
    assert_eq!(spend(&intent).fee, 84_000_000);
}

#[test]
fn agrees_with_another_library() {
    // Made by @scure/btc-signer, see vectors/make.mjs.
    let vectors: Value = serde_json::from_str(include_str!("../vectors/payloads.json")).unwrap();
    let vector = &vectors["bitcoin"];
    let payload = Payload::Psbt(hex::decode(text(&vector["psbt"])).unwrap());
    let intent = decode(&payload, &facts(text(&vector["key"])), &[]).unwrap();

    let signed: Vec<_> = intent
        .signables()
        .iter()
        .map(|each| (u64::from(each.input), hex::encode(&each.message)))
        .collect();
    let expected: Vec<_> = list(&vector["sighashes"])
        .iter()
        .map(|each| {
            (
                each["input"].as_u64().unwrap(),
                text(&each["sighash"]).to_owned(),
            )
        })
        .collect();
    assert_eq!(signed, expected);
    assert!(
        intent
            .signables()
            .iter()
            .all(|signable| signable.key == SigningKey::TaprootKeyPath)
    );

    let outputs = list(&vector["amounts"])
        .iter()
        .zip(list(&vector["addresses"]));
    for ((amount, address), verb) in outputs.zip(["pays", "change", "pays"]) {
        let line = format!("  {verb} {} sat to {}\n", text(amount), text(address));
        assert!(
            intent.summary().contains(&line),
            "{line} is not in {}",
            intent.summary()
        );
    }
    assert_eq!(spend(&intent).fee.to_string(), text(&vector["fee"]));
}

#[test]
fn summary_tells_everything() {
    let mut psbt = psbt(
        &[
            (OWN_SCRIPT, 70_000),
            (OTHER_SCRIPT, 5_000),
            (OWN_SCRIPT, 30_000),
        ],
        &[
            (OTHER_SCRIPT, 60_000),
            (OWN_SCRIPT, 44_000),
            ("6a0468656c6c", 0),
        ],
    );
    psbt.unsigned_tx.lock_time = LockTime::from_consensus(840_000);
    psbt.unsigned_tx.input[1].sequence = Sequence::ENABLE_LOCKTIME_NO_RBF;
    let expected = format!(
        "Bitcoin transaction (addresses in mainnet form)\n\
         \x20 spends 100000 sat of this key in 2 input(s)\n\
         \x20 spends 5000 sat of others in 1 input(s)\n\
         \x20 pays 60000 sat to {OTHER_ADDRESS}\n\
         \x20 change 44000 sat to {OWN_ADDRESS}\n\
         \x20 pays 0 sat to the script 6a0468656c6c\n\
         \x20 valid only after block-height 840000\n\
         \x20 fee 1000 sat"
    );
    assert_eq!(decode_own(&psbt).unwrap().summary(), expected);

    psbt.unsigned_tx.output[2].script_pubkey = ScriptBuf::from_bytes(vec![0x6a; 5000]);
    // Final sequence numbers everywhere switch the lock time off.
    psbt.unsigned_tx.input[1].sequence = Sequence::MAX;
    let summary = decode_own(&psbt).unwrap().summary().to_owned();
    let hash = hex::encode(Sha256::digest([0x6a; 5000]));
    assert!(
        summary.contains(&format!(
            "pays 0 sat to a script of 5000 bytes with SHA-256 {hash}"
        )),
        "{summary}"
    );
    assert!(!summary.contains("valid only"), "{summary}");
}

#[test]
fn signatures_over_the_hashes_verify_under_the_output_key() {
    // BIP-86, "Test vectors": the private key of the internal key.
    let secret: SecretKey = "41f41d69260df4cf277826a9b65a3717e4eeddbeedf637f212ca096576479361"
        .parse()
        .unwrap();
    let secp = Secp256k1::new();
    let tweaked = Keypair::from_secret_key(&secp, &secret)
        .tap_tweak(&secp, None)
        .to_keypair();
    let output_key: XOnlyPublicKey = OWN_SCRIPT[4..].parse().unwrap();
    let psbt = psbt(
        &[(OWN_SCRIPT, 70_000), (OWN_SCRIPT, 5_000)],
        &[(OTHER_SCRIPT, 60_000)],
    );

    let intent = decode_own(&psbt).unwrap();
    assert_eq!(intent.signables().len(), 2);
    assert_ne!(intent.signables()[0].message, intent.signables()[1].message);
    for signable in intent.signables() {
        let message = Message::from_digest(signable.message.clone().try_into().unwrap());
        let signature = secp.sign_schnorr_no_aux_rand(&message, &tweaked);
        secp.verify_schnorr(&signature, &message, &output_key)
            .unwrap();
    }
}

#[test]
fn takes_the_amount_from_the_whole_previous_transaction() {
    let psbt = with_previous_transaction();
    let mut without_witness_utxo = psbt.clone();
    without_witness_utxo.inputs[0].witness_utxo = None;
    let intents = [
        decode_own(&psbt).unwrap(),
        decode_own(&without_witness_utxo).unwrap(),
    ];
    assert_eq!(intents[0], intents[1]);
    assert_eq!(spend(&intents[0]).fee, 100);
}

#[test]
fn leaves_inputs_of_others_alone() {
    let mut psbt = psbt(
        &[(OTHER_SCRIPT, 1000), (OWN_SCRIPT, 1000)],
        &[(OTHER_SCRIPT, 900)],
    );
    psbt.inputs[0].sighash_type = Some(TapSighashType::None.into());
    psbt.inputs[0].final_script_sig = Some(ScriptBuf::new());
    psbt.inputs[0].redeem_script = Some(ScriptBuf::new());
    let intent = decode_own(&psbt).unwrap();
    let inputs: Vec<_> = intent
        .signables()
        .iter()
        .map(|signable| signable.input)
        .collect();
    assert_eq!(inputs, [1]);
}

#[test]
fn digest_tells_intents_apart() {
    let base = psbt(
        &[(OWN_SCRIPT, 1000), (OTHER_SCRIPT, 500)],
        &[(OTHER_SCRIPT, 900), (OWN_SCRIPT, 90)],
    );
    let changes: [fn(&mut Psbt); 9] = [
        |_| (),
        |psbt| psbt.unsigned_tx.version = Version::ONE,
        |psbt| psbt.unsigned_tx.lock_time = LockTime::from_consensus(1),
        |psbt| psbt.unsigned_tx.input[0].sequence = Sequence::ZERO,
        |psbt| psbt.unsigned_tx.input[0].previous_output.vout = 77,
        |psbt| psbt.inputs[0].witness_utxo.as_mut().unwrap().value = Amount::from_sat(1001),
        |psbt| psbt.unsigned_tx.output[0].value = Amount::from_sat(901),
        |psbt| psbt.unsigned_tx.output.swap(0, 1),
        |psbt| psbt.inputs[1].witness_utxo.as_mut().unwrap().script_pubkey = script(OWN_SCRIPT),
    ];
    let digest = |change: &fn(&mut Psbt)| {
        let mut psbt = base.clone();
        change(&mut psbt);
        decode_own(&psbt).unwrap().digest()
    };
    let mut digests: Vec<_> = changes.iter().map(digest).collect();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), changes.len());

    // What does not change the transaction does not change the intent.
    let mut annotated = base.clone();
    annotated.inputs[0].tap_internal_key = Some(INTERNAL_KEY.parse().unwrap());
    annotated.inputs[0].sighash_type = Some(TapSighashType::Default.into());
    assert_eq!(decode_own(&annotated).unwrap(), decode_own(&base).unwrap());
}

/// BIP-341: hash_TapSighash.
fn tagged_hash(message: &[u8]) -> [u8; 32] {
    let tag = Sha256::digest("TapSighash");
    Sha256::new()
        .chain_update(tag)
        .chain_update(tag)
        .chain_update(message)
        .finalize()
        .into()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

const BIP_341_TRANSACTION: &str = concat!(
    "02000000097de20cbff686da83a54981d2b9bab3586f4ca7e48f57f5b55963115f3b334e9c010000000000000000d7b7cab57b1393",
    "ace2d064f4d4a2cb8af6def61273e127517d44759b6dafdd990000000000fffffffff8e1f583384333689228c5d28eac13366be082",
    "dc57441760d957275419a418420000000000fffffffff0689180aa63b30cb162a73c6d2a38b7eeda2a83ece74310fda0843ad60485",
    "3b0100000000feffffffaa5202bdf6d8ccd2ee0f0202afbbb7461d9264a25e5bfd3c5a52ee1239e0ba6c0000000000feffffff9561",
    "49bdc66faa968eb2be2d2faa29718acbfe3941215893a2a3446d32acd050000000000000000000e664b9773b88c09c32cb70a2a3e4",
    "da0ced63b7ba3b22f848531bbb1d5d5f4c94010000000000000000e9aa6b8e6c9de67619e6a3924ae25696bb7b694bb677a632a74e",
    "f7eadfd4eabf0000000000ffffffffa778eb6a263dc090464cd125c466b5a99667720b1c110468831d058aa1b82af10100000000ff",
    "ffffff0200ca9a3b000000001976a91406afd46bcdfd22ef94ac122aa11f241244a37ecc88ac807840cb0000000020ac9a87f5594b",
    "e208f8532db38cff670c450ed2fea8fcdefcc9a663f78bab962b0065cd1d",
);

const BIP_341_MESSAGE_OF_INPUT_4: &str = concat!(
    "0000020000000065cd1de3b33bb4ef3a52ad1fffb555c0d82828eb22737036eaeb02a235d82b909c4c3f58a6964a4f5f8f0b642ded",
    "0a8a553be7622a719da71d1f5befcefcdee8e0fde623ad0f61ad2bca5ba6a7693f50fce988e17c3780bf2b1e720cfbb38fbdd52e21",
    "18959c7221ab5ce9e26c3cd67b22c24f8baa54bac281d8e6b05e400e6c3a957ea2e6dab7c1f0dcd297c8d61647fd17d821541ea69c",
    "3cc37dcbad7f90d4eb4bc50004000000",
);
