//! `arca key`

use std::time::Duration;

use arca_client::address::{self, Network};
use arca_client::{Client, Error, Key, KeyState, NewKey, Scheme};
use serde::Serialize;

use crate::cli::Context;
use crate::cli::output::Page;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Make a key: distributed generation, no party ever holds the whole
    #[command(
        after_help = "Examples:\n  arca key create --name \"treasury btc\" --scheme bip340 --threshold 2\n  \
                            arca key create --name payouts --scheme ed25519 --threshold 2 --with ceo,cto,cloud"
    )]
    Create(Create),
    /// List the keys of which a party holds a share
    #[command(
        after_help = "Examples:\n  arca key list\n  arca key list --party cloud --output json"
    )]
    List {
        /// Ask this party [default: the first that can be used]
        #[arg(long)]
        party: Option<String>,
    },
    /// Show one key
    #[command(
        after_help = "Examples:\n  arca key show \"treasury btc\"\n  arca key show keys/0f… --output json"
    )]
    Show {
        #[command(flatten)]
        which: Which,
    },
    /// Show a key's address: P2TR (BIP-86) or Solana
    #[command(
        after_help = "Examples:\n  arca key address \"treasury btc\" --network signet\n  arca key address payouts"
    )]
    Address {
        #[command(flatten)]
        which: Which,
        /// For BIP-340 keys: which Bitcoin network
        #[arg(long, value_enum, default_value = "bitcoin")]
        network: Network,
    },
}

#[derive(clap::Args)]
pub(crate) struct Create {
    /// For people, at most 64 characters
    #[arg(long)]
    name: String,
    /// What it signs with
    #[arg(long, value_enum)]
    scheme: Scheme,
    /// Shares needed to sign
    #[arg(long)]
    threshold: u32,
    /// Parties that hold a share [default: all]
    #[arg(long = "with", value_name = "PARTY,...", value_delimiter = ',')]
    with: Vec<String>,
    /// Let the key sign raw digests, of which nobody can see what they mean
    #[arg(long)]
    allow_raw_digest: bool,
    /// Idempotency key: the same id and request give the same key [default: random]
    #[arg(long)]
    request_id: Option<String>,
    /// Ask this party [default: the first that can be used]
    #[arg(long)]
    party: Option<String>,
    /// Seconds to wait
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

/// Which key, and whom to ask.
#[derive(clap::Args)]
pub(crate) struct Which {
    /// `keys/…`, its 32 hex digits, or its display name if only one key has it
    key: String,
    /// Ask this party [default: the first that can be used]
    #[arg(long)]
    party: Option<String>,
}

impl Which {
    async fn find(&self, context: &Context) -> anyhow::Result<Key> {
        let client = context.client(self.party.as_deref()).await?;
        Ok(find(&client, &self.key).await?)
    }
}

#[derive(Serialize)]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Serialize)]
struct Address {
    key: String,
    scheme: Scheme,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<Network>,
    address: String,
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(arguments) => create(context, arguments).await,
        Command::List { party } => {
            let keys = context.client(party.as_deref()).await?.keys().await?;
            context
                .output
                .show(&Keys { keys: keys.clone() }, |page| table(page, &keys))
        }
        Command::Show { which } => {
            let key = which.find(context).await?;
            context.output.show(&key, |page| fields(page, &key))
        }
        Command::Address { which, network } => {
            let key = which.find(context).await?;
            let (network, address) = match key.scheme {
                Scheme::Bip340 => (
                    Some(network),
                    address::taproot(&key.public_key, network)?.to_string(),
                ),
                Scheme::Ed25519 => (None, address::solana(&key.public_key)),
            };
            let value = Address {
                key: key.name,
                scheme: key.scheme,
                network,
                address,
            };
            context
                .output
                .show(&value, |page| page.line(&value.address))
        }
    }
}

async fn create(context: &Context, arguments: Create) -> anyhow::Result<()> {
    let client = context.client(arguments.party.as_deref()).await?;
    let new = NewKey {
        request_id: arguments.request_id.unwrap_or_else(random_request_id),
        display_name: arguments.name,
        scheme: arguments.scheme,
        threshold: arguments.threshold,
        parties: arguments.with,
        allow_raw_digest: arguments.allow_raw_digest,
    };
    let timeout = Duration::from_secs(arguments.timeout);
    let key = context
        .output
        .wait("generating the key", client.create_key(&new, timeout))
        .await?;
    context.output.show(&key, |page| fields(page, &key))
}

/// Finds a key by resource name, id or display name.
pub(crate) async fn find(client: &Client, text: &str) -> Result<Key, Error> {
    if text.starts_with("keys/") {
        return client.key(text).await;
    }
    if text.len() == 32
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    {
        return client.key(&format!("keys/{text}")).await;
    }
    let mut keys = client.keys().await?;
    keys.retain(|key| key.display_name == text);
    match keys.len() {
        1 => keys
            .pop()
            .ok_or_else(|| Error::Bug("a key was lost".to_owned())),
        0 => Err(Error::Input {
            subject: format!("key {text:?}"),
            problem: "no key has this name; `arca key list` shows them".to_owned(),
        }),
        _ => {
            let names: Vec<String> = keys.into_iter().map(|key| key.name).collect();
            Err(Error::Input {
                subject: format!("key {text:?}"),
                problem: format!(
                    "several keys have this name; say which: {}",
                    names.join(", ")
                ),
            })
        }
    }
}

/// An idempotency key for a caller who gave none.
pub(crate) fn random_request_id() -> String {
    use rand_core::RngCore;
    let mut bytes = [0; 16];
    rand_core::OsRng.fill_bytes(&mut bytes);
    format!("cli-{}", hex::encode(bytes))
}

fn table(page: &mut Page, keys: &[Key]) {
    let rows: Vec<Vec<String>> = keys
        .iter()
        .map(|key| {
            vec![
                key.name.clone(),
                key.display_name.clone(),
                key.scheme.as_str().to_owned(),
                format!("{} of {}", key.threshold, key.parties.len()),
                state(key).to_owned(),
                key.create_time.map_or_else(String::new, |time| {
                    time.strftime("%Y-%m-%d %H:%M").to_string()
                }),
            ]
        })
        .collect();
    page.table(&["key", "name", "scheme", "quorum", "state", "made"], &rows);
}

fn fields(page: &mut Page, key: &Key) {
    let address = match key.scheme {
        Scheme::Bip340 => address::taproot(&key.public_key, Network::Bitcoin)
            .map_or_else(|error| error.to_string(), |address| address.to_string()),
        Scheme::Ed25519 => address::solana(&key.public_key),
    };
    page.fields([
        ("key", key.name.clone()),
        ("name", key.display_name.clone()),
        ("scheme", key.scheme.as_str().to_owned()),
        ("state", state(key).to_owned()),
        (
            "shares",
            format!(
                "{} needed of {}: {}",
                key.threshold,
                key.parties.len(),
                key.parties.join(", ")
            ),
        ),
        ("public key", hex::encode(key.public_key)),
        ("address", address),
        ("key epoch", key.epoch.to_string()),
        (
            "raw digests",
            if key.allow_raw_digest {
                "allowed"
            } else {
                "refused"
            }
            .to_owned(),
        ),
    ]);
}

fn state(key: &Key) -> &'static str {
    match key.state {
        KeyState::Pending => "pending",
        KeyState::Enabled => "enabled",
    }
}
