// Makes PSBTs of an ECDSA key's P2WPKH outputs with libraries that are not ours, and says what they take them for.
//
//   npm install @scure/btc-signer@2.4.1 @scure/bip32@2.4.0
//   node p2wpkh.mjs > p2wpkh.json
//
// Deterministic: running it again gives the same bytes.

import { createHash } from "node:crypto";
import { HDKey } from "@scure/bip32";
import * as btc from "@scure/btc-signer";
import { pubECDSA, pubSchnorr } from "@scure/btc-signer/utils.js";

const hex = (bytes) => Buffer.from(bytes).toString("hex");
const seed = (text) => new Uint8Array(createHash("sha256").update(text).digest());
const sha256 = (bytes) => createHash("sha256").update(bytes).digest();

const root = HDKey.fromMasterSeed(seed("group"));
const at = (path) => path.reduce((key, step) => key.deriveChild(step), root);
const own = (path) => btc.p2wpkh(at(path).publicKey);
const claim = (path) => ({ bip32Derivation: [[at(path).publicKey, { fingerprint: root.fingerprint, path }]] });
const other = btc.p2wpkh(pubECDSA(seed("other"), true));
const taproot = btc.p2tr(pubSchnorr(seed("taproot")));

console.log(
  JSON.stringify(
    {
      key: hex(root.publicKey),
      chain_code: hex(root.chainCode),
      psbts: [
        describe({
          name: "one input at the requested path, without its transaction",
          path: [44, 7],
          whole: false,
          inputs: [{ ...own([44, 7]), path: [44, 7], amount: 90_000n }],
          outputs: [{ ...other, amount: 80_000n }, { ...own([44, 7]), path: [44, 7], amount: 9_000n }],
        }),
        describe({
          name: "inputs at the requested path, at claimed ones and of others, change at claimed paths",
          path: [3],
          whole: true,
          inputs: [
            { ...own([3]), path: [3], amount: 150_000n },
            { ...taproot, amount: 70_000n },
            { ...own([0, 5]), path: [0, 5], claimed: true, amount: 40_000n },
            { ...own([]), path: [], claimed: true, amount: 2_099_999_900_000_000n },
            { ...other, amount: 1n },
            { ...own([3]), path: [3], claimed: true, amount: 7n },
          ],
          outputs: [
            { ...other, amount: 120_000n },
            { ...own([1, 2 ** 31 - 1]), path: [1, 2 ** 31 - 1], claimed: true, amount: 2_099_999_900_000_000n },
            { ...own([3]), path: [3], amount: 11n },
            { ...own([]), path: [], claimed: true, amount: 12n },
            { ...taproot, amount: 90_000n },
          ],
        }),
      ],
    },
    null,
    2,
  ),
);

// A transaction of which nothing but this output matters, without a witness.
function funding(output, index) {
  const transaction = new btc.Transaction({ version: 2 });
  transaction.addInput({ txid: seed(`funding ${index}`), index: 0 });
  for (let before = 0; before < index; before++) transaction.addOutput({ script: other.script, amount: 5n });
  transaction.addOutput({ script: output.script, amount: output.amount });
  return transaction.unsignedTx;
}

function describe({ name, path, whole, inputs, outputs }) {
  const transaction = new btc.Transaction({ version: 2, lockTime: 840_000 });
  inputs.forEach((input, index) => {
    const previous = funding(input, index);
    transaction.addInput({
      txid: Uint8Array.from(sha256(sha256(previous))).reverse(),
      index,
      sequence: 0xfffffffd - index,
      ...(whole ? { nonWitnessUtxo: previous } : {}),
      witnessUtxo: { script: input.script, amount: input.amount },
      ...(input.claimed ? claim(input.path) : {}),
    });
  });
  for (const output of outputs)
    transaction.addOutput({
      script: output.script,
      amount: output.amount,
      ...(output.claimed ? claim(output.path) : {}),
    });
  const signed = inputs.flatMap((input, index) => {
    if (!input.path) return [];
    const key = at(input.path);
    const code = btc.OutScript.encode({ type: "pkh", hash: key.pubKeyHash });
    const sighash = transaction.preimageWitnessV0(index, code, btc.SigHash.ALL, input.amount);
    return [{ input: index, path: input.path, public_key: hex(key.publicKey), sighash: hex(sighash) }];
  });
  return {
    name,
    path,
    psbt: hex(transaction.toPSBT(0)),
    signed,
    outputs: outputs.map(({ address, amount, path }) => ({ address, amount: String(amount), change: path ?? null })),
    fee: String(transaction.fee),
  };
}
