//! Whose certificates are accepted: those of a PEM file, or those of this host's store.

use std::path::Path;

use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

/// The authorities in `file`; without one, those that the host trusts.
pub fn roots(file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let (certificates, place) = match file {
        Some(path) => {
            let fail = |error: rustls_pki_types::pem::Error| {
                format!("ca_file {}: {error}", path.display())
            };
            let read = CertificateDer::pem_file_iter(path).map_err(fail)?;
            (read.collect::<Result<Vec<_>, _>>().map_err(fail)?, path.display().to_string())
        }
        None => (rustls_native_certs::load_native_certs().certs, "this host's store".to_owned()),
    };
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(format!("no certificate of an authority in {place}"));
    }
    Ok(roots)
}
