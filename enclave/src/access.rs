//! Who may call what. One table for every method; a method that is not in it cannot be called.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use arca_attestation::manifest::{Manifest, Role};
use arca_channel::Peer;
use futures_util::future::{Either, Ready, ready};
use tonic::{
    Code, Status,
    body::Body,
    codegen::http::{Request, Response},
};
use tower::{Layer, Service};

use crate::{core::Core, error::Error};

/// What a method asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// An enclave of the cluster.
    Party,
    /// Any principal of the manifest.
    Principal,
    /// A principal with one of these roles.
    With(&'static [Role]),
    /// An operator; anybody while this enclave has no manifest. The manifest's signatures decide.
    Enroller,
}

fn caller_of(path: &str) -> Option<Caller> {
    if let Some(method) = path.strip_prefix("/arca.v1.") {
        return match method {
            "PeerService/Exchange" => Some(Caller::Party),
            "PartyService/Enroll" => Some(Caller::Enroller),
            "KeyService/CreateKey" | "PartyService/AcceptLoss" => {
                Some(Caller::With(&[Role::Operator]))
            }
            "SigningService/CreateSigningRequest" => Some(Caller::With(&[Role::Initiator])),
            "AuditService/GetCheckpoint"
            | "AuditService/ListEntries"
            | "AuditService/GetProof"
            | "AuditService/Export"
            | "AuditService/ListOpenings" => Some(Caller::With(&[Role::Auditor])),
            "AuditService/GetCertificate" => Some(Caller::With(&[Role::Auditor, Role::Initiator])),
            "KeyService/GetKey"
            | "KeyService/ListKeys"
            | "OperationService/GetOperation"
            | "OperationService/WaitOperation"
            | "PartyService/GetEvidence"
            | "PartyService/GetState"
            | "PartyService/ListParties"
            | "PartyService/Ping"
            | "SigningService/GetSigningRequest"
            | "SigningService/ListSigningRequests"
            | "SigningService/WatchSigningRequest" => Some(Caller::Principal),
            _ => None,
        };
    }
    let standard = [
        "/grpc.health.v1.Health/",
        "/grpc.reflection.v1.ServerReflection/",
    ];
    standard
        .iter()
        .any(|service| path.starts_with(service))
        .then_some(Caller::Principal)
}

/// Decides by the manifest in force, not by the one under which the caller's channel was opened.
fn check(path: &str, peer: Option<&Peer>, manifest: Option<&Manifest>) -> Result<(), Error> {
    let Some(caller) = caller_of(path) else {
        let shown: String = path.escape_default().take(100).collect();
        return Err(Error::reject(
            Code::Unimplemented,
            "UNKNOWN_METHOD",
            format!("there is no method {shown}"),
        ));
    };
    let principal = peer
        .and_then(Peer::principal)
        .and_then(|peer| manifest?.principal_by_identity(peer.identity()));
    let has = |roles: &[Role]| {
        principal.is_some_and(|principal| roles.iter().any(|role| principal.roles.contains(role)))
    };
    let (allowed, roles) = match caller {
        Caller::Party => {
            let party = peer.and_then(Peer::party);
            let known = party.and_then(|peer| manifest?.party_by_identity(peer.identity()));
            (known.is_some(), None)
        }
        Caller::Principal => (principal.is_some(), None),
        Caller::With(roles) => (has(roles), Some(roles)),
        Caller::Enroller => (
            manifest.is_none() || has(&[Role::Operator]),
            Some(&[Role::Operator][..]),
        ),
    };
    if allowed {
        return Ok(());
    }
    Err(match (roles, principal) {
        (Some(roles), Some(principal)) => {
            let roles: Vec<String> = roles.iter().map(|role| format!("{role:?}")).collect();
            Error::reject(
                Code::PermissionDenied,
                "ROLE_MISSING",
                format!(
                    "{} has not the role {} in the manifest",
                    principal.name,
                    roles.join(" or ")
                ),
            )
        }
        _ => Error::reject(
            Code::Unauthenticated,
            "NOT_A_PRINCIPAL",
            "this key is no principal of the manifest; an administrator has to enrol it",
        ),
    })
}

/// Puts the table in front of every service.
#[derive(Clone)]
pub struct AccessLayer(pub Arc<Core>);

impl<S> Layer<S> for AccessLayer {
    type Service = Access<S>;

    fn layer(&self, inner: S) -> Access<S> {
        Access {
            core: Arc::clone(&self.0),
            inner,
        }
    }
}

/// A service behind the table.
#[derive(Clone)]
pub struct Access<S> {
    core: Arc<Core>,
    inner: S,
}

impl<S, B> Service<Request<B>> for Access<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let manifest = self.core.manifest();
        let peer = request.extensions().get::<Peer>();
        match check(request.uri().path(), peer, manifest.as_deref()) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(error) => Either::Right(ready(Ok(Status::from(error).into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every method of every service, read from the descriptors, so that a new one cannot be forgotten.
    #[test]
    fn every_method_of_the_package_is_in_the_table_and_none_but_enroll_is_open_before_enrolment() {
        use prost::Message as _;
        let set = prost_types::FileDescriptorSet::decode(arca_proto::DESCRIPTORS).unwrap();
        let mut methods = 0;
        for service in set.file.iter().flat_map(|file| &file.service) {
            let hosts = ["StorageService", "MetricsService", "CredentialService"];
            if hosts.contains(&service.name()) {
                continue; // The host's, not the enclave's.
            }
            for method in &service.method {
                let path = format!("/arca.v1.{}/{}", service.name(), method.name());
                assert!(caller_of(&path).is_some(), "{path} has no row");
                let open_to_all = check(&path, None, None).is_ok();
                assert_eq!(open_to_all, method.name() == "Enroll", "{path}");
                methods += 1;
            }
        }
        assert!(methods >= 14, "only {methods} methods were read");
    }

    #[test]
    fn what_is_not_listed_cannot_be_called() {
        for path in [
            "/",
            "/arca.v1.KeyService/Export",
            "/arca.v1.StorageService/GetBlob",
            "/x/y",
        ] {
            let error = check(path, None, None).unwrap_err();
            assert_eq!(error.reason(), "UNKNOWN_METHOD", "{path}");
        }
    }
}
