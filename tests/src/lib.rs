//! The lab: machines made of namespaces, with real servers, clients and the real daemon; and what lb's tests on the
//! real kernel share.
//!
//! Nothing here needs cleaning up: network and mount namespaces have no names, belong to threads of the test process, and
//! vanish with it, however it ends. Daemons started in a machine are killed by the kernel with the thread that
//! started them.

mod bpf;
pub mod browser;
pub mod cgroup;
pub mod client;
pub mod comparison;
pub mod crowd;
pub mod daemon;
pub mod etcd;
pub mod fleet;
pub mod flood;
pub mod kernel;
pub mod lab;
pub mod machine;
pub mod maps;
pub mod node;
pub mod pair;
pub mod process;
pub mod prometheus;
pub mod pulse;
pub mod quickstart;
pub mod raw;
pub mod recovery;
pub mod scale_up;
pub mod seccomp;
pub mod server;
pub mod soak;
pub mod stand;
pub mod tmux;
pub mod vrrp;
pub mod walkthrough;
