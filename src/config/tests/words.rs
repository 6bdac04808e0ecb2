//! Mistakes in values whose right form is another one than it seems: ports alone, names of claims.

use super::mistakes::one_problem;

/// Table, line with one mistake in it, part of the problem, part of the remedy.
const MISTAKES: &[(&str, &str, &str, &str)] = &[
    ("[routes.r]", "path = ''", "is empty", "write a value"),
    ("[server]", "listen = 8080", "must be a list, is an integer", "listen = [\"0.0.0.0:8080\"]"),
    ("[server]", "listen = [8080]", "must be a string, is an integer", "\"0.0.0.0:8080\""),
    ("[admin]", "listen = 9901", "must be a string, is an integer", "\"127.0.0.1:9901\""),
    (
        "[auth.v]",
        "claims_to_headers = { x-user-id = 'claim:sub' }",
        "\"claim:sub\" is not the name of a claim",
        "write the claim's name alone: \"sub\"",
    ),
    ("[routes.r]", "require = { 'claim:role' = ['a'] }", "is not the name of a claim", "\"role\""),
    (
        "[routes.r]",
        "require = [{ claim = 'claim:role', is = ['a'] }]",
        "is not the name of a claim",
        "alone: \"role\"",
    ),
];

#[test]
fn the_remedy_is_the_form_that_is_right() {
    MISTAKES.iter().for_each(|mistake| one_problem(*mistake));
}
