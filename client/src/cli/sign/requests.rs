//! Signing requests that exist: found, listed, shown.

use arca_client::{Client, Error, SigningRequest};
use serde::Serialize;

use crate::cli::Context;
use crate::cli::output::Page;

#[derive(Serialize)]
struct Requests {
    signing_requests: Vec<SigningRequest>,
}

/// `arca sign list`
pub(super) async fn list(context: &Context, party: Option<&str>) -> anyhow::Result<()> {
    let signing_requests = context.client(party).await?.signing_requests().await?;
    let requests = Requests { signing_requests };
    context
        .output
        .show(&requests, |page| table(page, &requests.signing_requests))
}

/// Finds a signing request: at one party, or at every party until one knows it.
pub(super) async fn find(
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

/// For people.
pub(super) fn fields(request: &SigningRequest) -> Vec<(&'static str, String)> {
    let key = if request.derivation_path.is_root() {
        request.key.clone()
    } else {
        format!("{} at {}", request.key, request.derivation_path)
    };
    let mut fields = vec![
        ("signing request", request.name.clone()),
        ("request id", request.request_id.clone()),
        ("key", key),
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
