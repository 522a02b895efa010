//! `arca party accept-loss`: administrators let a party go on from a state that is older than what its peers saw.

use std::path::{Path, PathBuf};

use arca_attestation::loss::{BootId, Draft};
use arca_client::{Cluster, Error, PartyState, Standing, StateAnchor, keyfile, loss_file};
use serde::Serialize;
use sha2::{Digest as _, Sha384};

use super::write_new;
use crate::cli::Context;
use crate::cli::output::Page;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Ask a party what it has and its peers what they saw, and write an acceptance to be signed
    #[command(
        after_help = "Examples:\n  arca party accept-loss draft ceo loss.json --reason 'disk of ceo burnt, backup of 1 March'\n  \
                      arca party accept-loss draft ceo loss.json --waive cloud --reason 'cloud is gone for good'\n\n\
                      A party that starts with less than its peers saw of it does not serve: `arca status`. Restoring its newest \
                      storage and restarting it loses nothing; this is for when there is none. Then everything that it stored \
                      after `found` is given up: its shares of newer keys, and the ends of requests. An attacker who restores \
                      an old disk looks the same: find out which it is before anybody signs.\n\n\
                      The acceptance is good for exactly the state that the party has now. --waive names a peer that is gone \
                      for good and whose word the party need not wait for, until its next start."
    )]
    Draft {
        /// The party that does not serve
        party: String,
        /// New file for the acceptance
        file: PathBuf,
        /// Why, for those who read it later: at most 200 characters
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// A peer whose word need not be waited for; repeatable
        #[arg(long, value_name = "PEER")]
        waive: Vec<String>,
    },
    /// Look at an acceptance and sign it as an administrator
    #[command(
        after_help = "Examples:\n  arca party accept-loss sign loss.json alice.loss.json --key alice.pem"
    )]
    Sign {
        /// The acceptance
        acceptance: PathBuf,
        /// New file for the signature
        signature: PathBuf,
        /// The administrator's private key
        #[arg(long)]
        key: PathBuf,
    },
    /// Hand an acceptance and its administrators' signatures to the party
    #[command(
        after_help = "Examples:\n  arca party accept-loss submit loss.json alice.loss.json bob.loss.json\n\n\
                      The signatures are verified here first, against the administrators of the profile's manifest. The \
                      profile's principal has to be an operator."
    )]
    Submit {
        /// The acceptance
        acceptance: PathBuf,
        /// Signatures
        #[arg(required = true)]
        signatures: Vec<PathBuf>,
    },
}

#[derive(Serialize)]
struct Drafted<'a> {
    file: PathBuf,
    sha384: String,
    acceptance: &'a Draft,
    /// What the party says.
    state: &'a PartyState,
    /// What each peer remembers of the party; absent where it never met it.
    seen_by: Vec<Seen>,
}

#[derive(Serialize)]
struct Seen {
    peer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remembered: Option<StateAnchor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
struct Signed<'a> {
    file: PathBuf,
    sha384: String,
    administrator: String,
    acceptance: &'a Draft,
}

#[derive(Serialize)]
struct Submitted {
    party: String,
    resumed: StateAnchor,
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Draft {
            party,
            file,
            reason,
            waive,
        } => draft(context, party, file, reason, waive).await,
        Command::Sign {
            acceptance,
            signature,
            key,
        } => {
            let (bytes, draft) = loss_file::read_draft(&acceptance)?;
            context.mark(&draft.cluster);
            let signed = loss_file::sign(&bytes, &keyfile::read_administrator(&key)?);
            loss_file::write_signature(&signature, &signed)?;
            let signed = Signed {
                file: signature,
                sha384: hex::encode(Sha384::digest(&bytes)),
                administrator: hex::encode(signed.administrator),
                acceptance: &draft,
            };
            context.output.show(&signed, |page| {
                summary(page, &draft);
                page.fields([
                    ("sha-384", signed.sha384.clone()),
                    ("signed by", signed.administrator.clone()),
                    ("written to", signed.file.display().to_string()),
                ]);
            })
        }
        Command::Submit {
            acceptance,
            signatures,
        } => submit(context, &acceptance, &signatures).await,
    }
}

async fn draft(
    context: &Context,
    party: String,
    file: PathBuf,
    reason: String,
    waive: Vec<String>,
) -> anyhow::Result<()> {
    let cluster = context.cluster()?;
    let ask = async { cluster.party(&party).await?.state().await };
    let state = context.output.wait(&format!("asking {party}"), ask).await?;
    if state.standing == Standing::Held {
        return Err(Error::Input {
            subject: format!("party {party}"),
            problem: "serves: nothing of its state is lost".to_owned(),
        }
        .into());
    }
    let mut seen_by = Vec::new();
    for peer in &state.peers {
        let ask = remembered(&cluster, &peer.name, &party);
        let label = format!("asking {}", peer.name);
        let (remembered, problem) = match context.output.wait(&label, ask).await {
            Ok(remembered) => (remembered, None),
            Err(error) => (None, Some(error.to_string())),
        };
        seen_by.push(Seen {
            peer: peer.name.clone(),
            remembered,
            problem,
        });
    }
    let seen = seen_by.iter().filter_map(|seen| seen.remembered);
    let highest = seen.map(|seen| seen.sequence).chain(state.told()).max();
    let manifest = cluster.profile().manifest();
    let draft = Draft {
        version: Draft::VERSION,
        cluster: manifest.cluster().to_owned(),
        manifest_epoch: manifest.epoch(),
        lost_sequence: highest.unwrap_or_default().max(state.current.sequence),
        found_sequence: state.current.sequence,
        found_head: state.current.head,
        boot_id: (!waive.is_empty()).then_some(BootId(state.boot_id)),
        waived_peers: waive,
        reason,
        party,
    };
    let bytes = draft.to_bytes().map_err(|cause| Error::Input {
        subject: "acceptance".to_owned(),
        problem: cause.to_string(),
    })?;
    write_new(&file, &bytes)?;
    let drafted = Drafted {
        file,
        sha384: hex::encode(Sha384::digest(&bytes)),
        acceptance: &draft,
        state: &state,
        seen_by,
    };
    context.output.show(&drafted, |page| {
        page.line(format!("{} says: {}", draft.party, state.message.trim()));
        for seen in &drafted.seen_by {
            match (&seen.remembered, &seen.problem) {
                (_, Some(problem)) => page.check(
                    false,
                    &format!(
                        "{} could not be asked, and may have seen further; then {} is refused again: {problem}",
                        seen.peer, draft.party
                    ),
                ),
                (Some(anchor), None) => {
                    page.check(true, &format!("{} saw sequence {}", seen.peer, anchor.sequence));
                }
                (None, None) => page.check(true, &format!("{} never met it", seen.peer)),
            }
        }
        summary(page, &draft);
        page.fields([
            ("file", drafted.file.display().to_string()),
            ("sha-384", drafted.sha384.clone()),
        ]);
        page.line("next: each administrator runs `arca party accept-loss sign`");
    })
}

/// What `peer` remembers of `party`.
async fn remembered(
    cluster: &Cluster,
    peer: &str,
    party: &str,
) -> Result<Option<StateAnchor>, Error> {
    let state = cluster.party(peer).await?.state().await?;
    Ok(state.remembered(party))
}

async fn submit(
    context: &Context,
    acceptance: &Path,
    signatures: &[PathBuf],
) -> anyhow::Result<()> {
    let (bytes, draft) = loss_file::read_draft(acceptance)?;
    let signatures = signatures
        .iter()
        .map(|path| loss_file::read_signature(path))
        .collect::<Result<Vec<_>, _>>()?;
    let cluster = context.cluster()?;
    let signed = loss_file::assemble(bytes, &signatures)?;
    signed
        .verify(cluster.profile().manifest())
        .map_err(|cause| Error::Unverified {
            object: acceptance.display().to_string(),
            problem: cause.to_string(),
        })?;
    let work = async {
        cluster
            .party(&draft.party)
            .await?
            .accept_loss(&signed)
            .await
    };
    let label = format!("asking {}", draft.party);
    let submitted = Submitted {
        resumed: context.output.wait(&label, work).await?,
        party: draft.party,
    };
    context.output.show(&submitted, |page| {
        page.check(
            true,
            &format!(
                "{} goes on from sequence {} and asks its peers again",
                submitted.party, submitted.resumed.sequence
            ),
        );
        page.line("next: arca status");
    })
}

/// What an administrator puts a name under.
fn summary(page: &mut Page, draft: &Draft) {
    let lost = draft.lost_sequence.saturating_sub(draft.found_sequence);
    page.fields([
        ("cluster", draft.cluster.clone()),
        ("manifest", format!("epoch {}", draft.manifest_epoch)),
        ("party", draft.party.clone()),
        (
            "found",
            format!(
                "sequence {}, head {}",
                draft.found_sequence,
                hex::encode(draft.found_head)
            ),
        ),
        (
            "given up",
            format!(
                "{lost} changes, up to sequence {}: whatever they were",
                draft.lost_sequence
            ),
        ),
        (
            "waived peers",
            match draft.waived_peers.is_empty() {
                true => "none".to_owned(),
                false => format!("{}, until the next start", draft.waived_peers.join(", ")),
            },
        ),
        ("reason", draft.reason.clone()),
    ]);
}
