//! A gateway for requests that no library would send: a public route for everything, a protected
//! one at `/admin`, and one upstream that tells what reached it.

use super::{AUTH, Client, Gateway, Recorded, Upstream, raw, raw_until_close, response};

/// What stands behind a hostile request on the same connection. Where the gateway is in doubt about
/// the first, it must not take this for a second.
pub(crate) const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n";

/// See the module.
pub(crate) struct Edge {
    pub(crate) gateway: Gateway,
    pub(crate) upstream: Upstream,
}

impl Edge {
    /// Starts both.
    pub(crate) fn open() -> Self {
        Self::with("")
    }

    /// Starts both; `more` is more configuration.
    pub(crate) fn with(more: &str) -> Self {
        let upstream = Upstream::replying(response("200 OK", "from the upstream"));
        let gateway = Gateway::start(&format!(
            "{AUTH}{}
            [routes.public]
            path = \"/*\"
            upstream = \"shop\"
            [routes.admin]
            path = \"/admin/*\"
            upstream = \"shop\"
            auth = \"users\"
            {more}",
            upstream.table("shop")
        ));
        Self { gateway, upstream }
    }

    /// Sends a request that must be refused: at most one answer, which is an error, then the end of
    /// the connection, and nothing for the upstream. Returns the status, 0 when there was none.
    pub(crate) fn refuses(&self, case: impl AsRef<[u8]>) -> u16 {
        let mut bytes = case.as_ref().to_owned();
        bytes.extend_from_slice(SMUGGLED.as_bytes());
        let what = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
        let answer = raw_until_close(self.gateway.public, &bytes);
        let answers = answer.matches("HTTP/1.").count();
        assert!(answers <= 1, "{answers} answers to {what:?}: {answer}");
        let status = status(&answer);
        assert!(status == 0 || (400..=505).contains(&status), "{what:?}: {answer}");
        self.nothing_passed(&what);
        status
    }

    /// Sends a request that must not reach the upstream. Unlike [`Self::refuses`], its end is not
    /// in doubt, so the connection may go on.
    pub(crate) fn keeps(&self, case: impl AsRef<[u8]>) -> u16 {
        let what = String::from_utf8_lossy(case.as_ref()).into_owned();
        let answer = raw(self.gateway.public, case);
        let status = status(&answer);
        assert!(status == 0 || (400..=505).contains(&status), "{what:?}: {answer}");
        self.nothing_passed(&what);
        status
    }

    fn nothing_passed(&self, what: &str) {
        let passed = self.upstream.recorded();
        assert!(passed.is_empty(), "{what:?} reached the upstream: {passed:?}");
        assert!(self.upstream.broken().is_empty(), "{what:?}: {:?}", self.upstream.broken());
    }

    /// Sends a request that must reach the upstream, as one.
    pub(crate) fn passes(&self, case: impl AsRef<[u8]>) -> Recorded {
        let what = String::from_utf8_lossy(case.as_ref()).into_owned();
        let answer = raw(self.gateway.public, case);
        assert_eq!(status(&answer), 200, "{what:?}: {answer}");
        self.one_passed(&what).unwrap_or_else(|| panic!("{what:?} did not reach the upstream"))
    }

    /// Sends a request that may be refused, or be made canonical and passed on, as one. Whatever
    /// follows its end on the connection must not be taken for a request, so the gateway closes.
    pub(crate) fn refuses_or_closes(&self, case: impl AsRef<[u8]>) -> Option<Recorded> {
        let what = String::from_utf8_lossy(case.as_ref()).into_owned();
        let answer = raw_until_close(self.gateway.public, case);
        let answers = answer.matches("HTTP/1.").count();
        assert!(answers <= 1, "{answers} answers to {what:?}: {answer}");
        let passed = self.one_passed(&what);
        let expected = if passed.is_some() { 200..=200 } else { 400..=505 };
        let status = status(&answer);
        assert!(status == 0 || expected.contains(&status), "{what:?}: {answer}");
        passed
    }

    /// What reached the upstream, at most one request, and no part of a request that broke off.
    fn one_passed(&self, what: &str) -> Option<Recorded> {
        let mut passed = self.upstream.recorded();
        assert!(passed.len() <= 1, "{what:?} became {}: {passed:?}", passed.len());
        self.upstream.forget();
        let passed = passed.pop();
        let smuggled = passed.as_ref().is_some_and(|p| p.target().contains("smuggled"));
        assert!(!smuggled, "{what:?} let another request in: {passed:?}");
        passed
    }

    /// The gateway and its upstream connections still serve, and whoever comes next gets his own
    /// answer.
    pub(crate) fn still_serves(&self) {
        let reply = Client::get(self.gateway.public, "/still").send();
        assert_eq!((reply.status, reply.text().as_str()), (200, "from the upstream"));
        assert_eq!(self.upstream.only().request_line(), "GET /still HTTP/1.1");
        self.upstream.forget();
    }
}

/// The status of the last response, 0 when there is none.
pub(crate) fn status(answer: &str) -> u16 {
    let code = |line: &str| line.get(9..12).and_then(|code| code.parse().ok());
    answer
        .lines()
        .filter(|line| line.starts_with("HTTP/1."))
        .filter_map(code)
        .next_back()
        .unwrap_or(0)
}

/// A POST with these fields and this body; everything but `Host` is the case's own.
pub(crate) fn post(fields: &[u8], body: &[u8]) -> Vec<u8> {
    [b"POST /f HTTP/1.1\r\nHost: shop.test\r\n", fields, b"\r\n\r\n", body].concat()
}
