//! Builds without SPIFFE can't call the agent. The command line says so before anything is
//! tried; this is for whoever comes here nevertheless.

use std::convert::Infallible;

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{Code, Status};
use crate::net::{Resolver, TargetAddr};

/// A call that never is.
pub(super) struct Call(Infallible);

impl Call {
    #[expect(
        clippy::unused_async,
        reason = "the same interface as where there is something to wait for"
    )]
    pub(super) async fn open(_: &TargetAddr, _: &Resolver, _: Instant) -> Result<Self, Status> {
        Err(Status::new(
            Code::Unimplemented,
            "this build has no SPIFFE Workload API",
        ))
    }

    #[expect(
        clippy::unused_async,
        reason = "the same interface as where there is something to wait for"
    )]
    pub(super) async fn next(&mut self) -> Result<Zeroizing<Vec<u8>>, Status> {
        match self.0 {}
    }
}
