use std::time::Duration;

use arca_proto::v1::{
    GetOperationRequest, Operation, WaitOperationRequest,
    operation_service_server::OperationService,
};
use tonic::{Request, Response, Status};

use super::Services;
use crate::{error::Error, keygen};

const DEFAULT_WAIT_MS: u32 = 10_000;
const MAX_WAIT_MS: u32 = 30_000;

#[tonic::async_trait]
impl OperationService for Services {
    async fn get_operation(
        &self,
        request: Request<GetOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        Ok(Response::new(
            keygen::operation(&self.0, &request.into_inner().name).await?,
        ))
    }

    async fn wait_operation(
        &self,
        request: Request<WaitOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        let request = request.into_inner();
        let limit = match request.timeout_ms {
            0 => DEFAULT_WAIT_MS,
            asked if asked <= MAX_WAIT_MS => asked,
            _ => {
                return Err(Error::invalid(
                    "INVALID_ARGUMENT",
                    format!("timeout_ms: at most {MAX_WAIT_MS}"),
                )
                .into());
            }
        };
        let Some(mut running) = self.0.operations.get(&request.name) else {
            return Ok(Response::new(
                keygen::operation(&self.0, &request.name).await?,
            ));
        };
        let done = running.wait_for(|operation| operation.done);
        let waited = tokio::time::timeout(Duration::from_millis(u64::from(limit)), done).await;
        drop(waited);
        let operation = running.borrow().clone();
        Ok(Response::new(operation))
    }
}
