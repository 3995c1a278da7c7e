//! Checks against the real servers: nginx with TLS, MariaDB, PostgreSQL and Redis, good and bad.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use lb_tests::{
    client::wait_for,
    daemon::{Daemon, backend},
    lab::{Arms, Lab, Return, backend4},
    machine::Machine,
    process::Process,
};
use lb_userspace::api::types::BackendStatus;

const MINUTE: Duration = Duration::from_secs(60);

/// One service `web` whose only backend's check is this one.
fn yaml(check: &str) -> String {
    format!(
        "backend_defaults: {{inter: 200ms, fastinter: 100ms, downinter: 200ms, timeout: 5s, rise: 1, fall: 1}}\n\
         services:\n  - name: web\n    listen: {{address: 10.77.0.80, port: 80}}\n    forward: nat\n    \
         check: {{{check}}}\n    backends:\n      - {{name: web1, address: \"{}\"}}\n",
        backend4(1)
    )
}

struct Stand {
    lab: Lab,
    directory: tempfile::TempDir,
}

impl Stand {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Servers that are not root have their own directories in it.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { lab: Lab::new(Arms::One, Return::ThroughLb, 1).unwrap(), directory }
    }

    fn machine(&self) -> &Machine {
        &self.lab.backends[0]
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn secret(&self, text: &str) -> PathBuf {
        let path = self.file("password");
        fs::write(&path, format!("{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn daemon(&self, check: &str) -> Daemon<'_> {
        let mut daemon = Daemon::new(&self.lab.lb, &self.lab.nics, &yaml(check)).unwrap();
        daemon.start().unwrap();
        daemon
    }
}

/// Gives the service another check, and waits for what it finds.
#[track_caller]
fn finds(daemon: &Daemon<'_>, check: &str, code: &str, words: &str) -> BackendStatus {
    daemon.write(&yaml(check)).unwrap();
    daemon.must(&["reload"]);
    sees(daemon, code, words)
}

#[track_caller]
fn sees(daemon: &Daemon<'_>, code: &str, words: &str) -> BackendStatus {
    let status = daemon.wait(&format!("{code} {words}"), MINUTE, |status| {
        backend(status, "web", "web1")
            .is_some_and(|web1| web1.check == code && web1.check_output.contains(words))
    });
    backend(&status, "web", "web1").unwrap().clone()
}

#[test]
fn mariadb_lets_in_who_may_and_tells_whether_it_can_be_written() {
    let stand = Stand::new();
    let machine = stand.machine();
    let socket = stand.file("mariadb.sock");
    let data = stand.file("data");
    machine
        .sh(&format!(
            "mariadb-install-db --no-defaults --user=root --auth-root-authentication-method=normal --skip-test-db \
             --datadir='{}' 2>&1",
            data.display()
        ))
        .unwrap();
    let mut command = Command::new("mariadbd");
    command.args(["--no-defaults", "--user=root", "--bind-address=0.0.0.0", "--port=3306"]);
    command.args([
        "--skip-name-resolve",
        "--performance-schema=0",
        "--innodb-buffer-pool-size=16M",
    ]);
    command.arg(format!("--datadir={}", data.display()));
    command.arg(format!("--socket={}", socket.display()));
    command.arg(format!("--pid-file={}", stand.file("pid").display()));
    let server = Process::start(machine, "mariadb", stand.directory.path(), &command).unwrap();
    let sql = |statement: &str| {
        machine.sh(&format!(
            "mariadb --no-defaults --user=root --socket='{}' --execute=\"{statement}\" 2>&1",
            socket.display()
        ))
    };
    let up = wait_for("MariaDB answers", MINUTE, || sql("select 1"), Result::is_ok);
    up.unwrap();
    sql("create user lb@'%' identified by 'swordfish'").unwrap();
    let password = stand.secret("swordfish");
    let check = format!("type: mysql, port: 3306, password_file: {}", password.display());
    let writable = format!("{check}, require: writable");

    let daemon = stand.daemon(&check);
    sees(&daemon, "L7OK", "MariaDB, writable");
    finds(&daemon, &writable, "L7OK", "writable");
    sql("set global read_only=1").unwrap();
    let replica = sees(&daemon, "L7STS", "MariaDB, read-only");
    assert_eq!(replica.state, "DOWN");
    finds(&daemon, &check, "L7OK", "read-only");
    // A new password is read without a reload.
    stand.secret("wrong");
    let refused = sees(&daemon, "L7STS", "Access denied");
    assert!(!refused.check_output.contains("wrong"), "{refused:?}");
    fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
    sees(&daemon, "SOCKERR", "chmod 600");
    stand.secret("swordfish");
    sees(&daemon, "L7OK", "read-only");
    // Thousands of checks must not look like an attack to the server.
    let aborted = sql("show global status like 'Aborted_c%'").unwrap();
    server.kill().unwrap();
    sees(&daemon, "L4CON", "refused");
    let clients = aborted.lines().find(|line| line.contains("Aborted_clients")).unwrap();
    assert!(clients.ends_with("\t0"), "{aborted}");
}

#[test]
fn postgresql_lets_in_who_may_and_tells_whether_it_can_be_written() {
    let stand = Stand::new();
    let machine = stand.machine();
    let binaries = fs::read_dir("/usr/lib/postgresql").unwrap().flatten().map(|entry| entry.path());
    let binaries = binaries.max().expect("PostgreSQL is installed").join("bin");
    let data = stand.file("pg");
    fs::create_dir(&data).unwrap();
    let password = stand.secret("swordfish");
    // It refuses to be root, and must read the password once.
    let first = stand.file("first");
    fs::write(&first, "swordfish\n").unwrap();
    machine
        .sh(&format!(
            "chown postgres '{data}' '{first}' && setpriv --reuid=postgres --regid=postgres --clear-groups '{bin}/initdb' \
             -D '{data}' -U lb --pwfile='{first}' --auth-host=scram-sha-256 --no-sync 2>&1 && \
             echo 'host all all 0.0.0.0/0 scram-sha-256' >> '{data}/pg_hba.conf'",
            data = data.display(),
            first = first.display(),
            bin = binaries.display()
        ))
        .unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]);
    command.arg(binaries.join("postgres")).arg("-D").arg(&data);
    command.args(["-c", "listen_addresses=*", "-c", "fsync=off", "-c", "unix_socket_directories="]);
    let server = Process::start(machine, "postgres", stand.directory.path(), &command).unwrap();
    let check = format!("type: postgres, port: 5432, password_file: {}", password.display());

    let daemon = stand.daemon(&check);
    sees(&daemon, "L7OK", "writable");
    let unknown = format!("{check}, database: nothing");
    finds(&daemon, &unknown, "L7STS", "database \"nothing\" does not exist");
    finds(&daemon, &check.replace("port", "user: nobody, port"), "L7STS", "authentication failed");
    finds(&daemon, &format!("{check}, require: writable"), "L7OK", "PostgreSQL");
    machine
        .sh(&format!(
            "PGPASSWORD=swordfish psql -h 127.0.0.1 -U lb -d postgres -c 'alter system set default_transaction_read_only = on' \
             -c 'select pg_reload_conf()' 2>&1"
        ))
        .unwrap();
    let replica = sees(&daemon, "L7STS", "read-only");
    assert_eq!(replica.state, "DOWN");
    server.kill().unwrap();
    sees(&daemon, "L4CON", "refused");
}

#[test]
fn redis_answers_who_has_the_password_and_tells_its_role() {
    let stand = Stand::new();
    let machine = stand.machine();
    let start = |name: &str, more: &[&str]| {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "0.0.0.0", "--save", "", "--protected-mode", "no"]).args(more);
        Process::start(machine, name, stand.directory.path(), &command).unwrap()
    };
    let primary = start("primary", &["--port", "6379"]);
    let _replica = start("replica", &["--port", "6380", "--replicaof", "127.0.0.1", "6379"]);
    let _locked = start("locked", &["--port", "6381", "--requirepass", "swordfish"]);

    let daemon = stand.daemon("type: redis, port: 6379");
    sees(&daemon, "L7OK", "role master, writable");
    finds(&daemon, "type: redis, port: 6380", "L7OK", "role slave, read-only");
    let replica =
        finds(&daemon, "type: redis, port: 6380, require: writable", "L7STS", "read-only");
    assert_eq!(replica.state, "DOWN");
    finds(&daemon, "type: redis, port: 6381", "L7STS", "");
    let password = stand.secret("swordfish");
    let check = format!("type: redis, port: 6381, password_file: {}", password.display());
    finds(&daemon, &check, "L7OK", "role master");
    // Without a library: what is said and what is expected.
    let spoken = "type: tcp, port: 6379, send: \"PING\\r\\n\", expect: \"+PONG\"";
    finds(&daemon, spoken, "L7OK", "+PONG");
    finds(&daemon, &spoken.replace("6379", "6381"), "L7TOUT", "NOAUTH");
    primary.kill().unwrap();
    finds(&daemon, "type: redis, port: 6379", "L4CON", "refused");
}

fn certificate(stand: &Stand, name: &str, days: &str) -> (PathBuf, PathBuf) {
    let (certificate, key) =
        (stand.file(&format!("{name}.pem")), stand.file(&format!("{name}.key")));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    command.args(["-nodes", "-subj", "/CN=shop.example", "-addext"]);
    command.args(["subjectAltName=DNS:shop.example", "-days", days]);
    command.arg("-out").arg(&certificate).arg("-keyout").arg(&key);
    let output = stand.machine().output(command).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (certificate, key)
}

fn nginx(stand: &Stand, certificate: &Path, key: &Path) -> Process {
    let configuration = stand.file("nginx.conf");
    let text = format!(
        "daemon off; pid {directory}/nginx.pid; error_log stderr; worker_processes 1; events {{}}\n\
         http {{ access_log off; client_body_temp_path {directory}/a; proxy_temp_path {directory}/b;\n\
         fastcgi_temp_path {directory}/c; uwsgi_temp_path {directory}/d; scgi_temp_path {directory}/e;\n\
         server {{ listen 443 ssl; server_name shop.example; ssl_certificate {}; ssl_certificate_key {};\n\
         location /healthz {{ return 200 'all is well'; }} location /sick {{ return 503; }} }} }}\n",
        certificate.display(),
        key.display(),
        directory = stand.directory.path().display(),
    );
    fs::write(&configuration, text).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&configuration);
    Process::start(stand.machine(), "nginx", stand.directory.path(), &command).unwrap()
}

#[test]
fn nginx_is_asked_over_tls_and_its_certificate_is_judged() {
    let stand = Stand::new();
    let (certificate, key) = certificate(&stand, "shop", "23");
    let server = nginx(&stand, &certificate, &key);
    let daemon = stand.daemon("type: tls, port: 443");
    sees(&daemon, "L6OK", "TLSv1.3, certificate valid for 2");
    let judged = format!(
        "type: tls, port: 443, sni: shop.example, verify: required, ca_file: {}",
        certificate.display()
    );
    finds(&daemon, &judged, "L6OK", "certificate valid for 2");
    finds(&daemon, &judged.replace("sni: shop", "sni: other"), "L6RSP", "");
    finds(&daemon, "type: tls, port: 443, sni: shop.example, verify: required", "L6RSP", "");
    let https = judged.replace("type: tls", "type: https, path: /healthz");
    finds(&daemon, &https, "L7OK", "200 OK");
    finds(&daemon, &format!("{https}, expect: all is well"), "L7OK", "200 OK");
    finds(&daemon, &format!("{https}, expect: never"), "L7RSP", "the body is not as expected");
    finds(&daemon, &https.replace("/healthz", "/sick"), "L7STS", "503");
    finds(&daemon, "type: http, port: 443", "L7STS", "400");
    server.kill().unwrap();
    finds(&daemon, &https, "L4CON", "refused");
}
