//! `allow` and `deny`, as networks that are refused: the first rule that fits counts, so each one
//! is about what is left of all addresses.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Most networks that come of one list.
const NETWORKS_MAX: usize = 2_000;

/// Which networks these rules refuse, each `true` for deny; the error is the rule that cannot be
/// read, or that there would be too many networks.
pub(super) fn refused(rules: &[(bool, &str)]) -> Result<Vec<IpNet>, String> {
    let mut left: Vec<IpNet> = vec![Ipv4Net::default().into(), Ipv6Net::default().into()];
    let mut refused: Vec<IpNet> = Vec::new();
    for (is_deny, text) in rules {
        let networks: Vec<IpNet> = match *text {
            "all" => vec![Ipv4Net::default().into(), Ipv6Net::default().into()],
            "unix:" => continue,
            text => vec![network(text).ok_or_else(|| format!("{text} is no network"))?],
        };
        for network in networks {
            if *is_deny {
                refused.extend(left.iter().filter_map(|one| common(one, &network)));
            }
            left = left.iter().flat_map(|one| without(*one, &network)).collect();
            if left.len() > NETWORKS_MAX || refused.len() > NETWORKS_MAX {
                return Err(format!("more than {NETWORKS_MAX} networks come of it"));
            }
        }
    }
    Ok(IpNet::aggregate(&refused))
}

/// Whether these are all addresses.
pub(super) fn is_everything(networks: &[IpNet]) -> bool {
    networks.len() == 2 && networks.iter().all(|network| network.prefix_len() == 0)
}

/// A network, or one address.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let one = || text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
    text.parse::<IpNet>().ok().or_else(one).map(|network| network.trunc())
}

fn common(a: &IpNet, b: &IpNet) -> Option<IpNet> {
    if a.contains(b) { Some(*b) } else { b.contains(a).then_some(*a) }
}

/// What is left of a network without the hole.
fn without(network: IpNet, hole: &IpNet) -> Vec<IpNet> {
    if hole.contains(&network) {
        return Vec::new();
    }
    let mut left = Vec::new();
    let mut around = network;
    // Halves, of which one has no hole in it.
    while around.contains(hole) && around != *hole {
        let Ok(halves) = around.subnets(around.prefix_len() + 1) else { break };
        let (with, whole): (Vec<IpNet>, Vec<IpNet>) = halves.partition(|half| half.contains(hole));
        left.extend(whole);
        match with.first() {
            Some(half) => around = *half,
            None => break,
        }
    }
    if left.is_empty() { vec![network] } else { left }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_counts() {
        for (rules, inside, outside) in [
            (
                vec![(false, "10.0.0.0/8"), (true, "all")],
                vec!["9.255.255.255", "11.0.0.0", "::1", "255.1.1.1"],
                vec!["10.0.0.0", "10.255.255.255"],
            ),
            (
                vec![(true, "192.0.2.7"), (false, "192.0.2.0/24"), (true, "all")],
                vec!["192.0.2.7", "192.0.3.1"],
                vec!["192.0.2.6", "192.0.2.8"],
            ),
            (vec![(true, "192.0.2.0/24")], vec!["192.0.2.1"], vec!["192.0.3.1", "::1"]),
            (vec![(false, "all"), (true, "all")], vec![], vec!["192.0.3.1", "::1"]),
        ] {
            let refused = refused(&rules).unwrap();
            let is_refused = |text: &str| {
                let address: std::net::IpAddr = text.parse().unwrap();
                refused.iter().any(|network| network.contains(&address))
            };
            assert!(inside.iter().all(|address| is_refused(address)), "{rules:?}: {refused:?}");
            assert!(!outside.iter().any(|address| is_refused(address)), "{rules:?}: {refused:?}");
        }
        assert!(is_everything(&refused(&[(true, "all")]).unwrap()));
        assert!(refused(&[(true, "x")]).is_err());
    }
}
