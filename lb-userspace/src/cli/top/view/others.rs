//! The line about other nodes: the cluster's peers, and the configuration that is shared.

use ratatui::text::{Line, Span};

use super::Palette;
use crate::{api::types::Status, cli::output::clean};

/// The peers with their states, and etcd's revision; nothing where there are none.
pub fn line(status: &Status, palette: Palette) -> Option<Line<'static>> {
    let mut spans = Vec::new();
    let peers = status.cluster.iter().flat_map(|cluster| &cluster.peers);
    for peer in peers.filter(|peer| peer.state != "this node") {
        let name = if peer.node.is_empty() { &peer.address } else { &peer.node };
        spans.push(Span::raw(format!("{} ", clean(name))));
        let good = peer.state == "in step";
        let style = if good { palette.good() } else { palette.alarm() };
        spans.push(Span::styled(clean(&peer.state), style));
        spans.push(Span::raw("  "));
    }
    if !spans.is_empty() {
        spans.insert(0, Span::raw("cluster: "));
    }
    if let Some(shared) = &status.shared {
        spans.push(Span::raw(format!("etcd revision {}", shared.revision)));
        if shared.newest_revision > shared.revision {
            let text = format!(", newest {}", shared.newest_revision);
            spans.push(Span::styled(text, palette.alarm()));
        }
        if shared.member.is_none() {
            spans.push(Span::styled(", no answer", palette.alarm()));
        }
    }
    (!spans.is_empty()).then(|| Line::from(spans))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::{ClusterPeer, ClusterStatus, SharedStatus};

    fn text(status: &Status) -> Option<String> {
        line(status, Palette::PLAIN).map(|line| line.to_string())
    }

    #[test]
    fn peers_and_revisions_are_told_where_there_are_any() {
        let mut status = Status::default();
        assert_eq!(text(&status), None);
        let peer = |node: &str, address: &str, state: &str| ClusterPeer {
            node: node.into(),
            address: address.into(),
            state: state.into(),
            ..ClusterPeer::default()
        };
        status.cluster = Some(ClusterStatus {
            peers: vec![
                peer("lb-a", "10.0.9.1:7946", "this node"),
                peer("lb-b", "10.0.9.2:7946", "in step"),
                peer("", "10.0.9.3:7946", "away"),
            ],
            ..ClusterStatus::default()
        });
        assert_eq!(text(&status).unwrap(), "cluster: lb-b in step  10.0.9.3:7946 away  ");
        status.shared = Some(SharedStatus {
            member: Some("10.0.0.5:2379".into()),
            revision: 41,
            newest_revision: 42,
            ..SharedStatus::default()
        });
        assert!(text(&status).unwrap().ends_with("away  etcd revision 41, newest 42"));
        status.cluster = None;
        status.shared = Some(SharedStatus { revision: 41, ..SharedStatus::default() });
        assert_eq!(text(&status).unwrap(), "etcd revision 41, no answer");
    }
}
