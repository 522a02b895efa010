//! A cluster as its client knows it, and the choice of a party to talk to.

use std::sync::Arc;

use arca_channel::{Endpoint, Identity, Limits, Target};
use rand_core::OsRng;

use crate::authorizer::Authorizer;
use crate::client::{Client, Judgement};
use crate::clock;
use crate::connect::Connection;
use crate::error::{Error, Result};
use crate::profile::Profile;

/// The parties that a profile names.
#[derive(Clone, Debug)]
pub struct Cluster {
    profile: Arc<Profile>,
    endpoint: Arc<Endpoint>,
    authorizer: Option<Arc<Authorizer>>,
}

impl Cluster {
    /// A cluster to connect to. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Config`] when the manifest does not suit the profile's trust anchors.
    pub fn new(profile: Arc<Profile>) -> Result<Self> {
        let (identity, authorizer) = match profile.principal() {
            Some((name, identity)) => {
                let authorizer = Authorizer::new(profile.manifest().cluster(), name, identity)?;
                (identity.clone(), Some(Arc::new(authorizer)))
            }
            // Without a principal's key, any key will do: this client is nobody to the parties.
            None => (
                Arc::new(Identity::generate(&mut OsRng).map_err(Error::bug)?),
                None,
            ),
        };
        let endpoint = Endpoint::client(
            identity,
            profile.anchors().clone(),
            Arc::new(clock::now),
            Limits::default(),
        )
        .map_err(Error::bug)?;
        endpoint
            .set_manifest(profile.manifest().clone())
            .map_err(|cause| {
                Error::config(profile.path().display(), cause, "correct the profile")
            })?;
        Ok(Self {
            profile,
            endpoint: Arc::new(endpoint),
            authorizer,
        })
    }

    /// The profile it came from.
    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// Connects to one party and verifies it. Every later reconnection verifies it again.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Untrusted`], [`Error::Config`] for a party that the profile does not name.
    pub async fn party(&self, name: &str) -> Result<Client> {
        let address = self.profile.parties().get(name).ok_or_else(|| {
            let known: Vec<&str> = self.profile.parties().keys().map(String::as_str).collect();
            Error::config(
                self.profile.path().display(),
                format!("names no party {name:?}"),
                format!("parties are {}", known.join(", ")),
            )
        })?;
        let reference = self
            .profile
            .manifest()
            .reference_values(name)
            .ok_or_else(|| Error::bug(format!("the manifest no longer names party {name:?}")))?;
        let target = match self.authorizer {
            Some(_) => Target::Service(name.to_owned()),
            None => Target::Observe(name.to_owned()),
        };
        let connection = Connection::open(name, address, self.endpoint.clone(), target).await?;
        let judgement = Judgement {
            anchors: self.profile.anchors().clone(),
            reference,
        };
        Ok(Client::new(
            name,
            connection,
            judgement,
            self.authorizer.clone(),
        ))
    }

    /// Connects to the first party that can be reached and proves itself, `preferred` first.
    ///
    /// # Errors
    /// [`Error::NoParty`] with what happened at each.
    pub async fn any(&self, preferred: Option<&str>) -> Result<Client> {
        let others = self.profile.parties().keys().map(String::as_str);
        let order = preferred
            .into_iter()
            .chain(others.filter(|name| Some(*name) != preferred));
        let mut attempts = Vec::new();
        for name in order {
            match self.party(name).await {
                Ok(client) => return Ok(client),
                Err(error @ Error::Config { .. }) => return Err(error),
                Err(error) => attempts.push(error),
            }
        }
        Err(Error::NoParty { attempts })
    }
}

/// Connects, as nobody, to an enclave that stands in no manifest yet, and verifies under `anchors` that it is what
/// `reference` says.
///
/// # Errors
/// [`Error::Unreachable`], [`Error::Untrusted`].
pub async fn candidate(
    name: &str,
    address: &str,
    anchors: &arca_attestation::TrustAnchors,
    reference: &arca_attestation::ReferenceValues,
) -> Result<Client> {
    let identity = Arc::new(Identity::generate(&mut OsRng).map_err(Error::bug)?);
    let endpoint = Endpoint::client(
        identity,
        anchors.clone(),
        Arc::new(clock::now),
        Limits::default(),
    )
    .map_err(Error::bug)?;
    let target = Target::Candidate(reference.clone());
    let connection = Connection::open(name, address, Arc::new(endpoint), target).await?;
    let judgement = Judgement {
        anchors: anchors.clone(),
        reference: reference.clone(),
    };
    Ok(Client::new(name, connection, judgement, None))
}
