//! What two runs of the same command may differ in, replaced by words that do not:
//!
//! | in the output | becomes |
//! |---|---|
//! | blanks, as tables are as wide as their numbers | one blank, none at the end of a line |
//! | MAC address | MAC |
//! | eight hexadecimal digits or more (fingerprints, digests) | HEX |
//! | date and time | WHEN |
//! | port of the client | PORT |
//! | number that stands alone, or with a unit or a per cent sign | N |
//! | number after `"name":` in JSON | N |
//!
//! Names (`web1`), addresses, words and the lines' order are compared as they are.

/// The output without what varies.
pub fn normal(output: &str) -> String {
    output.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The client of the lab.
const CLIENT: &str = "10.77.1.2:";

fn line(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        // JSON is one word, and so are lists without blanks: their parts are looked at one by one.
        words.push(parts(word));
    }
    words.join(" ")
}

/// A word's parts between punctuation that belongs to no value.
fn parts(word: &str) -> String {
    if is_mac(word.trim_matches(is_edge)) {
        return word.replace(word.trim_matches(is_edge), "MAC");
    }
    let mut normal = String::new();
    let mut part = String::new();
    for character in word.chars() {
        if is_edge(character) {
            normal.push_str(&value(&part));
            part.clear();
            normal.push(character);
        } else {
            part.push(character);
        }
    }
    normal.push_str(&value(&part));
    normal
}

fn is_edge(character: char) -> bool {
    matches!(character, '"' | ',' | '(' | ')' | '{' | '}' | '[' | ']' | ';' | '=')
}

fn value(part: &str) -> String {
    if let Some((name, number)) = part.split_once(':').filter(|(name, _)| name.is_empty()) {
        return format!("{name}:{}", value(number));
    }
    if let Some(port) = part.strip_prefix(CLIENT)
        && !port.is_empty()
        && port.chars().all(|c| c.is_ascii_digit())
    {
        return format!("{CLIENT}PORT");
    }
    if is_mac(part) {
        return "MAC".to_owned();
    }
    if is_time(part) {
        return "WHEN".to_owned();
    }
    if part.len() >= 8 && part.chars().all(|c| c.is_ascii_hexdigit()) {
        return "HEX".to_owned();
    }
    if is_number(part) { "N".to_owned() } else { part.to_owned() }
}

fn is_mac(part: &str) -> bool {
    part.len() == 17
        && part.split(':').count() == 6
        && part
            .split(':')
            .all(|byte| byte.len() == 2 && byte.chars().all(|c| c.is_ascii_hexdigit()))
}

/// `2026-11-21T11:24:00Z`, `2026-11-21`, `11:24:00.123`
fn is_time(part: &str) -> bool {
    let digits = part.chars().filter(char::is_ascii_digit).count();
    let shape = |separator| part.split(separator).count() == 3;
    digits >= 6
        && part.starts_with(|c: char| c.is_ascii_digit())
        && part
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, '-' | ':' | '.' | 'T' | 'Z' | '+'))
        && (shape('-') || shape(':'))
}

/// `12`, `1.5`, `33.3%`, `12ms`, `1m30s`, `4.2K`, `-`: no, as that means that there is none.
fn is_number(part: &str) -> bool {
    let part = part.trim_end_matches([':', '.', '%']);
    if !part.starts_with(|c: char| c.is_ascii_digit()) || part.matches('.').count() > 1 {
        return false;
    }
    let units =
        part.split(|c: char| c.is_ascii_digit() || c == '.').filter(|unit| !unit.is_empty());
    units.into_iter().all(|unit| {
        matches!(
            unit,
            "us" | "ms"
                | "s"
                | "m"
                | "h"
                | "d"
                | "K"
                | "M"
                | "G"
                | "T"
                | "k"
                | "B"
                | "KiB"
                | "MiB"
                | "x"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_varies_is_replaced() {
        for (text, expected) in [
            ("web1   UP    341  12ms", "web1 UP N N"),
            ("pid 4711  up 3s  seed 9f3a01bc22", "pid N up N seed HEX"),
            ("lb0 02:fc:00:00:00:01", "lb0 MAC"),
            ("2026-11-21T11:24:00.1Z backend_down web/web2", "WHEN backend_down web/web2"),
            (
                "10.77.1.2:4711 > 10.77.0.80:80 TCP SYN, ttl 64",
                "10.77.1.2:PORT > 10.77.0.80:80 TCP SYN, ttl N",
            ),
            ("33.4% of 1021 slots (12)", "N of N slots (N)"),
            (r#"{"requests":12,"name":"web1"}"#, r#"{"requests":N,"name":"web1"}"#),
            ("1m30s ago; 10.77.0.11:8080 fd77::80", "N ago; 10.77.0.11:8080 fd77::80"),
        ] {
            assert_eq!(normal(text), expected);
        }
    }

    #[test]
    fn what_matters_stays() {
        for text in
            ["web1 web/web2 L4OK L7STS/503", "-", "DOWN 1/2", "http://10.77.0.80/", "v2", "lb0"]
        {
            assert_eq!(normal(text), text);
        }
        assert_ne!(normal("web1 UP"), normal("web1 DOWN"));
        assert_ne!(normal("a\nb"), normal("b\na"));
    }
}
