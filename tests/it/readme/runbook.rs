//! The runbook beside the alerts: each alert names its section, and each section is some alert's.

use std::collections::BTreeSet;

use super::pages::page;

/// What stands behind `key` on the lines that begin with it.
fn values<'t>(text: &'t str, key: &str) -> Vec<&'t str> {
    text.lines().filter_map(|line| line.trim().strip_prefix(key)).map(str::trim).collect()
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    heading.to_lowercase().replace(' ', "-")
}

#[test]
fn every_alert_has_its_section_and_every_section_an_alert() {
    let rules = page("deploy/prometheus/portcullis.rules.yml").text;
    let runbook = page("docs/runbook.md").text;
    let sections: BTreeSet<String> = values(&runbook, "## ").into_iter().map(anchor).collect();
    let alerts = values(&rules, "- alert:");
    let links = values(&rules, "runbook: docs/runbook.md#");
    assert_eq!(alerts.len(), links.len(), "each alert names one section");
    assert!(alerts.len() > 20, "the rules are read: {alerts:?}");
    for (alert, link) in alerts.iter().zip(&links) {
        let own = anchor(alert);
        assert!(*link == own || *link == "portcullis-error-budget", "{alert} names {link}");
    }
    let named: BTreeSet<String> = links.into_iter().map(str::to_owned).collect();
    assert_eq!(sections, named, "sections on the left, what alerts name on the right");
}

#[test]
fn every_alert_is_tested_to_fire_and_to_stay_silent() {
    let rules = page("deploy/prometheus/portcullis.rules.yml").text;
    let tests = page("deploy/prometheus/tests.yml").text;
    let alerts: BTreeSet<&str> = values(&rules, "- alert:").into_iter().collect();
    let tested: BTreeSet<&str> = values(&tests, "- alertname:").into_iter().collect();
    assert_eq!(alerts, tested);
}
