//! The browsers: requests over TLS to the VIP of the web tier, each over a new connection.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use super::ScaleUp;
use crate::pulse::Pulse;

/// Where browsers go.
pub const TARGET: &str = "10.80.0.10:443";
/// The name in the certificate.
pub const NAME: &str = "demo.lb.test";
const INTERVAL: Duration = Duration::from_millis(50);
/// Enough for one repeated SYN and a retry behind the web server.
const PATIENCE: Duration = Duration::from_secs(4);

/// Starts a request every 50 ms. What counts as the answer is who gave it: `web1 app2 db1`.
pub fn start(lab: &ScaleUp) -> anyhow::Result<Pulse> {
    let connector = connector(lab)?;
    Ok(Pulse::start(&lab.client, INTERVAL, PATIENCE, move |_| page(connector.clone())))
}

/// Trusts the lab's authority alone.
pub fn connector(lab: &ScaleUp) -> anyhow::Result<TlsConnector> {
    let authority = lab.directory().join("tls/ca.crt");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).context("the lab's authority")?)?;
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A new connection, after the TLS handshake.
pub async fn connect(connector: &TlsConnector) -> anyhow::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(TARGET).await.context("connect")?;
    connector.connect(ServerName::try_from(NAME)?, stream).await.context("TLS")
}

/// Fetches the page of the demo.
async fn page(connector: TlsConnector) -> anyhow::Result<String> {
    let mut stream = connect(&connector).await?;
    let question = format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).await.context("send")?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.context("receive")?;
    served_by(&String::from_utf8_lossy(&reply))
}

/// Who has served a page; what is not 200 is an error.
fn served_by(reply: &str) -> anyhow::Result<String> {
    let (head, _) = reply.split_once("\r\n\r\n").context("no complete answer")?;
    let status = head.lines().next().unwrap_or_default();
    let [web, app, db] = ["X-Web-Server", "X-App-Server", "X-Database"]
        .map(|name| header(head, name).unwrap_or("-"));
    if !status.contains(" 200 ") {
        bail!("{status} from {web}, {app}");
    }
    Ok(format!("{web} {app} {db}"))
}

/// A field of an answer's head.
pub fn header<'h>(head: &'h str, wanted: &str) -> Option<&'h str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.find(|(name, _)| *name == wanted).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_who_served() {
        let good = "HTTP/1.1 200 OK\r\nX-Web-Server: web2\r\nX-App-Server: app1\r\nX-Database: db1\r\n\r\n<html>";
        assert_eq!(served_by(good).unwrap(), "web2 app1 db1");
        let bad = "HTTP/1.1 502 Bad Gateway\r\nX-Web-Server: web2\r\n\r\n";
        assert_eq!(
            served_by(bad).unwrap_err().to_string(),
            "HTTP/1.1 502 Bad Gateway from web2, -"
        );
        assert!(served_by("HTTP/1.1 200 OK\r\n").is_err());
    }
}
