//! Addresses of Redis that are none: what is said says what to write.

use super::report;

#[test]
fn what_names_no_cluster_says_what_to_write() {
    for (url, word) in [
        ("redis-cluster://", "r1:6379"),
        ("redis-cluster:r1", "redis-cluster://r1"),
        ("redis-cluster://r1,,r2", "r1:6379"),
        ("redis-cluster://r1/1", "leave out"),
        ("redis-cluster://u:p@r1", "username"),
    ] {
        let problems = report(&format!("[store]\nurl = '{url}'"));
        assert!(problems.contains(word), "{url}: {problems}");
        assert!(!problems.contains("u:p"), "{problems}");
    }
}

#[test]
fn what_names_no_sentinel_or_no_primary_says_what_to_write() {
    let many = vec!["s"; 16].join(",");
    for (url, word) in [
        ("redis-sentinel://", "1 to 15 sentinels"),
        ("redis-sentinel:///main", "1 to 15 sentinels"),
        (&format!("redis-sentinel://{many}/main"), "1 to 15 sentinels"),
        ("redis-sentinel:s1/main", "redis-sentinel://s1"),
        ("redis-sentinel://s1,,s2/main", "s1:26379"),
        ("redis-sentinel://s1", "by which name"),
        ("redis-sentinel://s1/", "by which name"),
        ("redis-sentinel://s1/main/0", "database"),
        ("redis-sentinel://s1/ma in", "letters"),
        ("redis-sentinel://s1/main/x", "letters"),
        ("redis-sentinel://u:p@s1/main", "username"),
    ] {
        let problems = report(&format!("[store]\nurl = '{url}'"));
        assert!(problems.contains(word), "{url}: {problems}");
        assert!(!problems.contains("u:p"), "{problems}");
    }
    for (url, table, word) in [
        ("redis://h", "sentinel", "redis-sentinel://host"),
        ("redis-cluster://h", "sentinel", "redis-sentinel://host"),
        ("redis://h", "tls", "rediss://host"),
        ("redis://h", "address_map", "redis-cluster://"),
    ] {
        let map = if table == "address_map" { "\n'h:1' = 'i:1'" } else { "" };
        let problems = report(&format!("[store]\nurl = '{url}'\n[store.{table}]{map}"));
        assert!(problems.contains(word), "{url}: {problems}");
    }
}

#[test]
fn an_address_that_is_none_is_not_mapped() {
    for (pair, word) in [
        ("'10.0.0.5' = 'a:1'", "\"10.0.0.5\" is no host and port"),
        ("'10.0.0.5:1' = 'a'", "\"a\" is no host and port"),
        ("'10.0.0.5:1' = 7", "must be"),
        ("'A:1' = 'b:1'\n'a:1' = 'c:1'", "in another spelling"),
    ] {
        let text = format!("[store]\nurl = 'redis-cluster://h'\n[store.address_map]\n{pair}");
        let problems = report(&text);
        assert!(problems.contains(word), "{pair}: {problems}");
    }
}
