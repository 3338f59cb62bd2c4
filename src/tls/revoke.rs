//! The revocation list of a CA made by `holdfast certs`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject as _};
use time::OffsetDateTime;
use x509_parser::{parse_x509_certificate, parse_x509_crl};

use super::{
    Error, Part,
    files::{Revoked, content, read},
    issue::{existing_authority, write},
};
use crate::sys::UnixMillis;

/// A list has to name a day for the next one; holdfast goes by a list that is overdue.
const NEXT_UPDATE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A revocation list that was written.
#[derive(Debug)]
pub struct Revocations {
    /// The files: the CA's, and copies for hubs and agents.
    pub files: Vec<PathBuf>,
    /// Number of certificates that the list revokes.
    pub revoked: usize,
}

/// Adds the certificate in the file `certificate` to the revocation list of the CA in `out/ca`, and copies the list to `out/hub` and
/// `out/agent`.
///
/// # Errors
/// If a file cannot be read or written, or the certificate is of another CA.
pub fn revoke(out: &Path, certificate: &Path, now: UnixMillis) -> Result<Revocations, Error> {
    let ca = out.join("ca");
    let authority = existing_authority(&ca)?;
    let issuer = CertificateDer::from_pem_slice(authority.pem.as_bytes()).map_err(|error| content(&ca, &error))?;
    let (_, issuer) = parse_x509_certificate(&issuer).map_err(|error| content(&ca, &error))?;
    let file = certificate.to_owned();
    let der = CertificateDer::from_pem_slice(&read(&file)?).map_err(|error| content(&file, &error))?;
    let (_, parsed) = parse_x509_certificate(&der).map_err(|error| content(&file, &error))?;
    if parsed.issuer().as_raw() != issuer.subject().as_raw() {
        return Err(content(&file, &format!("is not signed by the CA in {}", ca.display())));
    }
    let list = Revoked::path(&ca);
    let mut revoked = if list.exists() { entries(&list)? } else { Vec::new() };
    let this_update = OffsetDateTime::UNIX_EPOCH + Duration::from_millis(now.0);
    let serial_number = SerialNumber::from_slice(parsed.raw_serial());
    if revoked.iter().all(|entry| entry.serial_number != serial_number) {
        revoked.push(entry(serial_number, this_update));
    }
    let params = CertificateRevocationListParams {
        this_update,
        next_update: this_update + NEXT_UPDATE,
        crl_number: SerialNumber::from(now.0),
        issuing_distribution_point: None,
        revoked_certs: revoked,
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let text = params.signed_by(&authority.issuer)?.pem()?;
    let copies = Part::ALL.map(|part| out.join(part.as_str()));
    let copies = copies.into_iter().filter(|dir| dir.is_dir()).map(|dir| Revoked::path(&dir));
    let files: Vec<PathBuf> = [list].into_iter().chain(copies).collect();
    files.iter().try_for_each(|file| write(file, &text, 0o644))?;
    Ok(Revocations { files, revoked: params.revoked_certs.len() })
}

fn entry(serial_number: SerialNumber, revocation_time: OffsetDateTime) -> RevokedCertParams {
    RevokedCertParams { serial_number, revocation_time, reason_code: None, invalidity_date: None }
}

/// The certificates that a list revokes already.
fn entries(list: &Path) -> Result<Vec<RevokedCertParams>, Error> {
    let pem = fs::read(list).map_err(|error| Error::Read { path: list.to_owned(), error })?;
    let der = CertificateRevocationListDer::from_pem_slice(&pem).map_err(|error| content(list, &error))?;
    let (_, parsed) = parse_x509_crl(&der).map_err(|error| content(list, &error))?;
    let entries = parsed.iter_revoked_certificates();
    Ok(entries
        .map(|one| entry(SerialNumber::from_slice(one.raw_serial()), one.revocation_date.to_datetime()))
        .collect())
}
