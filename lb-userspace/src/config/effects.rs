//! A key that parses has an effect: one row for each key, proved by the model that comes out.

use std::collections::BTreeSet;

use serde_yaml::Value;

use super::{
    model::{Config, Source},
    parse, shape,
};

/// What proves the effect of a key.
enum Effect {
    /// These two values give different models.
    Differs(&'static str, &'static str),
    /// With this value it is valid, without the key it is not.
    Needed(&'static str),
}
use Effect::{Differs, Needed};

/// The file that rows start from.
const BASE: &str = "
dashboard: {listen: 127.0.0.1:8404}
services:
  - name: web
    listen: {address: 192.0.2.10, port: 80}
    forward: nat
    check: {type: http}
    backends:
      - {name: web1, address: 10.0.0.11}
      - {name: web2, address: 10.0.0.12}
";

/// Key, what else has to be set for it, effect.
type Row = (&'static str, &'static [(&'static str, &'static str)], Effect);

const NICS: &[(&str, &str)] = &[("interfaces", "[eth0, eth1]")];
const TCP_CHECK: &[(&str, &str)] = &[("services[].check.type", "tcp")];
const TLS_CHECK: &[(&str, &str)] = &[("services[].check.type", "tls")];
const TOKEN: &[(&str, &str)] = &[("dashboard.token_file", "/etc/a")];
const CLUSTER: &[(&str, &str)] =
    &[("cluster", "{listen: 10.0.9.1:7946, peers: [10.0.9.2], secret_file: /etc/a}")];
const UDP_CHECK: &[(&str, &str)] = &[("services[].check.type", "udp")];
const GRPC_CHECK: &[(&str, &str)] = &[("services[].check.type", "grpc")];
const DNS_CHECK: &[(&str, &str)] =
    &[("services[].check.type", "dns"), ("services[].check.query", "a")];
const EXEC_CHECK: &[(&str, &str)] =
    &[("services[].check.type", "exec"), ("services[].check.command", "/a")];
const AGENT: &[(&str, &str)] = &[("services[].agent_check.port", "8888")];
const DSR: &[(&str, &str)] = &[("services[].forward", "dsr")];
const DATABASE_CHECK: &[(&str, &str)] = &[("services[].check.type", "mysql")];
const QUORUM: &[(&str, &str)] = &[("services[].quorum", "3")];
const THREE: &[(&str, &str)] = &[(
    "services[].backends",
    "[{name: web1, address: 10.0.0.11}, {name: web2, address: 10.0.0.12}, {name: web3, address: 10.0.0.13}]",
)];
const NOWHERE: &[(&str, &str)] = &[("services[].backends", "[{name: web1}]")];
const OBSERVE: &[(&str, &str)] = &[("services[].observe.mode", "layer4")];
const RATE: &[(&str, &str)] = &[("services[].rate_limit.connections", "50/s")];
const SOURCE_RATE: &[(&str, &str)] = &[("services[].rate_limit.connections_per_source", "50/s")];
const ENGAGE: &[(&str, &str)] = &[("services[].syn_flood.engage", "50/s")];
const RELEASE: &[(&str, &str)] = &[("services[].syn_flood.release", "5/s")];
const QUIC: &[(&str, &str)] =
    &[("services[].listen.protocol", "quic"), ("services[].check", "{type: icmp}")];
const QUIC_LB: &[(&str, &str)] = &[
    ("services[].listen.protocol", "quic"),
    ("services[].check", "{type: icmp}"),
    ("services[].quic_lb.server_id_length", "2"),
];
const LIMIT: &[(&str, &str)] = &[("services[].observe.error_limit", "5")];
const PERSISTENCE: &[(&str, &str)] = &[("services[].persistence.by", "source")];
const TIMEOUT: &[(&str, &str)] = &[("services[].persistence.timeout", "6m")];
const POOL: &[(&str, &str)] = &[("source_pool.addresses", "[10.0.0.100]")];
const BY_SOURCE: &[(&str, &str)] =
    &[("services[].balance", "source"), ("services[].fragments", "all")];
const FULLNAT: &[(&str, &str)] =
    &[("source_pool.addresses", "[10.0.0.100]"), ("services[].forward", "fullnat")];
const TUNNEL: &[(&str, &str)] = &[("services[].forward", "tunnel")];
const GUE: &[(&str, &str)] = &[("services[].forward", "tunnel"), ("services[].encap", "gue")];

const ROWS: &[Row] = &[
    ("interfaces", &[], Differs("[eth0]", "[eth0, eth1]")),
    ("xdp_mode", &[], Differs("generic", "auto")),
    ("vlan", &[], Differs("true", "false")),
    ("socket_group", &[], Differs("lb", "adm")),
    ("socket_level", &[], Differs("admin", "user")),
    ("metrics", &[], Differs("127.0.0.1:9180", "127.0.0.1:9181")),
    ("dashboard", &[], Differs("127.0.0.1:8405", "{listen: 127.0.0.1:8406}")),
    ("dashboard.listen", &[], Differs("127.0.0.1:8404", "\"[::1]:8404\"")),
    ("dashboard.token_file", &[], Differs("/etc/a", "/etc/b")),
    ("dashboard.write", TOKEN, Differs("true", "false")),
    ("dashboard.hosts", &[], Differs("[lb1]", "[lb2]")),
    (
        "cluster",
        &[],
        Differs(
            "{listen: 10.0.9.1:7946, peers: [10.0.9.2], secret_file: /etc/a}",
            "{listen: 10.0.9.1:7947, peers: [10.0.9.2], secret_file: /etc/a}",
        ),
    ),
    ("cluster.listen", CLUSTER, Differs("10.0.9.1:7946", "10.0.9.3:7946")),
    ("cluster.peers", CLUSTER, Differs("[10.0.9.2]", "[10.0.9.2, 10.0.9.3]")),
    ("cluster.secret_file", CLUSTER, Differs("/etc/a", "/etc/b")),
    (
        "source_pool",
        &[],
        Differs("{addresses: [10.0.0.100]}", "{addresses: [10.0.0.100], ports: 2000-3000}"),
    ),
    ("source_pool.addresses", &[], Differs("[10.0.0.100]", "[10.0.0.101]")),
    ("source_pool.ports", POOL, Differs("2000-3000", "2000-3001")),
    ("outer_source", &[], Differs("[10.0.8.0/24]", "[10.0.8.0/25]")),
    ("limits", &[], Differs("{}", "{services: 5}")),
    ("limits.source_addresses", &[], Differs("5", "6")),
    ("limits.services", &[], Differs("5", "6")),
    ("limits.backends", &[], Differs("5", "6")),
    ("limits.ring_slots", &[], Differs("500000", "600000")),
    ("limits.pins", &[], Differs("5000", "6000")),
    ("limits.pins_unconfirmed", &[], Differs("5000", "6000")),
    ("limits.connections", &[], Differs("5000", "6000")),
    ("limits.flows", &[], Differs("5000", "6000")),
    ("limits.flows_unconfirmed", &[], Differs("5000", "6000")),
    ("limits.sources", &[], Differs("5000", "6000")),
    ("limits.allow_prefixes", &[], Differs("5", "6")),
    ("resolver", &[], Differs("{}", "{min_ttl: 2s}")),
    ("resolver.resolv_conf", &[], Differs("/a", "/b")),
    ("resolver.timeout", &[], Differs("3s", "4s")),
    ("resolver.min_ttl", &[], Differs("3s", "4s")),
    ("resolver.max_ttl", &[], Differs("30s", "40s")),
    ("limits.deny_prefixes", &[], Differs("5", "6")),
    ("backend_defaults", &[], Differs("{}", "{weight: 7}")),
    ("backend_defaults.weight", &[], Differs("5", "6")),
    ("backend_defaults.inter", &[], Differs("5s", "6s")),
    ("backend_defaults.fastinter", &[], Differs("5s", "6s")),
    ("backend_defaults.downinter", &[], Differs("6s", "7s")),
    ("backend_defaults.rise", &[], Differs("5", "6")),
    ("backend_defaults.fall", &[], Differs("5", "6")),
    ("backend_defaults.timeout", &[], Differs("5s", "6s")),
    ("backend_defaults.init_state", &[], Differs("up", "down")),
    ("backend_defaults.slowstart", &[], Differs("5s", "6s")),
    (
        "services",
        &[],
        Needed(
            "[{name: a, listen: {address: 192.0.2.10, port: 80}, forward: nat, \
             backends: [{name: web1, address: 10.0.0.11}]}]",
        ),
    ),
    ("services[].name", &[], Differs("a", "b")),
    (
        "services[].listen",
        &[],
        Differs("{address: 192.0.2.1, port: 1}", "{address: 192.0.2.2, port: 1}"),
    ),
    ("services[].listen.address", &[], Differs("192.0.2.1", "192.0.2.2")),
    ("services[].listen.port", &[], Differs("1", "2")),
    ("services[].listen.protocol", &[], Differs("tcp", "udp")),
    ("services[].listen.interfaces", NICS, Differs("[eth0]", "[eth1]")),
    ("services[].listen.add_address_to", &[], Differs("eth0", "eth1")),
    ("services[].listen.force", &[], Differs("false", "true")),
    ("services[].forward", &[], Differs("nat", "dsr")),
    ("services[].encap", TUNNEL, Needed("ipip")),
    ("services[].gue_port", GUE, Differs("6080", "6081")),
    ("services[].allow", &[], Differs("[198.51.100.0/24]", "[198.51.100.0/25]")),
    ("services[].allow_file", &[], Differs("/etc/a", "/etc/b")),
    ("services[].deny", &[], Differs("[198.51.100.0/24]", "[198.51.100.0/25]")),
    ("services[].deny_file", &[], Differs("/etc/a", "/etc/b")),
    ("services[].balance", &[], Differs("maglev", "source")),
    ("services[].hash_balance_factor", &[], Differs("125", "150")),
    ("services[].track", &[], Differs("changes", "always")),
    ("services[].persistence", &[], Differs("source", "{by: source, timeout: 6m}")),
    ("services[].persistence.by", TIMEOUT, Needed("source")),
    ("services[].persistence.prefix_v4", PERSISTENCE, Differs("24", "25")),
    ("services[].persistence.prefix_v6", PERSISTENCE, Differs("48", "56")),
    ("services[].persistence.timeout", PERSISTENCE, Differs("5s", "6s")),
    ("services[].on_all_down", &[], Differs("reject", "drop")),
    ("services[].quorum", &[], Differs("1", "2")),
    ("services[].hysteresis", QUORUM, Differs("1", "2")),
    ("services[].panic_threshold", &[], Differs("40", "50")),
    ("services[].fragments", &[], Differs("all", "drop")),
    ("services[].stateless_fragments", BY_SOURCE, Differs("true", "false")),
    ("services[].count_connections", &[], Differs("true", "false")),
    ("services[].observe", &[], Differs("layer4", "{mode: layer4, error_limit: 5}")),
    ("services[].observe.mode", LIMIT, Needed("layer4")),
    ("services[].observe.error_limit", OBSERVE, Differs("5", "6")),
    ("services[].observe.min_sources", OBSERVE, Differs("5", "6")),
    ("services[].observe.interval", OBSERVE, Differs("5s", "6s")),
    ("services[].observe.on_error", OBSERVE, Differs("fastinter", "fail_check")),
    ("services[].observe.base_ejection", OBSERVE, Differs("5s", "6s")),
    ("services[].observe.max_ejection", OBSERVE, Differs("50s", "60s")),
    ("services[].observe.max_ejection_percent", OBSERVE, Differs("5", "6")),
    ("services[].rate_limit", &[], Differs("{connections: 5/s}", "{connections_per_source: 5/s}")),
    ("services[].rate_limit.connections", &[], Differs("5/s", "5/m")),
    ("services[].rate_limit.connections_burst", RATE, Differs("5", "6")),
    ("services[].rate_limit.connections_per_source", &[], Differs("5/s", "6/s")),
    ("services[].rate_limit.connections_per_source_burst", SOURCE_RATE, Differs("5", "6")),
    ("services[].mss_clamp", &[], Differs("1360", "1400")),
    ("services[].toa", FULLNAT, Differs("true", "false")),
    ("services[].quic_lb", QUIC, Differs("{server_id_length: 2}", "{server_id_length: 3}")),
    ("services[].quic_lb.server_id_length", QUIC, Needed("2")),
    ("services[].quic_lb.config_ids", QUIC_LB, Differs("[0]", "[0, 1]")),
    ("services[].backends[].server_id", QUIC_LB, Differs("0a01", "0a02")),
    ("services[].syn_flood", &[], Differs("50/s", "{engage: 50/s, release: 20/s}")),
    ("services[].syn_flood.engage", RELEASE, Needed("50/s")),
    ("services[].syn_flood.release", ENGAGE, Differs("5/s", "6/s")),
    ("services[].on_marked_down", &[], Differs("move", "keep")),
    ("services[].window", &[], Differs("5s", "6s")),
    ("services[].timeouts", &[], Differs("{}", "{tcp: 7s}")),
    ("services[].timeouts.tcp", &[], Differs("5s", "6s")),
    ("services[].timeouts.tcpfin", &[], Differs("5s", "6s")),
    ("services[].timeouts.udp", &[], Differs("5s", "6s")),
    ("services[].ring_size", &[], Differs("1021", "4093")),
    ("services[].check", &[], Differs("{type: tcp}", "{type: http}")),
    ("services[].agent_check", &[], Differs("{port: 8888}", "{port: 8889}")),
    ("services[].agent_check.port", &[], Needed("8888")),
    ("services[].agent_check.address", AGENT, Differs("10.0.0.9", "10.0.0.8")),
    ("services[].agent_check.send", AGENT, Differs("a", "b")),
    ("services[].agent_check.inter", AGENT, Differs("1s", "3s")),
    ("services[].agent_check.timeout", AGENT, Differs("2s", "3s")),
    ("services[].check.type", &[], Differs("tcp", "http")),
    ("services[].check.port", &[], Differs("5", "6")),
    ("services[].check.method", &[], Differs("GET", "HEAD")),
    ("services[].check.path", &[], Differs("/a", "/b")),
    ("services[].check.host", &[], Differs("a", "b")),
    ("services[].check.status", &[], Differs("200", "\"200,304\"")),
    ("services[].check.headers", &[], Differs("[\"a: b\"]", "[\"a: c\"]")),
    ("services[].check.version", &[], Differs("h1", "h2")),
    ("services[].check.weight_header", &[], Differs("true", "false")),
    ("services[].check.source", &[], Differs("10.0.0.5", "10.0.0.5:7")),
    ("services[].check.via", DSR, Differs("direct", "vip")),
    ("services[].check.expect_regex", &[], Differs("a", "b")),
    ("services[].check.send", TCP_CHECK, Differs("a", "b")),
    ("services[].check.send_hex", UDP_CHECK, Differs("a0", "b0")),
    ("services[].check.grpc_service", GRPC_CHECK, Differs("a", "b")),
    ("services[].check.tls", GRPC_CHECK, Differs("true", "false")),
    ("services[].check.query", DNS_CHECK, Differs("a", "b")),
    ("services[].check.record", DNS_CHECK, Differs("A", "MX")),
    ("services[].check.rcode", DNS_CHECK, Differs("noerror", "refused")),
    ("services[].check.transport", DNS_CHECK, Differs("udp", "tcp")),
    ("services[].check.command", EXEC_CHECK, Differs("/a", "/b")),
    ("services[].check.arguments", EXEC_CHECK, Differs("[a]", "[b]")),
    ("services[].check.expect", &[], Differs("a", "b")),
    ("services[].check.sni", TLS_CHECK, Differs("a", "b")),
    ("services[].check.verify", TLS_CHECK, Differs("none", "required")),
    ("services[].check.ca_file", TLS_CHECK, Differs("/a", "/b")),
    ("services[].check.user", DATABASE_CHECK, Differs("a", "b")),
    ("services[].check.password_file", DATABASE_CHECK, Differs("/a", "/b")),
    ("services[].check.database", DATABASE_CHECK, Differs("a", "b")),
    ("services[].check.require", DATABASE_CHECK, Differs("any", "writable")),
    ("services[].backend_defaults", &[], Differs("{}", "{weight: 7}")),
    ("services[].backend_defaults.weight", &[], Differs("5", "6")),
    ("services[].backend_defaults.inter", &[], Differs("5s", "6s")),
    ("services[].backend_defaults.fastinter", &[], Differs("5s", "6s")),
    ("services[].backend_defaults.downinter", &[], Differs("6s", "7s")),
    ("services[].backend_defaults.rise", &[], Differs("5", "6")),
    ("services[].backend_defaults.fall", &[], Differs("5", "6")),
    ("services[].backend_defaults.timeout", &[], Differs("5s", "6s")),
    ("services[].backend_defaults.init_state", &[], Differs("up", "down")),
    ("services[].backend_defaults.slowstart", &[], Differs("5s", "6s")),
    (
        "services[].backends",
        &[],
        Differs("[{name: a, address: 10.0.0.1}]", "[{name: a, address: 10.0.0.2}]"),
    ),
    ("services[].backends[].name", &[], Differs("a", "b")),
    ("services[].backends[].address", &[], Differs("10.0.0.1:5", "10.0.0.1:6")),
    ("services[].backends[].srv", NOWHERE, Needed("_http._tcp.app")),
    ("services[].backends_from", &[], Differs("/a", "/b")),
    ("services[].backends[].tier", &[], Differs("1", "2")),
    ("services[].backends[].backup", &[], Differs("false", "true")),
    ("services[].backends[].sorry", &[], Differs("false", "true")),
    ("services[].backends[].track", THREE, Differs("web/web2", "web/web3")),
    ("services[].backends[].weight", &[], Differs("5", "6")),
    ("services[].backends[].inter", &[], Differs("5s", "6s")),
    ("services[].backends[].fastinter", &[], Differs("5s", "6s")),
    ("services[].backends[].downinter", &[], Differs("6s", "7s")),
    ("services[].backends[].rise", &[], Differs("5", "6")),
    ("services[].backends[].fall", &[], Differs("5", "6")),
    ("services[].backends[].timeout", &[], Differs("5s", "6s")),
    ("services[].backends[].init_state", &[], Differs("up", "down")),
    ("services[].backends[].slowstart", &[], Differs("5s", "6s")),
];

#[test]
fn every_key_has_a_row() {
    let keys: BTreeSet<String> =
        shape::all_keys().iter().map(|(path, key)| shape::join(path, &key.name)).collect();
    let rows: BTreeSet<String> = ROWS.iter().map(|(path, ..)| (*path).to_owned()).collect();
    assert_eq!(rows, keys);
}

#[test]
fn every_key_has_its_effect() {
    for (path, context, effect) in ROWS {
        let mut base: Value = serde_yaml::from_str(BASE).unwrap();
        context.iter().for_each(|(path, value)| set(&mut base, path, Some(value)));
        let with = |value| {
            let mut file = base.clone();
            set(&mut file, path, value);
            config(&file)
        };
        let valid = |value| with(Some(value)).unwrap_or_else(|errors| panic!("{path}: {errors}"));
        match effect {
            Differs(a, b) => assert_ne!(valid(a), valid(b), "{path} is ignored"),
            Needed(value) => {
                valid(value);
                let key = path.rsplit('.').next().unwrap();
                let errors = with(None).expect_err(path);
                assert!(errors.contains(key), "{path}: {errors}");
            }
        }
    }
}

#[test]
fn documented_defaults_are_true() {
    let base: Value = serde_yaml::from_str(BASE).unwrap();
    let mut seen = 0;
    for (place, key) in shape::all_keys() {
        let Some(default) = &key.shape.default else { continue };
        let mut base = base.clone();
        let path = shape::join(&place, &key.name);
        // Some keys only go together with others.
        for (_, context, _) in ROWS.iter().filter(|(row, ..)| *row == path) {
            context.iter().for_each(|(path, value)| set(&mut base, path, Some(value)));
        }
        let mut file = base.clone();
        set(&mut file, &path, Some(&default.to_string()));
        assert_eq!(config(&file), config(&base), "{path}: {default} is not the default");
        seen += 1;
    }
    assert!(seen > 40, "only {seen} keys have defaults");
}

#[test]
fn the_nearest_level_decides() {
    let mut file: Value = serde_yaml::from_str(BASE).unwrap();
    let weights = |file: &Value| -> Vec<u16> {
        config(file).unwrap().services[0].backends.iter().map(|backend| backend.weight).collect()
    };
    assert_eq!(weights(&file), [100, 100]);
    set(&mut file, "backend_defaults", Some("{weight: 10}"));
    assert_eq!(weights(&file), [10, 10]);
    set(&mut file, "services[].backend_defaults", Some("{weight: 20}"));
    assert_eq!(weights(&file), [20, 20]);
    set(&mut file, "services[].backends[].weight", Some("30"));
    assert_eq!(weights(&file), [30, 20]);
}

/// Sets (or removes) what `path` names, in the first item of each list.
fn set(file: &mut Value, path: &str, value: Option<&str>) {
    let (parents, key) = path.rsplit_once('.').unwrap_or(("", path));
    let mut node = file;
    for part in parents.split('.').filter(|part| !part.is_empty()) {
        let (name, list) = match part.strip_suffix("[]") {
            Some(name) => (name, true),
            None => (part, false),
        };
        let mapping = node.as_mapping_mut().unwrap();
        node = mapping.entry(name.into()).or_insert_with(|| Value::Mapping(Default::default()));
        if list {
            node = &mut node[0];
        }
    }
    let mapping = node.as_mapping_mut().unwrap();
    match value {
        Some(value) => drop(mapping.insert(key.into(), serde_yaml::from_str(value).unwrap())),
        None => drop(mapping.remove(key)),
    }
}

fn config(file: &Value) -> Result<Config, String> {
    let text = serde_yaml::to_string(file).unwrap();
    match parse(&Source { path: "lb.yaml".into(), text }) {
        Ok(parsed) => Ok(parsed.config),
        Err(errors) => Err(errors.to_string()),
    }
}
