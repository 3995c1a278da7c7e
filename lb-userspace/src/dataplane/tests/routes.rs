//! What nat replies and `allow` find: routes, neighbours and lists, read back as the kernel has them.

use std::net::IpAddr;

use aya::maps::{Array, HashMap, LpmTrie, MapData, lpm_trie::Key};
use ipnet::IpNet;
use lb_common::abi::{NeighbourKey, NeighbourRow, NextHopRow, PrefixKey, RouteKey, map};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{
    super::{List, layout},
    sandbox::{Sandbox, sandbox},
};

/// What a reply to this client finds.
fn route(sandbox: &Sandbox, client: IpAddr) -> Option<NextHopRow> {
    let trie: LpmTrie<MapData, RouteKey, u32> = sandbox.map(map::ROUTES);
    let rows: Array<MapData, NextHopRow> = sandbox.map(map::NEXTHOPS);
    let number = trie.get(&Key::new(128, RouteKey { destination: client.into() }), 0).ok()?;
    Some(rows.get(&number, 0).unwrap())
}

fn hop(ifindex: u32) -> NextHopRow {
    NextHopRow { ifindex, ..NextHopRow::default() }
}

#[test]
fn routes_follow_the_hosts_through_every_change() {
    sandbox(|sandbox| {
        let mut random = StdRng::seed_from_u64(3);
        let mut dataplane = sandbox.open();
        for round in 0..60 {
            if round % 20 == 19 {
                drop(dataplane);
                dataplane = sandbox.open();
            }
            let mut routes: Vec<(IpNet, NextHopRow)> = Vec::new();
            for _ in 0..random.random_range(0..40) {
                let prefix = if random.random() {
                    let address = IpAddr::from([10, random.random_range(0..4), random.random(), 1]);
                    IpNet::new(address, random.random_range(0..=32)).unwrap()
                } else {
                    let address = IpAddr::from([0xfd00, 0, 0, random.random(), 0, 0, 0, 1]);
                    IpNet::new(address, random.random_range(0..=128)).unwrap()
                };
                if !routes.iter().any(|(known, _)| known.trunc() == prefix.trunc()) {
                    routes.push((prefix, hop(random.random_range(1..1000))));
                }
            }
            dataplane.set_routes(routes.clone()).unwrap();
            for _ in 0..50 {
                let client = if random.random() {
                    IpAddr::from([10, random.random_range(0..4), random.random(), random.random()])
                } else {
                    IpAddr::from([0xfd00, 0, 0, random.random(), 0, 0, 0, random.random()])
                };
                let best = routes
                    .iter()
                    .filter(|(prefix, _)| prefix.contains(&client))
                    .max_by_key(|(prefix, _)| prefix.prefix_len());
                assert_eq!(
                    route(sandbox, client),
                    best.map(|(_, row)| *row),
                    "{client} in {routes:?}"
                );
            }
        }
    });
}

#[test]
fn of_too_many_routes_none_is_kept() {
    sandbox(|sandbox| {
        let mut dataplane = sandbox.open();
        let many = |count: u32| -> Vec<(IpNet, NextHopRow)> {
            (0..count)
                .map(|n| {
                    let [_, _, high, low] = n.to_be_bytes();
                    (IpNet::new(IpAddr::from([10, high, low, 0]), 24).unwrap(), hop(n + 1))
                })
                .collect()
        };
        let client = IpAddr::from([10, 0, 7, 9]);
        dataplane.set_routes(many(layout::ROUTES)).unwrap();
        assert_eq!(route(sandbox, client), Some(hop(8)));
        dataplane.set_routes(many(layout::ROUTES + 1)).unwrap();
        assert_eq!(route(sandbox, client), None);
        // All rows were in use a moment ago, and all are needed again.
        dataplane.set_routes(many(layout::ROUTES)).unwrap();
        assert_eq!(route(sandbox, client), Some(hop(8)));
    });
}

#[test]
fn a_row_rests_before_another_route_gets_it() {
    sandbox(|sandbox| {
        let mut dataplane = sandbox.open();
        let trie: LpmTrie<MapData, RouteKey, u32> = sandbox.map(map::ROUTES);
        let number = |address: [u8; 4]| {
            let destination = IpAddr::from(address).into();
            trie.get(&Key::new(128, RouteKey { destination }), 0).unwrap()
        };
        let mut seen = std::collections::HashSet::new();
        for n in 0..50 {
            let prefix = IpNet::new(IpAddr::from([10, 0, n, 0]), 24).unwrap();
            dataplane.set_routes(vec![(prefix, hop(1))]).unwrap();
            assert!(seen.insert(number([10, 0, n, 1])), "a row was used again at once");
        }
        // In place: the same route keeps its row.
        let prefix = IpNet::new(IpAddr::from([10, 0, 49, 0]), 24).unwrap();
        let before = number([10, 0, 49, 1]);
        dataplane.set_routes(vec![(prefix, hop(2))]).unwrap();
        assert_eq!(number([10, 0, 49, 1]), before);
        assert_eq!(route(sandbox, IpAddr::from([10, 0, 49, 1])), Some(hop(2)));
    });
}

#[test]
fn neighbours_are_exactly_those_of_the_host() {
    sandbox(|sandbox| {
        let mut dataplane = sandbox.open();
        let found = |ifindex: u32, address: IpAddr| {
            let kernel: HashMap<MapData, NeighbourKey, NeighbourRow> = sandbox.map(map::NEIGHBOURS);
            let key = NeighbourKey { address: address.into(), ifindex };
            kernel.get(&key, 0).ok().map(|row| row.mac)
        };
        let (v4, v6) = (IpAddr::from([10, 0, 0, 2]), IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 2]));
        dataplane.set_neighbours(vec![(2, v4, [1; 6]), (3, v6, [2; 6])]).unwrap();
        assert_eq!((found(2, v4), found(3, v6)), (Some([1; 6]), Some([2; 6])));
        assert_eq!(found(3, v4), None);
        drop(dataplane);
        let mut dataplane = sandbox.open();
        dataplane.set_neighbours(vec![(2, v4, [3; 6])]).unwrap();
        assert_eq!((found(2, v4), found(3, v6)), (Some([3; 6]), None));
        // More than fit: the rest is asked of the kernel, and that is no error.
        let many = (0..layout::NEIGHBOURS + 5)
            .map(|n| {
                let [_, a, b, c] = n.to_be_bytes();
                (4, IpAddr::from([10, a, b, c]), [4; 6])
            })
            .collect();
        dataplane.set_neighbours(many).unwrap();
        let kernel: HashMap<MapData, NeighbourKey, NeighbourRow> = sandbox.map(map::NEIGHBOURS);
        assert_eq!(kernel.keys().count(), layout::NEIGHBOURS as usize);
        dataplane.set_neighbours(Vec::new()).unwrap();
        assert_eq!(kernel.keys().count(), 0);
    });
}

#[test]
fn lists_do_not_mix() {
    sandbox(|sandbox| {
        let mut dataplane = sandbox.open();
        let listed = |map: &str, list: u32, client: IpAddr| {
            let kernel: LpmTrie<MapData, PrefixKey, u32> = sandbox.map(map);
            kernel.get(&Key::new(160, PrefixKey { list, source: client.into() }), 0).is_ok()
        };
        let allowed = |list, client| listed(map::ALLOW, list, client);
        let prefixes = |texts: &[&str]| -> Vec<IpNet> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let (one, two) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]));
        dataplane.fill_list(List::Allow, 1, &prefixes(&["10.0.0.9/8"])).unwrap();
        dataplane.fill_list(List::Allow, 2, &prefixes(&["fd00::/8", "192.0.2.0/24"])).unwrap();
        dataplane.fill_list(List::Deny, 2, &prefixes(&["10.0.0.0/31", "10.0.0.0/31"])).unwrap();
        assert!(allowed(1, one) && !allowed(1, two));
        assert!(allowed(2, two) && !allowed(2, one));
        assert!(listed(map::DENY, 2, one) && !listed(map::DENY, 1, one));
        drop(dataplane);
        let mut dataplane = sandbox.open();
        assert!(dataplane.list_is(List::Allow, 2, &prefixes(&["192.0.2.0/24", "fd00::/8"])));
        assert!(!dataplane.list_is(List::Allow, 2, &prefixes(&["192.0.2.0/24"])));
        assert!(
            dataplane.list_has(List::Deny, 2, &one) && !dataplane.list_has(List::Deny, 2, &two)
        );
        dataplane.keep_lists(List::Allow, &[1]).unwrap();
        assert!(allowed(1, one) && !allowed(2, two) && listed(map::DENY, 2, one));
        // Twenty at a time, four times over; what did not get in leaves nothing behind.
        let many: Vec<IpNet> =
            (0..85).map(|n| IpNet::from(IpAddr::from([172, 16, 0, n]))).collect();
        assert_eq!(dataplane.list_room(List::Allow), (20, 79));
        dataplane.fill_list(List::Allow, 3, &many).unwrap_err();
        dataplane.remove_list(List::Allow, 3).unwrap();
        dataplane.remove_list(List::Allow, 1).unwrap();
        dataplane.fill_list(List::Allow, 4, &many[..80]).unwrap();
        assert!(!allowed(1, one) && allowed(4, IpAddr::from([172, 16, 0, 79])));
        // Filled anew, a number has nothing of what it had.
        dataplane.fill_list(List::Allow, 4, &many[80..]).unwrap();
        assert!(!allowed(4, IpAddr::from([172, 16, 0, 79])));
        assert_eq!(dataplane.list_room(List::Allow), (20, 75));
    });
}
