//! Nodes have to be reachable, each by an address of its own.

use std::collections::HashSet;

use super::{Context, Findings};

pub fn judge(context: &Context<'_>, findings: &mut Findings<'_>) {
    let Some(cluster) = &context.config.cluster else { return };
    let listen = cluster.listen;
    if listen.port() == 0 {
        let help = "write 10.0.9.1:7946 or \"[2001:db8::1]:7946\"";
        findings.error("cluster.listen", "cluster.listen has no port", help);
        return;
    }
    let taken = [
        ("metrics", context.config.metrics),
        ("dashboard", context.config.dashboard.as_ref().map(|dashboard| dashboard.listen)),
    ];
    for (what, address) in taken {
        if address == Some(listen) {
            let text = format!("{what} and cluster cannot both be at {listen}");
            findings.error("cluster.listen", text, "choose another port for one of the two");
        }
    }
    let mut seen = HashSet::new();
    for (index, peer) in cluster.peers.iter().enumerate() {
        let path = format!("cluster.peers[{index}]");
        if peer.ip().is_unspecified() {
            let help = "write the address by which other nodes reach it";
            findings.error(&path, format!("{peer} is the address of no node"), help);
        } else if !seen.insert(*peer) {
            findings.error(&path, format!("the peer {peer} is named twice"), "name each once");
        }
    }
}
