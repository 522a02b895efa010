use arca_proto::v1::{
    CreateKeyRequest, GetKeyRequest, Key, ListKeysRequest, ListKeysResponse, Operation,
    key_service_server::KeyService,
};
use tonic::{Request, Response, Status};

use super::{Services, page_size, principal};
use crate::{keygen, names};

#[tonic::async_trait]
impl KeyService for Services {
    async fn create_key(
        &self,
        request: Request<CreateKeyRequest>,
    ) -> Result<Response<Operation>, Status> {
        let principal = principal(&request)?;
        Ok(Response::new(
            keygen::create(&self.0, &principal, request.into_inner()).await?,
        ))
    }

    async fn get_key(&self, request: Request<GetKeyRequest>) -> Result<Response<Key>, Status> {
        let held = self.0.key(&request.into_inner().name).await?;
        Ok(Response::new(held.record.to_wire()))
    }

    async fn list_keys(
        &self,
        request: Request<ListKeysRequest>,
    ) -> Result<Response<ListKeysResponse>, Status> {
        let request = request.into_inner();
        let size = page_size(request.page_size);
        let after = names::page_token(&request.page_token, "key/")?;
        let objects = self.0.state.list("key/", &after, size).await?;
        let mut keys = Vec::with_capacity(objects.len());
        for object in &objects {
            let Some(id) = object.strip_prefix("key/") else {
                continue;
            };
            keys.push(
                self.0
                    .key(&format!("{}{id}", names::KEYS))
                    .await?
                    .record
                    .to_wire(),
            );
        }
        let next_page_token = names::next_page(&objects, size, "key/");
        Ok(Response::new(ListKeysResponse {
            keys,
            next_page_token,
        }))
    }
}
