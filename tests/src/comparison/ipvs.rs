//! IPVS on a node of a pair: the kernel balances, keepalived checks the servers, moves the VIP and starts the sync daemon that tells the
//! other node of the connections.

use std::{path::Path, time::Duration};

use super::other::Other;
use crate::{
    client::wait_for,
    lab::{PORT, backend4},
    pair::{Pair, VIPS},
};

const MINUTE: Duration = Duration::from_secs(60);

/// Starts keepalived, which does the rest.
pub fn start<'a>(pair: &'a Pair, index: usize, directory: &Path) -> anyhow::Result<Other<'a>> {
    let mut node = Other::new(pair, index, directory)?;
    node.machine.sh("echo 1 > /proc/sys/net/ipv4/ip_forward")?;
    // The VIP is not to move to a node that has no server to send to.
    let check = "grep -q '^  -> 0A4D' /proc/net/ip_vs";
    node.start_keepalived(pair, &[], check, |text| {
        // The other node's connections are heard on the backends' segment.
        let daemon = "global_defs {\n    lvs_sync_daemon lb1 lb id 51\n";
        super::asking_rarely(&text).replacen("global_defs {\n", daemon, 1) + &servers()
    })?;
    wait_for(
        "IPVS has its servers",
        MINUTE,
        || (table(&node, "ip_vs"), node.log("keepalived")),
        |(table, _)| table.matches("-> 0A4D").count() == 3,
    );
    Ok(node)
}

/// Waits until the node has been told of so many connections.
pub fn wait_for_connections(node: &Other<'_>, count: usize) {
    wait_for(
        "the other node has told its connections",
        MINUTE,
        || (table(node, "ip_vs_conn"), node.log("keepalived")),
        |(table, _)| table.matches(" ESTABLISHED ").count() >= count,
    );
}

fn table(node: &Other<'_>, name: &str) -> String {
    // As a command: /proc/net is that of the process.
    node.machine.sh(&format!("cat /proc/net/{name}")).unwrap_or_default()
}

/// The servers as keepalived wants them, checked as often as by the others.
fn servers() -> String {
    let mut text = format!(
        "\nvirtual_server {} {PORT} {{\n    lvs_sched rr\n    lvs_method NAT\n    protocol TCP\n    delay_loop 0.5\n",
        VIPS[0].1
    );
    for number in 1..=3 {
        text += &format!(
            "    real_server {} {PORT} {{\n        HTTP_GET {{\n            connect_timeout 2\n            retry 2\n            \
             delay_before_retry 0.2\n            url {{\n                path /healthz\n                status_code 200\n            }}\n        }}\n    }}\n",
            backend4(number)
        );
    }
    text + "}\n"
}
