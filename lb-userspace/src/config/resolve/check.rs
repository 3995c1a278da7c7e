//! `check:` as written -> the model.

use std::{net::SocketAddr, num::NonZeroU16};

use crate::config::{
    model::{AgentCheck, Check, CheckKind, Database, Dns, Engine, Expect, Http, Tls},
    spec,
    value::{Endpoint, Phrase},
};

/// The model of a check.
pub fn check(check: &spec::Check) -> Check {
    use spec::Check::*;
    match check {
        Tcp(check) => {
            let expect = expect(&check.wanted);
            by(&check.road, CheckKind::Tcp { send: phrase(&check.send), expect })
        }
        Tls(check) => by(&check.road, CheckKind::Tls(tls(&check.secured))),
        Http(check) => by(&check.road, http(&check.request, &check.wanted, None)),
        Https(check) => by(&check.road, http(&check.request, &check.wanted, Some(&check.secured))),
        Grpc(check) => {
            let service =
                check.grpc_service.as_ref().map(|name| name.0.clone()).unwrap_or_default();
            let tls = check.tls.then(|| tls(&check.secured));
            by(&check.road, CheckKind::Grpc { service, tls })
        }
        Icmp(check) => {
            Check { source: check.source.map(source), ..Check::direct(CheckKind::Icmp, None) }
        }
        Udp(check) => {
            let text = check.send.as_ref().map(|text| text.0.clone().into_bytes());
            let bytes = check.send_hex.as_ref().map(|bytes| bytes.0.clone());
            let send = text.or(bytes).unwrap_or_default();
            by(&check.road, CheckKind::Udp { send, expect: expect(&check.wanted) })
        }
        Dns(check) => {
            let dns = self::Dns {
                name: check.query.0.clone(),
                record: check.record.0.clone(),
                rcode: check.rcode.0.clone(),
                expect: phrase(&check.expect),
                transport: check.transport,
            };
            by(&check.road, CheckKind::Dns(dns))
        }
        Mysql(check) => {
            let name = check.database.as_ref().map(|name| name.0.clone());
            by(&check.road, database(Engine::Mysql, &check.login, name))
        }
        Postgres(check) => {
            let name = check.database.as_ref().map(|name| name.0.clone());
            by(&check.road, database(Engine::Postgres, &check.login, name))
        }
        Redis(check) => by(&check.road, database(Engine::Redis, &check.login, None)),
        Exec(check) => {
            let arguments = check.arguments.iter().map(|text| text.0.clone()).collect();
            let command = check.command.0.clone().into();
            let port = check.port.map(NonZeroU16::get);
            Check::direct(CheckKind::Exec { command, arguments }, port)
        }
    }
}

/// The model of agents.
pub fn agent(agent: &spec::AgentCheck) -> AgentCheck {
    AgentCheck {
        port: agent.port.get(),
        address: agent.address,
        send: phrase(&agent.send),
        inter: agent.inter.0,
        timeout: agent.timeout.0,
    }
}

fn by(road: &spec::Road, kind: CheckKind) -> Check {
    Check {
        kind,
        port: road.port.map(NonZeroU16::get),
        source: road.source.map(source),
        via: road.via,
    }
}

fn source(source: Endpoint) -> SocketAddr {
    SocketAddr::new(source.address, source.port.unwrap_or_default())
}

fn http(
    request: &spec::Request,
    wanted: &spec::Wanted,
    secured: Option<&spec::Secured>,
) -> CheckKind {
    let sni = secured.and_then(|secured| secured.sni.as_ref());
    CheckKind::Http(Http {
        method: request.method.0.clone(),
        path: request.path.0.clone(),
        host: request.host.as_ref().or(sni).map(|host| host.0.clone()),
        headers: request.headers.iter().map(|header| header.0.clone()).collect(),
        version: request.version,
        status: request.status.0.clone(),
        expect: expect(wanted),
        weight_header: request.weight_header,
        tls: secured.map(tls),
    })
}

fn database(engine: Engine, login: &spec::Login, database: Option<String>) -> CheckKind {
    CheckKind::Database(Database {
        engine,
        user: login.user.as_ref().map(|user| user.0.clone()),
        password_file: login.password_file.as_ref().map(|file| file.0.clone().into()),
        database,
        require: login.require,
    })
}

fn phrase(phrase: &Option<Phrase>) -> Option<String> {
    phrase.as_ref().map(|phrase| phrase.0.clone())
}

fn expect(wanted: &spec::Wanted) -> Vec<Expect> {
    let regex = wanted.expect_regex.as_ref().map(|regex| Expect::Regex(regex.0.clone()));
    phrase(&wanted.expect).map(Expect::Text).into_iter().chain(regex).collect()
}

fn tls(secured: &spec::Secured) -> Tls {
    Tls {
        sni: secured.sni.as_ref().map(|name| name.0.clone()),
        verify: secured.verify,
        ca_file: secured.ca_file.as_ref().map(|file| file.0.clone().into()),
    }
}
