//! Entries in words.

use arca_audit::entry::{Event, Outcome};

/// The kind of an entry. Outcomes go by how they ended.
pub(super) fn kind(event: &Event) -> &'static str {
    match event {
        Event::InstanceStarted(_) => "instance-started",
        Event::ManifestAccepted { .. } => "manifest-accepted",
        Event::EvidenceVerified { .. } => "evidence-verified",
        Event::LeaseGranted { .. } => "lease-granted",
        Event::Fenced { .. } => "fenced",
        Event::LeaseHeld { .. } => "lease-held",
        Event::KeyCreated(_) => "key-created",
        Event::KeyEnabled { .. } => "key-enabled",
        Event::SigningIntent(_) => "signing-intent",
        Event::SigningOutcome { result, .. } => match result {
            Outcome::Signed { .. } => "signed",
            Outcome::Released => "released",
            _ => "failed",
        },
        Event::Refused { .. } => "refused",
        Event::SetupDiscarded { .. } => "setup-discarded",
        Event::LossAccepted { .. } => "loss-accepted",
        Event::LogConflict { .. } => "log-conflict",
        _ => "other",
    }
}

/// Whether it is worth showing among a million others.
pub(super) fn is_rare(event: &Event) -> bool {
    !matches!(
        event,
        Event::SigningIntent(_)
            | Event::SigningOutcome {
                result: Outcome::Signed { .. } | Outcome::Released,
                ..
            }
            | Event::EvidenceVerified { .. }
    )
}

/// A line.
pub(super) fn text(event: &Event) -> String {
    let blame = |culprits: &[String]| {
        if culprits.is_empty() {
            String::new()
        } else {
            format!("; to blame: {}", culprits.join(", "))
        }
    };
    let session = |session: &arca_audit::entry::Hex<32>| {
        let text = session.to_string();
        text.get(..12).unwrap_or_default().to_owned()
    };
    match event {
        Event::InstanceStarted(started) if started.first => {
            "an instance started, and made the party's identity".to_owned()
        }
        Event::InstanceStarted(_) => "an instance started".to_owned(),
        Event::ManifestAccepted { epoch, .. } => format!("manifest of epoch {epoch} in force"),
        Event::EvidenceVerified { peer, boot, .. } => format!("{peer} proved itself, boot {boot}"),
        Event::LeaseGranted { peer, boot } => format!("deals with {peer}, boot {boot}"),
        Event::Fenced { peer, boot, reason } => {
            format!("deals no more with {peer}, boot {boot}: {reason}")
        }
        Event::LeaseHeld { .. } => "its peers have granted it".to_owned(),
        Event::KeyCreated(key) => format!(
            "{}, {}, {} of {}",
            key.key,
            key.scheme,
            key.threshold,
            key.parties.join(", ")
        ),
        Event::KeyEnabled { key, .. } => format!("{key} can sign"),
        Event::SigningIntent(intent) => format!(
            "session {} with {}: {}, coordinated by {}",
            session(&intent.session),
            intent.key,
            intent.signers.join(", "),
            intent.coordinator
        ),
        Event::SigningOutcome {
            session: id,
            result,
        } => match result {
            Outcome::Signed { signatures } => {
                format!("session {}: {} signatures", session(id), signatures.len())
            }
            Outcome::Released => format!("session {}: shares have left", session(id)),
            Outcome::Failed { reason, culprits } => {
                format!("session {}: {reason}{}", session(id), blame(culprits))
            }
            _ => format!("session {}", session(id)),
        },
        Event::Refused { from, reason, .. } => format!("{from}: {reason}"),
        Event::SetupDiscarded {
            peer,
            reason,
            culprits,
        } => format!("with {peer}: {reason}{}", blame(culprits)),
        Event::LossAccepted { found, resumed, .. } => {
            format!("a loss was accepted: from state {found} on to {resumed}")
        }
        Event::LogConflict { peer, log, .. } => {
            format!("log {log} of {peer} contradicts what was cosigned")
        }
        _ => String::new(),
    }
}
