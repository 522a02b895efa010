//! `arca key`

use std::time::Duration;

use arca_client::address::{self, Network};
use arca_client::{Client, DerivationPath, Error, Key, KeyState, NewKey, Scheme};
use serde::Serialize;

use crate::cli::Context;
use crate::cli::output::Page;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Make a key: distributed generation, no party ever holds the whole
    #[command(
        after_help = "Examples:\n  arca key create --name \"treasury btc\" --scheme bip340 --threshold 2\n  \
                            arca key create --name treasury-eth --scheme ecdsa-secp256k1 --threshold 2\n  \
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
    /// Show an address of a key, or of one of the keys below an ECDSA key
    #[command(
        after_help = "Examples:\n  arca key address \"treasury btc\" --network signet\n  \
                            arca key address treasury-eth --path m/44/60/0/0/7\n  \
                            arca key address treasury-eth --chain bitcoin --path m/84/0/0/0/0 --network regtest\n  \
                            arca key address payouts --output json\n\n\
                            Bitcoin: P2TR without a script tree (BIP-86) of a bip340 key, P2WPKH of an ecdsa-secp256k1 \
                            key. An address below an ECDSA key takes no party to make: --path is BIP-32 without hardened \
                            steps."
    )]
    Address(Address),
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

/// A chain that has addresses.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Chain {
    /// P2TR or P2WPKH, by the key's scheme
    Bitcoin,
    /// With the checksum of EIP-55; the same on every chain of Ethereum's kin
    Ethereum,
    /// base58
    Solana,
}

#[derive(clap::Args)]
pub(crate) struct Address {
    #[command(flatten)]
    which: Which,
    /// Which chain [default: bitcoin for bip340, ethereum for ecdsa-secp256k1, solana for ed25519]
    #[arg(long, value_enum)]
    chain: Option<Chain>,
    /// From an ecdsa-secp256k1 key to the one below it
    #[arg(long, default_value = "m", hide_default_value = true)]
    path: DerivationPath,
    /// Which Bitcoin network
    #[arg(long, value_enum, default_value = "bitcoin")]
    network: Network,
}

#[derive(Serialize)]
struct Shown {
    key: String,
    scheme: Scheme,
    chain: Chain,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<Network>,
    path: DerivationPath,
    public_key: String,
    address: String,
}

fn address_of(key: Key, arguments: &Address) -> Result<Shown, Error> {
    let wrong = |problem: String| Error::Input {
        subject: format!("key {}", key.name),
        problem,
    };
    let chain = match (key.scheme, arguments.chain) {
        (Scheme::Bip340, None | Some(Chain::Bitcoin)) => Chain::Bitcoin,
        (Scheme::Ed25519, None | Some(Chain::Solana)) => Chain::Solana,
        (Scheme::EcdsaSecp256k1, None | Some(Chain::Ethereum)) => Chain::Ethereum,
        (Scheme::EcdsaSecp256k1, Some(Chain::Bitcoin)) => Chain::Bitcoin,
        (Scheme::EcdsaP256, _) => {
            return Err(wrong(
                "is an ecdsa-p256 key, which no chain here has addresses for; `arca key show` shows its public key"
                    .to_owned(),
            ));
        }
        (scheme, Some(_)) => {
            let chains = match scheme {
                Scheme::Bip340 => "bitcoin",
                Scheme::Ed25519 => "solana",
                Scheme::EcdsaSecp256k1 | Scheme::EcdsaP256 => "ethereum or bitcoin",
            };
            return Err(wrong(format!(
                "has the scheme {}; its --chain is {chains}",
                scheme.as_str()
            )));
        }
    };
    let ecdsa = matches!(key.scheme, Scheme::EcdsaSecp256k1);
    if !ecdsa && !arguments.path.is_root() {
        return Err(wrong(format!(
            "has the scheme {}, and only ecdsa-secp256k1 keys have keys below them: leave --path out",
            key.scheme.as_str()
        )));
    }
    let network = arguments.network;
    let (public_key, address) = if ecdsa {
        let child = key.public_key.derive(&arguments.path)?;
        let address = match chain {
            Chain::Bitcoin => address::p2wpkh(&child, network)?.to_string(),
            _ => address::ethereum(&child)?,
        };
        (hex::encode(child), address)
    } else {
        let address = match chain {
            Chain::Bitcoin => address::taproot(key.public_key.bip340()?, network)?.to_string(),
            _ => address::solana(key.public_key.ed25519()?),
        };
        (hex::encode(key.public_key.as_bytes()), address)
    };
    Ok(Shown {
        scheme: key.scheme,
        key: key.name,
        chain,
        network: (chain == Chain::Bitcoin).then_some(network),
        path: arguments.path.clone(),
        public_key,
        address,
    })
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
        Command::Address(arguments) => {
            let key = arguments.which.find(context).await?;
            let shown = address_of(key, &arguments)?;
            context
                .output
                .show(&shown, |page| page.line(&shown.address))
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
    let mut fields = vec![
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
        ("public key", hex::encode(key.public_key.as_bytes())),
    ];
    if let Some(chain_code) = key.public_key.chain_code() {
        fields.push(("chain code", hex::encode(chain_code)));
    }
    // For wallets that only watch, and for the bip32_derivation fields of PSBTs.
    if let Some(xpub) = key.public_key.xpub(bitcoin::NetworkKind::Main) {
        fields.push(("xpub", xpub.to_string()));
        fields.push(("fingerprint", xpub.fingerprint().to_string()));
    }
    fields.extend(addresses(key));
    fields.push(("key epoch", key.epoch.to_string()));
    fields.push((
        "raw digests",
        if key.allow_raw_digest {
            "allowed"
        } else {
            "refused"
        }
        .to_owned(),
    ));
    page.fields(fields);
}

/// The addresses of the key itself.
fn addresses(key: &Key) -> Vec<(&'static str, String)> {
    let root = || key.public_key.derive(&DerivationPath::root());
    let shown = |address: Result<String, Error>| address.unwrap_or_else(|error| error.to_string());
    match key.scheme {
        Scheme::Bip340 => {
            let address = key.public_key.bip340();
            let address = address.and_then(|key| address::taproot(key, Network::Bitcoin));
            vec![("address", shown(address.map(|one| one.to_string())))]
        }
        Scheme::Ed25519 => {
            let address = key.public_key.ed25519().map(address::solana);
            vec![("address", shown(address))]
        }
        Scheme::EcdsaSecp256k1 => {
            let bitcoin = root().and_then(|key| address::p2wpkh(&key, Network::Bitcoin));
            vec![
                (
                    "ethereum",
                    shown(root().and_then(|key| address::ethereum(&key))),
                ),
                ("bitcoin", shown(bitcoin.map(|one| one.to_string()))),
            ]
        }
        Scheme::EcdsaP256 => Vec::new(),
    }
}

fn state(key: &Key) -> &'static str {
    match key.state {
        KeyState::Pending => "pending",
        KeyState::Enabled => "enabled",
    }
}
