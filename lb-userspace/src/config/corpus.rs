//! Bad files, each with every error that it has to give: place, what is wrong, what would be right.

use super::{model::Source, parse};

/// The good file that cases are changes of.
const BASE: &str = "\
interfaces: [eth0]
services:
  - name: web
    listen: {address: 192.0.2.10, port: 80}
    forward: nat
    check: {type: http}
    backends:
      - {name: web1, address: 10.0.0.11}
      - {name: web2, address: 10.0.0.12}
";

/// A second service, to be put at line 10.
const SECOND: &str = "  - {name: b, listen: {address: 192.0.2.11, port: 80}, forward: nat, \
    backends: [{name: web1, address: 10.0.0.21}]}";

/// Lines that are replaced (10 = added), and the errors: each begins with `line:column: `, `...` stands for anything.
struct Case(&'static [(usize, &'static str)], &'static [&'static str]);

#[rustfmt::skip]
const CASES: &[Case] = &[
    // Keys that are not known.
    Case(&[(4, "    listen: {adress: 192.0.2.10, port: 80}")], &[
        "4:13: services[0].listen lacks the key `address`: add `address:` (The virtual address (VIP))",
        "4:14: unknown key `adress` in services[0].listen: did you mean `address`?",
    ]),
    Case(&[(2, "servises:")], &[
        "1:1: the file lacks the key `services`: add `services:` (What lb balances)",
        "2:1: unknown key `servises` at the top level: did you mean `services`?",
    ]),
    Case(&[(2, "virtual_servers:")], &[
        "1:1: the file lacks the key `services`...",
        "2:1: unknown key `virtual_servers` at the top level: did you mean `services`?",
    ]),
    Case(&[(7, "    servers:")], &[
        "3:5: services[0] lacks the key `backends`: add `backends:` (The servers that do the work), or `backends_from:`",
        "7:5: unknown key `servers` in services[0]: did you mean `backends`?",
    ]),
    Case(&[(1, "default_server: {weight: 5}")], &[
        "1:1: unknown key `default_server` at the top level: did you mean `backend_defaults`?",
    ]),
    Case(&[(1, "Default-Server: {weight: 5}")], &[
        "1:1: unknown key `Default-Server` at the top level: did you mean `backend_defaults`?",
    ]),
    Case(&[(5, "    mode: nat")], &[
        "3:5: services[0] lacks the key `forward`: add `forward:` (How packets reach the backends)",
        "5:5: unknown key `mode` in services[0]: did you mean `forward`?",
    ]),
    Case(&[(1, "mode: native")], &["1:1: unknown key `mode` at the top level: did you mean `xdp_mode`?"]),
    Case(&[(5, "    forward: nat\n    balance: roundrobin")], &[
        "6:14: `roundrobin` is not a value of services[0].balance: did you mean `wrr`? (write one of maglev, source, rr, wrr, leastconn, wlc, random2)",
    ]),
    Case(&[(5, "    forward: nat\n    persistence: {by: source, prefix_v4: 33}")], &[
        "6:42: 33 in services[0].persistence.prefix_v4 is out of bounds: write a number from 0 to 32",
    ]),
    Case(&[(5, "    forward: nat\n    persistence: {by: source, timeout: 1500ms}")], &[
        "6:40: 1500ms in services[0].persistence.timeout is out of bounds: write whole seconds from 1s to 24h",
    ]),
    Case(&[(5, "    forward: nat\n    balance: leastconn\n    track: changes")], &[
        "7:12: services[0].track is `changes`, but `balance: leastconn` needs every flow to be remembered: remove it, or write `track: always`",
    ]),
    Case(&[(5, "    forward: nat\n    persistence: {by: source, timeout: 6m}\n    track: changes")], &[
        "7:12: services[0].track is `changes`, but `persistence.timeout` needs every flow to be remembered: remove it, or write `track: always`",
    ]),
    Case(&[(5, "    forward: nat\n    balance: rr\n    hash_balance_factor: 125")], &[
        "7:26: services[0].hash_balance_factor has no effect with `balance: rr`: remove it, or write `balance: maglev` or `source`",
    ]),
    Case(&[(5, "    forward: nat\n    hash_balance_factor: 100")], &[
        "6:26: 100 in services[0].hash_balance_factor is out of bounds: write a number from 101 to 10000",
    ]),
    Case(&[(5, "    forward: nat\n    balance: rr\n    persistence: {by: source}")], &[
        "7:5: services[0].persistence without `timeout` is what the ring does, and `balance: rr` does not ask it: add `timeout: 6m`, or write `balance: maglev`",
    ]),
    Case(&[(8, "      - {name: web1, address: 10.0.0.11, send_proxy: true}")], &[
        "8:42: unknown key `send_proxy` in services[0].backends[0]: the PROXY protocol is not built: remove the key",
    ]),
    Case(&[(8, "      - {name: web1, address: 10.0.0.11, slowstart: 2h}")], &[
        "8:53: 2h in services[0].backends[0].slowstart is out of bounds: write 0s to 1h",
    ]),
    Case(&[(8, "      - {name: web1, address: 10.0.0.11, backup: true, tier: 2}")], &[
        "8:50: services[0].backends[0].backup and tier say the same thing in two ways: remove one of them: `backup: true` is `tier: 1`",
    ]),
    Case(&[(8, "      - {name: web1, address: 10.0.0.11, sorry: true, tier: 2}")], &[
        "8:61: services[0].backends[0].tier has no meaning for a sorry backend: it is used when all tiers have failed, and is not checked: remove the key",
    ]),
    Case(&[(8, "      - {name: web1, address: 10.0.0.11, track: web2}")], &[
        "8:49: `web2` in services[0].backends[0].track is not a backend: write SERVICE/BACKEND, such as web/web1",
    ]),
    Case(&[(8, "      - {name: web1, address: 10.0.0.11, track: web/web9}")], &[
        "8:49: `web/web9` in services[0].backends[0].track is no backend: write SERVICE/BACKEND with names of this file",
    ]),
    Case(&[(8, "      - {name: web1, address: 10.0.0.11, track: web/web1}")], &[
        "8:49: services[0].backends[0].track runs in a circle: web/web1 -> web/web1: let one of them be checked itself: remove its `track`",
    ]),
    Case(&[(8, "      - {name: web1, address: 10.0.0.11, track: web/web2}"), (6, "    on_all_down: drop")], &[
        "8:49: services[0].backends[0].track leads to `web/web2`, which has no check: give its service a `check:`, or remove `track`",
    ]),
    Case(&[(8, "      - {name: web1, address: 10.0.0.11, track: web/web2}"), (9, "      - {name: web2, address: 10.0.0.12, track: web/web1}")], &[
        "8:49: services[0].backends[0].track runs in a circle: web/web2 -> web/web1 -> web/web2: let one of them be checked itself: remove its `track`",
        "9:49: services[0].backends[1].track runs in a circle: web/web1 -> web/web2 -> web/web1: let one of them be checked itself: remove its `track`",
    ]),
    Case(&[(5, "    forward: nat\n    quorum: 2\n    hysteresis: 2")], &[
        "7:17: 2 in services[0].hysteresis is not less than the quorum 2: write a smaller hysteresis, or a larger quorum",
    ]),
    Case(&[(5, "    forward: nat\n    sorry_server: 10.0.0.13")], &[
        "6:5: unknown key `sorry_server` in services[0]: list the server under `backends:`, with `sorry: true`",
    ]),
    Case(&[(5, "    forward: nat\n    panic_threshold: 101")], &[
        "6:22: 101 in services[0].panic_threshold is out of bounds: write a number from 0 to 100",
    ]),
    Case(&[(8, "      - {name: web1, address: 10.0.0.11, port: 80}")], &[
        "8:42: unknown key `port` in services[0].backends[0]: write it with the address: `address: 10.0.0.11:443`",
    ]),
    Case(&[(6, "    check: {type: tcp, inter: 5s}")], &[
        "6:24: unknown key `inter` in services[0].check: `inter` belongs in backend_defaults or services[].agent_check or \
            services[].backend_defaults or services[].backends[]",
    ]),
    Case(&[(1, "name: x")], &[
        "1:1: unknown key `name` at the top level: `name` belongs in services[] or services[].backends[]",
    ]),
    Case(&[(1, "colour: blue")], &[
        "1:1: unknown key `colour` at the top level: known here: interfaces, xdp_mode, vlan, socket_group, socket_level, metrics, \
            dashboard, cluster, source_pool, outer_source, limits, resolver, backend_defaults, services",
    ]),
    // The dashboard.
    Case(&[(1, "dashboard: 127.0.0.1")], &[
        "1:12: dashboard has no port: write 127.0.0.1:8404 or \"[::1]:8404\"",
    ]),
    Case(&[(1, "dashboard: here")], &[
        "1:12: `here` in dashboard is not an address with a port: write 10.0.0.11:443, 10.0.0.11, \
            \"[2001:db8::11]:443\" or 2001:db8::11 (names are resolved for backends only)",
    ]),
    Case(&[(1, "dashboard: {token_file: /etc/lb/token}")], &[
        "1:12: dashboard lacks the key `listen`: add `listen:` (Address and port it is served on)",
    ]),
    Case(&[(1, "dashboard: {listen: 127.0.0.1:8404, token_file: token, hosts: [a:80]}")], &[
        "1:49: `token` in dashboard.token_file is not the path of a file: write an absolute path: /etc/lb/ca.pem",
        "1:64: `a:80` in dashboard.hosts[0] is not the name of a host: write lb1.example.org, without a port",
    ]),
    Case(&[(1, "dashboard: 0.0.0.0:8404")], &[
        "1:12: the dashboard at 0.0.0.0:8404 can be reached by other hosts and asks nobody for a token: add \
            `token_file:`, or listen on 127.0.0.1 or \"[::1]\"",
    ]),
    Case(&[(1, "dashboard: {listen: 127.0.0.1:8404, write: true}")], &[
        "1:44: dashboard.write without a token would let everybody on this host change backends: add `token_file:`",
    ]),
    Case(&[(1, "metrics: 127.0.0.1:8404\ndashboard: 127.0.0.1:8404")], &[
        "2:12: metrics and dashboard cannot both be at 127.0.0.1:8404: choose another port for one of the two",
    ]),
    // The cluster.
    Case(&[(1, "cluster: {listen: 10.0.9.1, peers: [10.0.9.2], secret_file: /etc/lb/secret}")], &[
        "1:19: cluster.listen has no port: write 10.0.9.1:7946 or \"[2001:db8::1]:7946\"",
    ]),
    Case(&[(1, "metrics: 10.0.9.1:7946\ncluster: {listen: 10.0.9.1:7946, peers: [10.0.9.2, 0.0.0.0, \"10.0.9.2:7946\"], secret_file: /etc/s}")], &[
        "2:19: metrics and cluster cannot both be at 10.0.9.1:7946: choose another port for one of the two",
        "2:52: 0.0.0.0:7946 is the address of no node: write the address by which other nodes reach it",
        "2:61: the peer 10.0.9.2:7946 is named twice: name each once",
    ]),
    Case(&[(1, "limits: {service: 5}")], &["1:10: unknown key `service` in limits: did you mean `services`?"]),
    Case(&[(5, "    forward: nat\n    <<: {window: 5m}")], &[
        "6:5: unknown key `<<` in services[0]: YAML merge keys are not supported: use backend_defaults, or repeat \
            the keys",
    ]),
    Case(&[(1, "\"a\\e[31m\": 1")], &["1:1: unknown key `a\\u{1b}[31m` at the top level: known here: ..."]),
    Case(&[(6, "    check: {type: tcp, path: /x, status: 200}")], &[
        "6:24: `path` in services[0].check has no effect with type: tcp: remove it, or write `type: http`",
        "6:34: `status` in services[0].check has no effect with type: tcp: remove it, or write `type: http`",
    ]),
    // Keys that are doubled or lack.
    Case(&[(5, "    forward: nat\n    forward: dsr")], &[
        "6:5: key `forward` is there twice in services[0], first in line 5, column 5: remove one of the two",
    ]),
    Case(&[(1, "services: []")], &[
        "1:11: services is empty: at least 1 has to be there",
        "2:1: key `services` is there twice in the file, first in line 1, column 1: remove one of the two",
    ]),
    Case(&[(4, "    listen: {address: 192.0.2.10}")], &[
        "4:13: services[0].listen lacks the key `port`: add `port:` (The port)",
    ]),
    Case(&[(8, "      - {name: web1}")], &[
        "8:9: services[0].backends[0] lacks the key `address`: add `address:` (an address or a DNS name), or `srv:`",
    ]),
    Case(&[(6, "    check: {port: 80, pth: /x}")], &[
        "6:12: services[0].check lacks the key `type`: add `type:` with one of tcp, tls, http, https, grpc, icmp, udp, dns, mysql, postgres, redis, exec",
        "6:23: unknown key `pth` in services[0].check: did you mean `path`?",
    ]),
    Case(&[(7, "    backends: []"), (8, ""), (9, "")], &[
        "7:5: services[0].backends is empty: at least 1 has to be there, or `backends_from:`",
    ]),
    Case(&[(8, ""), (9, "")], &["7:5: services[0].backends has no value: give it one or remove it"]),
    Case(&[(1, "socket_group:")], &["1:1: socket_group has no value: give it one or remove it"]),
    Case(&[(6, "    check: ~")], &["6:5: services[0].check has no value: give it one or remove it"]),
    // Types.
    Case(&[(1, "interfaces: eth0")], &["1:13: interfaces is the text `eth0`, not a list: write a list: [eth0]"]),
    Case(&[(1, "interfaces: {eth0: 1}")], &["1:13: interfaces is a mapping, not a list: begin each item with `- `"]),
    Case(&[(1, "interfaces: [7]")], &["1:14: interfaces[0] is a number, not text: put it in quotes: \"7\""]),
    Case(&[(1, "limits: [5]")], &[
        "1:9: limits is a list, not a mapping: write `key: value` lines, indented below it",
    ]),
    Case(&[(4, "    listen: {address: 192.0.2.10, port: http}")], &[
        "4:41: `http` in services[0].listen.port is not a port: write a number from 1 to 65535, a range as in 8000-8999, \
            or any",
    ]),
    Case(&[(4, "    listen: {address: 192.0.2.10, port: 9-8}")], &[
        "4:41: `9-8` in services[0].listen.port is not a range of ports: it ends before it begins: write 8-9",
    ]),
    Case(&[(4, "    listen: {address: 192.0.2.10, port: 80, force: yes}")], &[
        "4:52: services[0].listen.force is the text `yes`, not true or false: write true or false",
    ]),
    Case(&[(3, "  - name: 7")], &["3:11: services[0].name is a number, not text: put it in quotes: \"7\""]),
    Case(&[(3, "  - name: [a]")], &["3:11: services[0].name is a list, not a single value: write it behind the `:`"]),
    Case(&[(8, "      - web1")], &[
        "8:9: services[0].backends[0] is the text `web1`, not a mapping: write `key: value` lines, indented below it",
    ]),
    Case(&[(8, "      - {name: web1, address: 10.0.0.11, weight: 1.5}")], &[
        "8:50: services[0].backends[0].weight is a number, not a whole number: write a number from 0 to 256, ...",
    ]),
    // Bounds.
    Case(&[(4, "    listen: {address: 192.0.2.10, port: 0}")], &[
        "4:41: `0` in services[0].listen.port is not a port: write a number from 1 to 65535, a range as in 8000-8999, or any",
    ]),
    Case(&[(4, "    listen: {address: 192.0.2.10, port: 65536}")], &[
        "4:41: `65536` in services[0].listen.port is not a port: ...",
    ]),
    Case(&[(8, "      - {name: web1, address: 10.0.0.11, weight: 257}")], &[
        "8:50: 257 in services[0].backends[0].weight is out of bounds: write a number from 0 to 256",
    ]),
    Case(&[(8, "      - {name: web1, address: 10.0.0.11, weight: -1}")], &[
        "8:50: -1 in services[0].backends[0].weight is out of bounds: write a number from 0 to 256",
    ]),
    Case(&[(8, "      - {name: web1, address: 10.0.0.11, rise: 0, fall: 0}")], &[
        "8:48: 0 in services[0].backends[0].rise is out of bounds: write a number from 1 to 1000",
        "8:57: 0 in services[0].backends[0].fall is out of bounds: write a number from 1 to 1000",
    ]),
    Case(&[(1, "limits: {pins: 1023}")], &["1:16: 1023 in limits.pins is out of bounds: ..."]),
    Case(&[(5, "    forward: nat\n    ring_size: 100")], &[
        "6:16: 100 in services[0].ring_size is out of bounds: write a number from 1021 to 655373",
    ]),
    // Full nat.
    Case(&[(5, "    forward: fullnat")], &[
        "5:14: services[0].forward is fullnat, and the file does not say what lb is to send from: add `source_pool: {addresses: [10.0.0.100]}` at the top level: ...",
    ]),
    Case(&[(1, "source_pool: {addresses: [\"fd00::1\"]}"), (5, "    forward: fullnat")], &[
        "5:14: services[0].forward is fullnat, the VIP is IPv4, and source_pool has no such address: add an IPv4 address to `source_pool`",
    ]),
    Case(&[(1, "source_pool: {addresses: [10.0.0.11, 192.0.2.10, 127.0.0.1]}"), (5, "    forward: fullnat")], &[
        "1:15: 10.0.0.11 in source_pool.addresses is a backend of service `web`: write an address of this node's own",
        "1:15: 192.0.2.10 in source_pool.addresses is the VIP of service `web`: ...",
        "1:15: 127.0.0.1 in source_pool.addresses is a loopback address: ...",
    ]),
    Case(&[(1, "source_pool: {addresses: [10.0.0.100, 10.0.0.100/31], ports: 22-3000}"), (5, "    forward: fullnat")], &[
        "1:15: 10.0.0.100 is in source_pool.addresses twice: remove one of the two",
        "1:62: port 22 in source_pool.ports is a well-known one: begin with 1024 or more",
    ]),
    Case(&[(1, "outer_source: [10.0.8.1/24]"), (5, "    forward: tunnel\n    encap: ipip")], &[
        "1:16: `10.0.8.1/24` in outer_source[0] is not a network: it has bits behind its prefix length: write 10.0.8.0/24 or 10.0.8.1",
    ]),
    Case(&[(1, "outer_source: [10.0.8.0/24, 10.0.9.0/24]"), (5, "    forward: tunnel\n    encap: ipip")], &[
        "1:29: 10.0.9.0/24 in outer_source[1] is the second IPv4 prefix: write one of each family: ...",
    ]),
    Case(&[(1, "outer_source: [0.0.0.0/0, \"fd00::/64\"]"), (5, "    forward: tunnel\n    encap: ipip")], &[
        "1:16: 0.0.0.0/0 in outer_source[0] is unspecified: ...",
        "1:16: 0.0.0.0/0 in outer_source[0] has the VIP of service `web` in it: write a prefix whose addresses are nobody's",
        "1:16: 0.0.0.0/0 in outer_source[0] has a backend of service `web` in it, 10.0.0.11: write a prefix whose addresses are nobody's",
    ]),
    Case(&[(1, "source_pool: {addresses: [10.0.1.0/29]}"), (5, "    forward: fullnat")], &[
        "1:1: 4 in limits.source_addresses is too small: source_pool has 8 addresses: write 16 or more, so that changes fit in too",
    ]),
    Case(&[(1, "source_pool: {addresses: [10.0.1.0/24]}"), (5, "    forward: fullnat")], &[
        "1:15: source_pool.addresses are more than 64 addresses: write fewer, ...",
    ]),
    Case(&[(1, "source_pool: {addresses: [10.0.1.0]}"), (5, "    forward: fullnat\n    balance: rr\n    track: always")], &[
        "6:14: services[0].balance does not go with forward: fullnat: every flow is remembered...",
        "7:12: services[0].track does not go with forward: fullnat: ...",
    ]),
    // Words.
    Case(&[(5, "    forward: snat")], &[
        "5:14: `snat` is not a value of services[0].forward: did you mean `fullnat`? (write one of nat, dsr, tunnel, fullnat)",
    ]),
    Case(&[(5, "    forward: masq")], &[
        "5:14: `masq` is not a value of services[0].forward: did you mean `nat`? (write one of nat, dsr, tunnel, fullnat)",
    ]),
    Case(&[(5, "    forward: tunel\n    encap: vxlan")], &[
        "5:14: `tunel` is not a value of services[0].forward: did you mean `tunnel`? (write one of nat, dsr, tunnel, fullnat)",
        "6:12: `vxlan` is not a value of services[0].encap: it is not built: write one of ipip, gue",
    ]),
    Case(&[(4, "    listen: {address: 192.0.2.10, port: 80, protocol: sctp}")], &[
        "4:55: `sctp` is not a value of services[0].listen.protocol: it is not built: write one of tcp, udp, quic",
    ]),
    // Connection ids.
    Case(&[(4, "    listen: {address: 192.0.2.10, port: 80, protocol: quic}"), (5, "    forward: nat\n    quic_lb: {server_id_length: 2, config_ids: [0, 0]}")], &[
        "6:52: config id 0 is twice in services[0].quic_lb.config_ids: remove one",
    ]),
    Case(&[
        (4, "    listen: {address: 192.0.2.10, port: 80, protocol: quic}"),
        (5, "    forward: nat\n    quic_lb: 2"),
        (8, "      - {name: web1, address: 10.0.0.11, server_id: 0a}"),
        (9, "      - {name: web2, address: 10.0.0.12, server_id: 0a01}\n      - {name: web3, address: 10.0.0.13, server_id: 0A01}\n      - {name: web4, address: web.internal, server_id: 0a02}\n      - {name: web5, address: 10.0.0.15}"),
    ], &[
        "9:53: services[0].backends[0].server_id (0a) has 1 byte, and services[0].quic_lb says 2: write 4 hexadecimal digits",
        "11:53: services[0].backends[2].server_id (0a01) is taken: first in line 10, column 53: give each backend a server id of its own",
        "12:56: services[0].backends[3].server_id cannot be that of each address of a name: write a backend for each address",
    ]),
    Case(&[(8, "      - {name: web1, address: 10.0.0.11, server_id: 0a01}")], &[
        "8:53: services[0].backends[0].server_id has no effect without quic_lb: remove it, or add `quic_lb:` to the service",
    ]),
    Case(&[(4, "    listen: {address: 192.0.2.10, port: 80, protocol: TCP}")], &[
        "4:55: `TCP` is not a value of services[0].listen.protocol: did you mean `tcp`? (write one of tcp, udp, quic)",
    ]),
    Case(&[(6, "    check: {type: ldap}")], &[
        "6:19: `ldap` is not a value of services[0].check.type: write one of tcp, tls, http, https, grpc, icmp, udp, dns, mysql, postgres, redis, exec",
    ]),
    Case(&[(6, "    check: {type: icmp, port: 80, source: 10.0.0.5:9}")], &[
        "6:25: ...",
        "6:43: port 9 in services[0].check.source is none that this check can ask from: leave the port out",
    ]),
    Case(&[(6, "    check: {type: udp, send: a, send_hex: b0}")], &[
        "6:43: services[0].check has both send and send_hex: keep one of the two",
    ]),
    Case(&[(6, "    check: {type: http, expect_regex: \"(a\", headers: [\"x\", \"Host: a\"]}")], &[
        "6:39: `(a` in services[0].check.expect_regex is not a regular expression (unclosed group): ...",
        "6:55: `x` in services[0].check.headers[0] is not a header: write `Name: value` in quotes",
        "6:60: `Host: a` in services[0].check.headers[1] is a header that lb writes itself: remove it; `host:` sets Host",
    ]),
    Case(&[(6, "    check: {type: grpc, verify: required}")], &[
        "6:33: services[0].check.verify has no effect without tls: add `tls: true`, or remove it",
    ]),
    Case(&[(6, "    check: {type: tcp, source: \"2001:db8::5\"}")], &[
        "6:32: 2001:db8::5 in services[0].check.source is IPv6, and backend `web1` is IPv4: write an address of this host of the backends' family",
    ]),
    Case(&[(6, "    check: {type: tcp, source: 0.0.0.0}")], &[
        "6:32: 0.0.0.0 in services[0].check.source is unspecified: ...",
    ]),
    Case(&[(6, "    agent_check: {port: 8888, inter: 10ms, address: 224.0.0.1}")], &[
        "6:38: 10ms in services[0].agent_check.inter is out of bounds: write 100ms to 1h",
        "6:53: 224.0.0.1 in services[0].agent_check.address is a multicast address: ...",
    ]),
    Case(&[(5, "    forward: dsr"), (6, "    check: {type: udp, via: vip, source: \"[2001:db8::5]:7\"}")], &[
        "6:29: services[0].check.via needs something to expect: a refusal does not come from a VIP: ...",
        "6:42: port 7 in services[0].check.source does not go with via: vip: leave the port out",
        "6:42: 2001:db8::5 in services[0].check.source is IPv6, and the VIP 192.0.2.10, which is asked, is IPv4: ...",
    ]),
    Case(&[(6, "    check: {type: tcp, via: vip}")], &[
        "6:29: services[0].check.via has no effect with forward: nat: remove it: clients' packets reach the backend's own address, too",
    ]),
    Case(&[(6, "    check: {type: dns, record: LOC, rcode: oops, query: \"a b\"}")], &[
        "6:32: `LOC` in services[0].check.record is not a type of DNS record that lb can ask for: ...",
        "6:44: `oops` in services[0].check.rcode is not a response code of DNS: ...",
        "6:57: `a b` in services[0].check.query is not a name that DNS knows: write example.org, or `.` for the root",
    ]),
    Case(&[(6, "    check: {type: exec, command: check.sh}")], &[
        "6:34: `check.sh` in services[0].check.command is not the path of a file: ...",
    ]),
    Case(&[(1, "xdp_mode: skb")], &["1:11: `skb` is not a value of xdp_mode: did you mean `generic`? ..."]),
    Case(&[(5, "    forward: nat\n    on_all_down: explode")], &[
        "6:18: `explode` is not a value of services[0].on_all_down: write one of fail_open, reject, drop",
    ]),
    // Texts.
    Case(&[(4, "    listen: {address: example.org, port: 80}")], &[
        "4:23: `example.org` in services[0].listen.address is not an IP address: write 192.0.2.10 or 2001:db8::10 \
            (names are resolved for backends only)",
    ]),
    Case(&[(4, "    listen: {address: \"192.0.2.10:80\", port: 80}")], &[
        "4:23: `192.0.2.10:80` in services[0].listen.address is not an IP address: write the address alone, and the \
            port under `port:`",
    ]),
    Case(&[(4, "    listen: {address: 192.0.2.10/24, port: 80}")], &[
        "4:23: `192.0.2.10/24` in services[0].listen.address is not a prefix: it has bits behind its length: write \
            192.0.2.0/24 or 192.0.2.10",
    ]),
    Case(&[(4, "    listen: {address: [192.0.2.10, 192.0.2/24], port: 80}")], &[
        "4:36: `192.0.2/24` in services[0].listen.address[1] is not a prefix: write 192.0.2.0/24, 2001:db8::/64 or one \
            address",
    ]),
    Case(&[(4, "    listen: {address: [], port: 80}")], &[
        "4:23: services[0].listen.address is empty: at least 1 has to be there",
    ]),
    Case(&[(8, "      - {name: web1, address: \"10.0.0.11:99999\"}")], &[
        "8:31: `10.0.0.11:99999` in services[0].backends[0].address is not an address or name with a port: the port is a \
            number from 1 to 65535",
    ]),
    Case(&[(8, "      - {name: web1, address: \"2001:db8::11:443x\"}")], &[
        "8:31: `2001:db8::11:443x` in services[0].backends[0].address is not an address or name with a port: put an IPv6 \
            address with a port in brackets and quotes",
    ]),
    Case(&[(3, "  - name: my web")], &[
        "3:11: `my web` in services[0].name is not a name: write 1 to 64 letters, digits, `_`, `.` and `-`, \
            beginning with a letter, digit or `_`",
    ]),
    Case(&[(3, "  - name: \"\"")], &["3:11: `` in services[0].name is not a name: ..."]),
    Case(&[(3, "  - name: --help")], &["3:11: `--help` in services[0].name is not a name: ..."]),
    Case(&[(1, "interfaces: [a-name-of-a-nic-too-long]")], &[
        "1:14: `a-name-of-a-nic-too-long` in interfaces[0] is not the name of a NIC: write a name as `ip link` shows \
            it, at most 15 bytes",
    ]),
    Case(&[(5, "    forward: nat\n    window: 5")], &[
        "6:13: `5` in services[0].window is not a duration: write a unit: 5s or 5ms",
    ]),
    Case(&[(5, "    forward: nat\n    window: 5 minutes")], &[
        "6:13: `5 minutes` in services[0].window is not a duration: write a whole number and a unit: 500ms, 2s, 5m \
            or 1h",
    ]),
    Case(&[(5, "    forward: nat\n    allow: [10.0.0.1/8]")], &[
        "6:13: `10.0.0.1/8` in services[0].allow[0] is not a network: it has bits behind its prefix length: write \
            10.0.0.0/8 or 10.0.0.1",
    ]),
    Case(&[(6, "    check: {type: http, path: healthz}")], &[
        "6:31: `healthz` in services[0].check.path is not a path: begin with `/`, and write blanks and other special \
            characters as %20 and so on",
    ]),
    Case(&[(6, "    check: {type: http, host: \"a\\r\\nX-Evil: 1\"}")], &[
        "6:31: `a\\r\\nX-Evil: 1` in services[0].check.host is not a host: ...",
    ]),
    Case(&[(6, "    check: {type: http, status: 2xx, method: get}")], &[
        "6:33: `2xx` in services[0].check.status is not a list of HTTP status codes: write codes from 100 to 599: \
            200, 200-299 or \"200-299,304\"",
        "6:46: `get` in services[0].check.method is not a method a check can use: write GET, HEAD or OPTIONS",
    ]),
    Case(&[(6, "    check: {type: http, status: 700}")], &[
        "6:33: `700` in services[0].check.status is not a list of HTTP status codes: ...",
    ]),
    // VIPs.
    Case(&[(4, "    listen: {address: [192.0.2.10, 192.0.2.11], port: 80}")], &[
        "4:14: services[0].listen.address has more than one VIP, and in nat nothing in a backend's answer says which of them it \
            is for: write a service for each VIP, with other ports or addresses of the backends, or use `forward: dsr` or \
            `tunnel`",
    ]),
    Case(&[(4, "    listen: {address: [192.0.2.10, 192.0.2.10], port: 80}"), (5, "    forward: dsr")], &[
        "4:36: 192.0.2.10 is there twice, first in line 4, column 24: remove one of the two",
    ]),
    Case(&[(4, "    listen: {address: 192.0.2.0/24, port: 80}")], &[
        "4:23: services[0].listen.address has more than one VIP, ...",
    ]),
    Case(&[(4, "    listen: {address: 0.0.0.0/0, port: 80}"), (5, "    forward: dsr")], &[
        "4:23: 0.0.0.0/0 in services[0].listen.address is every address there is: write the prefixes that are routed here, or \
            say `force: true` under `listen`",
        "8:31: 10.0.0.11 in services[0].backends[0].address is the VIP of service `web` (line 4, column 23): ...",
        "9:31: 10.0.0.12 in services[0].backends[1].address is the VIP of service `web` (line 4, column 23): ...",
    ]),
    Case(&[(4, "    listen: {address: 127.0.0.0/8, port: 80}"), (5, "    forward: dsr")], &[
        "4:23: 127.0.0.0/8 in services[0].listen.address is a loopback address: ...",
    ]),
    Case(&[(4, "    listen: {address: \"::/0\", port: 80}"), (5, "    forward: tunnel\n    encap: ipip")], &[
        "4:23: ::/0 in services[0].listen.address is unspecified: ...",
    ]),
    Case(&[(4, "    listen: {address: 192.0.2.0/24, port: 80, add_address_to: eth0}"), (5, "    forward: dsr")], &[
        "4:63: services[0].listen.add_address_to cannot put all addresses of 192.0.2.0/24 on eth0: leave it out, and route the \
            prefix to lb",
    ]),
    Case(&[(4, "    listen: {address: 192.0.2.10, port: 8000-8100}"), (5, "    forward: dsr"), (6, "    check: {type: icmp}"),
        (10, "  - {name: b, listen: {address: 192.0.2.10, port: 8050-8200}, forward: dsr, backends: [{name: x, address: 10.0.0.21}]}")], &[
        "10:33: VIP 192.0.2.10 ports 8050-8200 tcp of service `b`: service `web` has some of them in line 4, column 23 \
            (8000-8100): change address, port or protocol of one of the two, or make them one service",
    ]),
    Case(&[(4, "    listen: {address: 192.0.2.10, port: any}"), (5, "    forward: dsr"), (6, "    check: {type: http, port: 80}"),
        (10, "  - {name: b, listen: {address: [192.0.2.9, 192.0.2.10], port: any}, forward: dsr, backends: [{name: x, address: 10.0.0.21}]}")], &[
        "10:45: duplicate VIP 192.0.2.10 port any tcp of service `b`: service `web` has it in line 4, column 23: ...",
    ]),
    Case(&[(4, "    listen: {address: 192.0.2.10, port: any}"), (6, "    check: {type: icmp}"), (8, "      - {name: web1, address: \"10.0.0.11:80\"}")], &[
        "8:31: port 80 in services[0].backends[0].address does not go with ports any: leave the port out: a backend gets each \
            packet on the port that it was sent to",
    ]),
    Case(&[(4, "    listen: {address: 192.0.2.10, port: any}"), (6, "    check: {type: tcp}")], &[
        "6:5: services[0].check does not say which of the ports any it asks: add `port:`",
    ]),
    Case(&[(4, "    listen: {address: 192.0.2.10, port: any}"), (6, "    check: {type: icmp}"),
        (10, "  - {name: b, listen: {address: 192.0.2.11, port: 80}, forward: nat, backends: [{name: x, address: 10.0.0.11}]}")], &[
        "10:100: 10.0.0.11 port 80 tcp is a nat backend of `b` and, in line 8, column 31, of `web`: its answers could not be told \
            apart: let the server listen on a second port or address for one of the two services",
    ]),
    Case(&[(10, "  - {name: b, listen: {address: 192.0.2.10, port: 80}, forward: dsr, backends: [{name: x, address: 10.0.0.21}]}")], &[
        "10:33: duplicate VIP 192.0.2.10 port 80 tcp of service `b`: service `web` has it in line 4, column 23: \
            change address, port or protocol of one of the two, or make them one service",
    ]),
    Case(&[(10, "  - {name: web, listen: {address: 192.0.2.11, port: 80}, forward: dsr, backends: [{name: x, address: 10.0.0.21}]}")], &[
        "10:12: the name `web` of services[1].name is taken: first in line 3, column 11: give each service a name of \
            its own",
    ]),
    Case(&[(4, "    listen: {address: 127.0.0.1, port: 80}")], &[
        "4:23: 127.0.0.1 in services[0].listen.address is a loopback address: write an address that other machines \
            can reach",
    ]),
    Case(&[(4, "    listen: {address: 0.0.0.0, port: 80}")], &[
        "4:23: 0.0.0.0 in services[0].listen.address is unspecified: write the unicast address of a machine",
    ]),
    Case(&[(4, "    listen: {address: 224.0.0.1, port: 80}")], &[
        "4:23: 224.0.0.1 in services[0].listen.address is a multicast address: ...",
    ]),
    Case(&[(4, "    listen: {address: 255.255.255.255, port: 80}")], &[
        "4:23: 255.255.255.255 in services[0].listen.address is the broadcast address: ...",
    ]),
    Case(&[(4, "    listen: {address: \"::ffff:192.0.2.10\", port: 80}"), (5, "    forward: tunnel\n    encap: ipip")], &[
        "4:23: ::ffff:192.0.2.10 in services[0].listen.address is an IPv4 address in IPv6 clothes: write 192.0.2.10",
    ]),
    Case(&[(4, "    listen: {address: \"fe80::1\", port: 80}"), (5, "    forward: tunnel\n    encap: ipip")], &[
        "4:23: fe80::1 in services[0].listen.address is a link-local address, which means something else on every \
            link: write a global (2000::/3) or unique local (fd00::/8) address",
    ]),
    Case(&[(4, "    listen: {address: 192.0.2.10, port: 80, interfaces: [eth0, eth1]}")], &[
        "4:64: lb does not attach to `eth1` in services[0].listen.interfaces[1]: add it to `interfaces:` at the top \
            level, which has eth0",
    ]),
    Case(&[(1, "interfaces: [eth0, eth0]")], &[
        "1:20: `eth0` is there twice in interfaces: remove one of the two",
    ]),
    Case(&[
        (4, "    listen: {address: 192.0.2.10, port: 80, add_address_to: eth0}"),
        (10, "  - {name: b, listen: {address: 192.0.2.10, port: 81, add_address_to: eth1}, forward: nat, backends: [{name: x, address: 10.0.0.21}]}"),
    ], &[
        "10:71: VIP 192.0.2.10 cannot be on eth1 and, by line 4, column 61, on eth0: name the same NIC in both",
    ]),
    // Services.
    Case(&[(5, "    forward: tunnel")], &[
        "5:14: services[0] has forward: tunnel, but does not say which: add `encap: ipip`, or `encap: gue`",
    ]),
    Case(&[(5, "    forward: nat\n    encap: ipip")], &[
        "6:12: services[0].encap has no effect without forward: tunnel: remove it, or write `forward: tunnel`",
    ]),
    Case(&[(5, "    forward: tunnel\n    encap: ipip\n    gue_port: 6080")], &[
        "7:15: services[0].gue_port has no effect without encap: gue: remove it, or write `forward: tunnel` and `encap: gue`",
    ]),
    Case(&[(5, "    forward: nat\n    ring_size: 65536")], &[
        "6:16: 65536 in services[0].ring_size is not prime, and Maglev needs a prime: write 65521 or 65537",
    ]),
    Case(&[(5, "    forward: nat\n    window: 1500ms")], &[
        "6:13: 1500ms in services[0].window is out of bounds: write whole seconds from 1s to 8000s",
    ]),
    Case(&[(5, "    forward: nat\n    timeouts: {tcp: 3h, udp: 0s}")], &[
        "6:21: 3h in services[0].timeouts.tcp is out of bounds: write whole seconds from 1s to 8000s",
        "6:30: 0s in services[0].timeouts.udp is out of bounds: write whole seconds from 1s to 8000s",
    ]),
    Case(&[(5, "    forward: nat\n    allow: [\"2001:db8::/32\"]")], &[
        "6:13: 2001:db8::/32 in services[0].allow[0] can never match: the VIP 192.0.2.10 is IPv4: write IPv4 prefixes",
    ]),
    Case(&[(1, "backend_defaults: {inter: 1ms, timeout: 2h}")], &[
        "1:27: 1ms in backend_defaults.inter is out of bounds: write 10ms to 1h",
        "1:41: 2h in backend_defaults.timeout is out of bounds: write 10ms to 1h",
    ]),
    // Backends.
    Case(&[(9, "      - {name: web1, address: 10.0.0.12}")], &[
        "9:16: the name `web1` of services[0].backends[1].name is taken: first in line 8, column 16: give each \
            backend of a service a name of its own",
    ]),
    Case(&[(9, "      - {name: web2, address: \"10.0.0.11:80\"}")], &[
        "9:31: 10.0.0.11 port 80 in services[0].backends[1].address is a backend already, first in line 8, column 31: \
            remove one of the two; a greater `weight` gives a backend a greater share",
    ]),
    Case(&[(9, "      - {name: web2, address: 192.0.2.10}")], &[
        "9:31: 192.0.2.10 in services[0].backends[1].address is the VIP of service `web` (line 4, column 23): \
            packets would run in a circle: write the backend's own address",
    ]),
    Case(&[(9, "      - {name: web2, address: 127.0.0.1}")], &[
        "9:31: 127.0.0.1 in services[0].backends[1].address is a loopback address: ...",
    ]),
    Case(&[(9, "      - {name: web2, address: \"2001:db8::11\"}")], &[
        "9:31: 2001:db8::11 in services[0].backends[1].address is IPv6, the VIP 192.0.2.10 is IPv4, and forward: nat \
            cannot change that: use addresses of one family, or `forward: tunnel`",
    ]),
    Case(&[(5, "    forward: dsr"), (9, "      - {name: web2, address: 10.0.0.12:8080}")], &[
        "9:31: port 8080 in services[0].backends[1].address is not the service's 80: only nat changes ports: leave \
            the port out ...",
    ]),
    Case(&[(10, "  - {name: b, listen: {address: 192.0.2.11, port: 81}, forward: nat, backends: [{name: x, address: 10.0.0.11:80}]}")], &[
        "10:100: 10.0.0.11 port 80 tcp is a nat backend of `b` and, in line 8, column 31, of `web`: its answers could \
            not be told apart: let the server listen on a second port or address for one of the two services",
    ]),
    // Limits.
    Case(&[(1, "limits: {services: 1, backends: 2}"), (10, SECOND)], &[
        "1:20: 1 in limits.services is too small: the file has 2 services: write 4 or more, so that changes fit in too",
        "1:33: 2 in limits.backends is too small: the file has 3 backends: write 6 or more, so that changes fit in too",
    ]),
    Case(&[(5, "    forward: nat\n    deny: [\"2001:db8::/32\"]")], &[
        "6:12: 2001:db8::/32 in services[0].deny[0] can never match: the VIP 192.0.2.10 is IPv4: write IPv4 prefixes",
    ]),
    Case(&[(1, "limits: {deny_prefixes: 1}"), (5, "    forward: nat\n    deny: [10.0.0.0/8, 11.0.0.0/8]")], &[
        "1:25: 1 in limits.deny_prefixes is too small: the file has 2 deny prefixes: ...",
    ]),
    Case(&[(5, "    forward: nat\n    deny_file: deny.txt")], &["6:16: `deny.txt` in services[0].deny_file ..."]),
    Case(&[(4, "    listen: {address: 192.0.2.10, port: 80, protocol: udp}"), (6, ""),
        (5, "    forward: nat\n    rate_limit: {connections: 5/s}\n    syn_flood: 5/s")], &[
        "6:5: services[0].rate_limit needs protocol: tcp: remove it: in UDP no packet says that it opens a flow",
        "7:16: services[0].syn_flood needs protocol: tcp: ...",
    ]),
    Case(&[(5, "    forward: nat\n    rate_limit: {}")], &[
        "6:5: services[0].rate_limit limits nothing: write `connections: 10000/s` or `connections_per_source: 100/s`, \
            or remove it",
    ]),
    Case(&[(5, "    forward: nat\n    rate_limit: {connections: 100}")], &[
        "6:31: `100` in services[0].rate_limit.connections is not a rate: write a unit: 100/s or 100/m",
    ]),
    Case(&[(5, "    forward: nat\n    rate_limit: {connections: 1/h, connections_burst: 100, connections_per_source_burst: 5}")], &[
        "6:55: services[0].rate_limit.connections_burst (100) takes longer than a day to fill: write 24 or less",
        "6:90: services[0].rate_limit.connections_per_source_burst has no effect without connections_per_source: add \
            `connections_per_source:`, or remove it",
    ]),
    Case(&[(5, "    forward: nat\n    syn_flood: {engage: 5/s, release: 6/s}")], &[
        "6:39: services[0].syn_flood.release (6/s) is more than engage (5/s): write 5/s or less; half of it is the default",
    ]),
    Case(&[(1, "limits: {allow_prefixes: 1}"), (5, "    forward: nat\n    allow: [10.0.0.0/8, 11.0.0.0/8]")], &[
        "1:26: 1 in limits.allow_prefixes is too small: the file has 2 allow prefixes: ...",
    ]),
    Case(&[(1, "limits: {ring_slots: 2000}"), (5, "    forward: nat\n    ring_size: 65537")], &[
        "1:22: 2000 in limits.ring_slots is too small: the file has 65537 ring slots: ...",
    ]),
    // Fragments that go where the client's address leads.
    Case(&[(5, "    forward: nat\n    balance: source\n    stateless_fragments: true")], &[
        "7:26: services[0].stateless_fragments has no effect where fragments are dropped: write fragments: udp (datagrams) or all (TCP segments, too), or remove it",
    ]),
    Case(&[(5, "    forward: nat\n    balance: source\n    fragments: drop\n    stateless_fragments: true")], &[
        "8:26: services[0].stateless_fragments has no effect where fragments are dropped: ...",
    ]),
    Case(&[(1, "source_pool: {addresses: [10.0.1.0]}"), (5, "    forward: fullnat\n    fragments: all\n    stateless_fragments: true")], &[
        "7:26: services[0].stateless_fragments does not go with forward: fullnat: remove it: what lb sends from a port of its own is found by the first fragment only",
    ]),
    Case(&[(5, "    forward: nat\n    balance: source\n    track: always\n    fragments: all\n    stateless_fragments: true")], &[
        "9:26: services[0].stateless_fragments does not go with track, persistence or protocol: quic: remove it, or them: they remember more than the client's address",
    ]),
    Case(&[(5, "    forward: nat\n    persistence: {by: source, timeout: 6m}\n    fragments: all\n    stateless_fragments: true")], &[
        "8:26: services[0].stateless_fragments does not go with track, persistence or protocol: quic: ...",
    ]),
    Case(&[(4, "    listen: {address: 192.0.2.10, port: 80, protocol: quic}"), (5, "    forward: nat\n    balance: source\n    stateless_fragments: true"), (6, "")], &[
        "7:26: services[0].stateless_fragments does not go with track, persistence or protocol: quic: ...",
    ]),
    Case(&[(5, "    forward: nat\n    fragments: all\n    stateless_fragments: true")], &[
        "7:26: services[0].stateless_fragments needs balance: source: write balance: source, or remove it",
    ]),
    Case(&[(4, "    listen: {address: 192.0.2.0/24, port: 80, protocol: udp}"), (5, "    forward: dsr\n    balance: source\n    stateless_fragments: true"), (6, "")], &[
        "7:26: services[0].stateless_fragments needs addresses under listen, not prefixes: list the addresses, or remove it",
    ]),
    Case(&[
        (4, "    listen: {address: 192.0.2.10, port: 80, protocol: udp}"),
        (5, "    forward: nat\n    balance: source\n    stateless_fragments: true"),
        (6, ""),
        (10, "  - {name: b, listen: {address: 192.0.2.10, port: 81, protocol: udp}, forward: nat, backends: [{name: x, address: 10.0.0.21}]}"),
    ], &[
        "7:26: services[0].stateless_fragments: service `b` takes fragments to 192.0.2.10/32, too, and a later fragment does not tell which of the two it is for: write fragments: drop at the other one, or remove this",
    ]),
    Case(&[
        (4, "    listen: {address: 192.0.2.10, port: 80, protocol: udp}"),
        (5, "    forward: dsr\n    balance: source\n    stateless_fragments: true"),
        (6, ""),
        (10, "  - {name: b, listen: {address: 192.0.2.0/24, port: 81, protocol: quic}, forward: dsr, backends: [{name: x, address: 10.0.0.21}]}"),
    ], &[
        "7:26: services[0].stateless_fragments: service `b` takes fragments to 192.0.2.10/32, too, ...",
    ]),
    // Errors of all kinds come together, and a service with a wrong shape does not hide what is wrong in another.
    Case(&[
        (1, "interface: [eth0]"),
        (5, "    forward: nta"),
        (10, "  - {name: b, listen: {address: 192.0.2.11, port: 80}, forward: nat, backends: [{name: x, address: ::1}]}"),
    ], &[
        "1:1: unknown key `interface` at the top level: did you mean `interfaces`?",
        "5:14: `nta` is not a value of services[0].forward: did you mean `nat`? ...",
        "10:100: ::1 in services[1].backends[0].address is a loopback address: ...",
    ]),
    // Backends that are discovered.
    Case(&[(8, "      - {name: web1, address: 10.0.0.300}")], &[
        "8:31: `10.0.0.300` in services[0].backends[0].address is not an address or name with a port: write 10.0.0.11:443...",
    ]),
    Case(&[(8, "      - {name: web1, address: app..internal}")], &[
        "8:31: `app..internal` in services[0].backends[0].address is not an address or name with a port: ...",
    ]),
    Case(&[(8, "      - {name: web1, address: 10.0.0.77, srv: _http._tcp.app}")], &[
        "8:47: services[0].backends[0] has `address` and `srv`: remove one of them: ...",
    ]),
    Case(&[(1, "resolver: {min_ttl: 10s, max_ttl: 5s, timeout: 1ms}")], &[
        "1:35: resolver.max_ttl (5s) is shorter than min_ttl (10s): ...",
        "1:48: 1ms in resolver.timeout is out of bounds: write 100ms to 30s",
    ]),
    Case(&[(7, "    backends_from: backends.d\n    backends:")], &[
        "7:20: `backends.d` in services[0].backends_from is not the path of a file: ...",
    ]),
    // Not YAML, or too much of it.
    Case(&[(4, "    listen: {address: 192.0.2.10, port: 80")], &["...not valid YAML: ..."]),
    Case(&[(5, "\tforward: nat")], &["...not valid YAML: ..."]),
    Case(&[(5, "    forward: \"nat")], &["...not valid YAML: ..."]),
    Case(&[(5, "    forward: nat: dsr")], &["5:17: not valid YAML: ..."]),
    Case(&[(5, "    forward: !!str nat")], &["5:14: a YAML tag (`!...`) is not accepted: ..."]),
    Case(&[(5, "    ? [a]\n    : nat")], &["5:7: a key that is a list or mapping is not accepted: ..."]),
    Case(&[(10, "---\na: b")], &["10:1: a second YAML document is not accepted: write one document a file"]),
];

#[test]
fn every_bad_file_gets_exactly_its_errors() {
    assert!(CASES.len() >= 60, "{}", CASES.len());
    let mut failures = Vec::new();
    for Case(changes, expected) in CASES {
        let mut lines: Vec<&str> = BASE.lines().collect();
        lines.push("");
        changes.iter().for_each(|(number, line)| lines[number - 1] = line);
        let text = lines.join("\n");
        let found = match parse(&Source { path: "lb.yaml".into(), text: text.clone() }) {
            Ok(_) => Vec::new(),
            Err(errors) => {
                let place = |d: &super::Diagnostic| format!("{}:{}: {d}", d.line, d.column);
                errors.diagnostics.iter().map(place).collect()
            }
        };
        let same = found.len() == expected.len()
            && expected.iter().zip(&found).all(|(pattern, found)| matches(pattern, found));
        if !same {
            failures.push(format!(
                "{text}\nexpected:\n  {}\nfound:\n  {}\n",
                expected.join("\n  "),
                found.join("\n  ")
            ));
        }
    }
    assert!(failures.is_empty(), "{} cases:\n{}", failures.len(), failures.join("\n"));
}

/// `...` at the beginning or end of the pattern, or in between, stands for anything.
fn matches(pattern: &str, found: &str) -> bool {
    match pattern.split_once("...") {
        // `known here: ...` and the like; the text `(`!...`)` is part of a message.
        _ if pattern == found => true,
        Some(("", middle)) => found.contains(middle.trim_end_matches("...")),
        _ => pattern.strip_suffix("...").is_some_and(|start| found.starts_with(start)),
    }
}

#[test]
fn the_base_of_all_cases_is_good() {
    let source = Source { path: "lb.yaml".into(), text: format!("{BASE}{SECOND}\n") };
    let parsed = parse(&source).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(parsed.config.services.len(), 2);
    assert_eq!(parsed.warnings, []);
}
