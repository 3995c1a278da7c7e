//! The servers of the tiers: started as packages bring them, in the foreground, each with a directory of its own.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command, time::Duration};

use anyhow::Context as _;

use super::{AT_START, DB_AT_START, ScaleUp, config, configs};
use crate::{client::wait_for, machine::Machine, process::Process};

const MINUTE: Duration = Duration::from_secs(60);

impl ScaleUp {
    /// Starts every server that lb.yaml names, and waits until the databases replicate.
    pub fn start_servers(&self) -> anyhow::Result<()> {
        self.make_certificate()?;
        for number in 1..=DB_AT_START {
            self.install_database(number)?;
        }
        self.start_database(1, false)?;
        self.start_database(2, true)?;
        self.wait_for_database(1);
        self.sql(1, &config("schema.sql")?)?;
        self.follow(2, 1)?;
        for number in 1..=AT_START {
            self.start_web(number)?;
            self.start_app(number)?;
        }
        self.wait_for_replica(2, 1);
        Ok(())
    }

    /// Starts a database that there was none of before, and has it replicate the primary from the beginning.
    pub fn add_replica(&self, number: usize, primary: usize) -> anyhow::Result<()> {
        self.install_database(number)?;
        self.start_database(number, true)?;
        self.follow(number, primary)
    }

    /// Has a new database replicate another. (The operator's scripts need a user that comes with the first bytes of that.)
    fn follow(&self, number: usize, primary: usize) -> anyhow::Result<()> {
        self.wait_for_database(number);
        let statements = format!(
            "change master to master_host='10.80.3.{}', master_user='repl', master_password='repl', \
             master_connect_retry=1, master_use_gtid=slave_pos; start slave",
            10 + primary
        );
        self.sql(number, &statements)?;
        Ok(())
    }

    /// A lab authority, and the web servers' certificate by it.
    fn make_certificate(&self) -> anyhow::Result<()> {
        let tls = self.directory().join("tls");
        fs::create_dir(&tls)?;
        self.admin.sh(&format!(
            "cd '{}' && exec 2>openssl.log && \
             openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj '/CN=lab authority' \
               -keyout ca.key -out ca.crt && \
             openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=demo.lb.test \
               -keyout server.key -out server.csr && \
             printf 'subjectAltName=DNS:demo.lb.test\\nbasicConstraints=CA:FALSE\\n' > server.ext && \
             openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile server.ext -out server.crt",
            tls.display()
        ))?;
        Ok(())
    }

    /// Starts a web server (1 = web1).
    pub fn start_web(&self, number: usize) -> anyhow::Result<()> {
        let name = format!("web{number}");
        let directory = self.own_directory(&name)?;
        // 10.80.1.111 and up, 10.80.1.121 and up...
        let pool = format!("10.80.1.1{number}");
        for last in 1..=8 {
            self.web[number - 1].ip(&format!("addr replace {pool}{last}/24 dev web"))?;
        }
        let text = config("nginx.conf")?
            .replace("@NAME@", &name)
            .replace("@POOL@", &pool)
            .replace("@ADDRESS@", &format!("10.80.1.{}", 10 + number))
            .replace("@FILES@", &configs().display().to_string())
            .replace("@DIRECTORY@", &directory.display().to_string());
        let file = directory.join("nginx.conf");
        fs::write(&file, text)?;
        let mut command = Command::new("nginx");
        command.arg("-c").arg(file).arg("-p").arg(&directory);
        command.args(["-e", "stderr", "-g", "daemon off;"]);
        self.start(&self.web[number - 1], &name, &command)
    }

    /// Starts an application server (1 = app1).
    pub fn start_app(&self, number: usize) -> anyhow::Result<()> {
        let name = format!("app{number}");
        let directory = self.own_directory(&name)?;
        let mut command = Command::new("gunicorn");
        command.args(["--workers", "1", "--threads", "8", "--pythonpath"]).arg(configs());
        for port in [8000, 8001] {
            command.args(["--bind", &format!("10.80.2.{}:{port}", 10 + number)]);
        }
        command.arg("--worker-tmp-dir").arg(&directory).arg("app:app");
        command.env("APP_NAME", &name).env("PYTHONDONTWRITEBYTECODE", "1");
        self.start(&self.app[number - 1], &name, &command)
    }

    /// The system tables are made once; each database begins with a copy.
    fn install_database(&self, number: usize) -> anyhow::Result<()> {
        let directory = self.own_directory(&format!("db{number}"))?;
        let blank = self.directory().join("blank-database");
        if !blank.exists() {
            self.admin.sh(&format!(
                "TMPDIR='{0}' mariadb-install-db --no-defaults --user=root --auth-root-authentication-method=normal --skip-test-db \
                 --innodb-log-file-size=4M --innodb-buffer-pool-size=8M --datadir='{1}' 2>&1",
                directory.display(),
                blank.display()
            ))?;
        }
        self.admin.sh(&format!("cp -r '{}' '{}/data'", blank.display(), directory.display()))?;
        Ok(())
    }

    /// Starts a database (1 = db1).
    pub fn start_database(&self, number: usize, read_only: bool) -> anyhow::Result<()> {
        let name = format!("db{number}");
        let directory = self.own_directory(&name)?;
        let machine = &self.db[number - 1];
        let mut command = Command::new("mariadbd");
        command.args([
            "--no-defaults",
            "--user=root",
            "--bind-address=0.0.0.0",
            "--port=3306",
            "--log-bin=bin",
            "--gtid-strict-mode=1",
            "--log-slave-updates=1",
            "--skip-name-resolve",
            "--performance-schema=0",
            "--innodb-buffer-pool-size=8M",
            "--innodb-log-file-size=4M",
            "--key-buffer-size=1M",
            "--aria-pagecache-buffer-size=1M",
        ]);
        command.arg(format!("--datadir={}", directory.join("data").display()));
        command.arg(format!("--socket={}", self.database_socket(number).display()));
        command.arg(format!("--pid-file={}", directory.join("pid").display()));
        command.arg(format!("--tmpdir={}", directory.display()));
        command.arg(format!("--server-id={number}")).arg(format!("--report-host={name}"));
        command.arg(format!("--read-only={}", read_only as u8));
        self.start(machine, &name, &command)
    }

    fn database_socket(&self, number: usize) -> PathBuf {
        self.directory().join(format!("db{number}.sock"))
    }

    /// Runs SQL on a database, as its root.
    pub fn sql(&self, number: usize, statements: &str) -> anyhow::Result<String> {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--user=root", "--batch"]);
        command.arg("--socket").arg(self.database_socket(number)).arg("--execute").arg(statements);
        let output = self.db[number - 1].output(command)?;
        let error = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "db{number}: {error}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Waits until a database answers.
    pub fn wait_for_database(&self, number: usize) {
        drop(wait_for(
            &format!("db{number} answers"),
            MINUTE,
            || {
                self.sql(number, "select 1")
                    .map_err(|error| (format!("{error:#}"), self.log(&format!("db{number}"))))
            },
            Result::is_ok,
        ));
    }

    /// Waits until a replica has all that its primary has written so far, and follows it.
    pub fn wait_for_replica(&self, number: usize, primary: usize) {
        let position = |of: usize| self.sql(of, "select @@gtid_current_pos").unwrap_or_default();
        let written = sequence(&position(primary));
        let look = || {
            let status = self.sql(number, "show slave status\\G").unwrap_or_default();
            (sequence(&position(number)), written, status)
        };
        wait_for(
            &format!("db{number} replicates"),
            MINUTE,
            look,
            |(replicated, written, status)| {
                status.contains("Slave_SQL_Running: Yes")
                    && status.contains("Slave_IO_Running: Yes")
                    && replicated >= written
            },
        );
    }

    /// Kills a server with all its processes.
    pub fn kill(&self, name: &str) -> anyhow::Result<()> {
        let process = self.processes.borrow_mut().remove(name);
        process.with_context(|| format!("{name} does not run"))?.kill()
    }

    /// Names of the servers that run.
    pub fn running(&self) -> Vec<String> {
        let mut processes = self.processes.borrow_mut();
        let running = processes
            .iter_mut()
            .filter_map(|(name, process)| process.is_running().then(|| name.clone()));
        running.collect()
    }

    /// The end of what a server has printed.
    pub fn log(&self, name: &str) -> String {
        let text = self.processes.borrow().get(name).map(Process::log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn start(&self, machine: &Machine, name: &str, command: &Command) -> anyhow::Result<()> {
        let process = Process::start(machine, name, self.directory(), command)?;
        self.processes.borrow_mut().insert(name.to_owned(), process);
        Ok(())
    }

    fn own_directory(&self, name: &str) -> anyhow::Result<PathBuf> {
        let directory = self.directory().join(name);
        fs::create_dir_all(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        Ok(directory)
    }
}

/// The last number of a position such as `0-1-1234` (domain, server, sequence), with the column's name above.
fn sequence(position: &str) -> Option<u64> {
    position.trim().rsplit('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_numbers() {
        assert_eq!(sequence("@@gtid_current_pos\n0-2-1234\n"), Some(1234));
        assert!(sequence("@@gtid_current_pos\n0-2-1000\n") > sequence("x\n0-1-999\n"));
        assert_eq!(sequence("@@gtid_current_pos\n\n"), None);
    }
}
