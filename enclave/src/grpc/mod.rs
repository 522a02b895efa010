//! The services of `arca.v1`: wire messages in and out, nothing decided here.

mod audit;
mod keys;
mod operations;
mod parties;
mod peers;
mod signing;

use std::sync::Arc;

use arca_channel::Peer;
use tonic::{Request, Status};

use crate::{core::Core, error::Error};

pub use peers::follow;

/// All services over one core.
#[derive(Clone)]
pub struct Services(pub Arc<Core>);

/// Default and greatest number of resources on one page.
const PAGE: (u32, u32) = (100, 1000);

fn page_size(asked: u32) -> u32 {
    if asked == 0 {
        PAGE.0
    } else {
        asked.min(PAGE.1)
    }
}

/// Name of the principal that the channel proved.
fn principal<T>(request: &Request<T>) -> Result<String, Status> {
    request
        .extensions()
        .get::<Peer>()
        .and_then(Peer::principal)
        .map(|principal| principal.name().to_owned())
        .ok_or_else(|| Error::Bug("a call without a principal passed the access table").into())
}
