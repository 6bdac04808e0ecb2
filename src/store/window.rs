//! The sliding window: an adaptive-resolution log. Twin of `scripts/take.lua` and
//! `scripts/refund.lua`; one test suite drives both against a naive log.
//!
//! A cell holds the time of its newest event and the running total. No event is forgotten before
//! its own age reaches the window, so no more than the limit is ever admitted in any window; all
//! events of a cell lie in one quantum, so none is counted longer than one quantum too long. With a
//! quantum of 1 µs the log is exact in both directions.

use std::collections::VecDeque;
use std::time::Duration;

/// Limits up to this are counted exactly; larger ones in cells of 1/64 of the window, which bounds
/// a key to 1 KiB.
const EXACT_LIMIT_MAX: u32 = 128;
/// Cells per window above `EXACT_LIMIT_MAX`.
const CELLS_PER_WINDOW: u64 = 64;

/// One window of one policy, at most `limit` in any span of `span_us`, and what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Most units in the span.
    pub limit: u32,
    /// The span, in microseconds.
    pub span_us: u64,
    /// The resolution, in microseconds.
    pub quantum_us: u64,
    /// Units asked for.
    pub cost: u32,
    /// What happens when they do not fit.
    pub mode: Mode,
}

/// What a window does with units that do not fit into it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Nothing is charged anywhere.
    #[default]
    Enforce = 0,
    /// Nothing is charged here, and the other windows do not mind.
    Observe = 1,
    /// They are charged all the same: what is charged was spent already.
    Force = 2,
    /// Nothing is charged, whether they fit or not; says what would be.
    Peek = 3,
}

impl Window {
    /// The window with the resolution that keeps a key within 1 KiB.
    pub fn new(limit: u32, span: Duration) -> Self {
        let span_us = u64::try_from(span.as_micros()).unwrap_or(u64::MAX).clamp(1, (1 << 47) - 1);
        let quantum_us =
            if limit <= EXACT_LIMIT_MAX { 1 } else { (span_us / CELLS_PER_WINDOW).max(1) };
        Self { limit, span_us, quantum_us, cost: 1, mode: Mode::Enforce }
    }

    /// Whether a request that was allowed is counted here.
    pub fn charges(&self, state: &WindowState) -> bool {
        match self.mode {
            Mode::Enforce | Mode::Force => true,
            Mode::Observe => state.retry_ms == 0,
            Mode::Peek => false,
        }
    }

    /// Whether this window stands in the way of a request.
    pub fn refuses(&self, state: &WindowState) -> bool {
        state.retry_ms != 0 && matches!(self.mode, Mode::Enforce | Mode::Peek)
    }
}

/// Several windows, with what the script needs of them already encoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowSet {
    /// The windows.
    pub windows: Vec<Window>,
    /// The script's records: u32 limit, u48 span, u48 quantum, u32 cost, u8 mode, little endian, 21
    /// bytes each.
    pub records: Vec<u8>,
    /// The life of a fresh key, twice the span, in milliseconds as text.
    pub ttls: Vec<String>,
}

impl WindowSet {
    /// Encodes `windows`.
    pub fn new(windows: Vec<Window>) -> Self {
        let mut records = Vec::with_capacity(21 * windows.len());
        for w in &windows {
            records.extend_from_slice(&w.limit.to_le_bytes());
            records.extend_from_slice(&w.span_us.to_le_bytes()[..6]);
            records.extend_from_slice(&w.quantum_us.to_le_bytes()[..6]);
            records.extend_from_slice(&w.cost.to_le_bytes());
            records.push(w.mode as u8);
        }
        let ttls = windows.iter().map(|w| (2 * w.span_us).div_ceil(1000).to_string()).collect();
        Self { windows, records, ttls }
    }
}

/// A window as it was just before a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowState {
    /// Units left before the charge.
    pub free: i64,
    /// 0 when the cost fits; otherwise the milliseconds until it would; -1 when it never will.
    pub retry_ms: i64,
    /// Milliseconds until some units come back.
    pub next_ms: i64,
    /// Milliseconds until all units are back.
    pub full_ms: i64,
}

/// The log of one key.
#[derive(Debug, Default)]
pub struct WindowLog {
    /// Time of the newest event in the cell, running total after it.
    cells: VecDeque<(u64, u64)>,
    /// Running total before the first cell.
    base: u64,
}

impl WindowLog {
    /// Forgets what has left the window and reports what is left, without charging.
    /// A clock that stepped back is taken to stand still.
    pub fn state(&mut self, window: &Window, now_us: u64, cost: u32) -> WindowState {
        let now = self.forget(window, now_us);
        let left = |at: u64| ms(window.span_us - (now - at));
        let used = self.used();
        let needed = (used + u64::from(cost)).saturating_sub(u64::from(window.limit));
        let retry_ms = if needed == 0 {
            0
        } else if cost > window.limit {
            -1
        } else {
            // The first cell whose expiry frees enough.
            let index = self.cells.partition_point(|&(_, total)| total - self.base < needed);
            self.cells.get(index).map_or(0, |cell| left(cell.0))
        };
        WindowState {
            free: i64::from(window.limit) - i64::try_from(used).unwrap_or(i64::MAX),
            retry_ms,
            next_ms: self.cells.front().map_or(0, |cell| left(cell.0)),
            full_ms: self.cells.back().map_or(0, |cell| left(cell.0)),
        }
    }

    /// Forgets what has left the window; returns the time that it is for the log.
    pub(crate) fn forget(&mut self, window: &Window, now_us: u64) -> u64 {
        let now = now_us.max(self.cells.back().map_or(0, |cell| cell.0));
        while let Some(&(at, total)) = self.cells.front() {
            if now - at < window.span_us {
                break;
            }
            self.base = total;
            self.cells.pop_front();
        }
        now
    }

    /// Units that count now.
    pub(crate) fn used_in(&mut self, window: &Window, now_us: u64) -> u32 {
        self.forget(window, now_us);
        u32::try_from(self.used()).unwrap_or(u32::MAX)
    }

    /// Charges, whether or not there is room; returns the time under which the charge was entered.
    pub fn charge(&mut self, window: &Window, now_us: u64, cost: u32) -> u64 {
        let last = self.cells.back().copied();
        let now = now_us.max(last.map_or(0, |cell| cell.0));
        let total = last.map_or(self.base, |cell| cell.1) + u64::from(cost);
        if last.is_some_and(|cell| cell.0 / window.quantum_us == now / window.quantum_us) {
            self.cells.pop_back();
        }
        self.cells.push_back((now, total));
        now
    }

    /// Gives back `cost` from the cell that holds the charge made at `at_us`. Taking it from a
    /// newer cell would let that cell's events be forgotten too early.
    /// A charge that has left the window gives nothing back. Returns whether one did.
    pub fn refund(&mut self, window: &Window, at_us: u64, cost: u32) -> bool {
        let cost = u64::from(cost);
        let index = self.cells.partition_point(|&(at, _)| at < at_us);
        let before = if index == 0 { self.base } else { self.cells[index - 1].1 };
        let Some(&(newest, total)) = self.cells.get(index) else { return false };
        let size = total - before;
        if newest / window.quantum_us != at_us / window.quantum_us || size < cost {
            return false;
        }
        for cell in self.cells.iter_mut().skip(index) {
            cell.1 -= cost;
        }
        if size == cost {
            // An emptied cell is dropped: otherwise charges and refunds in turn would grow the log
            // without bound.
            self.cells.remove(index);
        }
        true
    }

    /// Whether nothing in the log counts any more.
    pub fn is_idle(&self, window: &Window, now_us: u64) -> bool {
        self.cells.back().is_none_or(|cell| now_us.saturating_sub(cell.0) >= window.span_us)
    }

    /// How little is lost when this log is forgotten: the thousandths of the limit that are in use,
    /// and then the time of the newest event. One in which nothing counts any more is the lowest.
    pub(crate) fn rank(&self, window: &Window, now_us: u64) -> (u64, u64) {
        let is_over = |cell: &(u64, u64)| now_us.saturating_sub(cell.0) >= window.span_us;
        let over = self.cells.partition_point(is_over);
        let before = over.checked_sub(1).and_then(|at| self.cells.get(at));
        let base = before.map_or(self.base, |cell| cell.1);
        let (newest, total) = self.cells.back().copied().unwrap_or((0, base));
        let used = total.saturating_sub(base);
        if used == 0 {
            return (0, 0);
        }
        (1 + used.saturating_mul(1000) / u64::from(window.limit).max(1), newest)
    }

    fn used(&self) -> u64 {
        self.cells.back().map_or(0, |cell| cell.1 - self.base)
    }
}

/// Microseconds as milliseconds, rounded up: a caller told to wait must not be early.
fn ms(us: u64) -> i64 {
    i64::try_from(us.div_ceil(1000)).unwrap_or(i64::MAX)
}
