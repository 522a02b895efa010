//! `arca sign`

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arca_client::{Client, Error, Key, Payload, Scheme, SigningRequest, psbt, solana};
use serde::Serialize;

use crate::cli::Context;
use crate::cli::key::{find, random_request_id};
use crate::cli::output::Page;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Sign a PSBT's taproot key-path inputs; with --wait, finalise, verify and print the transaction
    #[command(
        after_help = "Examples:\n  arca sign psbt spend.psbt --key \"treasury btc\" --wait\n  \
                            bitcoin-cli walletprocesspsbt … | jq -r .psbt | arca sign psbt - --key keys/0f… --wait --output json"
    )]
    Psbt(File),
    /// Sign a Solana message; with --wait, verify and print the transaction
    #[command(
        after_help = "Examples:\n  arca sign solana message.bin --key payouts --wait\n  \
                            arca sign solana - --key payouts --wait --output json < message.b64"
    )]
    Solana(File),
    /// Sign 32 bytes as they are, with a key made with --allow-raw-digest
    #[command(
        after_help = "Examples:\n  arca sign digest 6a09e667f3bcc908b2fb1366ea957d3e3adec17512775099da2f590b0667322a --key raw --wait"
    )]
    Digest {
        /// 64 hex digits
        digest: String,
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
pub(crate) struct Request {
    /// `keys/…`, its 32 hex digits, or its display name if only one key has it
    #[arg(long)]
    key: String,
    /// Wait for the end; without it, the request is admitted and goes on by itself
    #[arg(long)]
    wait: bool,
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
struct Requests {
    signing_requests: Vec<SigningRequest>,
}

#[derive(Serialize)]
struct Outcome<'a> {
    signing_request: &'a SigningRequest,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction: Option<Transaction>,
}

/// What the signatures were put into. All of it was verified here.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Transaction {
    Bitcoin {
        txid: String,
        hex: String,
        fee_sat: u64,
        verified_inputs: Vec<usize>,
        verified_by: &'static str,
    },
    Psbt {
        psbt: String,
        open_inputs: Vec<usize>,
    },
    Solana {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        base64: String,
        missing_signers: Vec<String>,
        verified_by: &'static str,
    },
    Signature {
        signature: String,
        verified_by: &'static str,
    },
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Psbt(File { file, request }) => {
            let psbt = psbt::parse(&read(&file)?)?;
            let payload = Payload::Psbt(psbt.serialize());
            sign(context, request, Scheme::Bip340, payload, |key, signed| {
                complete_psbt(psbt, key, signed)
            })
            .await
        }
        Command::Solana(File { file, request }) => {
            let message = solana::Message::parse(&read(&file)?)?;
            let payload = Payload::SolanaMessage(message.bytes().to_vec());
            sign(context, request, Scheme::Ed25519, payload, |key, signed| {
                complete_solana(message, key, signed)
            })
            .await
        }
        Command::Digest { digest, request } => {
            let digest: [u8; 32] = hex::decode(digest.trim())
                .ok()
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or_else(|| Error::Input {
                    subject: "digest".to_owned(),
                    problem: "is not 64 hex digits".to_owned(),
                })?;
            let client = context.client(request.party.as_deref()).await?;
            let scheme = find(&client, &request.key).await?.scheme;
            sign(
                context,
                request,
                scheme,
                Payload::Digest(digest),
                |key, signed| complete_digest(&digest, key, signed),
            )
            .await
        }
        Command::List { party } => {
            let requests = context
                .client(party.as_deref())
                .await?
                .signing_requests()
                .await?;
            context.output.show(
                &Requests {
                    signing_requests: requests.clone(),
                },
                |page| table(page, &requests),
            )
        }
        Command::Show { name, party } => {
            let request = show(context, &name, party.as_deref()).await?;
            let outcome = Outcome {
                signing_request: &request,
                transaction: None,
            };
            context
                .output
                .show(&outcome, |page| page.fields(fields(&request)))
        }
    }
}

async fn sign(
    context: &Context,
    arguments: Request,
    scheme: Scheme,
    payload: Payload,
    complete: impl FnOnce(&Key, &SigningRequest) -> Result<Transaction, Error>,
) -> anyhow::Result<()> {
    let client = context.client(arguments.party.as_deref()).await?;
    let key = find(&client, &arguments.key).await?;
    if key.scheme != scheme {
        return Err(Error::Input {
            subject: format!("key {}", key.name),
            problem: format!(
                "is a {} key; this needs {}",
                key.scheme.as_str(),
                scheme.as_str()
            ),
        }
        .into());
    }
    let id = arguments.request_id.unwrap_or_else(random_request_id);
    let timeout = Duration::from_secs(arguments.timeout);
    let request = client
        .request_signature(&key.name, &id, &payload, timeout)
        .await?;
    if !arguments.wait {
        let outcome = Outcome {
            signing_request: &request,
            transaction: None,
        };
        return context.output.show(&outcome, |page| {
            page.fields(fields(&request));
            page.line(format!(
                "follow it: arca sign show {} --party {}",
                request.name,
                client.party()
            ));
        });
    }
    let label = format!("signing {}", request.name);
    let request = context
        .output
        .wait(&label, client.watch(request, timeout, |_| ()))
        .await?
        .into_signed()?;
    let transaction = complete(&key, &request)?;
    let outcome = Outcome {
        signing_request: &request,
        transaction: Some(transaction),
    };
    context.output.show(&outcome, |page| {
        let completed = outcome.transaction.iter().flat_map(completed);
        page.fields(fields(&request).into_iter().chain(completed));
    })
}

fn complete_psbt(
    psbt: bitcoin::Psbt,
    key: &Key,
    signed: &SigningRequest,
) -> Result<Transaction, Error> {
    let signatures: Vec<(u32, [u8; 64])> = signed
        .signatures
        .iter()
        .map(|signature| (signature.input, signature.signature))
        .collect();
    Ok(match psbt::finalise(psbt, &key.public_key, &signatures)? {
        psbt::Signed::Final(spend) => Transaction::Bitcoin {
            txid: spend.transaction.compute_txid().to_string(),
            hex: spend.hex(),
            fee_sat: spend.fee.to_sat(),
            verified_inputs: spend.verified,
            verified_by: psbt::VERIFIER,
        },
        psbt::Signed::Partial { psbt, open } => Transaction::Psbt {
            psbt: psbt.to_string(),
            open_inputs: open,
        },
    })
}

fn complete_solana(
    message: solana::Message,
    key: &Key,
    signed: &SigningRequest,
) -> Result<Transaction, Error> {
    let transaction = message.into_transaction(&key.public_key, only(signed)?)?;
    Ok(Transaction::Solana {
        id: transaction.id(),
        base64: transaction.base64(),
        missing_signers: transaction
            .missing
            .iter()
            .map(arca_client::address::solana)
            .collect(),
        verified_by: solana::VERIFIER,
    })
}

fn complete_digest(
    digest: &[u8; 32],
    key: &Key,
    signed: &SigningRequest,
) -> Result<Transaction, Error> {
    let signature = only(signed)?;
    let verified_by = match key.scheme {
        Scheme::Bip340 => {
            psbt::verify_digest(&key.public_key, digest, signature)?;
            "libsecp256k1, BIP-340 under the untweaked key"
        }
        Scheme::Ed25519 => {
            solana::verify(&key.public_key, digest, signature)?;
            solana::VERIFIER
        }
    };
    Ok(Transaction::Signature {
        signature: hex::encode(signature),
        verified_by,
    })
}

fn only(signed: &SigningRequest) -> Result<&[u8; 64], Error> {
    match signed.signatures.as_slice() {
        [one] => Ok(&one.signature),
        _ => Err(Error::Unverified {
            object: signed.name.clone(),
            problem: "it does not hold exactly one signature".to_owned(),
        }),
    }
}

async fn show(
    context: &Context,
    name: &str,
    party: Option<&str>,
) -> anyhow::Result<SigningRequest> {
    if let Some(party) = party {
        return Ok(context
            .client(Some(party))
            .await?
            .signing_request(name)
            .await?);
    }
    let cluster = context.cluster()?;
    let mut last = None;
    for party in cluster.profile().parties().keys() {
        let found: Result<SigningRequest, Error> = async {
            let client: Client = cluster.party(party).await?;
            client.signing_request(name).await
        }
        .await;
        match found {
            Ok(request) => return Ok(request),
            // "I do not know it" says less than a party that could not be asked.
            Err(error) => {
                let unknown =
                    matches!(&error, Error::Reject { code, .. } if *code == tonic::Code::NotFound);
                if last.is_none() || !unknown {
                    last = Some(error);
                }
            }
        }
    }
    Err(last.map_or_else(
        || anyhow::anyhow!("the profile names no party"),
        anyhow::Error::from,
    ))
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

fn table(page: &mut Page, requests: &[SigningRequest]) {
    let rows: Vec<Vec<String>> = requests
        .iter()
        .map(|request| {
            vec![
                request.name.clone(),
                request.state.as_str().to_owned(),
                request.initiator.clone(),
                request.signers.join(", "),
                request
                    .summary
                    .lines()
                    .map(str::trim)
                    .collect::<Vec<_>>()
                    .join("; "),
            ]
        })
        .collect();
    page.table(
        &["signing request", "state", "initiator", "signers", "what"],
        &rows,
    );
}

fn fields(request: &SigningRequest) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("signing request", request.name.clone()),
        ("request id", request.request_id.clone()),
        ("key", request.key.clone()),
        ("what", request.summary.clone()),
        ("initiator", request.initiator.clone()),
        ("coordinator", request.coordinator.clone()),
        ("state", request.state.as_str().to_owned()),
    ];
    if !request.signers.is_empty() {
        fields.push(("signers", request.signers.join(", ")));
    }
    if let Some(failure) = &request.failure {
        fields.push((
            "failure",
            format!("{} ({})", failure.message, failure.reason),
        ));
    }
    if let Some(failure) = request
        .failure
        .as_ref()
        .filter(|failure| !failure.culprits.is_empty())
    {
        fields.push(("misbehaved", failure.culprits.join(", ")));
    }
    fields
}

fn completed(transaction: &Transaction) -> Vec<(&'static str, String)> {
    match transaction {
        Transaction::Bitcoin {
            txid,
            hex,
            fee_sat,
            verified_inputs,
            verified_by,
        } => {
            let inputs: Vec<String> = verified_inputs.iter().map(ToString::to_string).collect();
            vec![
                ("txid", txid.clone()),
                ("fee", format!("{fee_sat} sat")),
                (
                    "verified",
                    format!("inputs {}: {verified_by}", inputs.join(", ")),
                ),
                ("transaction", hex.clone()),
            ]
        }
        Transaction::Psbt { psbt, open_inputs } => {
            let inputs: Vec<String> = open_inputs.iter().map(ToString::to_string).collect();
            vec![
                (
                    "still open",
                    format!("inputs {} wait for other signers", inputs.join(", ")),
                ),
                ("psbt", psbt.clone()),
            ]
        }
        Transaction::Solana {
            id,
            base64,
            missing_signers,
            verified_by,
        } => {
            let mut fields = vec![
                (
                    "id",
                    id.clone()
                        .unwrap_or_else(|| "open: the payer has not signed".to_owned()),
                ),
                ("verified", (*verified_by).to_owned()),
                ("transaction", base64.clone()),
            ];
            if !missing_signers.is_empty() {
                fields.push(("still missing", missing_signers.join(", ")));
            }
            fields
        }
        Transaction::Signature {
            signature,
            verified_by,
        } => vec![
            ("verified", (*verified_by).to_owned()),
            ("signature", signature.clone()),
        ],
    }
}
