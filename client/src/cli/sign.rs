//! `arca sign`

mod completed;
mod requests;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arca_client::{DerivationPath, Error, Key, Payload, Scheme, SigningRequest, ethereum};
use arca_client::{psbt, solana, verify};
use arca_policy::Intent;
use serde::Serialize;

use crate::cli::Context;
use crate::cli::key::{find, random_request_id};
use completed::Transaction;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Sign an Ethereum transaction; with --wait, verify and print it as nodes take it
    #[command(
        after_help = "Examples:\n  arca sign eth transfer.json --key treasury-eth --path m/44/60/0/0/7 --wait\n  \
                            arca sign eth - --key treasury-eth --wait --output json < unsigned.hex\n  \
                            arca sign eth transfer.json --key treasury-eth --wait --broadcast http://127.0.0.1:8545\n\n\
                            TX is the unsigned transaction, hex or binary: legacy with EIP-155's chain id, or type 1 \
                            (EIP-2930), 2 (EIP-1559), 3 (EIP-4844); or JSON with the fields of eth_signTransaction, numbers as \
                            0x-hex or decimal strings:\n\n  \
                            {\"chainId\": \"1\", \"nonce\": \"0x0\", \"to\": \"0x3535…\", \"value\": \"1000000000000000000\",\n   \
                            \"gas\": \"21000\", \"maxFeePerGas\": \"30000000000\", \"maxPriorityFeePerGas\": \"1000000000\"}\n\n\
                            A signed type 3 transaction comes without the sidecar of its blobs, which nodes want with it."
    )]
    Eth(Eth),
    /// Sign a PSBT's inputs of the key; with --wait, finalise, verify and print the transaction
    #[command(
        after_help = "Examples:\n  arca sign psbt spend.psbt --key \"treasury btc\" --wait\n  \
                            arca sign psbt spend.psbt --key treasury-eth --path m/84/0/0/0/3 --wait\n  \
                            bitcoin-cli walletprocesspsbt … | jq -r .psbt | arca sign psbt - --key keys/0f… --wait --output json\n\n\
                            A bip340 key signs its P2TR inputs by the key path. An ecdsa-secp256k1 key signs its P2WPKH inputs: \
                            those of --path, and those whose bip32_derivation names a path under the key's fingerprint (`arca \
                            key show`)."
    )]
    Psbt(Psbt),
    /// Sign a Solana message; with --wait, verify and print the transaction
    #[command(
        after_help = "Examples:\n  arca sign solana message.bin --key payouts --wait\n  \
                            arca sign solana - --key payouts --wait --output json < message.b64"
    )]
    Solana(File),
    /// Sign 32 bytes as they are, with a key made with --allow-raw-digest
    #[command(
        after_help = "Examples:\n  arca sign digest 6a09e667f3bcc908b2fb1366ea957d3e3adec17512775099da2f590b0667322a --key raw --wait\n  \
                            arca sign digest $(sha256sum release.tar | cut -c-64) --key releases-p256 --wait --output json"
    )]
    Digest {
        /// 64 hex digits
        digest: String,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        request: Request,
    },
    /// List the signing requests that a party coordinates
    #[command(after_help = "Examples:\n  arca sign list --party ceo")]
    List {
        /// Ask this party [default: the first that can be used]
        #[arg(long)]
        party: Option<String>,
    },
    /// Show one signing request
    #[command(after_help = "Examples:\n  arca sign show signingRequests/3b…")]
    Show {
        /// `signingRequests/…`
        name: String,
        /// Ask this party [default: every party until one knows it]
        #[arg(long)]
        party: Option<String>,
    },
}

#[derive(clap::Args)]
pub(crate) struct File {
    /// A file, or `-` for standard input: binary, base64 or hex
    file: PathBuf,
    #[command(flatten)]
    request: Request,
}

#[derive(clap::Args)]
pub(crate) struct Psbt {
    #[command(flatten)]
    file: File,
    #[command(flatten)]
    at: At,
}

#[derive(clap::Args)]
pub(crate) struct Eth {
    /// A file, or `-` for standard input: JSON, hex or binary
    #[arg(value_name = "TX")]
    file: PathBuf,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    request: Request,
    /// Then hand the transaction to this node, http:// alone, and wait until it is in a block
    #[arg(long, value_name = "URL", requires = "wait")]
    broadcast: Option<String>,
}

#[derive(clap::Args)]
pub(crate) struct At {
    /// From an ecdsa-secp256k1 key to the one below it that signs: BIP-32, no step hardened [default: the key itself]
    #[arg(long, default_value = "m", hide_default_value = true)]
    path: DerivationPath,
}

#[derive(clap::Args)]
pub(crate) struct Request {
    /// `keys/…`, its 32 hex digits, or its display name if only one key has it
    #[arg(long)]
    key: String,
    /// Wait for the end; without it, the request is admitted and goes on by itself
    #[arg(long)]
    wait: bool,
    /// A new file for the signature's certificate, which `arca audit verify` verifies offline
    #[arg(long, value_name = "FILE", requires = "wait")]
    certificate: Option<PathBuf>,
    /// Idempotency key: the same id and request give the same signing request [default: random]
    #[arg(long)]
    request_id: Option<String>,
    /// Seconds in which it has to be signed
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Ask this party [default: the first that can be used]
    #[arg(long)]
    party: Option<String>,
}

/// Larger inputs are no transaction.
const MAX_INPUT: u64 = 4 * 1024 * 1024;

#[derive(Serialize)]
struct Outcome<'a> {
    signing_request: &'a SigningRequest,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction: Option<Transaction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<ethereum::Receipt>,
}

/// A request that is signed, and verified.
struct Signed {
    key: Key,
    path: DerivationPath,
    intent: Intent,
    request: SigningRequest,
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    let root = DerivationPath::root;
    match command {
        Command::Eth(arguments) => eth(context, arguments).await,
        Command::Psbt(Psbt { file, at }) => {
            let psbt = psbt::parse(&read(&file.file)?)?;
            let payload = Payload::Psbt(psbt.serialize());
            if let Some(signed) = sign(context, file.request, at.path, payload, |_| Ok(())).await? {
                let transaction = completed::psbt(psbt, &signed)?;
                show(context, &signed, transaction, None)?;
            }
            Ok(())
        }
        Command::Solana(File { file, request }) => {
            let message = solana::Message::parse(&read(&file)?)?;
            let payload = Payload::SolanaMessage(message.bytes().to_vec());
            if let Some(signed) = sign(context, request, root(), payload, |_| Ok(())).await? {
                let transaction = completed::solana(message, &signed)?;
                show(context, &signed, transaction, None)?;
            }
            Ok(())
        }
        Command::Digest {
            digest,
            at,
            request,
        } => {
            let digest: [u8; 32] = hex::decode(digest.trim())
                .ok()
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or_else(|| Error::Input {
                    subject: "digest".to_owned(),
                    problem: "is not 64 hex digits".to_owned(),
                })?;
            let payload = Payload::Digest(digest);
            if let Some(signed) = sign(context, request, at.path, payload, |_| Ok(())).await? {
                let transaction = completed::digest(&signed)?;
                show(context, &signed, transaction, None)?;
            }
            Ok(())
        }
        Command::List { party } => requests::list(context, party.as_deref()).await,
        Command::Show { name, party } => {
            let request = requests::find(context, &name, party.as_deref()).await?;
            let outcome = Outcome {
                signing_request: &request,
                transaction: None,
                receipt: None,
            };
            context
                .output
                .show(&outcome, |page| page.fields(requests::fields(&request)))
        }
    }
}

async fn eth(context: &Context, arguments: Eth) -> anyhow::Result<()> {
    let unsigned = ethereum::Unsigned::parse(&read(&arguments.file)?)?;
    let node = arguments.broadcast.as_deref().map(ethereum::Node::new);
    let node = node.transpose()?;
    let payload = Payload::EthereumTransaction(unsigned.bytes().to_vec());
    let path = arguments.at.path;
    let timeout = Duration::from_secs(arguments.request.timeout);
    let check = |key: &Key| match key.scheme {
        Scheme::EcdsaSecp256k1 => unsigned.check_sender(&key.public_key.derive(&path)?),
        // The decoder says what is wrong.
        _ => Ok(()),
    };
    let signed = sign(context, arguments.request, path.clone(), payload, check).await?;
    let Some(signed) = signed else {
        return Ok(());
    };
    let transaction = completed::eth(&signed)?;
    let receipt = match &node {
        None => None,
        Some(node) => Some(broadcast(context, node, &transaction, timeout).await?),
    };
    show(context, &signed, Transaction::from(transaction), receipt)
}

/// Hands a transaction to a node of its own chain, and waits for the receipt.
async fn broadcast(
    context: &Context,
    node: &ethereum::Node,
    transaction: &ethereum::Signed,
    timeout: Duration,
) -> anyhow::Result<ethereum::Receipt> {
    let refuse = |problem: String| Error::Input {
        subject: format!("transaction 0x{}", hex::encode(transaction.hash)),
        problem: format!(
            "{problem}; it was signed and not sent: without --broadcast, and with the same --request-id, it is shown"
        ),
    };
    if transaction.needs_sidecar {
        return Err(refuse("nodes want the sidecar of its blobs with it".to_owned()).into());
    }
    let chain = node.chain_id().await?;
    if chain != transaction.chain_id {
        return Err(refuse(format!(
            "is for chain {}, and the node is on chain {chain}",
            transaction.chain_id
        ))
        .into());
    }
    let hash = node.send(&transaction.raw).await?;
    let wait = node.receipt(&hash, timeout);
    Ok(context.output.wait("waiting for a block", wait).await?)
}

/// Asks for signatures and, with --wait, returns when they are there and verified. Without, shows the request and
/// returns nothing.
///
/// What the parties would refuse is not asked for: it is decoded here first, with their own code.
async fn sign(
    context: &Context,
    arguments: Request,
    path: DerivationPath,
    payload: Payload,
    check: impl FnOnce(&Key) -> Result<(), Error>,
) -> anyhow::Result<Option<Signed>> {
    let client = context.client(arguments.party.as_deref()).await?;
    let key = find(&client, &arguments.key).await?;
    let intent = verify::decode(&key, &path, &payload)?;
    check(&key)?;
    let id = arguments.request_id.unwrap_or_else(random_request_id);
    let timeout = Duration::from_secs(arguments.timeout);
    let request = client
        .request_signature(key.at(&path), &id, &payload, timeout)
        .await?;
    if !arguments.wait {
        let outcome = Outcome {
            signing_request: &request,
            transaction: None,
            receipt: None,
        };
        context.output.show(&outcome, |page| {
            page.fields(requests::fields(&request));
            page.line(format!(
                "follow it: arca sign show {} --party {}",
                request.name,
                client.party()
            ));
        })?;
        return Ok(None);
    }
    let label = format!("signing {}", request.name);
    let request = context
        .output
        .wait(&label, client.watch(request, timeout, |_| ()))
        .await?
        .into_signed()?;
    verify::signatures(&key, &path, &intent, &request)?;
    if let Some(file) = &arguments.certificate {
        let work = client.certificate(&request.name);
        let bytes = context
            .output
            .wait("putting the certificate together", work)
            .await?;
        write_new(file, &bytes)?;
    }
    Ok(Some(Signed {
        key,
        path,
        intent,
        request,
    }))
}

fn show(
    context: &Context,
    signed: &Signed,
    transaction: Transaction,
    receipt: Option<ethereum::Receipt>,
) -> anyhow::Result<()> {
    // What this client understood, rather than a party's word for it.
    let request = SigningRequest {
        summary: signed.intent.summary().to_owned(),
        ..signed.request.clone()
    };
    let outcome = Outcome {
        signing_request: &request,
        transaction: Some(transaction),
        receipt,
    };
    context.output.show(&outcome, |page| {
        let completed = outcome.transaction.iter().flat_map(completed::fields);
        let receipt = outcome.receipt.iter().flat_map(completed::receipt);
        page.fields(
            requests::fields(&request)
                .into_iter()
                .chain(completed)
                .chain(receipt),
        );
    })
}

/// Writes a file that is not there yet.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    use std::io::Write as _;
    std::fs::File::create_new(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|cause| Error::Config {
            subject: path.display().to_string(),
            problem: format!(
                "cannot be written: {cause}; the request is signed: with the same --request-id and without --certificate it is shown"
            ),
            advice: "ask for it with: arca audit certificate REQUEST FILE".to_owned(),
        })
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let failed = |cause: std::io::Error| Error::Config {
        subject: path.display().to_string(),
        problem: format!("cannot be read: {cause}"),
        advice: "name a file, or - for standard input".to_owned(),
    };
    if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(MAX_INPUT + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_INPUT + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
    }
    if bytes.len() as u64 > MAX_INPUT {
        return Err(Error::Input {
            subject: path.display().to_string(),
            problem: "is larger than 4 MiB".to_owned(),
        }
        .into());
    }
    Ok(bytes)
}
