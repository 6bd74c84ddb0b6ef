//! The driver and the doctor: being told what kind of store this is, and asking about the bucket.

use aws_sdk_s3::{
    Client, Config,
    config::{
        BehaviorVersion, ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeTransmitInterceptorContextMut,
        retry::RetryConfig,
    },
    error::BoxError,
};
use bytes::Bytes;

use super::{ListOrder, S3Store, error::failed};
use crate::store::{
    Error, ErrorKind, Result,
    doctor::{self, Answer, Brief},
};

impl S3Store {
    /// Finds out what kind of store this is, in a folder of this name, and does as that one needs.
    pub async fn adapted(mut self, folder: &str) -> Result<(Self, Brief)> {
        // Nothing is refused or put in order that is to be found out.
        self.limits.conditional_delete = true;
        self.settings.list_order = ListOrder::Bytes;
        let brief = doctor::brief(&self, folder).await?;
        self.limits.conditional_delete = brief.delete == Answer::Honoured;
        self.settings.list_order = if brief.in_byte_order { ListOrder::Bytes } else { ListOrder::Paths };
        Ok((self, brief))
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
        let body = answer.map_err(|error| failed(error, context))?.body.collect().await;
        let body = body.map_err(|torn| Error::new(ErrorKind::Unavailable, context()).with_source(torn))?;
        Ok(body.into_bytes())
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
