//! `lb top` on a real terminal with a real daemon.

use std::{fs, net::SocketAddr, time::Duration};

use lb_tests::{
    client::{Load, wait_for},
    daemon::{Daemon, backend, lb_binary},
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
    tmux::Tmux,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// As tmux writes it.
const GREEN: &str = "\x1b[38;5;2m";
const MINUTE: Duration = Duration::from_secs(60);

fn yaml() -> String {
    let backends: String = (1..=2)
        .map(|n| format!("      - {{name: web{n}, address: \"{}:{PORT}\"}}\n", backend4(n)))
        .collect();
    format!(
        "services:\n  - name: web\n    listen: {{address: 10.77.0.80, port: {PORT}}}\n    forward: nat\n    \
         check: {{type: http, path: /healthz}}\n    backends:\n{backends}"
    )
}

fn top(daemon: &Daemon<'_>) -> String {
    let (lb, socket) = (lb_binary(), daemon.socket.display().to_string());
    format!("{} --socket {socket} top --interval=200ms", lb.display())
}

fn line<'s>(screen: &'s str, name: &str) -> &'s str {
    screen.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_default()
}

/// The process of `lb top` on this daemon.
fn pid_of_top(daemon: &Daemon<'_>) -> Option<Pid> {
    let socket = daemon.socket.display().to_string();
    let is_ours = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.first().is_some_and(|word| word.ends_with(b"/lb"))
            && words.contains(&socket.as_bytes())
            && words.contains(&b"top".as_slice())
    };
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.find(is_ours).map(Pid::from_raw)
}

/// The shell is back, on a terminal that echoes and reads lines.
#[track_caller]
fn wait_for_a_sane_shell(terminal: &Tmux<'_>) {
    terminal.wait("the shell is back", |screen| screen.contains("ended "));
    terminal.text("clear; stty -a; echo sane=$?");
    terminal.press(&["Enter"]);
    let screen = terminal.wait("stty has answered", |screen| screen.contains("sane=0"));
    for flag in ["icanon", "echo", "isig", "opost"] {
        assert!(screen.split_whitespace().any(|word| word == flag), "{flag}: {screen}");
    }
}

#[test]
fn a_backend_is_drained_watched_and_made_ready_by_keys() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let pause = Duration::from_millis(20);
    let load = Load::start(&lab.client, &[SocketAddr::new(VIP4, PORT)], 4, pause);
    let terminal = Tmux::start(&lab.lb, &daemon.directory, (80, 24)).unwrap();
    terminal.text(&format!("echo before; {}; echo ended $?", top(&daemon)));
    terminal.press(&["Enter"]);
    let screen = terminal.wait("rates are shown", |screen| {
        let words: Vec<&str> = line(screen, "web1").split_whitespace().collect();
        words.get(5).is_some_and(|packets| packets.parse::<f64>().is_ok_and(|n| n > 0.0))
    });
    assert!(screen.contains("2/2 backends UP") && screen.contains("EVENTS"), "{screen}");
    let coloured = terminal.coloured_screen();
    assert!(coloured.contains(GREEN), "states have colours: {coloured:?}");

    terminal.press(&["j", "d"]);
    terminal.wait("it asks", |screen| screen.contains("Drain web/web1"));
    terminal.press(&["n"]);
    terminal.wait("nothing is done", |screen| screen.contains("nothing was changed"));
    assert_eq!(backend(&daemon.status(), "web", "web1").unwrap().admin, "ready");
    terminal.press(&["d", "y"]);
    let admin = |wanted: &'static str| {
        daemon.wait("the backend is changed", MINUTE, |status| {
            backend(status, "web", "web1").is_some_and(|web1| web1.admin == wanted)
        });
        terminal.wait("the change is seen", |screen| line(screen, "web1").contains(wanted));
    };
    admin("drain");
    terminal.press(&["r", "y"]);
    admin("ready");
    terminal.press(&["w", "5", "0", "Enter"]);
    daemon.wait("the weight is set", MINUTE, |status| {
        backend(status, "web", "web1").is_some_and(|web1| web1.weight == 50)
    });
    terminal.wait("the weight is seen", |screen| line(screen, "web1").contains(" 50 "));

    terminal.press(&["Enter"]);
    let page = terminal.wait("the backend's page", |screen| {
        screen.contains("next hop") && screen.contains("handshake")
    });
    for text in ["web/web1", "10.77.0.11:8080", "L7OK 200 OK", "50 (file 100)", "next hop  lb0"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    terminal.press(&["j", "j", "j", "j"]);
    terminal.wait("what became of packets", |screen| screen.contains("nothing dropped"));
    terminal.resize(40, 20);
    terminal.press(&["Escape"]);
    let narrow = terminal.wait("the list on 40 columns", |screen| {
        screen.lines().all(|line| line.chars().count() <= 40) && line(screen, "web2").contains("UP")
    });
    assert!(narrow.contains("ready"), "{narrow}");

    // Packets go on without the daemon, and so does the view.
    daemon.kill().unwrap();
    terminal.wait("the daemon is missed", |screen| screen.contains("NO ANSWER"));
    daemon.start().unwrap();
    terminal.wait("the daemon is back", |screen| !screen.contains("NO ANSWER"));
    terminal.press(&["q"]);
    wait_for_a_sane_shell(&terminal);
    let tally = load.finish();
    assert!(tally.ok() > 0 && tally.failures() == 0, "{tally:?}");
}

#[test]
fn the_terminal_is_given_back_to_whoever_ends_it() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let terminal = Tmux::start(&lab.lb, &daemon.directory, (80, 24)).unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        terminal.text(&format!("clear; NO_COLOR=1 {}; echo ended $?", top(&daemon)));
        terminal.press(&["Enter"]);
        terminal.wait("the view", |screen| screen.contains("2/2 backends UP"));
        let screen = terminal.coloured_screen();
        assert!(!screen.contains(GREEN), "NO_COLOR: {screen:?}");
        let pid = wait_for("lb top runs", MINUTE, || pid_of_top(&daemon), Option::is_some);
        kill(pid.unwrap(), signal).unwrap();
        wait_for_a_sane_shell(&terminal);
    }
    // What is no terminal is told so.
    let output = daemon.lb(&["top"]).unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("needs a terminal"), "{error}");
}
