//! A certificate for servers of encrypted DNS.

use std::sync::{Arc, LazyLock};

use rustls::{
    pki_types::PrivateKeyDer,
    server::ResolvesServerCert,
    sign::{CertifiedKey, SingleCertAndKey},
};

/// A self-signed certificate for `dns.example`, made once for all tests.
pub fn certificate() -> Arc<dyn ResolvesServerCert> {
    static MADE: LazyLock<Arc<CertifiedKey>> = LazyLock::new(|| {
        let made = rcgen::generate_simple_self_signed(["dns.example".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = rustls::crypto::ring::default_provider();
        Arc::new(CertifiedKey::from_der(vec![made.cert.der().clone()], key, &provider).unwrap())
    });
    Arc::new(SingleCertAndKey::from(CertifiedKey::clone(&MADE)))
}
