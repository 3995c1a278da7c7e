//! The `lb` command as scripts see it: exit codes, what goes to which stream, pipes. Nothing here needs root.

use std::{
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Output, Stdio},
};

fn lb(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lb"))
        .args(arguments)
        .env_remove("LB_SOCKET")
        .env_remove("LB_LOG")
        .output()
        .expect("the command starts")
}

fn expect(arguments: &[&str], code: i32) -> (String, String) {
    let output = lb(arguments);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "lb {arguments:?}\n{out}\n{err}");
    (out, err)
}

fn config(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs").join(name);
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn help_and_version_go_to_standard_output() {
    let (out, err) = expect(&["--help"], 0);
    assert!(out.contains("Exit codes:") && err.is_empty(), "{out}{err}");
    assert!(expect(&["--version"], 0).0.starts_with("lb 0."));
    let (short, _) = expect(&["status", "-h"], 0);
    let (long, _) = expect(&["status", "--help"], 0);
    assert!(long.len() > short.len(), "{long}");
}

#[test]
fn a_wrong_command_line_is_2() {
    for arguments in [
        vec!["stat"],
        vec!["drain", "web"],
        vec!["weight", "web/a", "257"],
        vec!["lookup", "1.2.3.4", "5.6.7.8:80"],
        vec!["lookup", "1.2.3.4:1", "5.6.7.8:80", "sctp"],
        vec!["decap", "--detach", "--status"],
        vec!["decap"],
        vec![],
    ] {
        let (out, err) = expect(&arguments, 2);
        assert!(out.is_empty() && !err.is_empty(), "{arguments:?}: {out}{err}");
    }
}

#[test]
fn an_invalid_file_is_3_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lb.yaml");
    std::fs::write(&file, "services:\n  - nmae: web\n").unwrap();
    let file = file.to_str().unwrap();
    let (out, err) = expect(&["check", file], 3);
    assert!(out.is_empty() && err.contains("lb.yaml:2:5"), "{out}{err}");
    let (out, _) = expect(&["check", "--json", file], 3);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["valid"], false);
    assert_eq!(report["errors"][0]["line"], 2, "{report}");
}

#[test]
fn a_valid_file_is_0() {
    let file = config("quickstart.yaml");
    let (out, _) = expect(&["check", &file], 0);
    assert!(out.contains("valid, "), "{out}");
    let (out, _) = expect(&["check", "--json", &file], 0);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["valid"], true, "{report}");
}

#[test]
fn schema_is_json_and_completions_know_the_verbs() {
    let (out, _) = expect(&["schema"], 0);
    let schema: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(schema["properties"]["services"].is_object(), "{schema}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (out, _) = expect(&["completions", shell], 0);
        assert!(out.contains("lookup"), "{shell}: {out}");
    }
}

#[test]
fn no_daemon_is_4_and_names_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("lb.sock");
    let path = socket.to_str().unwrap();
    let verbs: [&[&str]; 7] = [
        &["status"],
        &["stats"],
        &["stats", "--watch", "--json"],
        &["drain", "web/web1"],
        &["weight", "web/web1", "7"],
        &["lookup", "192.0.2.1:1", "192.0.2.2:80", "udp"],
        &["reload"],
    ];
    for verb in verbs {
        let (out, err) = expect(&[verb, ["--socket", path].as_slice()].concat(), 4);
        assert!(out.is_empty() && err.contains(path) && err.contains("not running"), "{out}{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
    drop(UnixListener::bind(&socket).unwrap());
    let (_, err) = expect(&["status", "--socket", path], 4);
    assert!(err.contains("nobody answers"), "{err}");
}

#[test]
fn the_socket_may_come_from_the_environment() {
    let output = Command::new(env!("CARGO_BIN_EXE_lb"))
        .arg("status")
        .env("LB_SOCKET", "/nowhere/of-the-environment")
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("/nowhere/of-the-environment"), "{err}");
}

#[test]
fn health_without_daemon_and_pins_is_1() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("lb.sock");
    let [pins, socket] = [dir.path(), &socket].map(|path| path.to_str().unwrap());
    let (out, _) = expect(&["health", "--pin-dir", pins, "--socket", socket], 1);
    assert!(out.starts_with("not forwarding"), "{out}");
    let (out, _) = expect(&["health", "--json", "--pin-dir", pins, "--socket", socket], 1);
    assert!(out.contains(r#""state":"not_forwarding""#), "{out}");
}

#[test]
fn detach_of_nothing_is_0() {
    let dir = tempfile::tempdir().unwrap();
    let [pins, run] = ["pins", "run"].map(|name| dir.path().join(name));
    let [pins, run] = [&pins, &run].map(|path| path.to_str().unwrap());
    let (out, _) = expect(&["detach", "--pin-dir", pins, "--run-dir", run], 0);
    assert_eq!(out, "nothing to do\n");
}

#[test]
fn a_reader_that_leaves_is_no_fault() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lb"))
        .arg("schema")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && err.is_empty(), "{:?}: {err}", output.status);
}
