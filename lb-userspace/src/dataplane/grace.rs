//! Waiting until every packet that was under way has left the program.

use std::time::Duration;

const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// Returns when no packet can know any more what was removed before the call. A membarrier over all CPUs waits for an RCU
/// grace period (6 to 36 ms); where the kernel does not offer it (nohz_full), one second is more than any packet takes.
pub async fn grace() {
    let barrier = tokio::task::spawn_blocking(|| {
        // SAFETY: the system call takes three integers and touches no memory of ours.
        unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0 }
    });
    if !barrier.await.unwrap_or(false) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
