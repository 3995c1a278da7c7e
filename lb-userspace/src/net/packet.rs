//! Addresses of packet sockets.

use socket2::SockAddr;

/// A NIC (0 = all), an Ethernet type, and to whom.
pub fn packet_address(ifindex: u32, ethertype: u16, mac: [u8; 6]) -> SockAddr {
    let mut address = [0; 8];
    address[..6].copy_from_slice(&mac);
    let link = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: ifindex as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: address,
    };
    // SAFETY: the storage is zeroed, and large and aligned enough for every kind of address; it is written with one whole
    // `sockaddr_ll`, whose family says so, and the length is that type's.
    let made = unsafe {
        SockAddr::try_init(|storage, length| {
            storage.cast::<libc::sockaddr_ll>().write(link);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    };
    let Ok(((), address)) = made else { unreachable!("writing an address cannot fail") };
    address
}
