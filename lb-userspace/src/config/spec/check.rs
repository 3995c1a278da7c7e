//! `check:`, by its `type`. (serde cannot deny unknown keys beside flattened ones; `shape` does.)

use std::{net::IpAddr, num::NonZeroU16, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{
    model::{DnsTransport, HttpVersion, Require, Verify, Via},
    value::{
        DnsName, Endpoint, FilePath, HexBytes, HttpHeader, HttpHost, HttpMethod, HttpPath, Pattern,
        Period, Phrase, RecordType, ResponseCode, StatusCodes, UserName,
    },
};

/// `check:`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Check {
    /// Good = the backend accepts a TCP connection.
    Tcp(TcpCheck),
    /// Good = the TLS handshake succeeds. The last check's output tells how long the certificate is valid.
    Tls(TlsCheck),
    /// Good = the backend answers an HTTP request with one of the codes.
    Http(HttpCheck),
    /// As `http`, over TLS.
    Https(HttpsCheck),
    /// Good = the gRPC health service (grpc.health.v1) says SERVING.
    Grpc(GrpcCheck),
    /// Good = the backend answers an echo request (ping).
    Icmp(IcmpCheck),
    /// Good = the datagram's answer is as expected; or, where none is, that no ICMP port unreachable comes before the time is
    /// over, so that each check takes the whole `timeout`.
    Udp(UdpCheck),
    /// Good = a DNS server answers a query with the code, and with the record if one is expected.
    Dns(DnsCheck),
    /// Good = MySQL or MariaDB lets a user in, and is what is required.
    Mysql(MysqlCheck),
    /// Good = PostgreSQL lets a user in, and is what is required.
    Postgres(PostgresCheck),
    /// Good = Redis answers, and is what is required.
    Redis(RedisCheck),
    /// Good = a program of yours ends with code 0 in time.
    Exec(ExecCheck),
}

/// `agent_check:`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentCheck {
    /// Port that the agents listen on.
    #[schemars(example = 8_888)]
    pub port: NonZeroU16,
    /// Where one agent for all backends is. Without it: each backend's own address.
    #[schemars(example = "10.0.0.9")]
    pub address: Option<IpAddr>,
    /// What is said to the agent once connected; `{service}` and `{backend}` stand for their names. Without it: nothing.
    #[schemars(example = &"{backend}\n")]
    pub send: Option<Phrase>,
    /// Time between questions, 100ms to 1h.
    #[serde(default = "agent_inter")]
    pub inter: Period,
    /// Time that the agent may take, 10ms to 1h.
    #[serde(default = "agent_timeout")]
    pub timeout: Period,
}

fn agent_inter() -> Period {
    Period(Duration::from_secs(2))
}

fn agent_timeout() -> Period {
    Period(Duration::from_secs(1))
}

/// How a check gets to the backend.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
pub struct Road {
    /// Port to ask. Without it: the backend's own.
    #[schemars(example = 8_080)]
    pub port: Option<NonZeroU16>,
    /// Address of this host from which lb asks, with a port if the backend wants a certain one. Without it: as the routes say.
    #[schemars(example = &"10.0.0.5")]
    pub source: Option<Endpoint>,
    /// `direct` = the backend's own address is asked; `vip` = the service's VIP on that backend, by the same encapsulation or MAC
    /// address as clients' packets (dsr and tunnel), so that a VIP or tunnel device that is missing there is noticed.
    #[serde(default)]
    pub via: Via,
}

/// How a check speaks TLS.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct Secured {
    /// Server name that is sent, and that the certificate has to be for.
    #[schemars(example = &"example.org")]
    pub sni: Option<HttpHost>,
    /// `none` = any certificate is accepted; `required` = it has to be an authority's, for `sni`, and not expired.
    #[serde(default)]
    pub verify: Verify,
    /// File with the certificates of the authorities, PEM. Without it: those of this host.
    #[schemars(example = &"/etc/lb/ca.pem")]
    pub ca_file: Option<FilePath>,
}

/// What an answer has to look like.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct Wanted {
    /// What has to be somewhere in the first 64 KiB of the answer (of HTTP: of its body).
    #[schemars(example = &"ready")]
    pub expect: Option<Phrase>,
    /// The same as a regular expression (of Rust's regex crate: no look-around, no back references). With `expect`, too, both have to
    /// be there.
    #[schemars(example = &"(?i)status: *(ok|ready)")]
    pub expect_regex: Option<Pattern>,
}

/// Who logs in to a database.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct Login {
    /// User who logs in. Without it: `lb`; with Redis the default user.
    #[schemars(example = &"lb")]
    pub user: Option<UserName>,
    /// File with the password, which nobody else may read (mode 0600); read anew for each check. Without it: none.
    #[schemars(example = &"/etc/lb/check.password")]
    pub password_file: Option<FilePath>,
    /// `any` = nothing more; `writable` = it can be written: `@@read_only` is 0, no recovery is going on, Redis' role is master.
    #[serde(default)]
    pub require: Require,
}

/// `type: tcp`
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct TcpCheck {
    #[serde(flatten)]
    pub road: Road,
    /// What is sent once connected: text, with `\r\n` and the like in double quotes.
    #[schemars(example = &"PING\r\n")]
    pub send: Option<Phrase>,
    #[serde(flatten)]
    pub wanted: Wanted,
}

/// `type: tls`
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct TlsCheck {
    #[serde(flatten)]
    pub road: Road,
    #[serde(flatten)]
    pub secured: Secured,
}

/// What is asked by HTTP.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Request {
    /// Method of the request.
    #[serde(default = "method_default")]
    pub method: HttpMethod,
    /// Path and query of the request.
    #[serde(default = "path_default")]
    pub path: HttpPath,
    /// `Host` header of the request. Without it: `sni` (https), or the backend's address and port.
    #[schemars(example = &"example.org")]
    pub host: Option<HttpHost>,
    /// Further headers of the request.
    #[serde(default)]
    #[schemars(example = ["X-Checked-By: lb"], length(max = 32))]
    pub headers: Vec<HttpHeader>,
    /// `h1` = HTTP/1.1; `h2` = HTTP/2, with prior knowledge (http) or by ALPN (https).
    #[serde(default)]
    pub version: HttpVersion,
    /// Codes that are good: a code, a range, or several with commas between.
    #[serde(default = "status_default")]
    pub status: StatusCodes,
    /// Let the backend set its weight: a good answer's header `X-Load-Balancing-Endpoint-Weight: 0..100` is the share of the
    /// weight in percent that is in force from then on; without the header it is all of it.
    #[serde(default)]
    pub weight_header: bool,
}

/// `type: http`
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct HttpCheck {
    #[serde(flatten)]
    pub road: Road,
    #[serde(flatten)]
    pub request: Request,
    #[serde(flatten)]
    pub wanted: Wanted,
}

/// `type: https`
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct HttpsCheck {
    #[serde(flatten)]
    pub road: Road,
    #[serde(flatten)]
    pub request: Request,
    #[serde(flatten)]
    pub wanted: Wanted,
    #[serde(flatten)]
    pub secured: Secured,
}

/// `type: grpc`
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct GrpcCheck {
    #[serde(flatten)]
    pub road: Road,
    /// Name of the gRPC service whose health is asked for. Without it: the whole server's.
    #[schemars(example = &"shop.v1.Cart")]
    pub grpc_service: Option<UserName>,
    /// Whether to speak TLS; `sni`, `verify` and `ca_file` need it.
    #[serde(default)]
    pub tls: bool,
    #[serde(flatten)]
    pub secured: Secured,
}

/// `type: icmp`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IcmpCheck {
    /// Address of this host from which lb asks. Without it: as the routes say.
    #[schemars(example = &"10.0.0.5")]
    pub source: Option<Endpoint>,
}

/// `type: udp`
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct UdpCheck {
    #[serde(flatten)]
    pub road: Road,
    /// What is sent: text, with `\r\n` and the like in double quotes. Without it and `send_hex`: an empty datagram.
    #[schemars(example = &"PING\r\n")]
    pub send: Option<Phrase>,
    /// What is sent, as bytes: pairs of hexadecimal digits.
    #[schemars(example = &"ffffffff676574737461747573")]
    pub send_hex: Option<HexBytes>,
    #[serde(flatten)]
    pub wanted: Wanted,
}

/// `type: dns`
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct DnsCheck {
    #[serde(flatten)]
    pub road: Road,
    /// Name that is asked for; `.` = the root.
    #[schemars(example = &"example.org")]
    pub query: DnsName,
    /// Type of the record that is asked for.
    #[serde(default = "record_default")]
    #[schemars(example = &"A")]
    pub record: RecordType,
    /// Code that the answer has to have: noerror, nxdomain, refused...
    #[serde(default = "rcode_default")]
    pub rcode: ResponseCode,
    /// What has to be in one of the answer's records as a zone file has it.
    #[schemars(example = &"192.0.2.10")]
    pub expect: Option<Phrase>,
    /// `udp`, or `tcp` for answers that do not fit into a datagram.
    #[serde(default)]
    pub transport: DnsTransport,
}

/// `type: mysql`
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct MysqlCheck {
    #[serde(flatten)]
    pub road: Road,
    #[serde(flatten)]
    pub login: Login,
    /// Database to use. Without it: none with MySQL, `postgres` with PostgreSQL.
    #[schemars(example = &"lb")]
    pub database: Option<UserName>,
}

/// `type: postgres`
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct PostgresCheck {
    #[serde(flatten)]
    pub road: Road,
    #[serde(flatten)]
    pub login: Login,
    /// Database to use. Without it: none with MySQL, `postgres` with PostgreSQL.
    #[schemars(example = &"lb")]
    pub database: Option<UserName>,
}

/// `type: redis`
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct RedisCheck {
    #[serde(flatten)]
    pub road: Road,
    #[serde(flatten)]
    pub login: Login,
}

/// `type: exec`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecCheck {
    /// Port that the program is told. Without it: the backend's own.
    #[schemars(example = 8_080)]
    pub port: Option<NonZeroU16>,
    /// Absolute path of the program. It runs as lb's own user, so nobody else may be able to write it; without a shell; with
    /// LB_SERVICE, LB_BACKEND, LB_VIP, LB_VIP_PORT, LB_BACKEND_ADDRESS, LB_BACKEND_PORT, and PATH in its environment. When the time
    /// is over, it is killed with all that it has started. The first line that it prints is the check's output.
    #[schemars(example = &"/usr/local/lib/lb/check-shop")]
    pub command: FilePath,
    /// Its arguments.
    #[serde(default)]
    #[schemars(example = ["--deep"], length(max = 64))]
    pub arguments: Vec<Phrase>,
}

fn method_default() -> HttpMethod {
    HttpMethod("GET".into())
}

fn path_default() -> HttpPath {
    HttpPath("/".into())
}

fn status_default() -> StatusCodes {
    StatusCodes(vec![(200, 299)])
}

fn record_default() -> RecordType {
    RecordType("SOA".into())
}

fn rcode_default() -> ResponseCode {
    ResponseCode("noerror".into())
}
