//! OpenMetrics text as the older text format of Prometheus (0.0.4), for those that do not ask for OpenMetrics: curl,
//! `promtool check metrics`, and agents that know nothing else.

/// The same samples: families of counters are named with `_total` there, and the end is not marked.
pub fn from_openmetrics(text: &str) -> String {
    let mut classic = String::with_capacity(text.len() + text.len() / 64);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' '))
        else {
            push(&mut classic, line);
            continue;
        };
        // The encoder writes HELP, then TYPE.
        let kind = lines.next_if(|next| next.starts_with("# TYPE ")).unwrap_or_default();
        let kind = kind.rsplit(' ').next().unwrap_or("untyped");
        let suffix = if kind == "counter" { "_total" } else { "" };
        push(&mut classic, &format!("# HELP {name}{suffix} {}", help.replace("\\\"", "\"")));
        push(&mut classic, &format!("# TYPE {name}{suffix} {kind}"));
    }
    classic
}

fn push(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_their_suffix_in_the_head_too() {
        let text = "\
# HELP lb_drops Packets dropped.
# TYPE lb_drops counter
lb_drops_total{reason=\"ttl\"} 1.0
# HELP lb_up Up.
# TYPE lb_up gauge
lb_up 1.0
# EOF
";
        let expected = "\
# HELP lb_drops_total Packets dropped.
# TYPE lb_drops_total counter
lb_drops_total{reason=\"ttl\"} 1.0
# HELP lb_up Up.
# TYPE lb_up gauge
lb_up 1.0
";
        assert_eq!(from_openmetrics(text), expected);
    }
}
