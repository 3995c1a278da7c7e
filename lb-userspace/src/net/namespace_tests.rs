//! Against the real kernel, in two network namespaces joined by a veth pair. Needs root.
//!
//! A namespace belongs to a thread here, so nothing is left behind however a test ends.

use std::{
    future::Future,
    net::IpAddr,
    process::Command,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, unshare};
use tokio::sync::watch;

use super::{NeighbourState, Net, Path, Snapshot};

/// Far more than anything takes, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(60);

const FAR: &str = "10.77.0.2";
const FAR6: &str = "fd77::2";

#[test]
fn the_first_snapshot_is_complete_and_a_wanted_neighbour_is_resolved() {
    lab(|_lab, net, mut snapshots| async move {
        let first = snapshots.borrow().clone();
        let link = first.link_by_name("near").expect("the interface").clone();
        assert!(link.up, "{link:?}");
        assert_eq!((link.mac, link.mtu), ([2, 0, 0, 0, 0, 1], 1500));
        assert!(first.is_local(ip("10.77.0.1")) && first.is_local(ip("fd77::1")), "{first:?}");
        for far in [FAR, FAR6] {
            let path = first.resolve(ip(far)).expect("a route on link");
            assert_eq!((path.ifindex, path.on_link, path.dst_mac), (link.ifindex, true, None));
            net.want(path.ifindex, ip(far));
            until(&mut snapshots, far, |path| path.dst_mac == Some(FAR_MAC)).await;
        }
    });
}

const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// F27: the address moves to another MAC, and nobody says so.
#[test]
fn a_silently_changed_mac_is_followed() {
    lab(|lab, net, mut snapshots| async move {
        let ifindex = snapshots.borrow().link_by_name("near").unwrap().ifindex;
        net.keep_fresh(vec![(ifindex, ip(FAR)), (ifindex, ip(FAR6))]);
        for far in [FAR, FAR6] {
            until(&mut snapshots, far, |path| path.dst_mac == Some(FAR_MAC)).await;
        }
        // Kernel time, not ours, is bounded: two seconds to the next confirmation, one until it is given up.
        let moved = Instant::now();
        lab.far("ip link set far address 02:00:00:00:00:99");
        for far in [FAR, FAR6] {
            let path =
                until(&mut snapshots, far, |path| path.dst_mac.is_some_and(|mac| mac != FAR_MAC));
            assert_eq!(path.await.dst_mac, Some([2, 0, 0, 0, 0, 0x99]));
            eprintln!("{far}: found again after {:?}", moved.elapsed());
        }
    });
}

#[test]
fn a_permanent_neighbour_is_never_touched() {
    lab(|lab, net, mut snapshots| async move {
        lab.near(&format!("ip neigh add {FAR} lladdr 02:00:00:00:00:77 nud permanent dev near"));
        let permanent = Some([2, 0, 0, 0, 0, 0x77]);
        let path = until(&mut snapshots, FAR, |path| path.dst_mac == permanent).await;
        net.keep_fresh(vec![(path.ifindex, ip(FAR)), (path.ifindex, ip(FAR6))]);
        // The other one going through a whole life is proof that the loop ran.
        until(&mut snapshots, FAR6, |path| path.dst_mac == Some(FAR_MAC)).await;
        lab.far("ip link set far address 02:00:00:00:00:99");
        until(&mut snapshots, FAR6, |path| path.dst_mac.is_some_and(|mac| mac != FAR_MAC)).await;
        let neighbour = snapshots.borrow().neighbours[&(path.ifindex, ip(FAR))];
        assert_eq!((neighbour.mac, neighbour.state), (permanent, NeighbourState::Permanent));
    });
}

/// F28: a route changes its gateway, and goes, and comes.
#[test]
fn routes_are_followed() {
    lab(|lab, _net, mut snapshots| async move {
        let outside = "198.51.100.7";
        assert_eq!(snapshots.borrow().resolve(ip(outside)), None);
        lab.near("ip route add 198.51.100.0/24 via 10.77.0.2 metric 20");
        until(&mut snapshots, outside, |path| path.next_hop == ip(FAR)).await;
        lab.near("ip route add 198.51.100.0/24 via 10.77.0.3 metric 10");
        until(&mut snapshots, outside, |path| path.next_hop == ip("10.77.0.3")).await;
        lab.near("ip route del 198.51.100.0/24 metric 10");
        until(&mut snapshots, outside, |path| path.next_hop == ip(FAR)).await;
        lab.near("ip route add blackhole 198.51.100.0/28");
        until_none(&mut snapshots, outside).await;
        lab.near("ip route del blackhole 198.51.100.0/28");
        lab.near("ip route replace 198.51.100.0/24 metric 20 nexthop via 10.77.0.4 nexthop via 10.77.0.5");
        until(&mut snapshots, outside, |path| path.next_hop == ip("10.77.0.4")).await;
        lab.near("ip route del 198.51.100.0/24");
        until_none(&mut snapshots, outside).await;
    });
}

/// F25, F26: the interface goes down, up, away and comes back under its name.
#[test]
fn links_are_followed() {
    lab(|lab, net, mut snapshots| async move {
        let before = until(&mut snapshots, FAR, |path| path.on_link).await;
        lab.far("ip link set far down");
        until_none(&mut snapshots, FAR).await;
        lab.far("ip link set far up");
        until(&mut snapshots, FAR, |path| path.on_link).await;
        lab.near("ip link set near down");
        until_none(&mut snapshots, FAR).await;
        lab.near("ip link set near up");
        until(&mut snapshots, FAR, |path| path.on_link).await;
        lab.near("ip link del near");
        until_none(&mut snapshots, FAR).await;
        assert!(snapshots.borrow().link_by_name("near").is_none());
        lab.connect();
        let after = until(&mut snapshots, FAR, |path| path.on_link).await;
        assert_ne!(before.ifindex, after.ifindex, "the kernel counts on");
        net.keep_fresh(vec![(before.ifindex, ip(FAR)), (after.ifindex, ip(FAR))]);
        until(&mut snapshots, FAR, |path| path.dst_mac == Some(FAR_MAC)).await;
    });
}

#[test]
fn addresses_are_put_on_and_taken_off() {
    lab(|lab, net, mut snapshots| async move {
        for vip in ["192.0.2.80", "2001:db8::80"] {
            net.add_address("near", ip(vip));
            net.add_address("near", ip(vip));
            until_local(&mut snapshots, vip, true).await;
            let shown = lab.near("ip -o addr show dev near");
            let mut shown = shown.lines().filter(|line| line.contains(&format!(" {vip}/")));
            let line = shown.next().expect("it is there");
            assert!(!line.contains("tentative"), "{line}");
            assert_eq!(shown.next(), None, "only once");
            net.remove_address_now("near", ip(vip)).await.unwrap();
            until_local(&mut snapshots, vip, false).await;
            net.remove_address_now("near", ip(vip)).await.expect("gone already is as good");
        }
        // The host's own address, with a prefix of its own, is neither doubled nor taken away.
        net.add_address("near", ip("10.77.0.1"));
        net.remove_address_now("near", ip("10.77.0.1")).await.unwrap();
        let shown = lab.near("ip -o -4 addr show dev near");
        assert_eq!(shown.matches("10.77.0.1/").count(), 1, "{shown}");
        net.remove_address_now("nowhere", ip("192.0.2.80")).await.unwrap();
    });
}

/// More reports than the socket holds, while nobody reads: the kernel drops some and says so.
#[test]
fn an_overrun_is_survived() {
    lab(|lab, _net, mut snapshots| async move {
        let script = "for i in $(seq 0 255); do for j in $(seq 0 39); do \
             echo neigh replace 10.77.$j.$i lladdr 02:00:00:00:01:00 dev near nud permanent; done; done \
             | ip -batch -; ip route add 198.51.100.0/24 via 10.77.0.2";
        // This runtime has one thread, and the command blocks it: the tasks cannot read meanwhile.
        lab.near(&format!("sh -c '{script}'"));
        until(&mut snapshots, "198.51.100.7", |path| path.next_hop == ip(FAR)).await;
        let wanted = 256 * 40;
        let permanent = |snapshot: &Snapshot| {
            let all = snapshot.neighbours.values();
            all.filter(|neighbour| neighbour.state == NeighbourState::Permanent).count()
        };
        wait(&mut snapshots, |snapshot| (permanent(snapshot) == wanted).then_some(())).await;
        lab.near("ip route del 198.51.100.0/24");
        until_none(&mut snapshots, "198.51.100.7").await;
    });
}

/// The near namespace is the calling thread's, the far one another thread's.
struct Lab {
    jobs: mpsc::Sender<String>,
    results: mpsc::Receiver<String>,
    thread_id: i32,
}

/// Runs a test in a fresh lab, on a thread of its own.
fn lab<F>(test: impl FnOnce(Arc<Lab>, Net, watch::Receiver<Arc<Snapshot>>) -> F + Send + 'static)
where
    F: Future<Output = ()>,
{
    let thread = thread::spawn(move || {
        own_namespace();
        let (jobs, inbox) = mpsc::channel::<String>();
        let (outbox, results) = mpsc::channel();
        thread::spawn(move || {
            own_namespace();
            let thread_id = nix::unistd::gettid().as_raw();
            // Nobody is left to hear it when the test has failed in between.
            let mut alive = outbox.send(thread_id.to_string()).is_ok();
            while alive && let Ok(job) = inbox.recv() {
                alive = outbox.send(run(&job)).is_ok();
            }
        });
        let thread_id = results.recv().unwrap().parse().unwrap();
        let lab = Lab { jobs, results, thread_id };
        lab.connect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (net, snapshots) = Net::start().await.unwrap();
            // A receiver and a sender of std are not shared between threads here: all runs on this one.
            #[expect(clippy::arc_with_non_send_sync, reason = "shared within one thread only")]
            let lab = Arc::new(lab);
            // Kept here too: a test that does not use one of them must not end it.
            test(lab.clone(), net.clone(), snapshots).await;
            drop((lab, net));
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Lab {
    /// Makes the veth pair and its addresses.
    fn connect(&self) {
        self.near(&format!(
            "ip link add near address 02:00:00:00:00:01 type veth peer name far address 02:00:00:00:00:02 netns {}",
            self.thread_id
        ));
        for command in ["ip link set far up", "ip addr add 10.77.0.2/16 dev far"] {
            self.far(command);
        }
        self.far("ip addr add fd77::2/64 dev far nodad");
        self.near("ip link set near up");
        self.near("ip addr add 10.77.0.1/16 dev near");
        self.near("ip addr add fd77::1/64 dev near nodad");
    }

    /// Runs a command in the near namespace; blocks the runtime.
    fn near(&self, command: &str) -> String {
        run(command)
    }

    /// Runs a command in the far namespace.
    fn far(&self, command: &str) -> String {
        self.jobs.send(command.to_owned()).unwrap();
        self.results.recv().unwrap_or_else(|_| panic!("`{command}` failed in the far namespace"))
    }
}

fn own_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
    run("ip link set lo up");
}

/// Runs a command in the calling thread's namespace and gives its output.
fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().expect("sh");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{command}`: {errors}{text}");
    text
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

async fn until(
    snapshots: &mut watch::Receiver<Arc<Snapshot>>,
    destination: &str,
    wanted: impl Fn(&Path) -> bool,
) -> Path {
    wait(snapshots, |snapshot| snapshot.resolve(ip(destination)).filter(&wanted)).await
}

async fn until_none(snapshots: &mut watch::Receiver<Arc<Snapshot>>, destination: &str) {
    wait(snapshots, |snapshot| snapshot.resolve(ip(destination)).is_none().then_some(())).await;
}

async fn until_local(snapshots: &mut watch::Receiver<Arc<Snapshot>>, address: &str, local: bool) {
    wait(snapshots, |snapshot| (snapshot.is_local(ip(address)) == local).then_some(())).await;
}

#[track_caller]
fn wait<T>(
    snapshots: &mut watch::Receiver<Arc<Snapshot>>,
    check: impl Fn(&Snapshot) -> Option<T>,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let search = async {
            loop {
                let found = check(&snapshots.borrow_and_update());
                match found {
                    Some(found) => return found,
                    None => snapshots.changed().await.expect("the follower lives"),
                }
            }
        };
        match tokio::time::timeout(PATIENCE, search).await {
            Ok(found) => found,
            Err(_) => panic!("not seen, from {caller}; last: {:#?}", **snapshots.borrow()),
        }
    }
}
