//! Who may call what. One table for every method; a method that is not in it cannot be called.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use arca_attestation::manifest::Role;
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
    /// A principal with this role.
    With(Role),
    /// An operator; anybody while this enclave has no manifest. The manifest's signatures decide.
    Enroller,
}

fn caller_of(path: &str) -> Option<Caller> {
    if let Some(method) = path.strip_prefix("/arca.v1.") {
        return match method {
            "PeerService/Exchange" => Some(Caller::Party),
            "PartyService/Enroll" => Some(Caller::Enroller),
            "KeyService/CreateKey" => Some(Caller::With(Role::Operator)),
            "SigningService/CreateSigningRequest" => Some(Caller::With(Role::Initiator)),
            "KeyService/GetKey"
            | "KeyService/ListKeys"
            | "OperationService/GetOperation"
            | "OperationService/WaitOperation"
            | "PartyService/GetEvidence"
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

fn check(path: &str, peer: Option<&Peer>, enrolled: bool) -> Result<(), Error> {
    let Some(caller) = caller_of(path) else {
        let shown: String = path.escape_default().take(100).collect();
        return Err(Error::reject(
            Code::Unimplemented,
            "UNKNOWN_METHOD",
            format!("there is no method {shown}"),
        ));
    };
    let principal = peer.and_then(Peer::principal);
    let allowed = match caller {
        Caller::Party => peer.is_some_and(|peer| peer.party().is_some()),
        Caller::Principal => principal.is_some(),
        Caller::With(role) => principal.is_some_and(|principal| principal.roles().contains(&role)),
        Caller::Enroller => {
            !enrolled
                || principal.is_some_and(|principal| principal.roles().contains(&Role::Operator))
        }
    };
    if allowed {
        return Ok(());
    }
    Err(match (caller, principal) {
        (Caller::With(role), Some(principal)) => Error::reject(
            Code::PermissionDenied,
            "ROLE_MISSING",
            format!(
                "{} has not the role {role:?} in the manifest",
                principal.name()
            ),
        ),
        (Caller::Enroller, Some(principal)) => Error::reject(
            Code::PermissionDenied,
            "ROLE_MISSING",
            format!(
                "{} has not the role Operator in the manifest",
                principal.name()
            ),
        ),
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
        let enrolled = self.core.is_enrolled();
        let peer = request.extensions().get::<Peer>();
        match check(request.uri().path(), peer, enrolled) {
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
    fn every_method_of_the_package_is_in_the_table_and_none_is_open_to_all() {
        use prost::Message as _;
        let set = prost_types::FileDescriptorSet::decode(arca_proto::DESCRIPTORS).unwrap();
        let mut methods = 0;
        for service in set.file.iter().flat_map(|file| &file.service) {
            if service.name() == "StorageService" {
                continue; // The host's, not the enclave's.
            }
            for method in &service.method {
                let path = format!("/arca.v1.{}/{}", service.name(), method.name());
                assert!(caller_of(&path).is_some(), "{path} has no row");
                assert!(check(&path, None, true).is_err(), "{path} is open to all");
                methods += 1;
            }
        }
        assert!(methods >= 14, "only {methods} methods were read");
    }

    #[test]
    fn before_enrolment_only_enroll_is_open() {
        assert!(check("/arca.v1.PartyService/Enroll", None, false).is_ok());
        assert!(check("/arca.v1.KeyService/ListKeys", None, false).is_err());
        assert!(check("/arca.v1.PeerService/Exchange", None, false).is_err());
    }

    #[test]
    fn what_is_not_listed_cannot_be_called() {
        for path in [
            "/",
            "/arca.v1.KeyService/Export",
            "/arca.v1.StorageService/GetBlob",
            "/x/y",
        ] {
            let error = check(path, None, false).unwrap_err();
            assert_eq!(error.reason(), "UNKNOWN_METHOD", "{path}");
        }
    }
}
