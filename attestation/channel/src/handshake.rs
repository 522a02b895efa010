//! From a byte stream to a [`Channel`]: TLS, then evidence, then nothing else until both sides are known.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arca_attestation::binder::{Binder, Role};
use arca_attestation::manifest::{Manifest, Party, Revocation};
use arca_attestation::{ClusterKind, Expected, ReferenceValues, UnixMillis, verify_live};
use arca_proto::v1::channel_message::Body;
use arca_proto::v1::{ChannelAccept, ChannelHello, ChannelProof, ChannelRole};
use rand_core::CryptoRngCore;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::endpoint::EnclaveSide;
use crate::flight::{self, Claim, Hello, Nonce, Proof};
use crate::peer::{Attested, AttestedFacts, Principal, Visitor};
use crate::tls::{self, Session};
use crate::{Channel, Endpoint, Error, Peer, Target};

/// Accepts one connection: the responder's side.
///
/// The nonce is drawn from `rng` before the future is made, so the generator need not live as long.
///
/// # Errors
/// Any [`Error`]. The other side has been told why where it could be, and nothing was served.
pub fn accept<S>(
    stream: S,
    endpoint: &Arc<Endpoint>,
    rng: &mut dyn CryptoRngCore,
) -> impl Future<Output = Result<Channel<S>, Error>> + Send + use<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let nonce = draw(rng);
    let endpoint = endpoint.clone();
    async move {
        let nonce = nonce?;
        let shake = async {
            let enclave = endpoint.enclave.as_ref().ok_or(Error::NoAttester)?;
            let stream = TlsAcceptor::from(endpoint.tls.server.clone())
                .accept(stream)
                .await?;
            let mut handshake = Handshake::new(stream.into(), &endpoint)?;
            let outcome = handshake.respond(enclave, nonce).await;
            handshake.conclude(outcome).await
        };
        timeout(endpoint.limits.handshake, shake)
            .await
            .map_err(|_| Error::Timeout)?
    }
}

/// Connects over a stream that leads to the target: the initiator's side.
///
/// The nonce is drawn from `rng` before the future is made, so the generator need not live as long.
///
/// # Errors
/// Any [`Error`]. The other side has been told why where it could be, and got nothing but the handshake.
pub fn connect<S>(
    stream: S,
    endpoint: &Arc<Endpoint>,
    target: Target,
    rng: &mut dyn CryptoRngCore,
) -> impl Future<Output = Result<Channel<S>, Error>> + Send + use<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let nonce = draw(rng);
    let endpoint = endpoint.clone();
    async move {
        let nonce = nonce?;
        let shake = async {
            let stream = TlsConnector::from(endpoint.tls.client.clone())
                .connect(tls::server_name(), stream)
                .await?;
            let mut handshake = Handshake::new(stream.into(), &endpoint)?;
            let outcome = handshake.initiate(&target, nonce).await;
            handshake.conclude(outcome).await
        };
        timeout(endpoint.limits.handshake, shake)
            .await
            .map_err(|_| Error::Timeout)?
    }
}

fn draw(rng: &mut dyn CryptoRngCore) -> Result<Nonce, Error> {
    let mut nonce = [0; 32];
    rng.try_fill_bytes(&mut nonce).map_err(|_| Error::Random)?;
    Ok(nonce)
}

/// What one side knows once TLS is done. The manifest is the one of this moment for the whole handshake, and
/// for the channel after it.
struct Handshake<'a, S> {
    stream: TlsStream<S>,
    session: Session,
    endpoint: &'a Endpoint,
    manifest: Option<Arc<Manifest>>,
    changes: watch::Receiver<Option<Arc<Manifest>>>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin + Send> Handshake<'a, S> {
    fn new(stream: TlsStream<S>, endpoint: &'a Endpoint) -> Result<Self, Error> {
        let session = Session::of(&stream)?;
        let (manifest, changes) = endpoint.follow_manifest();
        Ok(Self {
            stream,
            session,
            endpoint,
            manifest,
            changes,
        })
    }

    async fn respond(&mut self, enclave: &EnclaveSide, nonce: Nonce) -> Result<Verified, Error> {
        self.refuse_reflection()?;
        let hello = flight::receive_hello(&mut self.stream).await?;
        let manifest = self.manifest.clone();
        let admitted = self.admit(&hello, manifest.as_deref())?;

        let asks = matches!(admitted, Admitted::Party(_)).then_some(nonce);
        self.prove(enclave, Role::Responder, &hello.nonce, asks)
            .await?;
        let peer = match admitted {
            Admitted::Party(party) => {
                let proof = flight::receive_proof(&mut self.stream, false).await?;
                Peer::Party(self.verify_party(Role::Initiator, party, proof, &nonce)?)
            }
            Admitted::Principal(principal) => Peer::Principal(principal),
            Admitted::Visitor(visitor) => Peer::Visitor(visitor),
        };
        let verified = self.limit(peer)?;
        if self.changes.has_changed().unwrap_or(false) {
            return Err(Error::ManifestChanged);
        }
        flight::send(&mut self.stream, Body::Accept(ChannelAccept {})).await?;
        Ok(verified)
    }

    /// Who connects, by its key and this side's manifest alone; a party has yet to prove what it runs.
    fn admit<'m>(
        &self,
        hello: &Hello,
        manifest: Option<&'m Manifest>,
    ) -> Result<Admitted<'m>, Error> {
        let key = &self.session.peer_spki;
        let visitor = || {
            Admitted::Visitor(Visitor {
                identity: key.as_slice().into(),
            })
        };
        let Some(manifest) = manifest else {
            return match hello.claim {
                Claim::Visitor if hello.cluster.is_empty() && hello.responder.is_empty() => {
                    Ok(visitor())
                }
                _ => Err(Error::NotEnrolled("the party that was reached")),
            };
        };
        let own_name = self.own_party(manifest)?.name.as_str();
        let names_us = hello.cluster == manifest.cluster() && hello.responder == own_name;
        let names_nobody = hello.cluster.is_empty() && hello.responder.is_empty();
        let meant_for_us = names_us || (names_nobody && hello.claim == Claim::Visitor);
        if !meant_for_us {
            return Err(if hello.cluster == manifest.cluster() {
                Error::WrongParty {
                    wanted: hello.responder.clone(),
                    found: own_name.to_owned(),
                }
            } else {
                Error::WrongCluster {
                    wanted: manifest.cluster().to_owned(),
                    found: hello.cluster.clone(),
                }
            });
        }
        let revokes_key = |entry: &Revocation| match entry {
            Revocation::Identity(revoked) => revoked == key,
            Revocation::Pcr0(_) => false,
        };
        match hello.claim {
            Claim::Visitor => Ok(visitor()),
            _ if manifest.revoked().iter().any(revokes_key) => Err(Error::Revoked),
            Claim::Party => {
                self.refuse_expired(manifest)?;
                let party = manifest.party_by_identity(key).ok_or(Error::NotAParty)?;
                Ok(Admitted::Party(party))
            }
            // Of an expired manifest too: somebody has to bring the next one.
            Claim::Principal => {
                let principal = manifest
                    .principal_by_identity(key)
                    .ok_or(Error::UnknownPrincipal)?;
                Ok(Admitted::Principal(Principal {
                    name: principal.name.as_str().into(),
                    roles: principal.roles.as_slice().into(),
                    identity: key.as_slice().into(),
                }))
            }
        }
    }

    async fn initiate(&mut self, target: &Target, nonce: Nonce) -> Result<Verified, Error> {
        self.refuse_reflection()?;
        let manifest = self.manifest.clone();
        let aim = Aim::of(target, manifest.as_deref())?;
        let party = match &aim {
            Aim::Party {
                manifest, party, ..
            } => {
                self.refuse_expired(manifest)?;
                // Whoever else answers learns the caller's public key, which TLS showed it, and nothing more.
                if party.identity.as_slice() != self.session.peer_spki {
                    return Err(Error::WrongIdentity(party.name.clone()));
                }
                Some(*party)
            }
            Aim::Candidate(_) => None,
        };
        let claim = aim.claim();
        let hello = ChannelHello {
            version: flight::VERSION,
            nonce: nonce.to_vec(),
            role: match claim {
                Claim::Party => ChannelRole::Party,
                Claim::Principal => ChannelRole::Principal,
                Claim::Visitor => ChannelRole::Visitor,
            }
            .into(),
            responder: party.map(|party| party.name.clone()).unwrap_or_default(),
            cluster: match &aim {
                Aim::Party { manifest, .. } => manifest.cluster().to_owned(),
                Aim::Candidate(_) => String::new(),
            },
        };
        flight::send(&mut self.stream, Body::Hello(hello)).await?;

        let proof = flight::receive_proof(&mut self.stream, claim == Claim::Party).await?;
        let asked = proof.nonce;
        let peer = match aim {
            Aim::Party { party, .. } => {
                Peer::Party(self.verify_party(Role::Responder, party, proof, &nonce)?)
            }
            Aim::Candidate(reference) => {
                Peer::Candidate(self.verify_candidate(reference, proof, &nonce)?)
            }
        };
        let verified = self.limit(peer)?;
        if let Some(asked) = asked {
            let enclave = self.endpoint.enclave.as_ref().ok_or(Error::NoAttester)?;
            self.prove(enclave, Role::Initiator, &asked, None).await?;
        }
        flight::receive_accept(&mut self.stream).await?;
        Ok(verified)
    }

    /// Sends this side's evidence over the other side's nonce.
    async fn prove(
        &mut self,
        enclave: &EnclaveSide,
        role: Role,
        nonce: &Nonce,
        asks: Option<Nonce>,
    ) -> Result<(), Error> {
        let (cluster, party, manifest_epoch) = match self.manifest.as_deref() {
            Some(manifest) => (
                manifest.cluster(),
                self.own_party(manifest)?.name.as_str(),
                manifest.epoch(),
            ),
            None => ("", "", 0),
        };
        let own_spki = self.endpoint.identity.spki();
        let binder = Binder {
            role,
            exporter: self.session.exporter(role),
            nonce,
            own_spki,
            peer_spki: &self.session.peer_spki,
            cluster,
            party,
            boot_id: &enclave.boot_id,
            manifest_epoch,
        };
        let evidence = enclave
            .attester
            .evidence(nonce, &binder.digest(), own_spki)
            .await?;
        let proof = ChannelProof {
            nonce: asks.map(Vec::from).unwrap_or_default(),
            cluster: cluster.to_owned(),
            party: party.to_owned(),
            boot_id: enclave.boot_id.to_vec(),
            manifest_epoch,
            evidence,
        };
        flight::send(&mut self.stream, Body::Proof(proof)).await
    }

    /// `party` is the one that the other side's key stands for.
    fn verify_party(
        &self,
        role: Role,
        party: &Party,
        proof: Proof,
        nonce: &Nonce,
    ) -> Result<Attested, Error> {
        let manifest = self
            .manifest
            .as_deref()
            .ok_or(Error::NotEnrolled("this side"))?;
        if proof.cluster != manifest.cluster() {
            return Err(Error::WrongCluster {
                wanted: manifest.cluster().to_owned(),
                found: proof.cluster,
            });
        }
        if proof.party != party.name {
            return Err(Error::WrongParty {
                wanted: party.name.clone(),
                found: proof.party,
            });
        }
        // A party whose host gave it an old sealed manifest must not work with one that knows better. Clients
        // are let in, to see it and to bring it up to date.
        if self.endpoint.enclave.is_some() && proof.manifest_epoch != manifest.epoch() {
            return Err(Error::Epoch {
                ours: manifest.epoch(),
                theirs: proof.manifest_epoch,
            });
        }
        // The class is the one that the manifest gives the party, and decides how its evidence is read.
        let reference = manifest
            .reference_values(&party.name)
            .ok_or_else(|| Error::UnknownParty(party.name.clone()))?;
        self.verify(role, proof, nonce, &reference)
    }

    fn verify_candidate(
        &self,
        reference: &ReferenceValues,
        proof: Proof,
        nonce: &Nonce,
    ) -> Result<Attested, Error> {
        let kind = ClusterKind::of(&proof.cluster);
        let possible = kind.admits(reference.class()) && self.endpoint.anchors.suit(kind);
        if !proof.cluster.is_empty() && !possible {
            return Err(Error::WrongKind(kind));
        }
        self.verify(Role::Responder, proof, nonce, reference)
    }

    /// Appraises the evidence of the side in `role` against everything this side knows of the connection.
    fn verify(
        &self,
        role: Role,
        proof: Proof,
        nonce: &Nonce,
        reference: &ReferenceValues,
    ) -> Result<Attested, Error> {
        let identity = self.session.peer_spki.clone();
        let binder = Binder {
            role,
            exporter: self.session.exporter(role),
            nonce,
            own_spki: &identity,
            peer_spki: self.endpoint.identity.spki(),
            cluster: &proof.cluster,
            party: &proof.party,
            boot_id: &proof.boot_id,
            manifest_epoch: proof.manifest_epoch,
        };
        let expected = Expected {
            reference,
            nonce,
            public_key: &identity,
            user_data: &binder.digest(),
        };
        let verified_at = self.endpoint.clock.now();
        let evidence = verify_live(
            &proof.evidence,
            &self.endpoint.anchors,
            &expected,
            verified_at,
        )?;
        Ok(Attested(Arc::new(AttestedFacts {
            cluster: proof.cluster,
            name: proof.party,
            identity,
            boot_id: proof.boot_id,
            manifest_epoch: proof.manifest_epoch,
            evidence,
            verified_at,
        })))
    }

    fn own_party<'m>(&self, manifest: &'m Manifest) -> Result<&'m Party, Error> {
        manifest
            .party_by_identity(self.endpoint.identity.spki())
            .ok_or(Error::NotEnrolled("this side"))
    }

    fn refuse_reflection(&self) -> Result<(), Error> {
        if self.session.peer_spki == self.endpoint.identity.spki() {
            return Err(Error::Reflection);
        }
        Ok(())
    }

    fn refuse_expired(&self, manifest: &Manifest) -> Result<(), Error> {
        let now = self.endpoint.clock.now();
        if (manifest.not_before()..=manifest.not_after()).contains(&now) {
            Ok(())
        } else {
            Err(Error::ManifestExpired)
        }
    }

    /// Says how long a channel with this peer may live: as long as all that was verified stays true.
    fn limit(&self, peer: Peer) -> Result<Verified, Error> {
        let limits = &self.endpoint.limits;
        let mut age = limits.max_age;
        // Principals and visitors gave no evidence; their end closes when this side's expires.
        if let Peer::Party(attested) | Peer::Candidate(attested) = &peer {
            let now = attested.verified_at();
            let evidence = until(attested.evidence().not_after(), now)
                .checked_sub(limits.expiry_margin)
                .filter(|left| !left.is_zero())
                .ok_or(Error::EvidenceExpiring)?;
            age = age.min(evidence);
            if let (Peer::Party(_), Some(manifest)) = (&peer, &self.manifest) {
                age = age.min(until(manifest.not_after(), now));
            }
        }
        Ok(Verified {
            peer,
            expires_at: Instant::now() + age,
        })
    }

    /// Ends the handshake one way or the other.
    async fn conclude(mut self, outcome: Result<Verified, Error>) -> Result<Channel<S>, Error> {
        match outcome {
            Ok(verified) => Ok(Channel::new(
                self.stream,
                verified.peer,
                verified.expires_at,
                self.changes,
            )),
            Err(error) => {
                flight::refuse(&mut self.stream, &error).await;
                Err(error)
            }
        }
    }
}

fn until(end: UnixMillis, now: UnixMillis) -> Duration {
    Duration::from_millis(end.0.saturating_sub(now.0))
}

struct Verified {
    peer: Peer,
    expires_at: Instant,
}

/// What the responder knows of the initiator before it sends its own evidence.
enum Admitted<'m> {
    Party(&'m Party),
    Principal(Principal),
    Visitor(Visitor),
}

/// A [`Target`], looked up in the manifest.
enum Aim<'a> {
    Party {
        claim: Claim,
        manifest: &'a Manifest,
        party: &'a Party,
    },
    Candidate(&'a ReferenceValues),
}

impl<'a> Aim<'a> {
    fn of(target: &'a Target, manifest: Option<&'a Manifest>) -> Result<Self, Error> {
        let (claim, name) = match target {
            Target::Peer(name) => (Claim::Party, name),
            Target::Service(name) => (Claim::Principal, name),
            Target::Observe(name) => (Claim::Visitor, name),
            Target::Candidate(reference) => return Ok(Self::Candidate(reference)),
        };
        let manifest = manifest.ok_or(Error::NotEnrolled("this side"))?;
        let party = manifest
            .party(name)
            .ok_or_else(|| Error::UnknownParty(name.clone()))?;
        Ok(Self::Party {
            claim,
            manifest,
            party,
        })
    }

    fn claim(&self) -> Claim {
        match self {
            Self::Party { claim, .. } => *claim,
            Self::Candidate(_) => Claim::Visitor,
        }
    }
}
