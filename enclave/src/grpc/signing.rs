use std::pin::Pin;

use arca_proto::v1::{
    CreateSigningRequestRequest, GetSigningRequestRequest, ListSigningRequestsRequest,
    ListSigningRequestsResponse, SigningRequest, WatchSigningRequestRequest,
    signing_service_server::SigningService,
};
use futures_util::{Stream, StreamExt as _, future, stream};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use super::{Services, page_size, principal};
use crate::{names, signing};

#[tonic::async_trait]
impl SigningService for Services {
    async fn create_signing_request(
        &self,
        request: Request<CreateSigningRequestRequest>,
    ) -> Result<Response<SigningRequest>, Status> {
        let principal = principal(&request)?;
        Ok(Response::new(
            signing::create(&self.0, &principal, request.into_inner()).await?,
        ))
    }

    async fn get_signing_request(
        &self,
        request: Request<GetSigningRequestRequest>,
    ) -> Result<Response<SigningRequest>, Status> {
        Ok(Response::new(
            signing::get(&self.0, &request.into_inner().name).await?,
        ))
    }

    async fn list_signing_requests(
        &self,
        request: Request<ListSigningRequestsRequest>,
    ) -> Result<Response<ListSigningRequestsResponse>, Status> {
        let request = request.into_inner();
        let size = page_size(request.page_size);
        let after = names::page_token(&request.page_token, "signing/")?;
        let objects = self.0.state.list("signing/", &after, size).await?;
        let mut signing_requests = Vec::with_capacity(objects.len());
        for object in &objects {
            let Some(id) = object.strip_prefix("signing/") else {
                continue;
            };
            let name = format!("{}{id}", names::SIGNING_REQUESTS);
            signing_requests.push(signing::get(&self.0, &name).await?);
        }
        let next_page_token = names::next_page(&objects, size, "signing/");
        Ok(Response::new(ListSigningRequestsResponse {
            signing_requests,
            next_page_token,
        }))
    }

    type WatchSigningRequestStream =
        Pin<Box<dyn Stream<Item = Result<SigningRequest, Status>> + Send>>;

    async fn watch_signing_request(
        &self,
        request: Request<WatchSigningRequestRequest>,
    ) -> Result<Response<Self::WatchSigningRequestStream>, Status> {
        let request = request.into_inner();
        let (current, running) = signing::watch(&self.0, &request.name).await?;
        let updates = match running {
            Some(running) => WatchStream::new(running)
                .map(|progress| progress.request)
                .left_stream(),
            None => stream::once(future::ready(current)).right_stream(),
        };
        let after = request.after_revision;
        let wanted = updates
            .filter(move |update| future::ready(update.revision > after))
            .map(Ok);
        Ok(Response::new(Box::pin(wanted)))
    }
}
