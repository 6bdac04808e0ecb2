//! Who uses a connection. It is given up when nobody does, and at that moment it is decided that
//! nobody will: a request comes before, and is answered by it, or behind, and is told at once.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Set when nobody may come any more.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Users(AtomicUsize);

/// One of them. Dropping it counts it out.
#[derive(Debug)]
pub(super) struct User<'u>(&'u Users);

impl Users {
    /// Counts one in; nothing where nobody may come any more.
    pub(super) fn enter(&self) -> Option<User<'_>> {
        let user = User(self);
        let before = self.0.fetch_add(1, Ordering::AcqRel);
        (before & CLOSED == 0).then_some(user)
    }

    /// Whether there is nobody.
    pub(super) fn is_none(&self) -> bool {
        self.0.load(Ordering::Acquire) & !CLOSED == 0
    }

    /// Lets nobody come any more, if nobody is here. Whether that is so.
    pub(super) fn close(&self) -> bool {
        self.0.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Drop for User<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_comes_once_it_is_closed_and_it_closes_on_nobody() {
        let users = Users::default();
        let first = users.enter().unwrap();
        let second = users.enter().unwrap();
        drop(first);
        assert!(!users.close() && !users.is_none());
        drop(second);
        assert!(users.is_none());
        let third = users.enter();
        assert!(third.is_some(), "who comes before it is closed is let in");
        assert!(!users.close());
        drop(third);
        assert!(users.close());
        assert!(users.enter().is_none() && users.enter().is_none());
        assert!(users.is_none());
    }
}
