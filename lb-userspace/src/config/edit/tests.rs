use proptest::prelude::*;

use super::*;
use crate::config::{Source, model::Config, parse};

/// Files as people write them.
const FILES: [&str; 6] = [
    include_str!("../../../../configs/minimal.yaml"),
    include_str!("../../../../configs/quickstart.yaml"),
    include_str!("../../../../configs/web-dsr.yaml"),
    include_str!("../../../../configs/web-tunnel.yaml"),
    include_str!("../../../../configs/every-option.yaml"),
    include_str!("../../../../configs/scale-up/lb.yaml"),
];

fn set(text: &str, service: &str, backend: Option<&str>, key: &str, new: &str) -> String {
    edit(text, &[Edit::new(Some(service), backend, key, value(new))]).unwrap()
}

#[test]
fn only_the_wanted_bytes_change() {
    let text = "\
# head
services:
  - name: web   # the shop
    window: 5s  # short
    check:
      # readiness
      type: http
      path: /a
    backends:
      - {name: web1, address: 10.0.0.11} # left
      - name: web2
        address: 10.0.0.12
  - backends: []
    name: \"é\"
";
    let changed = |backend, key: &str, new: &str| set(text, "web", backend, key, new);
    for (backend, key, new, from, to) in [
        (None, "window", "7s", "window: 5s  # short", "window: 7s  # short"),
        (None, "check.path", "/b c#d", "path: /a", "path: /b c#d"),
        (None, "check.host", "x", "      path: /a\n", "      path: /a\n      host: x\n"),
        (None, "timeouts.tcp", "9s", "5s  # short\n", "5s  # short\n    timeouts: {tcp: 9s}\n"),
        (Some("web1"), "rise", "3", "10.0.0.11}", "10.0.0.11, rise: 3}"),
        (Some("web1"), "address", "10.9.9.9", "10.0.0.11", "10.9.9.9"),
        (Some("web2"), "rise", "3", "10.0.0.12\n", "10.0.0.12\n        rise: 3\n"),
        (
            None,
            "allow",
            "[10.0.0.0/8, \"::/0\"]",
            "short\n",
            "short\n    allow: [10.0.0.0/8, \"::/0\"]\n",
        ),
    ] {
        let edited = changed(backend, key, new);
        assert_eq!(edited, text.replacen(from, to, 1), "{key}");
    }
    let edited = set(text, "é", None, "window", "1s");
    assert_eq!(edited, text.replace("name: \"é\"\n", "name: \"é\"\n    window: 1s\n"));
    // With the line ends of the file, and a byte order mark.
    let windows = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    let edited = set(&windows, "web", Some("web2"), "rise", "3");
    assert_eq!(edited, windows.replace("10.0.0.12\r\n", "10.0.0.12\r\n        rise: 3\r\n"));
    let edited = set("{services: [{name: web}]}", "web", None, "timeouts.tcp", "1s");
    assert_eq!(edited, "{services: [{name: web, timeouts: {tcp: 1s}}]}");
    // Without a line end at the end, and with nothing on one line before.
    let edited = edit("a:\n  - b", &[Edit::new(None, None, "c", "d".into())]).unwrap();
    assert_eq!(edited, "c: d\na:\n  - b");
    let edited = edit("a: b", &[Edit::new(None, None, "c", "d".into())]).unwrap();
    assert_eq!(edited, "a: b\nc: d");
}

#[test]
fn what_cannot_be_edited_is_refused() {
    let refuse = |text: &str, backend, key| {
        edit(text, &[Edit::new(Some("web"), backend, key, "1".into())]).unwrap_err()
    };
    let anchored = "services:\n  - {name: web, check: &c {type: tcp}}\n  - {name: b, check: *c}\n";
    assert_eq!(refuse(anchored, None, "check.port"), EditError::Shared);
    assert_eq!(refuse("services: [{name: b}]", None, "x"), EditError::Missing("web".into()));
    let short = "services: [{name: web, backends: [{name: c}]}]";
    assert_eq!(refuse(short, Some("d"), "x"), EditError::Missing("d".into()));
    let scalar = "services: [{name: web, check: tcp}]";
    assert_eq!(refuse(scalar, None, "check.port"), EditError::NoMapping("check".into()));
    // An alias itself is one value among others.
    let alias = "a: &a 1\nb: *a\n";
    assert!(edit(alias, &[Edit::new(None, None, "b", "2".into())]).is_err());
}

#[test]
fn values_are_quoted_where_they_have_to_be() {
    for (raw, written) in [
        ("3", "3"),
        (" 5s ", "5s"),
        ("/a?b=c", "/a?b=c"),
        ("[a, b]", "[a, b]"),
        ("{type: tcp}", "{type: tcp}"),
        ("\"x y\"", "\"x y\""),
        ("a, b", "\"a, b\""),
        ("a: b", "\"a: b\""),
        ("a #b", "\"a #b\""),
        ("*x", "\"*x\""),
        ("!x", "\"!x\""),
        ("", "\"\""),
        ("- a", "\"- a\""),
        ("[a", "\"[a\""),
        ("{a: 1} b", "\"{a: 1} b\""),
        ("a\nb: c", "\"a\\nb: c\""),
        ("fd00::1", "fd00::1"),
        ("[fd00::1]:80", "\"[fd00::1]:80\""),
    ] {
        assert_eq!(value(raw), written, "{raw}");
    }
}

fn config(text: &str) -> Result<Config, String> {
    parse(&Source { path: "lb.yaml".into(), text: text.into() })
        .map(|parsed| parsed.config)
        .map_err(|errors| errors.to_string())
}

/// Changes that are valid nearly everywhere: key, value, whether of a backend.
const CHANGES: [(&str, &str, bool); 12] = [
    ("rise", "7", true),
    ("fall", "9", true),
    ("weight", "33", true),
    ("inter", "11s", true),
    ("timeout", "900ms", true),
    ("init_state", "up", true),
    ("on_all_down", "reject", false),
    ("window", "77s", false),
    ("timeouts.tcp", "444s", false),
    ("allow", "[10.0.0.0/8, 192.0.2.0/24]", false),
    ("backend_defaults.fall", "5", false),
    ("ring_size", "4093", false),
];

/// What the change does to the model.
fn change(config: &mut Config, service: usize, backend: usize, number: usize) {
    use std::time::Duration;
    let service = &mut config.services[service];
    let one = std::sync::Arc::make_mut(&mut service.backends[backend]);
    match CHANGES[number].0 {
        "rise" => one.timing.rise = 7,
        "fall" => one.timing.fall = 9,
        "weight" => one.weight = 33,
        "inter" => one.timing.inter = Duration::from_secs(11),
        "timeout" => one.timing.timeout = Duration::from_millis(900),
        "init_state" => one.timing.init_state = crate::config::model::InitState::Up,
        "on_all_down" => service.on_all_down = crate::config::model::OnAllDown::Reject,
        "window" => service.window = Duration::from_secs(77),
        "timeouts.tcp" => service.timeouts.tcp = Duration::from_secs(444),
        "allow" => {
            service.allow = ["10.0.0.0/8", "192.0.2.0/24"].map(|net| net.parse().unwrap()).into();
        }
        "ring_size" => service.ring_size = Some(4093),
        _ => {}
    }
    // Who tracks a backend goes by its checks.
    crate::config::tracks::follow(&mut config.services);
}

proptest! {
    #[test]
    fn an_edit_of_an_example_changes_that_line_alone_and_means_what_it_says(
        file in 0..FILES.len(), service: prop::sample::Index, backend: prop::sample::Index,
        number in 0..CHANGES.len(), windows: bool,
    ) {
        let text = match windows {
            true => FILES[file].replace('\n', "\r\n"),
            false => FILES[file].to_owned(),
        };
        let before = config(&text).unwrap();
        let service = service.index(before.services.len());
        let backend = backend.index(before.services[service].backends.len());
        let (key, new, of_backend) = CHANGES[number];
        let names = &before.services[service];
        let backend_name = of_backend.then(|| names.backends[backend].name.as_str());
        let edited = edit(&text, &[Edit::new(Some(&names.name), backend_name, key, value(new))]).unwrap();

        // One line is another, or one is new; each other is as it was.
        let (old, new): (Vec<&str>, Vec<&str>) = (text.split('\n').collect(), edited.split('\n').collect());
        let same_start = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
        let same_end = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
        prop_assert!(new.len() == old.len() || new.len() == old.len() + 1 || key == "allow", "{edited}");
        prop_assert!(same_start + same_end + 1 >= new.len() || key == "allow", "{edited}");
        let comments = |text: &str| text.split('\n').filter(|line| line.contains('#')).count();
        prop_assert!(comments(&edited) == comments(&text) || key == "allow");

        let after = config(&edited);
        let mut wanted = before.clone();
        change(&mut wanted, service, backend, number);
        match after {
            // Defaults of backends reach those without a word of their own.
            Ok(after) if key == "backend_defaults.fall" => {
                for (old, new) in before.services.iter().zip(&after.services) {
                    for (old, new) in old.backends.iter().zip(&new.backends) {
                        prop_assert!(new.timing.fall == old.timing.fall || new.timing.fall == 5);
                    }
                }
            }
            Ok(after) => prop_assert_eq!(after, wanted),
            // IPv4 prefixes do not go with an IPv6 VIP, a time-out below another...: the file says so itself.
            Err(errors) => prop_assert!(["allow", "window", "timeouts.tcp", "timeout", "inter"].contains(&key), "{key}: {errors}"),
        }
    }

    #[test]
    fn any_text_is_a_value(raw in "\\PC{0,20}") {
        let written = value(&raw);
        prop_assert!(tree::of_value(&written).is_some(), "{raw:?} -> {written:?}");
    }
}
