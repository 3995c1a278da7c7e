//! Packets as a test has written them, IP header and all, sent by a machine of the lab.

use std::{net::Ipv4Addr, time::Duration};

use crate::machine::Machine;

/// Sends made-up packets (IPv4, the kernel writes the header's checksum), each to an address, from any address: no more at once than
/// a veth's queue of 256 has room for, since what it has no room for never reaches lb.
///
/// # Panics
/// If the machine has no raw sockets.
pub fn make_up(machine: &Machine, packets: Vec<(Ipv4Addr, Vec<u8>)>) {
    machine.run(move || {
        use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
        // SAFETY: no memory is involved.
        let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW) };
        assert!(socket >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: the descriptor has just been made, for us alone.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        for (number, (to, packet)) in packets.into_iter().enumerate() {
            if number % 64 == 63 {
                std::thread::sleep(Duration::from_millis(1));
            }
            let address = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: 0,
                sin_addr: libc::in_addr { s_addr: u32::from(to).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: the packet and the address are as long as it says, and outlive the call. What the kernel has no room
            // for is lost, as in any flood.
            unsafe {
                libc::sendto(
                    socket.as_raw_fd(),
                    packet.as_ptr().cast(),
                    packet.len(),
                    0,
                    (&raw const address).cast(),
                    size_of_val(&address) as libc::socklen_t,
                );
            }
        }
    });
}
