//! HAProxy on a node of a pair.

use std::{path::Path, process::Command, time::Duration};

use super::other::Other;
use crate::{
    client::wait_for,
    lab::{PORT, backend4},
    pair::Pair,
};

const MINUTE: Duration = Duration::from_secs(60);

/// Starts HAProxy and keepalived.
pub fn start<'a>(pair: &'a Pair, index: usize, directory: &Path) -> anyhow::Result<Other<'a>> {
    let mut node = Other::new(pair, index, directory)?;
    let file = node.write("haproxy.cfg", &config())?;
    let mut haproxy = Command::new("haproxy");
    haproxy.arg("-db").arg("-f").arg(&file);
    node.start("haproxy", &haproxy)?;
    let listens = format!("ss -Hltn sport = {PORT}");
    wait_for(
        "HAProxy listens",
        MINUTE,
        || (node.machine.sh(&listens).is_ok_and(|text| !text.is_empty()), node.log("haproxy")),
        |(listens, _)| *listens,
    );
    node.start_keepalived(pair, &["--vrrp"], &format!("{listens} | grep -q LISTEN"), |text| text)?;
    Ok(node)
}

fn config() -> String {
    let mut text = format!(
        "global\n    maxconn 4000\n\
         defaults\n    mode tcp\n    timeout connect 2s\n    timeout client 1h\n    timeout server 1h\n    timeout check 2s\n\
         listen web\n    bind :{PORT}\n    balance roundrobin\n    option redispatch\n    option httpchk GET /healthz\n    \
         default-server check inter 500ms fastinter 200ms fall 3\n"
    );
    for number in 1..=3 {
        text += &format!("    server web{number} {}:{PORT}\n", backend4(number));
    }
    text
}
