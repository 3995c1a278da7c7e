//! Who asks, and what he may: the process at the other end of the control socket, as the kernel names it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::unistd::{Uid, User};

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Peer {
    /// A process of this host (`SO_PEERCRED`).
    Process {
        /// Its user when it connected.
        uid: u32,
        /// Its id then; 0 = of another process namespace.
        pid: i32,
    },
    /// Somebody in front of the dashboard, with its token.
    Dashboard(String),
    /// Another node of the cluster, where it was asked for.
    Node(String),
    /// The kernel does not say.
    #[default]
    Unknown,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { uid, pid } => {
                let user = User::from_uid(Uid::from_raw(*uid)).ok().flatten();
                let user = user.map_or_else(|| format!("user {uid}"), |user| user.name);
                match pid {
                    0 => write!(f, "{user}"),
                    pid => write!(f, "{user} (process {pid})"),
                }
            }
            Self::Dashboard(address) => write!(f, "the dashboard, from {address}"),
            Self::Node(name) => write!(f, "the node {name} of the cluster"),
            Self::Unknown => write!(f, "somebody unknown"),
        }
    }
}

/// Whether members of `socket_group` may change things (`socket_level: admin`), or only look. Changes with the
/// configuration.
#[derive(Clone, Debug)]
pub struct GroupLevel(Arc<AtomicBool>);

impl GroupLevel {
    /// At first.
    pub fn new(admin: bool) -> Self {
        Self(Arc::new(AtomicBool::new(admin)))
    }

    /// From now on.
    pub fn set(&self, admin: bool) {
        self.0.store(admin, Ordering::Relaxed);
    }
}

/// Who asks, and whether he may change things.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Who.
    pub peer: Peer,
    /// He may.
    pub admin: bool,
}

impl Caller {
    /// The other end of a connection to the control socket. Root and the daemon's own user may do everything.
    pub fn of(stream: &tokio::net::UnixStream, group: &GroupLevel) -> Self {
        let Ok(credentials) = stream.peer_cred() else { return Self::default() };
        let uid = credentials.uid();
        let owner = uid == 0 || uid == nix::unistd::geteuid().as_raw();
        Self {
            peer: Peer::Process { uid, pid: credentials.pid().unwrap_or(0) },
            admin: owner || group.0.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_tells_who_asks() {
        let (ours, _theirs) = tokio::net::UnixStream::pair().unwrap();
        let caller = Caller::of(&ours, &GroupLevel::new(false));
        let uid = nix::unistd::geteuid().as_raw();
        let pid = std::process::id() as i32;
        assert_eq!(caller.peer, Peer::Process { uid, pid });
        assert!(caller.admin, "our own user may do everything");
    }

    #[test]
    fn peers_have_names() {
        let root = Peer::Process { uid: 0, pid: 7 };
        assert_eq!(root.to_string(), "root (process 7)");
        let unknown = Peer::Process { uid: 4_000_000_000, pid: 0 };
        assert_eq!(unknown.to_string(), "user 4000000000");
    }
}
