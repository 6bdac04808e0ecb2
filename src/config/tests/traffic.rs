//! One problem per mistake in what is said of split and mirrored routes.

use super::read;

/// What stands in a route, what is wrong with it, and what the remedy shows.
const MISTAKES: &[(&str, &str, &str)] = &[
    ("sticky = 'address'", "there is no split", "add split"),
    ("split = [{ upstream = 'u', weight = 1 }]", "names 1", "the base first"),
    ("split = [{ weight = 1 }, { upstream = 'u', weight = 1 }]", "is missing", "NAME"),
    ("split = [{ upstream = 'u' }, { upstream = 'v' }]", "without weight", "a ramp"),
    (
        "split = [{ upstream = 'u', weight = 1 }, { upstream = 'u', weight = 1 }]",
        "names an upstream twice",
        "each once",
    ),
    (
        "split = [{ upstream = 'u', weight = 0 }, { upstream = 'v', weight = 0 }]",
        "no weight above 0",
        "of all",
    ),
    (
        "split = [{ upstream = 'u', weight = 10001 }, { upstream = 'v', weight = 1 }]",
        "out of range",
        "10000",
    ),
    (
        "split = [{ upstream = 'u' }, { upstream = 'v' }]\nramp = ['1%/10m', '100%']",
        "without sticky",
        "claim:sub",
    ),
    (
        "split = [{ upstream = 'u' }, { upstream = 'v' }]\nsticky = 'address'\n\
         ramp = ['9%/1m', '1%']",
        "does not grow",
        "one way only",
    ),
    (
        "split = [{ upstream = 'u' }, { upstream = 'v' }]\nsticky = 'address'\nramp = ['1%', '2%']",
        "a last step that ends",
        "\"100%\"",
    ),
    (
        "split = [{ upstream = 'u' }, { upstream = 'v' }]\nsticky = 'address'\nramp = ['1/1m']",
        "is not a step",
        "10%/30m",
    ),
    (
        "split = [{ upstream = 'u', weight = 1 }, { upstream = 'v', weight = 1 }]\nsticky = 'sub'",
        "cannot be hashed",
        "claim:NAME",
    ),
    (
        "split = [{ upstream = 'a', weight = 1 }, { upstream = 'b', weight = 1 }, \
         { upstream = 'c', weight = 1 }]\nrollback = {}",
        "one upstream beside the base",
        "two upstreams",
    ),
    (
        "split = [{ upstream = 'u', weight = 1 }, { upstream = 'v', weight = 1 }]\n\
         rollback = { window = '1s' }",
        "too short or too long",
        "10s",
    ),
    (
        "split = [{ upstream = 'u', weight = 1 }, { upstream = 'v', weight = 1 }]\n\
         rollback = { failures = '2.555%' }",
        "is not a share",
        "0.25%",
    ),
    (
        "split = [{ upstream = 'u', weight = 1 }, { upstream = 'v', weight = 1 }]\nupstream = 'u'",
        "is beside split",
        "remove it",
    ),
    ("mirror = {}", "mirror.upstream: is missing", "NAME"),
    ("mirror = { upstream = 'v', share = '101%' }", "is not a share", "0.25%"),
    ("faults = { abort = '1%' }", "allow_from: is missing", "127.0.0.1/32"),
    ("faults = { allow_from = ['::/0'] }", "does nothing", "abort"),
    ("faults = { allow_from = ['::/0'], abort = '1%', status = 200 }", "range", "400"),
    ("faults = { allow_from = ['::/0'], delay = '1%', delay_time = '1h' }", "is too long", "1m"),
];

#[test]
fn each_mistake_gives_one_problem_with_its_remedy() {
    for (lines, what, remedy) in MISTAKES.iter().copied() {
        let upstream = if lines.starts_with("split") { "" } else { "upstream = 'u'\n" };
        let text = format!("[routes.r]\n{lines}\npath = '/'\n{upstream}");
        let loaded = read(&format!("{text}[upstreams.u]\nservers = ['http://a']"));
        let report = loaded.source.render(&loaded.problems);
        assert_eq!(loaded.problems.len(), 1, "{lines}: {report}");
        let (head, help) = report.split_once("help: ").unwrap();
        assert!(head.contains(what), "{lines}: {report}");
        assert!(help.contains(remedy), "{lines}: {report}");
    }
}

#[test]
fn shares_are_told_to_a_hundredth_of_a_percent() {
    let shares = |split: &str, more: &str| -> Vec<u16> {
        let text = format!("[routes.r]\npath = '/'\n{more}\nsplit = [{split}]");
        let loaded = read(&format!("{text}\n[upstreams.u]\nservers = ['http://a']"));
        let split = loaded.config.routes["r"].split.clone();
        let split = split.unwrap_or_else(|| panic!("{}", loaded.source.render(&loaded.problems)));
        split.arms.iter().map(|arm| arm.share).collect()
    };
    let arm = |name: &str, weight: u16| format!("{{ upstream = '{name}', weight = {weight} }}");
    assert_eq!(shares(&[arm("a", 95), arm("b", 5)].join(","), ""), [9_500, 500]);
    assert_eq!(shares(&[arm("a", 9_999), arm("b", 1)].join(","), ""), [9_999, 1]);
    assert_eq!(shares(&[arm("a", 1), arm("b", 1), arm("c", 1)].join(","), ""), [3_333; 3]);
    let ramp = "sticky = 'path'\nramp = ['0.25%/10m', '100%']";
    assert_eq!(shares("{ upstream = 'a' }, { upstream = 'b' }", ramp), [10_000, 0]);
}
