//! `lb apply`, `confirm`, `rollback`, `history` and `diff`: in force and in the file, both or neither.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use lb_tests::{
    client::{Load, wait_for},
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
};
use lb_userspace::api::types::{Applied, Revision, Revisions, Status};

const MINUTE: Duration = Duration::from_secs(60);

fn yaml(backends: &[usize]) -> String {
    let mut yaml = format!(
        "services:\n  - name: web\n    listen: {{address: 10.77.0.80, port: {PORT}}}\n    forward: nat\n    \
         window: 1s\n    timeouts: {{tcp: 2s, tcpfin: 1s}}\n    backends:\n"
    );
    for number in backends {
        yaml +=
            &format!("      - {{name: web{number}, address: \"{}:{PORT}\"}}\n", backend4(*number));
    }
    yaml
}

/// Names of the backends that are in force, and the file's text.
fn state(daemon: &Daemon<'_>) -> (Vec<String>, String) {
    (in_force(&daemon.status()), fs::read_to_string(&daemon.config).unwrap())
}

fn in_force(status: &Status) -> Vec<String> {
    let backends = status.services[0].backends.iter();
    backends.filter(|b| b.admin != "removed").map(|backend| backend.name.clone()).collect()
}

fn names(numbers: &[usize]) -> Vec<String> {
    numbers.iter().map(|number| format!("web{number}")).collect()
}

fn draft(daemon: &Daemon<'_>, yaml: &str) -> String {
    let path = daemon.directory.join("draft.yaml");
    fs::write(&path, yaml).unwrap();
    path.to_str().unwrap().to_owned()
}

#[track_caller]
fn applied(daemon: &Daemon<'_>, arguments: &[&str]) -> Applied {
    serde_json::from_str(&daemon.must(&[arguments, &["--json"]].concat())).unwrap()
}

#[track_caller]
fn history(daemon: &Daemon<'_>) -> Vec<Revision> {
    let all: Revisions = serde_json::from_str(&daemon.must(&["history", "--json"])).unwrap();
    all.revisions
}

/// A refusal: its exit code and words; nothing has changed.
#[track_caller]
fn refused(daemon: &Daemon<'_>, arguments: &[&str], code: i32, word: &str) {
    let before = (state(daemon), history(daemon), daemon.status().revision);
    let output = daemon.lb(arguments).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(word), "{arguments:?}: {said}");
    let after = (state(daemon), history(daemon), daemon.status().revision);
    assert_eq!(before, after, "{arguments:?} has changed something");
}

fn lab_with(backends: &[usize]) -> (Lab, String) {
    (Lab::new(Arms::One, Return::ThroughLb, 3).unwrap(), yaml(backends))
}

#[test]
fn an_apply_is_in_force_and_in_the_file() {
    let (lab, first) = lab_with(&[1, 2]);
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &first).unwrap();
    fs::set_permissions(&daemon.config, fs::Permissions::from_mode(0o640)).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    let load = Load::start(&lab.client, &[(VIP4, PORT).into()], 4, Duration::from_millis(2));
    let second = format!("# with web3\n{}", yaml(&[1, 2, 3]));
    let path = draft(&daemon, &second);

    let diff = daemon.must(&["diff", &path]);
    assert!(diff.contains("\n+# with web3\n") && diff.contains("backend web3"), "{diff}");
    let answer = applied(&daemon, &["apply", &path]);
    assert_eq!((answer.revision, answer.trial.is_none()), (2, true), "{answer:?}");
    assert!(answer.changes.iter().any(|line| line.contains("web3")), "{answer:?}");
    assert_eq!(state(&daemon), (names(&[1, 2, 3]), second.clone()));
    let mode = fs::metadata(&daemon.config).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640, "the file's mode stays");
    assert!(daemon.must(&["diff"]).starts_with("the texts are the same\n\nnothing would change"));

    // Only a comment: a revision of its own, and no change.
    let third = second.replace("with web3", "with a third backend");
    let answer = applied(&daemon, &["apply", &draft(&daemon, &third)]);
    assert_eq!((answer.revision, answer.changes.len()), (3, 0), "{answer:?}");
    // The same once more is nothing.
    let path = draft(&daemon, &second);
    assert_eq!(applied(&daemon, &["apply", &path]).revision, 4);
    assert_eq!(applied(&daemon, &["apply", &path]).revision, 4);

    // Back and forth, and to a number.
    assert_eq!(applied(&daemon, &["rollback"]).revision, 5);
    assert_eq!(state(&daemon).1, third);
    assert_eq!(applied(&daemon, &["rollback", "1"]).revision, 6);
    assert_eq!(state(&daemon), (names(&[1, 2]), first.clone()));
    assert_eq!(daemon.must(&["history", "--text", "3"]), third);

    // What cannot be: nothing changes.
    refused(&daemon, &["apply", &draft(&daemon, "services: []\n")], 3, "services is empty");
    let foreign = first.replace("10.77.0.80", "10.77.0.1");
    refused(&daemon, &["apply", &draft(&daemon, &foreign)], 3, "10.77.0.1");
    let many = format!(
        "limits: {{backends: 16384}}\n{}",
        first.replace("backends:\n", "ring_size: 655373\n    backends:\n")
    );
    refused(&daemon, &["apply", &draft(&daemon, &many)], 3, "ring slots exhausted");
    refused(&daemon, &["rollback", "77"], 6, "there is no revision `77`");
    refused(&daemon, &["confirm"], 1, "nothing is on trial");
    // A file that cannot be replaced: a directory is where the new text would be written.
    let aside = daemon.directory.join(".lb.yaml.lb-new");
    fs::create_dir(&aside).unwrap();
    refused(&daemon, &["apply", &draft(&daemon, &second)], 1, "cannot be replaced");
    fs::remove_dir(&aside).unwrap();

    // An edit that never was in force is not lost.
    let broken = format!("{first}# half an edit: [\nservices:");
    daemon.write(&broken).unwrap();
    daemon.wait("the edit is refused", MINUTE, |status| status.config_error.is_some());
    let answer = applied(&daemon, &["apply", &draft(&daemon, &second)]);
    assert_eq!(state(&daemon), (names(&[1, 2, 3]), second.clone()));
    assert_eq!(daemon.status().config_error, None);
    let all = history(&daemon);
    let replaced: Vec<_> = all.iter().filter(|one| one.state == "replaced").collect();
    assert_eq!(replaced.len(), 1, "{all:#?}");
    assert_eq!(daemon.must(&["history", "--text", &replaced[0].number.to_string()]), broken);

    // All of it outlives the daemon, and a restart is no revision.
    daemon.kill().unwrap();
    daemon.start().unwrap();
    assert_eq!((daemon.status().revision, history(&daemon)), (answer.revision, all));
    let directory = daemon.directory.join("state/revisions");
    for entry in fs::read_dir(&directory).unwrap().flatten() {
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.path());
    }
    let tally = load.finish();
    assert_eq!(tally.failures(), 0, "{tally:?}\n{}", daemon.log_tail());
}

#[test]
fn a_trial_is_confirmed_or_goes_back_by_itself() {
    let (lab, first) = lab_with(&[1, 2]);
    let second = yaml(&[1, 3]);
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &first).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    let back = |daemon: &Daemon<'_>| {
        let seen = daemon.wait("the trial is over", MINUTE, |status| status.trial.is_none());
        assert_eq!((in_force(&seen), state(daemon).1), (names(&[1, 2]), first.clone()));
    };
    let path = draft(&daemon, &second);

    // By its time.
    let answer = applied(&daemon, &["apply", &path, "--confirm", "2s"]);
    assert_eq!(answer.trial.as_ref().map(|trial| trial.back_to), Some(1), "{answer:?}");
    assert_eq!(state(&daemon), (names(&[1, 3]), first.clone()), "the file waits");
    assert!(daemon.must(&["status"]).contains("is on trial: revision 1 comes back in"));
    assert!(daemon.must(&["diff"]).contains("\n+      - {name: web2"), "the file would come back");
    refused(&daemon, &["apply", &path], 1, "first `lb confirm` or `lb rollback`");
    refused(&daemon, &["rollback", "2"], 1, "is on trial");
    back(&daemon);
    assert!(daemon.must(&["events"]).contains("config_rolled_back"));

    // By hand.
    applied(&daemon, &["apply", &path, "--confirm", "1h"]);
    assert_eq!(applied(&daemon, &["rollback"]).trial, None);
    back(&daemon);

    // A file that is only touched changes nothing; one that is edited decides.
    applied(&daemon, &["apply", &path, "--confirm", "1h"]);
    daemon.write(&first).unwrap();
    let edited = format!("# edited\n{first}");
    assert_eq!(in_force(&daemon.status()), names(&[1, 3]));
    daemon.write(&edited).unwrap();
    daemon.wait("the file decides", MINUTE, |status| status.trial.is_none());
    assert_eq!(state(&daemon), (names(&[1, 2]), edited));
    daemon.write(&first).unwrap();
    wait_for(
        "the file is in force",
        MINUTE,
        || daemon.must(&["diff"]),
        |diff| diff.starts_with("the texts are the same"),
    );
    // A file that is invalid does not.
    applied(&daemon, &["apply", &path, "--confirm", "1h"]);
    daemon.write("nonsense").unwrap();
    daemon.wait("the file is refused", MINUTE, |status| status.config_error.is_some());
    assert!(daemon.status().trial.is_some());
    daemon.write(&first).unwrap();
    daemon.wait("the file is as it was", MINUTE, |status| status.config_error.is_none());
    assert_eq!(in_force(&daemon.status()), names(&[1, 3]), "and the trial goes on");
    // A reload that somebody asks for does.
    daemon.must(&["reload"]);
    back(&daemon);

    // A daemon that is killed goes on with the trial...
    applied(&daemon, &["apply", &path, "--confirm", "12s"]);
    daemon.kill().unwrap();
    daemon.start().unwrap();
    let status = daemon.status();
    assert!(status.trial.is_some(), "{status:#?}");
    assert_eq!(state(&daemon), (names(&[1, 3]), first.clone()));
    // ... and ends it in time,
    back(&daemon);
    // or when it comes back, if that is later,
    applied(&daemon, &["apply", &path, "--confirm", "1s"]);
    daemon.kill().unwrap();
    std::thread::sleep(Duration::from_millis(2_100)); // the trial's time itself
    daemon.start().unwrap();
    back(&daemon);
    assert!(daemon.must(&["events"]).contains("the daemon was away then"));
    // or if the file has changed meanwhile.
    applied(&daemon, &["apply", &path, "--confirm", "1h"]);
    daemon.kill().unwrap();
    daemon.write(&yaml(&[2, 3])).unwrap();
    daemon.start().unwrap();
    assert_eq!(state(&daemon), (names(&[2, 3]), yaml(&[2, 3])));
    assert_eq!(daemon.status().trial, None);

    // Confirmed, also by another daemon, it is in the file.
    applied(&daemon, &["apply", &path, "--confirm", "1h"]);
    daemon.kill().unwrap();
    daemon.start().unwrap();
    daemon.must(&["confirm"]);
    assert_eq!(state(&daemon), (names(&[1, 3]), second.clone()));
    assert_eq!(daemon.status().trial, None);
    daemon.kill().unwrap();
    daemon.start().unwrap();
    assert_eq!(state(&daemon), (names(&[1, 3]), second));
    refused(&daemon, &["confirm"], 1, "nothing is on trial");
}

#[test]
fn many_who_apply_at_once_come_one_after_the_other() {
    let (lab, first) = lab_with(&[1, 2]);
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &first).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    let load = Load::start(&lab.client, &[(VIP4, PORT).into()], 4, Duration::from_millis(2));
    let texts: Vec<String> =
        [&[1, 2, 3][..], &[2, 3], &[1, 3], &[1]].iter().map(|numbers| yaml(numbers)).collect();
    let paths: Vec<String> = (0..texts.len())
        .map(|number| {
            let path = daemon.directory.join(format!("draft{number}.yaml"));
            fs::write(&path, &texts[number]).unwrap();
            path.to_str().unwrap().to_owned()
        })
        .collect();
    std::thread::scope(|scope| {
        for (number, path) in paths.iter().enumerate() {
            let (daemon, text) = (&daemon, &texts[number]);
            scope.spawn(move || {
                for _ in 0..5 {
                    match number {
                        // An editor and a reload.
                        3 => {
                            daemon.write(text).unwrap();
                            daemon.must(&["reload"]);
                        }
                        _ => drop(daemon.must(&["apply", path])),
                    }
                }
            });
        }
    });
    // Whoever was last: what is in force is what the file says.
    let seen = wait_for(
        "file and daemon agree",
        MINUTE,
        || (daemon.must(&["diff"]), state(&daemon)),
        |(diff, _)| diff.starts_with("the texts are the same\n\nnothing would change"),
    );
    let (_, (backends, text)) = seen;
    assert!(texts.contains(&text), "{text}");
    let whole = texts.iter().position(|candidate| *candidate == text).unwrap();
    assert_eq!(backends, names([&[1, 2, 3][..], &[2, 3], &[1, 3], &[1]][whole]));
    let tally = load.finish();
    assert_eq!(tally.failures(), 0, "{tally:?}\n{}", daemon.log_tail());
}

#[test]
fn an_apply_that_fails_half_way_leaves_everything_as_it_was() {
    // Five rings of 1,021 slots. Without two of them there are 2,937 left, but no 2,039 side by side: nothing that can be
    // counted beforehand, so that it shows when the service before is through already.
    let filler = |number: u16, size: u32| {
        format!(
            "  - name: filler{number}\n    listen: {{address: 10.77.2.{number}, port: 80}}\n    forward: nat\n    \
             ring_size: {size}\n    backends: [{{name: b, address: \"{}:{}\"}}]\n",
            backend4(1),
            9_000 + number
        )
    };
    let file = |backends: &[usize], fillers: &[(u16, u32)]| {
        let fillers: String = fillers.iter().map(|(number, size)| filler(*number, *size)).collect();
        format!("limits: {{ring_slots: 6000}}\n{}{fillers}", yaml(backends))
    };
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let all = [1, 2, 3, 4].map(|number| (number, 1_021));
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &file(&[1, 2], &all)).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    let load = Load::start(&lab.client, &[(VIP4, PORT).into()], 4, Duration::from_millis(2));
    let few = file(&[1, 2], &[(2, 1_021), (4, 1_021)]);
    applied(&daemon, &["apply", &draft(&daemon, &few)]);

    let path = draft(&daemon, &file(&[1, 2, 3], &[(2, 1_021), (4, 1_021), (5, 2_039)]));
    let before = (state(&daemon), history(&daemon), daemon.status().revision);
    wait_for(
        "an apply that fails half-way, when the gaps are free",
        MINUTE,
        || {
            let output = daemon.lb(&["apply", &path]).unwrap();
            assert_eq!(output.status.code(), Some(3), "{output:?}");
            String::from_utf8_lossy(&output.stderr).into_owned()
        },
        |said| said.contains("2039 needed, 2937 left"),
    );
    assert_eq!((state(&daemon), history(&daemon), daemon.status().revision), before);
    let names: Vec<_> = daemon.status().services.into_iter().map(|service| service.name).collect();
    assert_eq!(names, ["web", "filler2", "filler4"]);
    // web3 was in the ring for a moment, and keeps what it got then.
    daemon.wait("web3 has drained", MINUTE, |status| status.services[0].backends.len() == 2);
    // What fits can be applied, and a new daemon finds the same.
    applied(&daemon, &["apply", &draft(&daemon, &file(&[1, 2, 3], &[(5, 1_021)]))]);
    daemon.kill().unwrap();
    daemon.start().unwrap();
    assert_eq!(in_force(&daemon.status()), self::names(&[1, 2, 3]));
    let tally = load.finish();
    assert_eq!(tally.failures(), 0, "{tally:?}\n{}", daemon.log_tail());
}
