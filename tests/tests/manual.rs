//! Manual pages and completions, by the programs that will read them.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use lb_tests::daemon::lb_binary;

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{program} (`cargo xtask test` installs it): {error}"))
}

fn text(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn lb(arguments: &[&str]) -> String {
    let output = run(lb_binary().to_str().unwrap(), arguments);
    assert!(output.status.success(), "lb {arguments:?}: {}", text(&output));
    text(&output)
}

/// The verbs, by the help that users see.
fn verbs() -> Vec<String> {
    let help = lb(&["--help"]);
    let (_, list) = help.split_once("\nCommands:\n").unwrap();
    let verbs: Vec<String> = list
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|verb| verb != "help")
        .collect();
    assert!(verbs.len() > 15 && verbs.contains(&"doctor".to_owned()), "{verbs:?}");
    verbs
}

#[test]
fn manual_pages_have_no_fault_and_say_what_they_should() {
    let directory = tempfile::tempdir().unwrap();
    let written = lb(&["man", directory.path().to_str().unwrap()]);
    let pages: Vec<PathBuf> = written.lines().map(PathBuf::from).collect();
    assert_eq!(
        pages.len(),
        verbs().len() + 2,
        "one for each verb, lb(1) and lb.yaml(5): {written}"
    );
    for page in &pages {
        let path = page.to_str().unwrap();
        let said = text(&run("mandoc", &["-T", "lint", "-W", "warning", path]));
        // A date would make each build another one.
        let faults: Vec<&str> =
            said.lines().filter(|line| !line.contains("missing date")).collect();
        assert!(faults.is_empty(), "{faults:#?}");
        let shown = text(&run("mandoc", &["-T", "utf8", path]));
        assert!(shown.lines().count() > 15, "{path}: {shown}");
    }
    let shown = |page: &str| {
        let path = directory.path().join(page);
        // Bold is written as a letter over itself.
        let shown =
            text(&run("mandoc", &["-T", "ascii", "-O", "width=200", path.to_str().unwrap()]));
        let mut plain = String::new();
        for character in shown.chars() {
            match character {
                '\u{8}' => drop(plain.pop()),
                character => plain.push(character),
            }
        }
        plain
    };
    for verb in verbs() {
        let page = shown(&format!("man1/lb-{verb}.1"));
        assert!(page.contains("EXAMPLES") && page.contains(&format!("lb {verb}")), "{page}");
    }
    let first = shown("man1/lb.1");
    assert!(first.contains("EXIT STATUS") && first.contains("lb-doctor(1)"), "{first}");
    let file = shown("man5/lb.yaml.5");
    assert!(file.contains("services[].backends[].weight"), "{file}");
}

#[test]
fn completions_name_every_verb_and_are_no_nonsense_to_the_shell() {
    let directory = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = lb(&["completions", shell]);
        for verb in verbs() {
            assert!(script.contains(&verb), "{shell} does not know {verb}");
        }
        std::fs::write(directory.path().join(shell), script).unwrap();
    }
    let bash = directory.path().join("bash");
    let parsed = run("bash", &["-n", bash.to_str().unwrap()]);
    assert!(parsed.status.success(), "{}", text(&parsed));
    // What a user gets who types `lb doc<Tab>`.
    let line = format!(
        "source {}; COMP_WORDS=(lb doc); COMP_CWORD=1; _lb lb doc lb; echo \"${{COMPREPLY[@]}}\"",
        bash.display()
    );
    let completed = run("bash", &["-c", &line]);
    assert_eq!(text(&completed).trim(), "doctor");
}
