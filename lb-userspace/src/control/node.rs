//! `lb node drain`, `lb node ready`: whether other hosts are to send traffic here.
//!
//! Packets that come are forwarded in either case; `lb health` tells the daemons that draw traffic here. A file beside the control
//! socket says it, so that it holds while the daemon is away, and ends with a reboot.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Node, commands::failure, private_file};
use crate::{
    api::{
        peer::Peer,
        types::{Done, Failure, SetNode},
    },
    events::{Happened, Kind},
};

/// The file for the daemon on a control socket.
fn marker(socket: &Path) -> PathBuf {
    socket.with_file_name("draining")
}

/// Whether the node of this control socket is drained.
pub fn is_draining(socket: &Path) -> bool {
    marker(socket).exists()
}

impl Node {
    pub(super) fn set_node(&mut self, set: SetNode, peer: &Peer) -> Result<Done, Failure> {
        let path = marker(&self.options.socket);
        let result = match set.drain {
            true => private_file::replace(&path, ""),
            false => match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        };
        result.map_err(|error| failure(format!("{}: {error}", path.display())))?;
        let line = match set.drain {
            true => {
                "the node drains: `lb health` tells VRRP and BGP daemons to send traffic elsewhere"
            }
            false => "the node is ready for traffic",
        };
        self.log.add(Happened::to_node(Kind::Admin, line, format!("by {peer}")));
        Ok(Done { changes: vec![line.to_owned()] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_beside_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("lb.sock");
        assert!(!is_draining(&socket));
        fs::write(directory.path().join("draining"), "").unwrap();
        assert!(is_draining(&socket));
    }
}
