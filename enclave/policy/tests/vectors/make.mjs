// Makes payloads with libraries that are not ours, and says what those libraries take them for.
//
//   npm install @solana/web3.js@1.99.0 @scure/btc-signer@2.4.1
//   node make.mjs > payloads.json
//
// Deterministic: running it again gives the same bytes.

import { createHash } from "node:crypto";
import * as solana from "@solana/web3.js";
import * as btc from "@scure/btc-signer";
import { pubECDSA, pubSchnorr } from "@scure/btc-signer/utils.js";

const hex = (bytes) => Buffer.from(bytes).toString("hex");
const seed = (text) => new Uint8Array(createHash("sha256").update(text).digest());

console.log(JSON.stringify({ bitcoin: bitcoin(), solana: messages() }, null, 2));

// Two inputs of the key around one of somebody else; a payment, change, a pay-to-witness-script-hash output.
function bitcoin() {
  const secret = seed("key");
  const key = pubSchnorr(secret);
  const own = btc.p2tr(key);
  const other = btc.p2wpkh(pubECDSA(seed("other"), true));
  const script = btc.p2wsh(btc.p2pk(pubECDSA(seed("script"), true)));
  const prevouts = [
    { script: own.script, amount: 150_000n },
    { script: other.script, amount: 70_000n },
    { script: own.script, amount: 2_100_000_000_000_000n - 500_000n },
  ];
  const transaction = new btc.Transaction({ version: 2, lockTime: 840_000 });
  prevouts.forEach((witnessUtxo, index) =>
    transaction.addInput({
      txid: hex(seed(`txid ${index}`)),
      index,
      sequence: 0xfffffffd,
      witnessUtxo,
      ...(witnessUtxo.script === own.script ? { tapInternalKey: key } : {}),
    }),
  );
  transaction.addOutput({ script: other.script, amount: 120_000n });
  transaction.addOutput({ script: own.script, amount: 2_099_999_999_500_000n });
  transaction.addOutput({ script: script.script, amount: 90_000n });
  const sighash = (index) =>
    transaction.preimageWitnessV1(
      index,
      prevouts.map((prevout) => prevout.script),
      btc.SigHash.DEFAULT,
      prevouts.map((prevout) => prevout.amount),
    );
  return {
    key: hex(key),
    psbt: hex(transaction.toPSBT(0)),
    sighashes: [0, 2].map((input) => ({ input, sighash: hex(sighash(input)) })),
    addresses: [other, own, script].map((payment) => payment.address),
    amounts: [120_000n, 2_099_999_999_500_000n, 90_000n].map(String),
    fee: String(transaction.fee),
  };
}

function messages() {
  const { Keypair, PublicKey, SystemProgram, TransactionMessage, TransactionInstruction } = solana;
  const [payer, key, carol, table, nonce] = ["payer", "key", "carol", "table", "nonce"].map(
    (name) => Keypair.fromSeed(seed(name)).publicKey,
  );
  const recentBlockhash = new PublicKey(seed("blockhash")).toBase58();
  const transfer = (fromPubkey, toPubkey, lamports) => SystemProgram.transfer({ fromPubkey, toPubkey, lamports });
  const memo = new TransactionInstruction({
    programId: new PublicKey("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"),
    keys: [{ pubkey: key, isSigner: true, isWritable: false }],
    data: Buffer.from("invoice 7"),
  });
  const lookup = new solana.AddressLookupTableAccount({
    key: table,
    state: {
      deactivationSlot: 2n ** 64n - 1n,
      lastExtendedSlot: 0,
      lastExtendedSlotStartIndex: 0,
      authority: undefined,
      addresses: [payer, carol],
    },
  });
  const cases = [
    ["legacy transfer", "legacy", key, [transfer(key, carol, 1_000_000)]],
    ["largest amount", "legacy", key, [transfer(key, carol, 18_446_744_073_709_551_615n)]],
    ["another pays the fee, two transfers", "legacy", payer, [transfer(key, carol, 5), transfer(payer, key, 7)]],
    [
      "compute budget and memo",
      "legacy",
      key,
      [solana.ComputeBudgetProgram.setComputeUnitPrice({ microLamports: 9 }), transfer(key, carol, 11), memo],
    ],
    [
      "durable nonce",
      "legacy",
      key,
      [SystemProgram.nonceAdvance({ noncePubkey: nonce, authorizedPubkey: key }), transfer(key, carol, 13)],
    ],
    ["version 0 transfer", "v0", key, [transfer(key, carol, 17)]],
    ["version 0, destination in a lookup table", "v0-lookup", key, [transfer(key, carol, 19), memo]],
    ["destination that is a program", "v0", key, [transfer(key, solana.StakeProgram.programId, 23), memo]],
  ];
  return cases.map(([name, version, payerKey, instructions]) => {
    const message = new TransactionMessage({ payerKey, recentBlockhash, instructions });
    const compiled =
      version === "legacy"
        ? message.compileToLegacyMessage()
        : message.compileToV0Message(version === "v0-lookup" ? [lookup] : []);
    const signers = compiled.staticAccountKeys.slice(0, compiled.header.numRequiredSignatures);
    return {
      name,
      version: version.slice(0, 2) === "v0" ? "v0" : "legacy",
      key: hex(key.toBytes()),
      message: hex(compiled.serialize()),
      signers: signers.map((signer) => hex(signer.toBytes())),
      blockhash: hex(new PublicKey(recentBlockhash).toBytes()),
      instructions: compiled.compiledInstructions.map((instruction) => describe(compiled, instruction)),
    };
  });

  function describe(compiled, { programIdIndex, accountKeyIndexes, data }) {
    const keys = compiled.staticAccountKeys;
    const program = keys[programIdIndex];
    const accounts = accountKeyIndexes.map((index) => ({
      address: hex((keys[index] ?? table).toBytes()),
      lookup: index < keys.length ? null : compiled.addressTableLookups[0].writableIndexes[index - keys.length],
      signer: compiled.isAccountSigner(index),
      writable: compiled.isAccountWritable(index),
    }));
    const instruction = new TransactionInstruction({
      programId: program,
      keys: accounts.map(({ address, signer, writable }) => ({
        pubkey: new PublicKey(Buffer.from(address, "hex")),
        isSigner: signer,
        isWritable: writable,
      })),
      data: Buffer.from(data),
    });
    const isTransfer =
      program.equals(SystemProgram.programId) &&
      solana.SystemInstruction.decodeInstructionType(instruction) === "Transfer" &&
      accounts.every((account) => account.lookup === null);
    if (isTransfer) {
      const { fromPubkey, toPubkey, lamports } = solana.SystemInstruction.decodeTransfer(instruction);
      return { from: hex(fromPubkey.toBytes()), to: hex(toPubkey.toBytes()), lamports: String(lamports) };
    }
    return { program: hex(program.toBytes()), accounts, data: hex(data) };
  }
}
