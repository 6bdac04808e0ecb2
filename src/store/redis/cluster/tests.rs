//! Maps that change again and again.

use super::*;
use crate::store::keys::SLOTS;

fn view(epoch: u64, address: &Address) -> View {
    let (ranges, primaries) = (vec![(0, SLOTS - 1, 0)], vec![Member::at(address.clone())]);
    View { is_ok: true, epoch, ranges, primaries, replicas: Vec::new() }
}

#[tokio::test(start_paused = true)]
async fn servers_that_have_left_leave_nothing_behind() {
    let settings = config::Store::default();
    let (scripts, common) = (Arc::new(Scripts::new()), Common::of(&settings));
    let cluster = Cluster::open(&settings, &scripts, &common, Vec::new());
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let mut left = Vec::new();
    for round in 0..50 {
        // Nobody listens there.
        let address = ("127.0.0.1".to_owned(), 1 + round);
        assert!(cluster.adopt(&view(u64::from(round), &address)));
        left.push(Arc::downgrade(&cluster.owner(7).expect("a server")));
        if round == 0 {
            tokio::time::sleep(Duration::from_secs(100)).await;
        }
    }
    // They may be named again at once, and are kept for that.
    let kept = tasks();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!cluster.adopt(&view(49, &("127.0.0.1".to_owned(), 50))), "nothing is new");
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert_eq!(left.iter().filter(|server| server.upgrade().is_some()).count(), 1);
    assert!(tasks() <= 5 && kept > 5 * 49, "{} tasks of {kept} are left", tasks());
}

/// A server hears of a new replica before it hears of the new primary.
#[tokio::test(start_paused = true)]
async fn slots_of_nobody_stay_for_a_while_with_who_had_them() {
    let settings = config::Store::default();
    let (scripts, common) = (Arc::new(Scripts::new()), Common::of(&settings));
    let cluster = Cluster::open(&settings, &scripts, &common, Vec::new());
    let (one, other) = (("127.0.0.1".to_owned(), 1), ("127.0.0.1".to_owned(), 2));
    assert!(cluster.adopt(&view(5, &one)));
    let former = cluster.owner(7).expect("a server");
    let lacking = || View { ranges: vec![(100, SLOTS - 1, 0)], ..view(6, &other) };
    for _ in 0..3 {
        cluster.adopt(&lacking());
        assert!(Arc::ptr_eq(&cluster.owner(7).expect("who had it"), &former));
        assert!(cluster.owner(100).expect("a server").node.share_name().ends_with(":2"));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    cluster.adopt(&lacking());
    assert!(cluster.owner(7).is_none(), "nobody has it");
    assert!(cluster.adopt(&view(7, &other)));
    cluster.adopt(&lacking());
    assert!(cluster.owner(7).is_some(), "it was somebody's again");
}

/// Who is cut off says that all is well until it finds out, of a cluster that was.
#[tokio::test(start_paused = true)]
async fn an_older_view_is_not_believed_though_it_says_that_all_is_well() {
    let settings = config::Store::default();
    let (scripts, common) = (Arc::new(Scripts::new()), Common::of(&settings));
    let cluster = Cluster::open(&settings, &scripts, &common, Vec::new());
    let (now, before) = (("127.0.0.1".to_owned(), 1), ("127.0.0.1".to_owned(), 2));
    let owner = || cluster.owner(7).expect("a server").node.share_name().to_owned();
    assert!(cluster.adopt(&view(5, &now)));
    assert!(!cluster.adopt(&view(4, &before)) && owner().ends_with(":1"), "{}", owner());
    tokio::time::advance(OLDER_FOR / 2).await;
    assert!(!cluster.adopt(&view(5, &now)), "nothing is new");
    tokio::time::advance(OLDER_FOR / 2).await;
    assert!(!cluster.adopt(&view(4, &before)), "one that was not older came between");
    tokio::time::advance(OLDER_FOR).await;
    assert!(cluster.adopt(&view(4, &before)) && owner().ends_with(":2"), "{}", owner());
}

#[tokio::test]
async fn a_server_that_sends_on_without_end_fills_no_map() {
    let settings = config::Store::default();
    let (scripts, common) = (Arc::new(Scripts::new()), Common::of(&settings));
    let cluster = Cluster::open(&settings, &scripts, &common, Vec::new());
    for number in 0..=SERVERS_MAX {
        let address = ("h.invalid".to_owned(), u16::try_from(number + 1).expect("a port"));
        cluster.moved(0, address.clone());
        assert_eq!(cluster.server_at(&address).is_some(), number < SERVERS_MAX);
    }
    assert_eq!(cluster.map.load().servers.len(), SERVERS_MAX);
}
