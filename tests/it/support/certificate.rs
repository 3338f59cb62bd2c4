//! A certificate for servers of encrypted DNS.

use std::sync::{Arc, LazyLock};

use rustls::{
    pki_types::PrivateKeyDer,
    server::ResolvesServerCert,
    sign::{CertifiedKey, SingleCertAndKey},
};

/// A self-signed certificate for `dns.example` with its key, and as PEM, made once for all tests.
static MADE: LazyLock<(Arc<CertifiedKey>, String)> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["dns.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = rustls::crypto::ring::default_provider();
    let certified = CertifiedKey::from_der(vec![made.cert.der().clone()], key, &provider).unwrap();
    (Arc::new(certified), made.cert.pem())
});

pub fn certificate() -> Arc<dyn ResolvesServerCert> {
    Arc::new(SingleCertAndKey::from(CertifiedKey::clone(&MADE.0)))
}

/// The same, for clients to trust.
pub fn certificate_pem() -> &'static str {
    &MADE.1
}
