//! The archive in an S3-compatible bucket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsCredential};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, CredentialProvider, ObjectStore, ObjectStoreExt as _, PutMode,
    PutOptions, RetryConfig,
};

use super::{Files, FilesError};
use crate::config::{BucketConfig, BucketCredentials, CredentialSource};
use crate::credentials;
use crate::error::Error;

/// Requests under way at once.
const TOGETHER: usize = 8;
/// For one request, with all that it takes.
const REQUEST: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(5);
/// The archiver tries again by itself; the client gets over a hiccup.
const RETRIES: usize = 1;

/// A bucket, and where in it.
#[derive(Debug)]
pub(in crate::archive) struct Bucket {
    store: AmazonS3,
    prefix: Path,
    shown: String,
}

impl Bucket {
    /// What to reach a bucket with; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// [`Error::Archive`].
    pub(in crate::archive) fn open(config: &BucketConfig) -> Result<Self, Error> {
        let shown = config.url();
        let refuse = |problem: String, remedy| Error::Archive {
            place: shown.clone(),
            problem,
            remedy,
        };
        crate::tls::install();
        let mut options = ClientOptions::new()
            .with_timeout(REQUEST)
            .with_connect_timeout(CONNECT);
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&config.bucket)
            .with_region(&config.region)
            .with_retry(RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: RETRIES,
                retry_timeout: REQUEST,
            });
        if let Some(endpoint) = &config.endpoint {
            // The log is open to everybody and requests are signed; secrets go over neither.
            options = options.with_allow_http(true);
            builder = builder.with_endpoint(endpoint);
        }
        builder = match &config.credentials {
            BucketCredentials::Environment => environment(builder).ok_or_else(|| {
                refuse(
                    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set".into(),
                    "Set them in the host's environment, or write archive.credentials = \"file\" or \"imds\"",
                )
            })?,
            BucketCredentials::Source(source) => {
                builder.with_credentials(Arc::new(Credentials(source.clone())))
            }
        };
        let store = builder
            .with_client_options(options)
            .build()
            .map_err(|error| refuse(error.to_string(), "Mend [archive] in host.toml"))?;
        Ok(Self {
            store,
            prefix: Path::from(config.prefix.as_str()),
            shown,
        })
    }

    fn at(&self, path: &str) -> Path {
        Path::from(format!("{}/{path}", self.prefix))
    }

    async fn create_one(&self, path: String, content: Bytes) -> Result<(), FilesError> {
        // Asked first, because not every server knows of If-None-Match.
        let there = match self.read(&path).await? {
            Some(there) => there,
            None => {
                let create = PutOptions::from(PutMode::Create);
                let put = self
                    .store
                    .put_opts(&self.at(&path), content.clone().into(), create)
                    .await;
                match put {
                    Ok(_) => return Ok(()),
                    Err(object_store::Error::AlreadyExists { .. }) => {
                        self.read(&path).await?.unwrap_or_default()
                    }
                    Err(error) => return Err(self.failed(error)),
                }
            }
        };
        if there == content {
            return Ok(());
        }
        Err(FilesError::Differs {
            what: format!("{}/{path}", self.shown),
        })
    }

    fn failed(&self, error: object_store::Error) -> FilesError {
        use object_store::Error::{NotFound, PermissionDenied, Unauthenticated};
        let credentials = "Look at archive.credentials: the key has to be one of this bucket's, allowed to \
             s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket under the prefix; is the clock right?";
        let problem = chain(&error);
        let remedy = match &error {
            _ if problem.contains("NoSuchBucket") => {
                "Make the bucket, or mend archive.url; entries stay in the storage file until then"
            }
            NotFound { .. } => "Is the bucket there?",
            PermissionDenied { .. } | Unauthenticated { .. } => credentials,
            object_store::Error::Generic { .. } if problem.contains(NO_CREDENTIALS) => credentials,
            _ => {
                "Is archive.endpoint right, and the server up? Entries stay in the storage file until it answers"
            }
        };
        FilesError::Unavailable {
            what: self.shown.clone(),
            problem,
            remedy,
        }
    }
}

#[tonic::async_trait]
impl Files for Bucket {
    async fn create(&self, files: Vec<(String, Bytes)>) -> Result<(), FilesError> {
        stream::iter(files)
            .map(|(path, content)| self.create_one(path, content))
            .buffer_unordered(TOGETHER)
            .try_collect()
            .await
    }

    async fn replace(&self, path: &str, content: Bytes) -> Result<(), FilesError> {
        let put = self.store.put(&self.at(path), content.into()).await;
        put.map(|_| ()).map_err(|error| self.failed(error))
    }

    async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, FilesError> {
        let got = async { self.store.get(&self.at(path)).await?.bytes().await };
        match got.await {
            Ok(content) => Ok(Some(content.into())),
            Err(error @ object_store::Error::NotFound { .. })
                if !chain(&error).contains("NoSuchBucket") =>
            {
                Ok(None)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn delete(&self, paths: Vec<String>) -> Result<(), FilesError> {
        for path in paths {
            match self.store.delete(&self.at(&path)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(())
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>, FilesError> {
        let folder = self.at(folder);
        let listed = self.store.list_with_delimiter(Some(&folder)).await;
        let listed = listed.map_err(|error| self.failed(error))?;
        let names = listed.objects.iter().filter_map(|object| {
            let name = object.location.filename()?;
            Some(name.to_owned())
        });
        Ok(names.collect())
    }
}

/// With the credentials of the environment.
fn environment(builder: AmazonS3Builder) -> Option<AmazonS3Builder> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut builder = builder
        .with_access_key_id(variable("AWS_ACCESS_KEY_ID")?)
        .with_secret_access_key(variable("AWS_SECRET_ACCESS_KEY")?);
    if let Some(token) = variable("AWS_SESSION_TOKEN") {
        builder = builder.with_token(token);
    }
    Some(builder)
}

const NO_CREDENTIALS: &str = "no AWS credentials";

/// Credentials that are read anew for each request, so that whoever rotates them need not tell the host.
#[derive(Debug)]
struct Credentials(CredentialSource);

#[tonic::async_trait]
impl CredentialProvider for Credentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let read = credentials::read(&self.0, "archive").await;
        let credentials = read.map_err(|problem| object_store::Error::Generic {
            store: "S3",
            source: format!("{NO_CREDENTIALS}: {problem}").into(),
        })?;
        Ok(Arc::new(credentials.into()))
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text.replace(['\n', '\r'], " ")
}
