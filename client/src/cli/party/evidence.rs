//! `arca party evidence`

use std::path::PathBuf;

use arca_attestation::TrustClass;
use arca_client::appraisal::{Appraisal, Check, Outcome};
use arca_client::{Cluster, Error, Evidence, Protection, clock};
use rand_core::{OsRng, RngCore};
use serde::Serialize;

use super::write_new;
use crate::cli::Context;
use crate::cli::evidence::{self, Bytes};
use crate::cli::output::{Page, class_shown};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  arca party evidence\n  arca party evidence ceo --save ceo.cose\n  \
                  arca party evidence ceo --nonce 00112233445566778899aabbccddeeff --output json\n\n\
                  Asks over the attested connection, with a nonce drawn here, and verifies the answer at this machine's time \
                  against the manifest of the profile. Of one party every check and every field is shown. What is saved, \
                  anybody can verify later: `arca evidence verify --help`; nonce, public key and user data are shown for that.\n\n\
                  The protections of the process are what its kernel granted, in the party's own words: the evidence says \
                  which code tells them (of an HSM not even that), and does not cover them."
)]
pub(crate) struct Arguments {
    /// Which party [default: all, in short]
    party: Option<String>,
    /// Ask with this nonce, 16 to 64 bytes, instead of one drawn here
    #[arg(long, value_name = "HEX", requires = "party", value_parser = nonce)]
    nonce: Option<Bytes>,
    /// Write the document of the one party to a new file
    #[arg(long, value_name = "FILE", requires = "party")]
    save: Option<PathBuf>,
}

#[derive(Serialize)]
struct EvidenceList {
    evidence: Vec<Shown>,
}

/// Evidence of one party.
#[derive(Serialize)]
struct Shown {
    party: String,
    verified: bool,
    trust_class: TrustClass,
    #[serde(skip_serializing_if = "Option::is_none")]
    pcr0: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pcr1: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pcr2: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_id: Option<String>,
    /// What an HSM says of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    time: String,
    valid_until: String,
    nonce: Option<String>,
    public_key: String,
    user_data: Option<String>,
    boot_id: String,
    manifest_epoch: u64,
    /// SHA-256 of the document.
    digest: String,
    /// Not known to somebody who is no principal.
    #[serde(skip_serializing_if = "Option::is_none")]
    protections: Option<Vec<Protection>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    saved_to: Option<PathBuf>,
    /// Every check and field; only of the one party that was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    appraisal: Option<Appraisal>,
}

/// What is shown instead of [`Shown`] when the document is refused.
#[derive(Serialize)]
struct Refused {
    party: String,
    verified: bool,
    nonce: String,
    appraisal: Appraisal,
}

pub(crate) async fn run(context: &Context, arguments: Arguments) -> anyhow::Result<()> {
    let cluster = context.cluster()?;
    if cluster.profile().principal().is_none() {
        return visit(context, &cluster, arguments).await;
    }
    if let Some(party) = arguments.party {
        let (nonce, save) = (arguments.nonce, arguments.save);
        return one(context, &cluster, party, nonce, save).await;
    }
    let mut list = Vec::new();
    for party in cluster.profile().parties().keys() {
        let fetch = async {
            let client = cluster.party(party).await?;
            let identity = client.attested()?.identity().to_vec();
            let evidence = client.evidence().await?;
            Ok::<_, Error>(Shown::of(party, &evidence, &identity))
        };
        let label = format!("asking {party}");
        list.push(context.output.wait(&label, fetch).await?);
    }
    let list = EvidenceList { evidence: list };
    context.output.show(&list, |page| {
        list.evidence.iter().for_each(|shown| shown.summary(page));
    })
}

/// Every check and every field of one party's evidence.
async fn one(
    context: &Context,
    cluster: &Cluster,
    party: String,
    nonce: Option<Bytes>,
    save: Option<PathBuf>,
) -> anyhow::Result<()> {
    let given = nonce.is_some();
    let nonce = nonce.map_or_else(
        || {
            let mut nonce = vec![0; 32];
            OsRng.fill_bytes(&mut nonce);
            nonce
        },
        |nonce| nonce.0,
    );
    let ask = async {
        let client = cluster.party(&party).await?;
        client.ask_evidence(&nonce).await
    };
    let answer = context.output.wait(&format!("asking {party}"), ask).await?;
    let appraisal = answer.appraise();
    let identity = answer.identity().to_vec();
    let evidence = match answer.verify() {
        Ok(evidence) => evidence,
        Err(error) => {
            let refused = Refused {
                party,
                verified: false,
                nonce: hex::encode(&nonce),
                appraisal,
            };
            context.output.show(&refused, |page| {
                page.heading(&format!("{}: REFUSED", refused.party));
                evidence::show(page, &refused.appraisal);
            })?;
            return Err(error.into());
        }
    };
    if let Some(path) = &save {
        write_new(path, &evidence.document)?;
    }
    let shown = Shown {
        saved_to: save,
        appraisal: Some(appraisal),
        ..Shown::of(&party, &evidence, &identity)
    };
    let list = EvidenceList {
        evidence: vec![shown],
    };
    context.output.show(&list, |page| {
        for shown in &list.evidence {
            shown.summary(page);
            let whose = if given { "given" } else { "drawn here" };
            let nonce = shown.nonce.clone().unwrap_or_default();
            page.fields([
                ("  nonce", format!("{nonce} ({whose})")),
                (
                    "  user data",
                    format!(
                        "bound to nonce, cluster {}, party {}, boot id and epoch of the manifest",
                        cluster.profile().manifest().cluster(),
                        shown.party
                    ),
                ),
            ]);
            page.line("");
            if let Some(appraisal) = &shown.appraisal {
                evidence::show(page, appraisal);
            }
            protections(page, shown.protections.as_deref().unwrap_or_default());
            if let Some(path) = &shown.saved_to {
                page.line(format!("document written to {}", path.display()));
            }
        }
    })
}

/// Somebody who is no principal sees what the connection shows, and nothing else.
async fn visit(context: &Context, cluster: &Cluster, arguments: Arguments) -> anyhow::Result<()> {
    if arguments.save.is_some() || arguments.nonce.is_some() {
        return Err(Error::Config {
            subject: cluster.profile().path().display().to_string(),
            problem: "names no principal, and parties hand documents to principals only".to_owned(),
            advice: "add [principal] with the path of its key, or leave --save and --nonce out"
                .to_owned(),
        }
        .into());
    }
    let names: Vec<String> = match arguments.party {
        Some(party) => vec![party],
        None => cluster.profile().parties().keys().cloned().collect(),
    };
    let mut list = Vec::new();
    for party in names {
        let connect = cluster.party(&party);
        let label = format!("asking {party}");
        let client = context.output.wait(&label, connect).await?;
        let attested = client.attested()?;
        let (boot_id, epoch) = (attested.boot_id(), attested.manifest_epoch());
        let identity = attested.identity();
        list.push(Shown::new(
            &party,
            attested.evidence(),
            identity,
            boot_id,
            epoch,
        ));
    }
    let list = EvidenceList { evidence: list };
    context.output.show(&list, |page| {
        list.evidence.iter().for_each(|shown| shown.summary(page));
    })
}

/// What the kernel granted to a party's process.
fn protections(page: &mut Page, protections: &[Protection]) {
    page.line("");
    page.heading("protections of its process, in its own words (not covered by the evidence)");
    if protections.is_empty() {
        page.line("  none are told");
    }
    for one in protections {
        page.check(one.in_force, &format!("{}: {}", one.name, one.detail));
    }
}

impl Shown {
    fn of(party: &str, evidence: &Evidence, identity: &[u8]) -> Self {
        let epoch = evidence.manifest_epoch;
        Self {
            protections: Some(evidence.protections.clone()),
            ..Self::new(
                party,
                &evidence.evidence,
                identity,
                &evidence.boot_id,
                epoch,
            )
        }
    }

    fn new(
        party: &str,
        evidence: &arca_attestation::Evidence,
        identity: &[u8],
        boot_id: &[u8; 16],
        manifest_epoch: u64,
    ) -> Self {
        let image = evidence.measurements();
        Self {
            party: party.to_owned(),
            verified: true,
            trust_class: evidence.class(),
            pcr0: image.map(|image| hex::encode(image.pcr0)),
            pcr1: image.map(|image| hex::encode(image.pcr1)),
            pcr2: image.map(|image| hex::encode(image.pcr2)),
            module_id: evidence.module_id().map(str::to_owned),
            token: evidence.token().map(ToString::to_string),
            time: clock::show(evidence.timestamp()),
            valid_until: clock::show(evidence.not_after()),
            nonce: evidence.nonce().map(hex::encode),
            public_key: hex::encode(identity),
            user_data: evidence.user_data().map(hex::encode),
            boot_id: hex::encode(boot_id),
            manifest_epoch,
            digest: hex::encode(evidence.digest()),
            protections: None,
            saved_to: None,
            appraisal: None,
        }
    }

    fn summary(&self, page: &mut Page) {
        page.heading(&format!("{}: verified", self.party));
        let missing: Option<Vec<&str>> = self.protections.as_ref().map(|protections| {
            let missing = protections.iter().filter(|one| !one.in_force);
            missing.map(|one| one.name.as_str()).collect()
        });
        let missing = missing.map(|missing| match missing.is_empty() {
            true => "all in force".to_owned(),
            false => format!("NOT in force: {}", missing.join(", ")),
        });
        let checks = self.appraisal.as_ref().map(|appraisal| {
            let passed = |check: &&Check| check.outcome == Outcome::Passed;
            format!("{} passed", appraisal.checks.iter().filter(passed).count())
        });
        let fields = [
            ("  trust class", Some(class_shown(self.trust_class))),
            ("  pcr0", self.pcr0.clone()),
            ("  pcr1", self.pcr1.clone()),
            ("  pcr2", self.pcr2.clone()),
            ("  module", self.module_id.clone()),
            ("  token", self.token.clone()),
            (
                "  made",
                Some(format!(
                    "{}, certificate until {}",
                    self.time, self.valid_until
                )),
            ),
            ("  boot id", Some(self.boot_id.clone())),
            ("  manifest", Some(format!("epoch {}", self.manifest_epoch))),
            ("  sha-256", Some(self.digest.clone())),
            ("  checks", checks),
            ("  protections", missing),
        ];
        let fields = fields.into_iter();
        page.fields(fields.filter_map(|(name, value)| Some((name, value?))));
    }
}

fn nonce(text: &str) -> Result<Bytes, String> {
    let Bytes(nonce) = evidence::bytes(text)?;
    if (16..=64).contains(&nonce.len()) {
        Ok(Bytes(nonce))
    } else {
        Err("is not 16 to 64 bytes".to_owned())
    }
}
