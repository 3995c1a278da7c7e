//! Files that nobody meant: whatever the text, the answer is a configuration or errors with places in that text.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::{
    Errors, diagnostic::MAX_DIAGNOSTICS, document::lines, every_option_yaml, model::Source, parse,
};

fn read(text: String) -> Result<(), Errors> {
    parse(&Source { path: "lb.yaml".into(), text }).map(drop)
}

/// Errors are there, lie in the text, and none of them is serde's (`check` must have seen it first).
fn judge(text: String) -> Result<(), TestCaseError> {
    let Err(errors) = read(text.clone()) else { return Ok(()) };
    prop_assert!(!errors.diagnostics.is_empty());
    let lines = lines(&text);
    for diagnostic in &errors.diagnostics {
        let (line, column) = (diagnostic.line as usize, diagnostic.column as usize);
        // The end of the text is a place too.
        prop_assert!(line <= lines.len() + 1, "{diagnostic:?}");
        if line > 0 {
            let length = lines.get(line - 1).map_or(0, |line| line.chars().count());
            prop_assert!((1..=length + 1).contains(&column), "{diagnostic:?} in {length}");
        }
        prop_assert!(!diagnostic.message.contains("cannot be read"), "{diagnostic:?}");
        prop_assert!(!diagnostic.to_string().contains(|c: char| c.is_control()), "{diagnostic:?}");
    }
    let shown = errors.to_string();
    prop_assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
    Ok(())
}

/// Values that are right at some places and wrong at most.
const VALUES: &[&str] = &[
    "",
    "~",
    "0",
    "-1",
    "5",
    "65536",
    "1.5",
    "1e9",
    "true",
    "no",
    "nat",
    "tunnel",
    "tcp",
    "http",
    "up",
    "5s",
    "500ms",
    "9000h",
    "::1",
    "10.0.0.11",
    "10.0.0.11:80",
    "\"[::1]:80\"",
    "10.0.0.0/8",
    "[]",
    "{}",
    "[5]",
    "[eth0]",
    "{a: b}",
    "{type: tcp}",
    "{type: http, port: x}",
    "&x 5",
    "*x",
    "!!int 5",
    "\"\\e[31m\"",
    "200-299",
    "é",
    "\"",
    "'",
    "[",
    "- a",
    "|",
    ">-",
    "18446744073709551616",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_wrong_value_anywhere_is_an_error_with_a_place(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), prop::sample::select(VALUES)), 1..4),
    ) {
        let text = every_option_yaml();
        let mut lines: Vec<String> =
            text.lines().filter(|line| !line.trim_start().starts_with('#')).map(str::to_owned).collect();
        for (index, value) in changes {
            let line = index.get_mut(&mut lines);
            let key = line.split_inclusive(':').next().unwrap_or_default().to_owned();
            *line = format!("{key} {value}");
        }
        judge(lines.join("\n"))?;
    }

    #[test]
    fn damaged_text_is_an_error_with_a_place(
        cuts in proptest::collection::vec(
            (any::<prop::sample::Index>(), 0..40_usize, "[-\\[\\]{}:,&*!|>'\"%@` \t\n#?a-c0-9\u{0}\u{1b}é]{0,3}"),
            1..6,
        ),
    ) {
        let mut text: Vec<char> = include_str!("../../../configs/quickstart.yaml").chars().collect();
        for (index, length, new) in cuts {
            let start = index.index(text.len());
            let end = text.len().min(start + length);
            text.splice(start..end, new.chars());
            if text.is_empty() {
                break;
            }
        }
        judge(text.into_iter().collect())?;
    }

    #[test]
    fn any_text_is_an_error_with_a_place(text in "\\PC{0,200}|[-\\[\\]{}:,&*!|>'\"%@` \t\r\n#?a-c]{0,80}") {
        judge(text)?;
    }
}

#[test]
fn many_errors_are_counted_and_not_all_shown() {
    let mut text = "services:\n".to_owned();
    for index in 0..5_000 {
        writeln!(text, "  - nonsense{index}").unwrap();
    }
    let errors = read(text).unwrap_err();
    assert_eq!(errors.diagnostics.len(), MAX_DIAGNOSTICS);
    assert!(errors.to_string().ends_with("only the first 200 are shown"), "{errors}");
}

#[test]
fn a_large_file_is_read() {
    let mut text = "limits: {backends: 65536}\nservices:\n".to_owned();
    for service in 0..512 {
        let (high, low) = (service / 256, service % 256);
        writeln!(
            text,
            "  - name: s{service}\n    listen: {{address: 192.0.{high}.{low}, port: 80}}"
        )
        .unwrap();
        writeln!(text, "    forward: nat\n    check: {{type: tcp}}\n    backends:").unwrap();
        for backend in 0..64 {
            writeln!(text, "      - {{name: b{backend}, address: 10.{high}.{low}.{backend}}}")
                .unwrap();
        }
    }
    let source = Source { path: "lb.yaml".into(), text };
    let parsed = parse(&source).unwrap_or_else(|errors| panic!("{:.2000}", errors.to_string()));
    assert_eq!(parsed.config.services.len(), 512);
    assert!(parsed.config.services.iter().all(|service| service.backends.len() == 64));
}
