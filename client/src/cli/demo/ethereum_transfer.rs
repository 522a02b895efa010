//! An EIP-1559 transfer on a chain of one's own, executed and mined by anvil.

use std::time::Duration;

use anyhow::Context as _;
use arca_client::local::Anvil;
use arca_client::{DerivationPath, Key, Payload, SigningRequest, address, ethereum, verify};
use arca_policy::Intent;
use serde_json::json;

use super::report::Item;

/// What the account gets to begin with: 10 ether.
const FUNDS: u128 = 10 * ETHER;
/// What a transfer sends: 1.5 ether.
const VALUE: u128 = 3 * ETHER / 2;
const ETHER: u128 = 1_000_000_000_000_000_000;
/// What the block's producer gets for a unit of gas: 1 gwei.
const TIP: u128 = 1_000_000_000;
/// EIP-155's example pays this account.
const RECIPIENT: &str = "0x3535353535353535353535353535353535353535";
/// Which key below "treasury-eth": the path of Ethereum's wallets, without their hardened steps.
const PATH: &str = "m/44/60/0/0/7";
/// Until a transaction is mined.
const PATIENCE: Duration = Duration::from_secs(30);

/// The account that pays: a key below the demo's ECDSA key.
pub(super) struct Account {
    path: DerivationPath,
    address: String,
}

impl Account {
    pub fn of(key: &Key) -> anyhow::Result<Self> {
        let path: DerivationPath = PATH.parse()?;
        let address = address::ethereum(&key.public_key.derive(&path)?)?;
        Ok(Self { path, address })
    }

    pub fn path(&self) -> &DerivationPath {
        &self.path
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Gives the account something to send.
    pub async fn fund(&self, anvil: &Anvil) -> anyhow::Result<Item> {
        let receipt = anvil.fund(&self.address, FUNDS).await?;
        anyhow::ensure!(receipt.success, "anvil did not fund {}", self.address);
        let version = anvil.node().call("web3_clientVersion", json!([])).await?;
        let version = version.as_str().unwrap_or("anvil").to_owned();
        Ok(Item::new(format!(
            "{version} (pid {}): an Ethereum node of chain {}, and {} has {FUNDS} wei",
            anvil.pid().unwrap_or_default(),
            anvil.node().chain_id().await?,
            self.address
        ))
        .with("node", &anvil.url())
        .with("node_version", &version)
        .with("receipt", &receipt))
    }
}

/// A transfer on its way.
pub(super) struct Transfer {
    unsigned: ethereum::Unsigned,
    intent: Intent,
}

impl Transfer {
    pub async fn prepare(key: &Key, account: &Account, anvil: &Anvil) -> anyhow::Result<Self> {
        let node = anvil.node();
        let max_fee = 2 * node.base_fee().await? + TIP;
        let transaction = json!({
            "chainId": node.chain_id().await?,
            "nonce": node.nonce(account.address()).await?,
            "from": account.address(),
            "to": RECIPIENT,
            "value": VALUE.to_string(),
            "gas": 21_000,
            "maxFeePerGas": max_fee.to_string(),
            "maxPriorityFeePerGas": TIP.to_string(),
        });
        let unsigned = ethereum::Unsigned::parse(transaction.to_string().as_bytes())?;
        unsigned.check_sender(&key.public_key.derive(account.path())?)?;
        let payload = Payload::EthereumTransaction(unsigned.bytes().to_vec());
        let intent = verify::decode(key, account.path(), &payload)?;
        Ok(Self { unsigned, intent })
    }

    pub fn payload(&self) -> Payload {
        Payload::EthereumTransaction(self.unsigned.bytes().to_vec())
    }

    /// Assembles the transaction, which verifies the signature, and has it mined.
    pub async fn finish(
        self,
        key: &Key,
        account: &Account,
        signed: &SigningRequest,
        anvil: &Anvil,
    ) -> anyhow::Result<Item> {
        verify::signatures(key, account.path(), &self.intent, signed)?;
        let signature = signed.signatures.first().context("a signature")?;
        let public_key = key.public_key.derive(account.path())?;
        let transaction = ethereum::Signed::new(&self.intent, &public_key, signature)?;
        let node = anvil.node();
        let before = node.balance(RECIPIENT).await?;
        let hash = node.send(&transaction.raw).await?;
        let receipt = node.receipt(&hash, PATIENCE).await?;
        let gained = node.balance(RECIPIENT).await?.checked_sub(before);
        let own = format!("0x{}", hex::encode(transaction.hash));
        anyhow::ensure!(
            receipt.success
                && receipt.transaction_hash == own
                && receipt.from.eq_ignore_ascii_case(account.address())
                && gained == Some(VALUE),
            "transaction {own} was not executed as signed: {receipt:?}, and {RECIPIENT} gained {gained:?} wei"
        );
        let mined = format!(
            "block {}, status 1 (executed), gas used {} at {} wei",
            receipt.block, receipt.gas_used, receipt.gas_price
        );
        Ok(Item::new(format!(
            "Ethereum: {VALUE} wei to {RECIPIENT}, {}",
            transaction.kind
        ))
        .detail("hash", &own)
        .detail(
            "from",
            &format!("{} ({} of the key)", account.address(), account.path()),
        )
        .detail("mined", &mined)
        .detail("verified by", ethereum::VERIFIER)
        .with("chain", &"ethereum")
        .with("id", &own)
        .with(
            "transaction",
            &format!("0x{}", hex::encode(&transaction.raw)),
        )
        .with("from", &account.address())
        .with("path", account.path())
        .with("value_wei", &VALUE.to_string())
        .with("receipt", &receipt)
        .with("verified_by", &ethereum::VERIFIER))
    }
}
