//! The same failure with other software on the same machines.

use lb_tests::comparison::{HELD, compare, table};

#[test]
fn a_dead_node_costs_lbs_clients_no_connection_and_haproxys_all() {
    let [lb, haproxy] = compare().unwrap();
    println!("{}", table(&[lb.clone(), haproxy.clone()]));
    assert_eq!((lb.broken, lb.held), (0, HELD), "{lb:?}");
    // What a proxy knows of its connections dies with it.
    assert_eq!(haproxy.broken, HELD, "{haproxy:?}");
    assert!(lb.answered > 0 && haproxy.answered > 0, "{lb:?} {haproxy:?}");
}
