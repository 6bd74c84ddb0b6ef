//! A registry whose store may be yet to come, and what is answered until then.

use std::sync::{Arc, OnceLock};

use axum::{http::Method, response::Response};

use super::{Failure, Route, error, json, text};
use crate::{
    registry::{self, Registry},
    store::{self, ErrorKind},
};

/// Where a registry will be, or is already. It never closes again: a store that goes away is the registry's affair.
#[derive(Clone, Debug, Default)]
pub struct Opening(Arc<OnceLock<Arc<Registry>>>);

impl Opening {
    pub fn registry(&self) -> Option<&Arc<Registry>> {
        self.0.get()
    }

    /// From here on requests are answered. The first registry stays.
    pub fn open(&self, registry: Arc<Registry>) {
        self.0.get_or_init(|| registry);
    }
}

impl From<Arc<Registry>> for Opening {
    fn from(registry: Arc<Registry>) -> Self {
        Self(Arc::new(OnceLock::from(registry)))
    }
}

/// As over a store that went away: what needs none is answered, and the rest is put off.
pub(super) fn put_off(route: &Route, method: &Method) -> Result<Response, Failure> {
    match (route, method) {
        (Route::Alive, &(Method::GET | Method::HEAD)) => text("ok\n"),
        (Route::Ready, &(Method::GET | Method::HEAD)) => error::not_ready(ErrorKind::Unavailable),
        (Route::Ping, &(Method::GET | Method::HEAD)) => json("{}"),
        _ => {
            let context = "the store was not reached since the start";
            Err(registry::Error::Store(store::Error::new(ErrorKind::Unavailable, context)).into())
        }
    }
}
