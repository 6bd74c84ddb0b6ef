//! Objects that are written once, under a name that is never used again.

use bytes::Bytes;

use crate::store::{Condition, Key, Result, Store};

/// Creates one. An uncertain write is simply repeated: who else would have written it?
pub(crate) async fn create(store: &dyn Store, key: &Key, bytes: Bytes) -> Result<()> {
    match store.put(key, bytes.clone(), Condition::Create).await {
        Err(error) if error.kind.is_transient() => {
            store.put(key, bytes, Condition::Create).await?;
        }
        done => {
            done?;
        }
    }
    Ok(())
}
