//! From our settings to those of the SDK.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_config::{
    BehaviorVersion, Region, environment::region::EnvironmentVariableRegionProvider, meta::region::RegionProviderChain,
};
use aws_sdk_s3::config::{
    Builder, Credentials as Keys, RequestChecksumCalculation, ResponseChecksumValidation, SharedCredentialsProvider,
    StalledStreamProtectionConfig,
    retry::{RetryConfig, RetryPartition},
};

use super::{
    error::RetryConflicts,
    patience,
    settings::{Credentials, S3Settings},
};

/// How many stores were opened by this process.
static STORES: AtomicU64 = AtomicU64::new(0);
/// The region of a store that has none.
const NO_REGION: &str = "us-east-1";

/// Looks around for what the settings leave open. Credentials of the chain are looked for when they are first needed.
pub(super) async fn configure(settings: &S3Settings) -> Builder {
    let region = RegionProviderChain::first_try(settings.region.clone().map(Region::new));
    let region = match &settings.endpoint {
        None => region.or_default_provider(),
        // Not in a cloud whose metadata service would know.
        Some(_) => region.or_else(EnvironmentVariableRegionProvider::new()),
    };
    let shared = aws_config::defaults(BehaviorVersion::latest()).region(region.or_else(Region::new(NO_REGION)));
    let shared = match &settings.credentials {
        Credentials::Chain => shared,
        Credentials::Static { access_key_id, secret_access_key, session_token } => {
            let keys = Keys::new(access_key_id, secret_access_key, session_token.clone(), None, "configured");
            shared.credentials_provider(SharedCredentialsProvider::new(keys))
        }
    };
    // A body that stands still is given up. One that we do not ask for, since our client is slow, does not count.
    let stalled = StalledStreamProtectionConfig::enabled().grace_period(settings.silence).build();
    let retries =
        RetryConfig::standard().with_max_attempts(settings.max_attempts).with_initial_backoff(settings.backoff);
    let mut config = Builder::from(&shared.load().await)
        .force_path_style(settings.path_style)
        .retry_config(retries)
        // How many retries are worth making is learnt from this store alone, and from no other in the process.
        .retry_partition(RetryPartition::new(format!("store {}", STORES.fetch_add(1, Ordering::Relaxed))))
        .retry_classifier(RetryConflicts)
        .timeout_config(patience::usual(settings))
        .stalled_stream_protection(stalled)
        // Several stores refuse the SDK's checksum trailers, or keep them.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(authorities) = &settings.authorities {
        config.set_http_client(Some(authorities.client()));
    }
    config.set_endpoint_url(settings.endpoint.clone());
    config
}
