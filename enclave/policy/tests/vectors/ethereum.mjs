// Makes Ethereum transactions with a library that is not ours, and says what that library takes them for.
//
//   npm install ethers@6.17.0 @scure/bip32@2.4.0
//   node ethereum.mjs > ethereum.json
//
// Deterministic: running it again gives the same bytes.

import { createHash } from "node:crypto";
import { HDKey } from "@scure/bip32";
import { ethers } from "ethers";

const hex = (bytes) => Buffer.from(bytes).toString("hex");
const bare = (text) => text.replace(/^0x/, "");
const seed = (text) => createHash("sha256").update(text).digest();
const address = (text) => ethers.getAddress("0x" + hex(seed(text).subarray(0, 20)));
const word = (text) => "0x" + hex(seed(text));
const blob = (text) => "0x01" + hex(seed(text).subarray(1));
const bytes = (text, count) => "0x" + hex(Buffer.concat(Array(Math.ceil(count / 32)).fill(seed(text))).subarray(0, count));

const root = HDKey.fromMasterSeed(seed("group"));
const gwei = 1_000_000_000n;
const max = 2n ** 256n - 1n;
const erc20 = new ethers.Interface(["function transfer(address to, uint256 value)"]);
const transfer = erc20.encodeFunctionData("transfer", [address("carol"), 250_000_000n]);
const accessList = [
  { address: address("token"), storageKeys: [word("slot 0"), word("slot 1")] },
  { address: address("pool"), storageKeys: [] },
];
const legacy = { type: 0, chainId: 1n, nonce: 0, gasPrice: 0n, gasLimit: 21_000n, value: 0n, data: "0x" };
const list = { type: 1, chainId: 1n, nonce: 1, gasPrice: 9n * gwei, gasLimit: 60_000n, value: 0n, data: "0x", accessList: [] };
const dynamic = {
  type: 2,
  chainId: 31337n,
  nonce: 7,
  maxPriorityFeePerGas: gwei,
  maxFeePerGas: 30n * gwei,
  gasLimit: 21_000n,
  value: 0n,
  data: "0x",
  accessList: [],
};
const blobs = { ...dynamic, type: 3, to: address("rollup"), gasLimit: 100_000n, maxFeePerBlobGas: 3n * gwei };

const cases = [
  ["legacy, all zero", [], { ...legacy, to: address("bob") }],
  ["legacy, a chain id of two bytes", [0], { ...legacy, chainId: 31337n, nonce: 127, to: address("bob"), value: 1n }],
  ["legacy, the largest chain id", [0], { ...legacy, chainId: 2n ** 63n - 37n, nonce: 128, to: address("bob"), value: 127n }],
  ["legacy, one byte of data below 0x80", [1, 2, 3], { ...legacy, nonce: 255, to: address("bob"), data: "0x7f" }],
  ["legacy, one byte of data above 0x80", [1, 2, 3], { ...legacy, nonce: 256, to: address("bob"), data: "0x80" }],
  ["legacy, creation", [], { ...legacy, gasLimit: 3_000_000n, gasPrice: 12n * gwei, value: 5n, data: bytes("init", 300) }],
  ["legacy, call of a token", [44], { ...legacy, gasLimit: 65_000n, gasPrice: gwei, to: address("token"), data: transfer }],
  ["access list, empty", [], { ...list, to: address("bob"), value: 128n }],
  ["access list, two addresses", [2 ** 31 - 1], { ...list, to: address("token"), data: transfer, accessList }],
  ["access list, creation", [0], { ...list, data: bytes("init", 55), accessList }],
  ["dynamic fee, transfer", [], { ...dynamic, to: address("bob"), value: 10n ** 18n }],
  ["dynamic fee, transfer from a child", [0, 5], { ...dynamic, to: address("bob"), value: 10n ** 18n }],
  ["dynamic fee, no fee and the largest value", [], { ...dynamic, maxFeePerGas: 0n, maxPriorityFeePerGas: 0n, to: address("bob"), value: max }],
  ["dynamic fee, the largest nonce and gas limit", [], { ...dynamic, nonce: Number.MAX_SAFE_INTEGER, gasLimit: 2n ** 64n - 1n, to: address("bob") }],
  ["dynamic fee, the whole fee is the tip", [], { ...dynamic, maxPriorityFeePerGas: 30n * gwei, to: address("bob") }],
  ["dynamic fee, 55 bytes of data", [], { ...dynamic, to: address("token"), data: bytes("data", 55) }],
  ["dynamic fee, 56 bytes of data", [], { ...dynamic, to: address("token"), data: bytes("data", 56) }],
  ["dynamic fee, 256 bytes of data", [], { ...dynamic, gasLimit: 3_000_000n, to: address("token"), data: bytes("data", 256) }],
  ["dynamic fee, call of a token with an access list", [], { ...dynamic, gasLimit: 70_000n, to: address("token"), value: 3n, data: transfer, accessList }],
  ["dynamic fee, creation", [16, 0], { ...dynamic, gasLimit: 900_000n, value: 4n, data: bytes("init", 2000) }],
  ["blobs, one", [], { ...blobs, blobVersionedHashes: [blob("a")] }],
  ["blobs, six, with a call and an access list", [3], { ...blobs, value: 9n, data: transfer, accessList, blobVersionedHashes: [..."abcdef"].map(blob) }],
  ["blobs, sixteen", Array(16).fill(1), { ...blobs, blobVersionedHashes: [..."abcdefghijklmnop"].map(blob) }],
];

console.log(
  JSON.stringify(
    { key: hex(root.publicKey), chain_code: hex(root.chainCode), transactions: cases.map(describe) },
    null,
    2,
  ),
);

function describe([name, path, fields]) {
  const child = path.reduce((key, step) => key.deriveChild(step), root);
  const signer = new ethers.SigningKey(child.privateKey);
  const transaction = ethers.Transaction.from({ to: null, ...fields });
  const signature = signer.sign(transaction.unsignedHash);
  const decimal = (value) => (value === null || value === undefined ? null : String(value));
  // As the library reads back what it wrote.
  const read = ethers.Transaction.from(transaction.unsignedSerialized);
  const isDynamic = read.type >= 2;
  return {
    name,
    path,
    public_key: hex(child.publicKey),
    from: ethers.computeAddress(signer.publicKey),
    payload: bare(transaction.unsignedSerialized),
    hash: bare(transaction.unsignedHash),
    signature: bare(signature.r) + bare(signature.s),
    type: read.type,
    chain_id: decimal(read.chainId),
    nonce: decimal(read.nonce),
    gas_limit: decimal(read.gasLimit),
    gas_price: isDynamic ? null : decimal(read.gasPrice),
    max_priority_fee_per_gas: decimal(read.maxPriorityFeePerGas),
    max_fee_per_gas: decimal(read.maxFeePerGas),
    max_fee_per_blob_gas: decimal(read.maxFeePerBlobGas),
    to: read.to,
    value: decimal(read.value),
    data: bare(read.data),
    access_list: read.accessList ?? [],
    blob_hashes: read.blobVersionedHashes ?? [],
  };
}
