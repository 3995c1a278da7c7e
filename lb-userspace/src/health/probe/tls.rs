//! The TLS handshake: does the backend speak TLS, with a certificate that is accepted, and for how long is that valid?

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex},
    time::{Duration, SystemTime},
};

use der::Decode as _;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::WebPkiSupportedAlgorithms,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{CheckCode, Outcome, stream::Stream};
use crate::{
    authorities::roots,
    config::model::{Tls, Verify},
};

/// What is agreed on beside the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Alpn {
    /// Nothing.
    None,
    /// HTTP/2.
    H2,
}

/// Shakes hands over a connection; the verdict comes by `deadline`. A failure is an outcome.
pub(super) async fn handshake(
    (stream, address): (Stream, SocketAddr),
    (tls, alpn): (&Tls, Alpn),
    began: Instant,
    deadline: Instant,
) -> Result<TlsStream<Stream>, Outcome> {
    let outcome = |code, output: &str| Outcome::new(code, output, began.elapsed());
    // The file's owner is to blame, not the backend.
    let config = config(tls, alpn).map_err(|error| outcome(CheckCode::SockErr, &error))?;
    let name = match &tls.sni {
        Some(name) => ServerName::try_from(name.clone())
            .map_err(|error| outcome(CheckCode::SockErr, &format!("sni: {error}")))?,
        // Without a name none is sent: an address is no server name (RFC 6066 3).
        None => ServerName::from(address.ip()),
    };
    let shaking = TlsConnector::from(config).connect(name, stream);
    match timeout_at(deadline, shaking).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(outcome(CheckCode::L6Rsp, &error.to_string())),
        Err(_) => Err(outcome(CheckCode::L6Tout, "connected, but no TLS handshake in time")),
    }
}

/// The finding after a good handshake: version and what is left of the certificate's life.
pub(super) fn describe(connection: &ClientConnection) -> String {
    let version =
        connection.protocol_version().and_then(|version| version.as_str().map(str::to_owned));
    let version = version.map_or_else(|| "TLS".to_owned(), |text| text.replace('_', "."));
    let end = connection.peer_certificates().and_then(|chain| not_after(chain.first()?));
    match end.map(remaining_days) {
        None => version,
        Some(days @ 0..) => format!("{version}, certificate valid for {days} days"),
        Some(days) => format!("{version}, certificate expired {} days ago", -days),
    }
}

/// When a certificate's validity ends, since the Unix epoch.
fn not_after(certificate: &CertificateDer<'_>) -> Option<Duration> {
    let certificate = x509_cert::Certificate::from_der(certificate).ok()?;
    Some(certificate.tbs_certificate.validity.not_after.to_unix_duration())
}

fn remaining_days(end: Duration) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (end.as_secs() as i64 - now.as_secs() as i64).div_euclid(86_400)
}

/// What of a check decides about its configuration, and when the file of authorities was written.
type Key = (Verify, Alpn, Option<(std::path::PathBuf, SystemTime)>);

/// Reading and parsing the authorities is most of the work of a handshake: done once, and again when the file changes.
fn config(tls: &Tls, alpn: Alpn) -> Result<Arc<ClientConfig>, String> {
    static MADE: LazyLock<Mutex<HashMap<Key, Arc<ClientConfig>>>> = LazyLock::new(Mutex::default);
    let file = match &tls.ca_file {
        None => None,
        Some(path) => {
            let written = fs::metadata(path).and_then(|found| found.modified());
            let written =
                written.map_err(|error| format!("ca_file {}: {error}", path.display()))?;
            Some((path.clone(), written))
        }
    };
    let key = (tls.verify, alpn, file);
    let mut made = MADE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(config) = made.get(&key) {
        return Ok(config.clone());
    }
    let mut config = make(tls)?;
    if alpn == Alpn::H2 {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    let config = Arc::new(config);
    // Those of the file before it changed.
    made.retain(|(_, _, other), _| match (other, &key.2) {
        (Some((path, written)), Some((same, now))) => path != same || written == now,
        _ => true,
    });
    made.insert(key, config.clone());
    Ok(config)
}

fn make(tls: &Tls) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = match tls.verify {
        Verify::Required => {
            builder.with_root_certificates(roots(tls.ca_file.as_deref())?).with_no_client_auth()
        }
        Verify::None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(algorithms)))
            .with_no_client_auth(),
    };
    config.enable_sni = tls.sni.is_some();
    // Each probe shows what a new client meets.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Accepts every certificate, as long as the backend has its key.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
