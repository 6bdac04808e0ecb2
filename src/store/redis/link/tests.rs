//! What a server says of itself.

use super::*;
use crate::config::StoreUrl;
use crate::store::redis::common::Common;

#[test]
fn the_servers_clock_is_read_in_the_middle_of_the_exchange() {
    assert_eq!(offset_ms(1_000_000, 1_000_010, 1000, 5999), 0);
    assert_eq!(offset_ms(1_000_000, 1_000_000, 997, 500_000), -2500);
    assert_eq!(offset_ms(0, 0, i64::MAX, i64::MAX), i64::MAX);
}

/// A connection to somebody who says nothing.
fn published(link: &Link) -> Arc<Published> {
    let (stream, _server) = tokio::io::duplex(64);
    let connection = Connection::start(stream, 64, &link.node.says, |_| {});
    let (material, shown) = (link.node.common.credentials.now(), Shown::of(None, 0));
    let (misses, closed) = (Misses::default(), Arc::default());
    Arc::new(Published { connection, material, misses, shown, closed })
}

/// That a connection can be made is no probe.
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_replaced_leaves_an_open_server_open() {
    let settings = config::Store::default();
    // Nobody listens there.
    let url = StoreUrl::Redis { host: "127.0.0.1".to_owned(), port: 1, db: 0 };
    let node = Arc::new(Node::new(&url, &Common::of(&settings)));
    let link = Link::start(&settings, &node, &Arc::new(Scripts::new()));
    let [old, new, late] = [0; 3].map(|_| published(&link));
    assert!(publish(&link, &old) && link.is_asked());
    node.shut(Cause::Refused("CLUSTERDOWN"));
    for _ in 0..9 {
        tokio::time::advance(Duration::from_secs(1)).await;
        replace(&link, &old, &new);
        assert!(link.slot.holds(&new) && !link.is_asked());
    }
    replace(&link, &old, &late);
    assert!(link.slot.holds(&new), "another one is in service");
    // It was closed before it was put in service, so nobody gave it up.
    late.closed.store(true, Ordering::Release);
    replace(&link, &new, &late);
    assert!(!link.is_up());
}
