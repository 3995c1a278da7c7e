//! The browsers: requests over TLS to the VIP of the web tier, each over a new connection.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
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
    Ok(Pulse::start(&lab.client, INTERVAL, PATIENCE, move |number| {
        let connector = connector.clone();
        async move { Ok(page(connector, browser(number), None).await?.to_string()) }
    }))
}

/// Trusts the lab's authority alone.
pub fn connector(lab: &ScaleUp) -> anyhow::Result<TlsConnector> {
    let authority = lab.directory().join("tls/ca.crt");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).context("the lab's authority")?)?;
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The address of a browser; each request of the load comes from a new one.
fn browser(number: usize) -> Ipv4Addr {
    let [high, low] = ((number % 0x8000) as u16).to_be_bytes();
    Ipv4Addr::new(10, 81, high, low)
}

/// The address of a browser that comes again and again.
pub fn regular(number: usize) -> Ipv4Addr {
    browser(0x7fff - number)
}

/// A new connection from this address, after the TLS handshake.
pub async fn connect(
    connector: &TlsConnector,
    from: Ipv4Addr,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into()).context("bind")?;
    let stream = socket.connect(TARGET.parse()?).await.context("connect")?;
    connector.connect(ServerName::try_from(NAME)?, stream).await.context("TLS")
}

/// Who has served a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The web server.
    pub web: String,
    /// The application server.
    pub app: String,
    /// The database.
    pub db: String,
    /// The session that began with it, as the browser sends it back: `session=..`.
    pub cookie: Option<String>,
}

impl std::fmt::Display for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.web, self.app, self.db)
    }
}

/// Fetches the page of the demo.
pub async fn page(
    connector: TlsConnector,
    from: Ipv4Addr,
    cookie: Option<&str>,
) -> anyhow::Result<Page> {
    let mut stream = connect(&connector, from).await?;
    let cookie = cookie.map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
    let question = format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n{cookie}Connection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).await.context("send")?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.context("receive")?;
    served_by(&String::from_utf8_lossy(&reply))
}

/// Who has served a page; what is not 200 is an error.
fn served_by(reply: &str) -> anyhow::Result<Page> {
    let (head, _) = reply.split_once("\r\n\r\n").context("no complete answer")?;
    let status = head.lines().next().unwrap_or_default();
    let [web, app, db] = ["X-Web-Server", "X-App-Server", "X-Database"]
        .map(|name| header(head, name).unwrap_or("-").to_owned());
    if !status.contains(" 200 ") {
        bail!("{status} from {web}, {app}");
    }
    let cookie = header(head, "Set-Cookie").and_then(|text| text.split(';').next());
    Ok(Page { web, app, db, cookie: cookie.map(str::to_owned) })
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
        let good = "HTTP/1.1 200 OK\r\nX-Web-Server: web2\r\nX-App-Server: app1\r\nX-Database: db1\r\nSet-Cookie: session=x; Path=/\r\n\r\n<html>";
        let page = served_by(good).unwrap();
        assert_eq!(
            (page.to_string().as_str(), page.cookie.as_deref()),
            ("web2 app1 db1", Some("session=x"))
        );
        let bad = "HTTP/1.1 502 Bad Gateway\r\nX-Web-Server: web2\r\n\r\n";
        assert_eq!(
            served_by(bad).unwrap_err().to_string(),
            "HTTP/1.1 502 Bad Gateway from web2, -"
        );
        assert!(served_by("HTTP/1.1 200 OK\r\n").is_err());
    }
}
