//! Ethereum transactions that the parties sign, judged by a real node: Foundry's anvil executes and mines them.

use std::{io::Write as _, time::Duration};

use arca_client::{
    Client, DerivationPath, Key, Payload, Scheme, address, ethereum,
    local::{Anvil, Binaries},
    verify,
};
use serde_json::{Value, json};

use crate::common::{PATIENCE, new_key, running};

/// Init code of a contract whose only instruction is STOP.
const CONTRACT: &str = "0x6001600c60003960016000f300";
const RECIPIENT: &str = "0x3535353535353535353535353535353535353535";
const ETHER: u128 = 1_000_000_000_000_000_000;
const MINED: Duration = Duration::from_secs(30);

/// The account at a path of a key, and the next nonce.
struct Account {
    key: Key,
    path: DerivationPath,
    address: String,
    nonce: u64,
}

impl Account {
    /// A transaction of this account with what all types have.
    fn transaction(&mut self, more: Value) -> Value {
        let mut transaction = json!({
            "chainId": 31337, "nonce": self.nonce, "from": self.address, "to": RECIPIENT, "gas": "0x186a0",
            "value": "1000",
        });
        self.nonce += 1;
        let fields = transaction.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        fields.retain(|_, value| !value.is_null());
        transaction
    }

    async fn sign(&self, client: &Client, transaction: &Value) -> ethereum::Signed {
        let unsigned = ethereum::Unsigned::parse(transaction.to_string().as_bytes()).unwrap();
        let public_key = self.key.public_key.derive(&self.path).unwrap();
        unsigned.check_sender(&public_key).unwrap();
        let payload = Payload::EthereumTransaction(unsigned.bytes().to_vec());
        let intent = verify::decode(&self.key, &self.path, &payload).unwrap();
        let id = format!("{}-{}", transaction["nonce"], self.path.steps().len());
        let signed = client
            .sign(self.key.at(&self.path), &id, &payload, PATIENCE)
            .await
            .unwrap();
        verify::signatures(&self.key, &self.path, &intent, &signed).unwrap();
        assert_eq!(signed.summary, intent.summary());
        let signed = ethereum::Signed::new(&intent, &public_key, &signed.signatures[0]).unwrap();
        assert_eq!(sender(&signed), self.address);
        signed
    }
}

fn sender(signed: &ethereum::Signed) -> String {
    arca_policy::ethereum_checksum(&signed.from)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_executes_what_the_parties_sign() {
    let Some(program) = Anvil::find().unwrap() else {
        // Past the harness, which shows what passing tests print to nobody.
        let skipped = b"SKIPPED a_node_executes_what_the_parties_sign: no anvil; `make test` installs it where there is npm\n";
        std::io::stderr().write_all(skipped).unwrap();
        return;
    };
    let running = running().await;
    let launcher = Binaries::find().unwrap().arca;
    let anvil = Anvil::start(&program, &launcher, running.cluster.folder())
        .await
        .unwrap();
    let client = running.client("ceo").await;
    let key = new_key(&client, Scheme::EcdsaSecp256k1, "eth").await;
    for path in ["m", "m/44/60/0/0/7"] {
        let path: DerivationPath = path.parse().unwrap();
        let address = address::ethereum(&key.public_key.derive(&path).unwrap()).unwrap();
        assert!(anvil.fund(&address, ETHER).await.unwrap().success);
        let account = Account {
            key: key.clone(),
            path,
            address,
            nonce: 0,
        };
        every_type(&client, &anvil, account).await;
    }
    anvil.stop().await;
}

async fn every_type(client: &Client, anvil: &Anvil, mut account: Account) {
    let node = anvil.node();
    let gas_price = "3000000000";
    let dynamic = json!({"maxFeePerGas": gas_price, "maxPriorityFeePerGas": "1000000000"});
    let access = json!([{"address": RECIPIENT, "storageKeys": [format!("0x{}", "01".repeat(32))]}]);
    let mut with_list = dynamic.clone();
    with_list["accessList"] = access.clone();
    let create = json!({"gasPrice": gas_price, "to": null, "value": null, "input": CONTRACT});
    for (fields, kind) in [
        (json!({"gasPrice": gas_price}), "legacy"),
        (create, "legacy"),
        (
            json!({"gasPrice": gas_price, "accessList": access, "data": "0x00"}),
            "EIP-2930",
        ),
        (dynamic.clone(), "EIP-1559"),
        (with_list, "EIP-1559"),
    ] {
        let transaction = account.transaction(fields);
        let before = node.balance(RECIPIENT).await.unwrap();
        let signed = account.sign(client, &transaction).await;
        assert_eq!(signed.kind, kind);

        // The node judges: one bit of the signature makes it another account's, which owns nothing.
        let mut spoiled = signed.raw.clone();
        let last = spoiled.len() - 1;
        spoiled[last] ^= 1;
        node.send(&spoiled).await.unwrap_err();

        let hash = node.send(&signed.raw).await.unwrap();
        assert_eq!(hash, format!("0x{}", hex::encode(signed.hash)));
        let receipt = node.receipt(&hash, MINED).await.unwrap();
        assert!(receipt.success, "{transaction}: {receipt:?}");
        assert_eq!(receipt.from, account.address.to_lowercase());
        let gained = node.balance(RECIPIENT).await.unwrap() - before;
        let sent = if receipt.to.is_some() { 1000 } else { 0 };
        assert_eq!(gained, sent);
    }
    assert_eq!(node.nonce(&account.address).await.unwrap(), account.nonce);

    // Blobs travel beside the transaction and are not signed; that the sender is recovered shows the signature.
    let mut blob = dynamic;
    blob["maxFeePerBlobGas"] = 1.into();
    blob["blobVersionedHashes"] = json!([format!("0x01{}", "22".repeat(31))]);
    let transaction = account.transaction(blob);
    let signed = account.sign(client, &transaction).await;
    assert_eq!((signed.kind, signed.needs_sidecar), ("EIP-4844", true));
    node.send(&signed.raw).await.unwrap_err();
}
