//! Checks of databases against the real servers, MariaDB, PostgreSQL and Redis, good and bad.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use lb_tests::{
    client::wait_for,
    process::Process,
    stand::{LONG, Stand, sees},
};

#[test]
fn mariadb_lets_in_who_may_and_tells_whether_it_can_be_written() {
    let stand = Stand::new().unwrap();
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
    let up = wait_for("MariaDB answers", LONG, || sql("select 1"), Result::is_ok);
    up.unwrap();
    sql("create user lb@'%' identified by 'swordfish'").unwrap();
    let password = stand.secret("swordfish").unwrap();
    let check = format!("type: mysql, port: 3306, password_file: {}", password.display());
    let writable = format!("{check}, require: writable");

    let daemon = stand.daemon(&check).unwrap();
    let first = sees(&daemon, "L7OK", ", writable");
    assert!(first.check_output.contains("MariaDB"), "{first:?}");
    stand.finds(&daemon, &writable, "L7OK", "writable");
    sql("set global read_only=1").unwrap();
    let replica = sees(&daemon, "L7STS", "read-only");
    assert_eq!(replica.state, "DOWN");
    stand.finds(&daemon, &check, "L7OK", "read-only");
    // A new password is read without a reload.
    stand.secret("wrong").unwrap();
    let refused = sees(&daemon, "L7STS", "Access denied");
    assert!(!refused.check_output.contains("wrong"), "{refused:?}");
    fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
    sees(&daemon, "SOCKERR", "chmod 600");
    stand.secret("swordfish").unwrap();
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
    let stand = Stand::new().unwrap();
    let machine = stand.machine();
    let binaries = fs::read_dir("/usr/lib/postgresql").unwrap().flatten().map(|entry| entry.path());
    let binaries = binaries.max().expect("PostgreSQL is installed").join("bin");
    let data = stand.file("pg");
    fs::create_dir(&data).unwrap();
    let password = stand.secret("swordfish").unwrap();
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

    let daemon = stand.daemon(&check).unwrap();
    sees(&daemon, "L7OK", "writable");
    let unknown = format!("{check}, database: nothing");
    stand.finds(&daemon, &unknown, "L7STS", "database \"nothing\" does not exist");
    stand.finds(
        &daemon,
        &check.replace("port", "user: nobody, port"),
        "L7STS",
        "authentication failed",
    );
    stand.finds(&daemon, &format!("{check}, require: writable"), "L7OK", "PostgreSQL");
    machine
        .sh(
            "PGPASSWORD=swordfish psql -h 127.0.0.1 -U lb -d postgres -c 'alter system set default_transaction_read_only = on' \
             -c 'select pg_reload_conf()' 2>&1"
        )
        .unwrap();
    let replica = sees(&daemon, "L7STS", "read-only");
    assert_eq!(replica.state, "DOWN");
    server.kill().unwrap();
    sees(&daemon, "L4CON", "refused");
}

#[test]
fn redis_answers_who_has_the_password_and_tells_its_role() {
    let stand = Stand::new().unwrap();
    let machine = stand.machine();
    let start = |name: &str, more: &[&str]| {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "0.0.0.0", "--save", "", "--protected-mode", "no"]).args(more);
        Process::start(machine, name, stand.directory.path(), &command).unwrap()
    };
    let primary = start("primary", &["--port", "6379"]);
    let _replica = start("replica", &["--port", "6380", "--replicaof", "127.0.0.1", "6379"]);
    let _locked = start("locked", &["--port", "6381", "--requirepass", "swordfish"]);

    let daemon = stand.daemon("type: redis, port: 6379").unwrap();
    sees(&daemon, "L7OK", "role master, writable");
    stand.finds(&daemon, "type: redis, port: 6380", "L7OK", "role slave, read-only");
    let replica =
        stand.finds(&daemon, "type: redis, port: 6380, require: writable", "L7STS", "read-only");
    assert_eq!(replica.state, "DOWN");
    stand.finds(&daemon, "type: redis, port: 6381", "L7STS", "");
    let password = stand.secret("swordfish").unwrap();
    let check = format!("type: redis, port: 6381, password_file: {}", password.display());
    stand.finds(&daemon, &check, "L7OK", "role master");
    // Without a library: what is said and what is expected.
    let spoken = "type: tcp, port: 6379, send: \"PING\\r\\n\", expect: \"+PONG\"";
    stand.finds(&daemon, spoken, "L7OK", "+PONG");
    stand.finds(&daemon, &spoken.replace("6379", "6381"), "L7TOUT", "NOAUTH");
    primary.kill().unwrap();
    stand.finds(&daemon, "type: redis, port: 6379", "L4CON", "refused");
}
