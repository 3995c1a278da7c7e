//! Agents beside backends, by HAProxy's text protocol: what they say is in the ring, is shown, and outlives the daemon; their
//! silence changes nothing.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    process::Command,
    sync::{Arc, Mutex},
};

use lb_tests::{
    daemon::{Daemon, backend},
    lab::{Arms, Lab, PORT, Return, backend4},
    process::Process,
    stand::{LONG, Stand, sees},
};
use lb_userspace::api::types::BackendStatus;

/// An agent on a backend: says its line to everybody, and remembers what was said to it.
struct Agent {
    line: Arc<Mutex<Option<&'static str>>>,
    heard: Arc<Mutex<String>>,
}

impl Agent {
    /// Listens on port 8888. A line of `None` = it takes connections and says nothing.
    fn start(lab: &Lab, number: usize, line: &'static str) -> Self {
        let agent = Self { line: Arc::new(Mutex::new(Some(line))), heard: Arc::default() };
        let (line, heard) = (agent.line.clone(), agent.heard.clone());
        let address = SocketAddr::new(backend4(number), 8888);
        lab.backends[number - 1].run(move || {
            let listener = TcpListener::bind(address).unwrap();
            std::thread::spawn(move || {
                let mut hanging = Vec::new();
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let mut said = [0; 64];
                    // lb may have gone again.
                    let length = stream.read(&mut said).unwrap_or(0);
                    *heard.lock().unwrap() = String::from_utf8_lossy(&said[..length]).into_owned();
                    match *line.lock().unwrap() {
                        Some(text) => drop(stream.write_all(text.as_bytes())),
                        None => hanging.push(stream),
                    }
                }
            });
        });
        agent
    }

    fn says(&self, line: Option<&'static str>) {
        *self.line.lock().unwrap() = line;
    }
}

fn yaml(agent_check: &str) -> String {
    format!(
        "backend_defaults: {{inter: 200ms, fastinter: 100ms, timeout: 5s}}\n\
         services:\n  - name: web\n    listen: {{address: 10.77.0.80, port: 80}}\n    forward: nat\n    \
         check: {{type: tcp}}\n    {agent_check}\n    backends:\n      - {{name: web1, address: \"{}:{PORT}\"}}\n      \
         - {{name: web2, address: \"{}:{PORT}\"}}\n",
        backend4(1),
        backend4(2)
    )
}

/// Waits until web1 is as wanted; the slots of both.
#[track_caller]
fn until(
    daemon: &Daemon<'_>,
    what: &str,
    wanted: impl Fn(&BackendStatus, &BackendStatus) -> bool,
) -> BackendStatus {
    let both = |status: &_| {
        Some((backend(status, "web", "web1")?.clone(), backend(status, "web", "web2")?.clone()))
    };
    let status =
        daemon.wait(what, LONG, |status| both(status).is_some_and(|(a, b)| wanted(&a, &b)));
    both(&status).unwrap().0
}

fn says(web1: &BackendStatus, words: &str) -> bool {
    web1.agent.as_ref().is_some_and(|agent| agent.says == words)
}

#[test]
fn what_an_agent_says_is_in_the_ring_and_its_silence_changes_nothing() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let agent = Agent::start(&lab, 1, "up 50% maxconn:7\n");
    let _other = Agent::start(&lab, 2, "up\n");
    let with_agent =
        "agent_check: {port: 8888, inter: 100ms, timeout: 300ms, send: \"{service}/{backend}\\n\"}";
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(with_agent)).unwrap();
    daemon.start().unwrap();

    let half = until(&daemon, "web1 has a third of the slots", |web1, web2| {
        says(web1, "50%") && web1.slots > 0 && web1.slots.abs_diff(web2.slots / 2) < web2.slots / 20
    });
    assert_eq!((half.weight, half.weight_percent), (100, Some(50)), "{half:?}");
    assert!(half.agent.as_ref().unwrap().output.contains("maxconn:7 has no effect"), "{half:?}");
    assert_eq!(*agent.heard.lock().unwrap(), "web/web1\n");
    let text = daemon.must(&["status"]);
    assert!(text.contains("100 at 50%") && text.contains("agent 50% (L7OK up 50%"), "{text}");

    agent.says(Some("DRAIN # deploying\r\n"));
    let drained = until(&daemon, "drained", |web1, _| web1.slots == 0);
    assert_eq!((drained.state.as_str(), drained.admin.as_str()), ("UP", "drain (agent)"));
    let csv = daemon.must(&["stats", "--csv"]);
    let line = csv.lines().find(|line| line.starts_with("web,web1,")).unwrap();
    assert!(line.contains(",DRAIN (agent),") && line.contains("DRAIN: deploying"), "{line}");
    agent.says(Some("ready, 100%"));
    until(&daemon, "back", |web1, web2| {
        web1.admin == "ready" && web1.slots.abs_diff(web2.slots) < 100
    });

    agent.says(Some("down # out of disk\n"));
    until(&daemon, "down", |web1, _| web1.state == "DOWN (agent)" && web1.slots == 0);
    // What is beyond understanding, silence, and the agent's end leave it so; so does the daemon's.
    agent.says(Some("gibberish\n"));
    until(&daemon, "gibberish", |web1, _| web1.agent.as_ref().is_some_and(|a| a.code == "L7RSP"));
    agent.says(None);
    until(&daemon, "silence", |web1, _| web1.agent.as_ref().is_some_and(|a| a.code == "L7TOUT"));
    lab.backends[0]
        .sh("nft add table t; nft add chain t i '{ type filter hook input priority 0; }'; \
         nft add rule t i tcp dport 8888 reject with tcp reset")
        .unwrap();
    until(&daemon, "gone", |web1, _| web1.agent.as_ref().is_some_and(|a| a.code == "L4CON"));
    daemon.kill().unwrap();
    daemon.start().unwrap();
    let kept = until(&daemon, "asked again", |web1, _| {
        web1.agent.as_ref().is_some_and(|a| a.code == "L4CON")
    });
    assert_eq!((kept.state.as_str(), kept.slots), ("DOWN (agent)", 0), "{kept:?}");
    lab.backends[0].sh("nft delete table t").unwrap();
    agent.says(Some("up"));
    until(&daemon, "up again", |web1, _| web1.state == "UP" && web1.slots > 0);

    // An operator's word is not an agent's to take back.
    daemon.must(&["drain", "web/web1"]);
    agent.says(Some("ready 70%"));
    let drained = until(&daemon, "heard", |web1, _| says(web1, "70%"));
    assert_eq!((drained.admin.as_str(), drained.slots), ("drain", 0), "{drained:?}");
    agent.says(Some("maint"));
    until(&daemon, "the stricter word", |web1, _| web1.admin == "maint (agent)");
    daemon.must(&["ready", "web/web1"]);

    let events = daemon.must(&["events", "--json"]);
    for text in
        ["web/web1: its agent says drain 50%", "DRAIN: deploying", "says down", "says maint 70%"]
    {
        assert!(events.contains(text), "{text}: {events}");
    }
    // Without agents nothing is left of what they said.
    daemon.write(&yaml("")).unwrap();
    daemon.must(&["reload"]);
    let plain = until(&daemon, "without agents", |web1, web2| {
        web1.agent.is_none() && web1.admin == "ready" && web1.slots.abs_diff(web2.slots) < 100
    });
    assert_eq!(plain.weight_percent, None);
}

#[test]
fn a_header_of_the_check_s_answer_sets_the_weight_where_that_is_wanted() {
    let stand = Stand::new().unwrap();
    let configuration = stand.file("nginx.conf");
    // A file's being there decides what it says: no reload, no signal.
    let text = format!(
        "daemon off; pid {directory}/nginx.pid; error_log stderr; worker_processes 1; events {{}}\n\
         http {{ access_log off; client_body_temp_path {directory}/a; proxy_temp_path {directory}/b;\n\
         fastcgi_temp_path {directory}/c; uwsgi_temp_path {directory}/d; scgi_temp_path {directory}/e;\n\
         server {{ listen 80; location / {{\n\
         if (-f {directory}/forty) {{ add_header X-Load-Balancing-Endpoint-Weight 40; return 200 'fine'; }}\n\
         if (-f {directory}/zero) {{ add_header X-Load-Balancing-Endpoint-Weight 0; return 200 'fine'; }}\n\
         return 200 'fine'; }} }} }}\n",
        directory = stand.directory.path().display()
    );
    fs::write(&configuration, text).unwrap();
    fs::write(stand.file("forty"), "").unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&configuration);
    let _server =
        Process::start(stand.machine(), "nginx", stand.directory.path(), &command).unwrap();

    let daemon = stand.daemon("type: http, port: 80").unwrap();
    let plain = sees(&daemon, "L7OK", "200 OK");
    assert_eq!(plain.weight_percent, None, "not asked: {plain:?}");
    let asking =
        stand.finds(&daemon, "type: http, port: 80, weight_header: true", "L7OK", "weight 40%");
    let asked = daemon.wait("40 percent", LONG, |status| {
        backend(status, "web", "web1").is_some_and(|web1| web1.weight_percent == Some(40))
    });
    println!("{asking:?}");
    assert!(backend(&asked, "web", "web1").unwrap().slots > 0, "the only one has all");
    fs::rename(stand.file("forty"), stand.file("zero")).unwrap();
    daemon.wait("no new flows", LONG, |status| {
        backend(status, "web", "web1")
            .is_some_and(|web1| web1.weight_percent == Some(0) && web1.state == "UP")
    });
    fs::remove_file(stand.file("zero")).unwrap();
    daemon.wait("all of it", LONG, |status| {
        backend(status, "web", "web1").is_some_and(|web1| web1.weight_percent == Some(100))
    });
    stand.finds(&daemon, "type: http, port: 80, path: /other", "L7OK", "200 OK");
    daemon.wait("not asked any more", LONG, |status| {
        backend(status, "web", "web1").is_some_and(|web1| web1.weight_percent.is_none())
    });
}
