//! A CA and certificates for people without cert-manager.

use std::{
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

use rustls::pki_types::{CertificateDer, DnsName, pem::PemObject as _};

use super::{Error, Identity, Material, Part, files::content, valid_until, verify::not_after};
use crate::sys::{UnixMillis, put_file};

/// Certificates begin this long before now: clocks of nodes disagree.
const BACKDATE: Duration = Duration::from_secs(3_600);

#[derive(Debug)]
pub struct Issued {
    /// The CA's directory; its key belongs in a safe, not in the cluster.
    pub ca: PathBuf,
    /// Whether the CA was there before.
    pub ca_was_there: bool,
    /// The directory for `holdfast hub --tls`.
    pub hub: PathBuf,
    /// The directory for `holdfast agent --tls`.
    pub agent: PathBuf,
}

/// Writes `ca/`, `hub/` and `agent/` into `out`; the last two can be given to `--tls` or put into Secrets as they are.
///
/// A CA that is there already signs; hub and agent certificates are replaced, valid for `days` from `now`.
///
/// # Errors
/// If a file cannot be read or written, or the trust domain cannot stand in a URI.
pub fn issue(out: &Path, trust_domain: &str, days: u32, now: UnixMillis) -> Result<Issued, Error> {
    check_trust_domain(trust_domain)?;
    let at = out.join("ca");
    let ca = authority(&at, trust_domain, now)?;
    let issued = Issued { ca: at, ca_was_there: ca.was_there, hub: out.join("hub"), agent: out.join("agent") };
    for (part, dir) in [(Part::Hub, &issued.hub), (Part::Agent, &issued.agent)] {
        let identity = Identity { trust_domain: trust_domain.to_owned(), part, node: None };
        let names = vec![SanType::URI(identity.to_string().try_into()?)];
        let usages = match part {
            // A hub follows others, too.
            Part::Hub => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Part::Agent => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        let mut params = params(&format!("holdfast {}", part.as_str()), days, now);
        (params.subject_alt_names, params.extended_key_usages) = (names, usages);
        put_pair(dir, &ca, params)?;
    }
    Ok(issued)
}

/// Writes `ca/` and `dns/` into `out`: a certificate by which clients of encrypted DNS know a server, for `names` (DNS names and
/// addresses). The certificates of hubs and agents stay as they are. Says whether the CA was there before.
///
/// # Errors
/// As [`issue`], and if a name is none.
pub fn issue_server(
    out: &Path,
    trust_domain: &str,
    names: &[String],
    days: u32,
    now: UnixMillis,
) -> Result<bool, Error> {
    let names: Vec<SanType> = names.iter().map(|name| subject(name)).collect::<Result<_, _>>()?;
    check_trust_domain(trust_domain)?;
    let ca = authority(&out.join("ca"), trust_domain, now)?;
    let mut params = params("holdfast DNS", days, now);
    params.subject_alt_names = names;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    put_pair(&out.join("dns"), &ca, params)?;
    Ok(ca.was_there)
}

/// A name in a certificate: an address, or a DNS name that may begin with `*.`.
fn subject(name: &str) -> Result<SanType, Error> {
    if let Ok(address) = name.parse() {
        return Ok(SanType::IpAddress(address));
    }
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let host = name.strip_prefix("*.").unwrap_or(&name);
    DnsName::try_from(host).map_err(|_| Error::ServerName(name.clone()))?;
    Ok(SanType::DnsName(name.try_into()?))
}

fn check_trust_domain(trust_domain: &str) -> Result<(), Error> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    if trust_domain.is_empty() || trust_domain.len() > 255 || !trust_domain.bytes().all(allowed) {
        return Err(Error::TrustDomain(trust_domain.to_owned()));
    }
    Ok(())
}

/// Signs a certificate with a new key and writes both into `dir`.
fn put_pair(dir: &Path, ca: &Authority, mut params: CertificateParams) -> Result<(), Error> {
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &ca.issuer)?;
    directory(dir)?;
    write(&dir.join("ca.crt"), &ca.pem, 0o644)?;
    write(&dir.join("tls.crt"), &certificate.pem(), 0o644)?;
    write(&dir.join("tls.key"), &key.serialize_pem(), 0o600)
}

/// The identity and the end of the hub's or the agent's certificate in `out`, if there is one.
pub fn issued_in(out: &Path) -> Option<String> {
    Part::ALL.into_iter().map(|part| out.join(part.as_str())).find_map(|dir| {
        dir.join("tls.crt").exists().then(|| described(&dir).unwrap_or_else(|| "which cannot be read".into()))
    })
}

/// The identity and the end of the certificate in `dir`, in words.
pub fn described(dir: &Path) -> Option<String> {
    let Material { chain, identity, .. } = Material::read(dir).ok()?;
    Some(format!("{identity}{}", valid_until(not_after(chain.first()?))))
}

pub(super) struct Authority {
    pub issuer: rcgen::Issuer<'static, KeyPair>,
    pub pem: String,
    was_there: bool,
}

/// The CA in `dir`, which has to be there.
pub(super) fn existing_authority(dir: &Path) -> Result<Authority, Error> {
    let (certificate, key) = (dir.join("ca.crt"), dir.join("ca.key"));
    let read = |path: &PathBuf| fs::read_to_string(path).map_err(|error| Error::Read { path: path.clone(), error });
    let pem = read(&certificate)?;
    let pair = KeyPair::from_pem(&read(&key)?).map_err(|error| content(&key, &error))?;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| content(&certificate, &error))?;
    let public = pair.public_key_raw();
    // Peers refuse a signature by another key.
    if !der.windows(public.len()).any(|part| part == public) {
        return Err(content(&key, &"is not the key of ca.crt beside it"));
    }
    let issuer = rcgen::Issuer::from_ca_cert_der(&der, pair).map_err(|error| content(&certificate, &error))?;
    Ok(Authority { issuer, pem, was_there: true })
}

fn authority(dir: &Path, trust_domain: &str, now: UnixMillis) -> Result<Authority, Error> {
    let (certificate, key) = (dir.join("ca.crt"), dir.join("ca.key"));
    if certificate.exists() || key.exists() {
        return existing_authority(dir);
    }
    let mut params = params(&format!("holdfast CA of {trust_domain}"), 10 * 365, now);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let made = CertifiedIssuer::self_signed(params.clone(), KeyPair::generate()?)?;
    directory(dir)?;
    let pem = made.pem();
    write(&certificate, &pem, 0o644)?;
    write(&key, &made.key().serialize_pem(), 0o600)?;
    let issuer = rcgen::Issuer::from_ca_cert_pem(&pem, KeyPair::from_pem(&made.key().serialize_pem())?)?;
    Ok(Authority { issuer, pem, was_there: false })
}

fn params(name: &str, days: u32, now: UnixMillis) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = time::OffsetDateTime::UNIX_EPOCH + Duration::from_millis(now.0);
    params.not_before = now - BACKDATE;
    params.not_after = now + Duration::from_secs(86_400 * u64::from(days));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn directory(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Error::Write { path: path.to_owned(), error })
}

pub(super) fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    put_file(path, text.as_bytes(), mode).map_err(|error| Error::Write { path: path.to_owned(), error })
}
