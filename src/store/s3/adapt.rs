//! The driver and the doctor: being told what kind of store this is, and asking about the bucket.

use std::sync::Arc;

use aws_sdk_s3::{
    Client, Config,
    config::{
        BehaviorVersion, ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeTransmitInterceptorContextMut,
        retry::RetryConfig,
    },
    error::BoxError,
};
use bytes::Bytes;

use super::{ListOrder, S3Store};
use crate::store::{
    Error, ErrorKind, Result, Store,
    breaker::Breaker,
    doctor::{self, Answer, Brief},
    single_writer::SingleWriter,
};

impl S3Store {
    /// Finds out what kind of store this is, in a folder of this name, and does as that one needs. An error names the bucket.
    pub async fn adapted(mut self, folder: &str) -> Result<(Self, Brief)> {
        // Nothing is refused or put in order that is to be found out.
        self.limits.conditional_delete = true;
        self.settings.list_order = ListOrder::Bytes;
        let brief = doctor::brief(&self, folder).await.map_err(|error| self.named_in(error))?;
        self.limits.conditional_delete = brief.delete == Answer::Honoured;
        self.settings.list_order = if brief.in_byte_order { ListOrder::Bytes } else { ListOrder::Paths };
        Ok((self, brief))
    }

    /// The error of what is first asked of a bucket: the likeliest mistakes are in its name, its address and the rights to it.
    pub fn named_in(&self, error: Error) -> Error {
        Error { context: format!("bucket {} at {}: {}", self.settings.bucket, self.place(), error.context), ..error }
    }

    /// The store as a registry may rely on it: adapted, behind a [`Breaker`], and not at all where data would be lost,
    /// unless it is said that there is but a single writer.
    pub async fn reliable(self, folder: &str, single_writer: bool) -> std::result::Result<Arc<dyn Store>, Unreliable> {
        let (store, brief) = self.adapted(folder).await?;
        let store = Arc::new(Breaker::new(Arc::new(store)));
        match brief.danger() {
            None => Ok(store),
            Some(danger) if single_writer => {
                tracing::warn!(danger, "a single writer is taken for granted");
                Ok(Arc::new(SingleWriter::new(store)))
            }
            Some(danger) => Err(Unreliable::Dangerous(danger)),
        }
    }

    /// What a client gets that is sent to this URL.
    pub async fn fetch(&self, url: String) -> Result<Bytes> {
        let context = || "fetch a presigned URL".to_owned();
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .allow_no_auth()
            .retry_config(RetryConfig::disabled())
            .endpoint_url(url.split('?').next().unwrap_or_default());
        config.set_region(self.client.config().region().cloned());
        config.set_http_client(self.client.config().http_client());
        let request = Client::from_conf(config.build()).get_object().bucket("any").key("any");
        let answer = request.customize().interceptor(PlainGet(url)).send().await;
        let body = answer.map_err(|error| self.failed(error, context))?.body.collect().await;
        let body = body.map_err(|torn| Error::new(ErrorKind::Unavailable, context()).with_source(torn))?;
        Ok(body.into_bytes())
    }
}

/// Why no registry may run on a store.
#[derive(Debug, thiserror::Error)]
pub enum Unreliable {
    #[error("{0}; --single-writer runs a registry on it all the same, as the only one")]
    Dangerous(&'static str),
    #[error(transparent)]
    Store(#[from] Error),
}

impl Unreliable {
    /// Nothing is known of the store yet; trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(error) if error.kind.is_transient())
    }
}

/// Makes of a request of the SDK what a client sends that knows nothing but a URL.
#[derive(Debug)]
struct PlainGet(String);

impl Intercept for PlainGet {
    fn name(&self) -> &'static str {
        "PlainGet"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> std::result::Result<(), BoxError> {
        let request = context.request_mut();
        let names: Vec<String> = request.headers().iter().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            request.headers_mut().remove(name);
        }
        Ok(request.set_uri(self.0.as_str())?)
    }
}
