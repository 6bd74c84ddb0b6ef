//! What is compared of an answer: all of it, but for what is drawn anew for each.

use axum::{body::Body, http::Response};
use http_body_util::BodyExt as _;
use serde_json::Value;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Sorted; without those that every answer has.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Of a refusal, what a program reads: the codes, and the digests that they are about.
    pub(crate) errors: Vec<(String, Option<String>)>,
}

/// What stands for the line between the parts of a body.
pub(crate) const BOUNDARY: &str = "BOUNDARY";

impl Answer {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn refusal(status: u16, code: &str) -> Self {
        let mut refusal = Self::new(status).with("content-type", "application/json");
        refusal.errors.push((code.to_owned(), None));
        refusal
    }

    #[expect(clippy::needless_pass_by_value, reason = "it reads better where it is called")]
    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self.headers.sort();
        self
    }

    /// With its length.
    pub(crate) fn sending(self, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { body, ..self }.measured()
    }

    /// With the length of its body, which may be nothing.
    pub(crate) fn measured(self) -> Self {
        let length = self.body.len();
        self.with("content-length", length)
    }

    /// The same without its body.
    pub(crate) fn head(self) -> Self {
        Self { body: Vec::new(), errors: Vec::new(), ..self }
    }

    pub(crate) async fn read(response: Response<Body>) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        let mut answer = Self { status: head.status.as_u16(), body, ..Self::default() };
        for (name, value) in &head.headers {
            let value = value.to_str().unwrap();
            match name.as_str() {
                "x-request-id" => assert_eq!(value.len(), 36),
                "docker-distribution-api-version" => assert_eq!(value, "registry/2.0"),
                "x-content-type-options" => assert_eq!(value, "nosniff"),
                name => answer = answer.with(name, value),
            }
        }
        answer.without_boundary().without_prose()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn without_boundary(mut self) -> Self {
        let Some(boundary) = self.header("content-type").and_then(|it| it.split_once("boundary=")) else { return self };
        let boundary = boundary.1.to_owned();
        let shorter = boundary.len() - BOUNDARY.len();
        let lines = String::from_utf8(self.body).unwrap();
        let count = lines.matches(&boundary).count();
        self.body = lines.replace(&boundary, BOUNDARY).into_bytes();
        for (name, value) in &mut self.headers {
            match name.as_str() {
                "content-type" => *value = value.replace(&boundary, BOUNDARY),
                "content-length" => *value = (value.parse::<usize>().unwrap() - count * shorter).to_string(),
                _ => {}
            }
        }
        self
    }

    /// The sentences of a refusal are for people, and may be put better at any time.
    fn without_prose(mut self) -> Self {
        if self.status < 400 {
            return self;
        }
        self.headers.retain(|(name, _)| name != "content-length");
        if let Ok(body) = serde_json::from_slice::<Value>(&self.body) {
            let errors = body["errors"].as_array().unwrap().iter();
            let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
            self.errors = errors.map(|it| (text(&it["code"]).unwrap(), text(&it["detail"]["digest"]))).collect();
            self.body.clear();
        }
        self
    }
}
