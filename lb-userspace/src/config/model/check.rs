//! Health checks: what is asked, by which way, and what is a good answer.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// A word of the file: an enum with the derives that all of them have.
macro_rules! word {
    ($(#[$meta:meta])* $name:ident { $(#[$first:meta])* $default:ident, $($(#[$more:meta])* $other:ident,)* }) => {
        $(#[$meta])*
        #[derive(
            Clone,
            Copy,
            Debug,
            Default,
            PartialEq,
            Eq,
            Hash,
            serde::Serialize,
            serde::Deserialize,
            schemars::JsonSchema,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $(#[$first])*
            #[default]
            $default,
            $($(#[$more])* $other,)*
        }
    };
}

/// `check:` with the timing of `backend_defaults`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Check {
    /// What is asked.
    pub kind: CheckKind,
    /// Port to ask; `None` = the backend's own.
    pub port: Option<u16>,
    /// Where from; port 0 = any. `None` = as the routes say.
    pub source: Option<SocketAddr>,
    /// By which way.
    pub via: Via,
}

impl Check {
    /// A check by the usual way.
    pub fn direct(kind: CheckKind, port: Option<u16>) -> Self {
        Self { kind, port, source: None, via: Via::Direct }
    }

    /// Whether a good answer may say what the backend's weight is.
    pub fn asks_weight(&self) -> bool {
        matches!(&self.kind, CheckKind::Http(http) if http.weight_header)
    }
}

/// `agent_check:`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct AgentCheck {
    /// Port that it listens on.
    pub port: u16,
    /// Where it is; `None` = at the backend's address.
    pub address: Option<IpAddr>,
    /// What is said to it, with `{service}` and `{backend}` for their names.
    pub send: Option<String>,
    /// How often it is asked.
    pub inter: Duration,
    /// Time it may take.
    pub timeout: Duration,
}

word! {
    /// `via:`
    Via {
        /// The backend's own address.
        Direct,
        /// The VIP, on that backend.
        Vip,
    }
}

/// `type:` of a check and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum CheckKind {
    /// The connection is accepted, and the answer is as expected.
    Tcp {
        /// What is sent; `None` = nothing.
        send: Option<String>,
        /// All that has to be in the answer; nothing = there need be none.
        expect: Vec<Expect>,
    },
    /// The TLS handshake succeeds.
    Tls(Tls),
    /// The answer has one of the status codes.
    Http(Http),
    /// The gRPC health service says SERVING.
    Grpc {
        /// Whose health; empty = the server's.
        service: String,
        /// Over TLS.
        tls: Option<Tls>,
    },
    /// An echo request is answered.
    Icmp,
    /// The datagram is answered as expected, or at least not refused.
    Udp {
        /// What is sent.
        send: Vec<u8>,
        /// All that has to be in the answer; nothing = there need be none.
        expect: Vec<Expect>,
    },
    /// The DNS query is answered.
    Dns(Dns),
    /// The database lets us in, and is what is required.
    Database(Database),
    /// The program ends with 0.
    Exec {
        /// Its absolute path.
        command: PathBuf,
        /// Its arguments.
        arguments: Vec<String>,
    },
}

/// What has to be in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// This text.
    Text(String),
    /// A match of this regular expression, which is valid.
    Regex(String),
}

/// A question by HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Http {
    /// `GET`, `HEAD`, `OPTIONS`...
    pub method: String,
    /// Path and query, starts with `/`.
    pub path: String,
    /// `Host` header; `None` = the backend's address and port.
    pub host: Option<String>,
    /// Further headers: name, value; both valid.
    pub headers: Vec<(String, String)>,
    /// Its version.
    pub version: HttpVersion,
    /// Inclusive ranges of good codes.
    pub status: Vec<(u16, u16)>,
    /// All that has to be in the answer's body.
    pub expect: Vec<Expect>,
    /// A header of the answer sets the weight.
    pub weight_header: bool,
    /// Over TLS (`type: https`).
    pub tls: Option<Tls>,
}

word! {
    /// `version:`
    HttpVersion {
        /// HTTP/1.1.
        H1,
        /// HTTP/2.
        H2,
    }
}

/// A question by DNS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Dns {
    /// Whom for; a valid name.
    pub name: String,
    /// Type of the record: `A`, `SOA`...
    pub record: String,
    /// Code of a good answer: `noerror`, `nxdomain`...
    pub rcode: String,
    /// What has to be in one of its records.
    pub expect: Option<String>,
    /// By which protocol.
    pub transport: DnsTransport,
}

word! {
    /// `transport:`
    DnsTransport {
        /// Datagrams.
        Udp,
        /// A connection.
        Tcp,
    }
}

/// How a database is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Database {
    /// Its protocol.
    pub engine: Engine,
    /// Who logs in; `None` = `lb`, with Redis nobody by name.
    pub user: Option<String>,
    /// File with the password; `None` = there is none.
    pub password_file: Option<PathBuf>,
    /// Name of the database; `None` = the protocol's usual one.
    pub database: Option<String>,
    /// What it has to be.
    pub require: Require,
}

/// The protocol of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// MySQL, MariaDB.
    Mysql,
    /// PostgreSQL.
    Postgres,
    /// Redis.
    Redis,
}

word! {
    /// `require:`
    Require {
        /// Nothing but that it lets the prober in.
        Any,
        /// It can be written: the primary.
        Writable,
    }
}

/// How a check speaks TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Tls {
    /// The server name that is sent, and that the certificate has to be for.
    pub sni: Option<String>,
    /// Whose certificates are accepted.
    pub verify: Verify,
    /// Certificates of the authorities, PEM; `None` = those of this host.
    pub ca_file: Option<PathBuf>,
}

word! {
    /// `verify:`, by HAProxy's words.
    Verify {
        /// Anybody's.
        None,
        /// Those of an authority, for the server name, and not expired.
        Required,
    }
}
