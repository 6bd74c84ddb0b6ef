//! Whom the certificate of the store may be signed by.

use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

/// Authorities beside those that the system trusts.
#[derive(Clone, Debug)]
pub struct Authorities(TlsContext);

#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    #[error("not PEM: {0}")]
    NotPem(rustls::pki_types::pem::Error),
    #[error("certificate {number} cannot be that of an authority: {source}")]
    Unusable { number: usize, source: rustls::Error },
    #[error("there is no certificate in it")]
    Empty,
    #[error("no TLS with it: {0}")]
    Refused(String),
}

impl Authorities {
    /// Certificates one after the other. All of them are looked at here: the client panics later over one that is bad.
    pub fn parse(pem: &[u8]) -> Result<Self, AuthoritiesError> {
        let mut roots = RootCertStore::empty();
        for (certificate, number) in CertificateDer::pem_slice_iter(pem).zip(1..) {
            let certificate = certificate.map_err(AuthoritiesError::NotPem)?;
            roots.add(certificate).map_err(|source| AuthoritiesError::Unusable { number, source })?;
        }
        if roots.is_empty() {
            return Err(AuthoritiesError::Empty);
        }
        let trusted = TlsContext::builder().with_trust_store(TrustStore::default().with_pem_certificate(pem)).build();
        trusted.map(Self).map_err(|error| AuthoritiesError::Refused(error.to_string()))
    }

    /// What sends requests, and believes them.
    pub(super) fn client(&self) -> SharedHttpClient {
        Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).tls_context(self.0.clone()).build_https()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTHORITY: &str = include_str!("tests/tls/authority.pem");

    #[test]
    fn a_file_of_authorities_holds_certificates_and_at_least_one() {
        let says = |pem: &str| Authorities::parse(pem.as_bytes()).err().map(|error| error.to_string());
        assert_eq!(says(&AUTHORITY.repeat(2)), None);
        for (pem, why) in [
            (String::new(), "there is no certificate in it"),
            (include_str!("tests/tls/server-key.pem").to_owned(), "there is no certificate in it"),
            (AUTHORITY.replace("-----END", "-----DNE"), "not PEM: "),
            (
                format!("{AUTHORITY}{}", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
                "certificate 2 ",
            ),
        ] {
            assert!(says(&pem).is_some_and(|says| says.starts_with(why)), "{pem}: {:?}", says(&pem));
        }
    }
}
