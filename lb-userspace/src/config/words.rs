//! What people write when they mean something else: words of HAProxy, IPVS, keepalived and Envoy, slips of the keyboard,
//! and words for what is not built.

use super::shape;

/// Keys by other names. The first of the names on the right that is a key at that place is suggested.
const OTHER_NAMES: &[(&str, &[&str])] = &[
    ("acl", &["allow"]),
    ("addr", &["address"]),
    ("agent", &["agent_check"]),
    ("algorithm", &["balance"]),
    ("args", &["arguments"]),
    ("allowed", &["allow"]),
    ("attach", &["interfaces"]),
    ("bind", &["listen"]),
    ("bindto", &["source"]),
    ("checks", &["check"]),
    ("code", &["status"]),
    ("codes", &["status"]),
    ("default_server", &["backend_defaults"]),
    ("defaults", &["backend_defaults"]),
    ("delay_loop", &["inter"]),
    ("dev", &["add_address_to"]),
    ("devices", &["interfaces"]),
    ("encapsulation", &["encap"]),
    ("endpoints", &["backends"]),
    ("expected_codes", &["status"]),
    ("expect_pattern", &["expect_regex"]),
    ("fallback", &["on_all_down"]),
    ("forwarding", &["forward"]),
    ("frontend", &["services", "listen"]),
    ("frontends", &["services"]),
    ("group", &["socket_group"]),
    ("header", &["headers"]),
    ("health_check", &["check"]),
    ("healthcheck", &["check"]),
    ("healthy_threshold", &["rise"]),
    ("iface", &["interfaces"]),
    ("ifaces", &["interfaces"]),
    ("init", &["init_state"]),
    ("interface", &["interfaces"]),
    ("interval", &["inter"]),
    ("ip", &["address"]),
    ("kind", &["type", "forward"]),
    ("lb_kind", &["forward"]),
    ("listeners", &["services"]),
    ("maglev_size", &["ring_size"]),
    ("members", &["backends"]),
    ("metrics_listen", &["metrics"]),
    ("mode", &["type", "forward", "xdp_mode"]),
    ("nic", &["interfaces"]),
    ("nics", &["interfaces"]),
    ("on_down", &["on_marked_down", "on_all_down"]),
    ("program", &["command"]),
    ("proto", &["protocol"]),
    ("qname", &["query"]),
    ("qtype", &["record"]),
    ("real_server", &["backends"]),
    ("real_servers", &["backends"]),
    ("reals", &["backends"]),
    ("regex", &["expect_regex"]),
    ("scheduler", &["balance"]),
    ("server", &["backends"]),
    ("servers", &["backends"]),
    ("source_ranges", &["allow"]),
    ("table_size", &["ring_size"]),
    ("src", &["source"]),
    ("targets", &["backends"]),
    ("timeout", &["timeouts"]),
    ("unhealthy_threshold", &["fall"]),
    ("upstreams", &["backends"]),
    ("ui", &["dashboard"]),
    ("uri", &["path"]),
    ("url", &["path"]),
    ("vip", &["address", "listen"]),
    ("vips", &["services"]),
    ("virtual_server", &["services"]),
    ("virtual_servers", &["services"]),
    ("virtual_services", &["services"]),
    ("whitelist", &["allow"]),
    ("xdp", &["xdp_mode"]),
];

/// Keys that this version does not have, with what to do.
const NOT_BUILT: &[(&str, &str)] = &[
    ("<<", "YAML merge keys are not supported: use backend_defaults, or repeat the keys"),
    ("direct", "not built: remove the key"),
    ("hash_key", "remove the key; `balance: source` hashes the client alone"),
    (
        "hash_seed",
        "the seed is in a file of its own that lb makes, never in this one: remove the key",
    ),
    ("maxconn", "limits of connections are not built: remove the key"),
    ("send_proxy", "the PROXY protocol is not built: remove the key"),
    ("sorry_server", "list the server under `backends:`, with `sorry: true`"),
];

/// Keys that belong elsewhere in a way that only words can tell: place, key, help.
const MISPLACED: &[(&str, &str, &str)] = &[
    ("services[].backends[]", "port", "write it with the address: `address: 10.0.0.11:443`"),
    (
        "services[].backends[]",
        "check",
        "a check is for all backends of a service: `check:` beside `backends:`",
    ),
    (
        "services[].backends[]",
        "observe",
        "all backends of a service are observed alike: `observe:` beside `backends:`",
    ),
    ("services[]", "address", "write `listen: {address: ..., port: ...}`"),
    ("services[]", "port", "write `listen: {address: ..., port: ...}`"),
    ("services[]", "weight", "write it under `backend_defaults:` or in a backend"),
];

/// Words by other names: key, word, the word to write.
const OTHER_WORDS: &[(&str, &str, &str)] = &[
    ("forward", "masq", "nat"),
    ("forward", "masquerade", "nat"),
    ("forward", "dnat", "nat"),
    ("forward", "direct", "dsr"),
    ("forward", "dr", "dsr"),
    ("forward", "gatewaying", "dsr"),
    ("forward", "l2", "dsr"),
    ("forward", "route", "dsr"),
    ("forward", "ipip", "tunnel"),
    ("forward", "tun", "tunnel"),
    ("type", "ping", "icmp"),
    ("type", "external", "exec"),
    ("type", "external-check", "exec"),
    ("type", "script", "exec"),
    ("type", "mariadb", "mysql"),
    ("type", "pgsql", "postgres"),
    ("type", "postgresql", "postgres"),
    ("init_state", "fully-down", "down"),
    ("init_state", "fully-up", "up"),
    ("via", "backend", "direct"),
    ("via", "tunnel", "vip"),
    ("version", "http1", "h1"),
    ("version", "http2", "h2"),
    ("balance", "hash", "maglev"),
    ("balance", "ip_hash", "source"),
    ("balance", "lc", "leastconn"),
    ("balance", "least_connections", "leastconn"),
    ("balance", "mh", "maglev"),
    ("balance", "random", "random2"),
    ("balance", "round_robin", "wrr"),
    ("balance", "roundrobin", "wrr"),
    ("balance", "sh", "source"),
    ("balance", "src", "source"),
    ("balance", "static-rr", "wrr"),
    ("on_all_down", "fail-open", "fail_open"),
    ("on_all_down", "rst", "reject"),
    ("on_all_down", "reset", "reject"),
    ("on_error", "fail-check", "fail_check"),
    ("on_error", "mark-down", "mark_down"),
    ("on_error", "sudden-death", "sudden_death"),
    ("on_marked_down", "none", "keep"),
    ("on_marked_down", "shutdown-sessions", "move"),
    ("forward", "snat", "fullnat"),
    ("xdp_mode", "driver", "native"),
    ("xdp_mode", "drv", "native"),
    ("xdp_mode", "skb", "generic"),
];

/// Words for what this version does not have: key, word.
const WORDS_NOT_BUILT: &[(&str, &str)] = &[
    ("encap", "geneve"),
    ("encap", "gre"),
    ("encap", "vxlan"),
    ("protocol", "any"),
    ("protocol", "icmp"),
    ("protocol", "sctp"),
    ("xdp_mode", "offload"),
];

/// What to do about a key that is not known at `path`, where `here` are the keys that are.
pub fn help_for_key(path: &str, key: &str, here: &[&str]) -> String {
    let place = without_indices(path);
    let plain = plain(key);
    let same = here.iter().find(|known| plain == **known);
    let other = OTHER_NAMES.iter().find(|(name, _)| plain == *name);
    let other = other.and_then(|(_, names)| names.iter().find(|name| here.contains(name)));
    if let Some(name) = same.or(other) {
        return did_you_mean(name);
    }
    if let Some((.., help)) = MISPLACED.iter().find(|(p, k, _)| *p == place && plain == *k) {
        return (*help).to_owned();
    }
    if let Some((_, help)) = NOT_BUILT.iter().find(|(name, _)| plain == *name) {
        return (*help).to_owned();
    }
    let mut elsewhere: Vec<String> = shape::all_keys()
        .into_iter()
        .filter(|(_, known)| known.name == plain)
        .map(|(path, _)| if path.is_empty() { "the top level".to_owned() } else { path })
        .collect();
    elsewhere.dedup();
    if !elsewhere.is_empty() {
        return format!("`{plain}` belongs in {}", elsewhere.join(" or "));
    }
    match nearest(&plain, here) {
        Some(name) => did_you_mean(name),
        None => format!("known here: {}", here.join(", ")),
    }
}

/// What to do about a word that is not one of `words`, the values of `key`.
pub fn help_for_word(key: &str, word: &str, words: &[String]) -> String {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let list = match words.as_slice() {
        [only] => format!("write {only}"),
        words => format!("write one of {}", words.join(", ")),
    };
    let lower = word.to_lowercase();
    if WORDS_NOT_BUILT.contains(&(key, &lower)) {
        return format!("it is not built: {list}");
    }
    let other = OTHER_WORDS.iter().find(|(k, w, _)| *k == key && *w == lower);
    match other.map(|(.., right)| *right).or_else(|| nearest(&lower, &words)) {
        Some(right) => format!("did you mean `{right}`? ({list})"),
        None => list,
    }
}

fn did_you_mean(name: &str) -> String {
    format!("did you mean `{name}`?")
}

/// `Default-Server` -> `default_server`
fn plain(key: &str) -> String {
    key.to_lowercase().replace(['-', ' '], "_")
}

/// `services[0].backends[1]` -> `services[].backends[]`
fn without_indices(path: &str) -> String {
    path.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// The nearest of `words`, if a slip of the keyboard explains the difference.
fn nearest<'a>(word: &str, words: &[&'a str]) -> Option<&'a str> {
    // Longer than every word: comparing would only cost time.
    if word.chars().count() > 40 {
        return None;
    }
    let distance = |candidate: &str| strsim::damerau_levenshtein(word, candidate);
    let best = words.iter().copied().min_by_key(|candidate| distance(candidate))?;
    let length = word.chars().count().max(best.chars().count());
    (distance(best) <= 1.max(length / 3)).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_right_are_keys_and_on_the_left_are_not() {
        let keys: Vec<String> =
            shape::all_keys().into_iter().map(|(_, key)| key.name.clone()).collect();
        let known = |name: &str| keys.iter().any(|key| key == name);
        for (wrong, right) in OTHER_NAMES {
            assert!(right.iter().all(|name| known(name)), "{wrong} -> {right:?}");
            assert_eq!(plain(wrong), *wrong);
        }
        for (name, _) in NOT_BUILT {
            assert!(!known(name), "{name} is built");
        }
        for (_, key, _) in MISPLACED {
            assert!(known(key), "{key} is not a key");
        }
        for (key, ..) in OTHER_WORDS {
            assert!(known(key), "{key} is not a key");
        }
    }

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        assert_eq!(nearest("adress", &["address", "port"]), Some("address"));
        assert_eq!(nearest("backens", &["backends", "check"]), Some("backends"));
        assert_eq!(nearest("wieght", &["weight", "name"]), Some("weight"));
        assert_eq!(nearest("colour", &["weight", "name"]), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), &["weight"]), None);
    }
}
