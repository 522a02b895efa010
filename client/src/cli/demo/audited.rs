//! The demo's last step: a certificate and an export of all logs, verified offline, and one changed byte.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use arca_client::SigningRequest;
use arca_client::audit::report::Report as AuditReport;
use arca_client::audit::{
    Directory, ExportPolicy, Selection, Trust, certificate, export, verify_export,
};
use arca_client::local::LocalCluster;

use super::report::{Item, Report};

pub(super) async fn audit(
    report: &mut Report<'_>,
    cluster: &LocalCluster,
    last: &SigningRequest,
) -> anyhow::Result<()> {
    let trust = Trust::load(&cluster.folder().join("profile.toml"))?;
    let started = Instant::now();
    let client = cluster.cluster()?.party(&last.coordinator).await?;
    let work = client.certificate(&last.name);
    let bytes = report.wait("putting a certificate together", work).await?;
    let file = cluster.folder().join("signature.cert.json");
    fs::write(&file, &bytes).with_context(|| file.display().to_string())?;
    let judged = certificate::verify(&bytes, &trust, &certificate::CertificatePolicy::default());
    anyhow::ensure!(
        judged.verified,
        "the certificate of {} does not verify: {}",
        last.name,
        judged.failed.unwrap_or_default()
    );
    report.item(
        Item::new(format!(
            "certificate of the last signature: {} bytes, {} steps verified offline",
            bytes.len(),
            judged.checks.len()
        ))
        .with("certificate_bytes", &bytes.len())
        .with("steps", &judged.checks.len())
        .took(started),
    )?;

    let started = Instant::now();
    let folder = cluster.folder().join("export");
    let opened = cluster.cluster()?;
    let selection = Selection::default();
    let work = export(&opened, &folder, &selection, |_, _| ());
    report.wait("exporting the logs", work).await?;
    let good = judge(&folder, &trust)?;
    anyhow::ensure!(good.passed, "the export does not verify: {}", worst(&good));
    report.item(
        Item::new(format!(
            "exported the logs of {} parties: {} entries, {} signatures, every one explained",
            good.logs.len(),
            good.totals.entries,
            good.totals.signatures
        ))
        .with("entries", &good.totals.entries)
        .with("signatures", &good.totals.signatures)
        .took(started),
    )?;

    let started = Instant::now();
    let spoiled = any_entries(&folder)?;
    let mut content = fs::read(&spoiled)?;
    let middle = content.len() / 2;
    let byte = content.get_mut(middle).context("an empty bundle")?;
    *byte ^= 1;
    fs::write(&spoiled, &content)?;
    let bad = judge(&folder, &trust)?;
    anyhow::ensure!(
        !bad.passed,
        "a changed byte of {} was not noticed",
        spoiled.display()
    );
    if let Some(byte) = content.get_mut(middle) {
        *byte ^= 1;
    }
    fs::write(&spoiled, &content)?;
    let shown = spoiled.strip_prefix(&folder).unwrap_or(&spoiled);
    report.item(
        Item::new(format!(
            "changed one bit of {}: caught, and put back",
            shown.display()
        ))
        .with("finding", &worst(&bad))
        .detail("finding", &worst(&bad))
        .took(started),
    )
}

fn judge(folder: &Path, trust: &Trust) -> anyhow::Result<AuditReport> {
    let source = Directory::new(folder);
    Ok(verify_export(
        &source,
        trust,
        ExportPolicy::default(),
        |_, _| (),
    )?)
}

/// The first finding, which is the worst.
fn worst(report: &AuditReport) -> String {
    let first = report.findings.first();
    first.map_or_else(String::new, |finding| {
        format!(
            "{}: {}",
            finding.party.as_deref().unwrap_or_default(),
            finding.message
        )
    })
}

/// A bundle of entries somewhere in the export.
fn any_entries(folder: &Path) -> anyhow::Result<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if !path.is_dir() {
                if path.components().any(|part| part.as_os_str() == "entries") {
                    return Ok(path);
                }
            } else {
                folders.push(path);
            }
        }
    }
    anyhow::bail!("the export has no entries")
}
