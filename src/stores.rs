//! The store that the configuration names, opened as a command needs it.

use std::{error::Error, fs, sync::Arc};

use marina_distribution::{
    config::{self, Config, StoreLocation},
    registry::{DATA_KEYS, SCRATCH_KEYS, is_in},
    store::{
        Store,
        fs::FsStore,
        s3::{Authorities, Credentials, Encryption, S3Settings, S3Store, StorageClass},
    },
};

/// For who may begin a registry there.
pub(super) async fn open(config: &Config) -> Result<Arc<dyn Store>, Box<dyn Error>> {
    match &config.store {
        StoreLocation::Directory(directory) => Ok(Arc::new(FsStore::open(directory)?)),
        StoreLocation::Bucket { bucket, prefix } => {
            let store = S3Store::open(bucket_settings(config, bucket, prefix)?).await;
            Ok(store.reliable(SCRATCH_KEYS, config.single_writer).await?)
        }
    }
}

/// For who works on a registry that is there: with none, the mistake is in the name, and nothing is written under it.
pub(super) async fn open_existing(config: &Config) -> Result<Arc<dyn Store>, Box<dyn Error>> {
    let none = || format!("there is no registry at {}", config.store);
    match &config.store {
        StoreLocation::Directory(directory) => {
            if !directory.exists() || !is_in(&FsStore::look(directory)?).await? {
                return Err(none().into());
            }
            Ok(Arc::new(FsStore::open(directory)?))
        }
        StoreLocation::Bucket { bucket, prefix } => {
            let store = S3Store::open(bucket_settings(config, bucket, prefix)?).await;
            if !is_in(&store).await.map_err(|error| store.named_in(error))? {
                return Err(none().into());
            }
            Ok(store.reliable(SCRATCH_KEYS, config.single_writer).await?)
        }
    }
}

pub(super) fn bucket_settings(config: &Config, bucket: &str, prefix: &str) -> Result<S3Settings, Box<dyn Error>> {
    let credentials = match (&config.s3_access_key_id.0, &config.s3_secret_access_key_file.0) {
        (None, None) => Credentials::Chain,
        (Some(id), Some(file)) => {
            let secret = fs::read_to_string(file)
                .map_err(|error| format!("s3_secret_access_key_file {}: {error}", file.display()))?;
            let (access_key_id, secret_access_key) = (id.clone(), secret.trim().to_owned());
            Credentials::Static { access_key_id, secret_access_key, session_token: None }
        }
        _ => return Err("s3_access_key_id and s3_secret_access_key_file go together".into()),
    };
    let authorities = match &config.s3_ca_file.0 {
        None => None,
        Some(file) => {
            let named = |error: &dyn Error| format!("s3_ca_file {}: {error}", file.display());
            let pem = fs::read(file).map_err(|error| named(&error))?;
            Some(Authorities::parse(&pem).map_err(|error| named(&error))?)
        }
    };
    Ok(S3Settings {
        authorities,
        prefix: prefix.to_owned(),
        endpoint: config.s3_endpoint.0.clone().map(|endpoint| endpoint.0),
        region: config.s3_region.0.clone(),
        path_style: config.s3_path_style.or(config.s3_endpoint.0.is_some()),
        public_endpoint: config.s3_public_endpoint.0.clone().map(|endpoint| endpoint.0),
        credentials,
        encryption: match &config.s3_encryption {
            config::Encryption::Bucket => Encryption::BucketDefault,
            config::Encryption::S3 => Encryption::Store,
            config::Encryption::Kms(key) => Encryption::Kms(key.clone()),
        },
        storage_class: config
            .s3_storage_class
            .0
            .clone()
            .map(|class| StorageClass { keys: DATA_KEYS.to_owned(), class }),
        part: config.s3_part_size.0.as_u64(),
        ..S3Settings::new(bucket)
    })
}
