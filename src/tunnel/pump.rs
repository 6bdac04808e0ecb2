//! A tunnel at work: two directions and one clock in one future.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use super::control::Control;
use super::end::End;
use super::flow::{FlowRules, Refusal};
use super::frame;
use super::pipe::{Fault, Pipe};
use crate::base::socket::Socket;
use crate::config;
use crate::observe::TunnelMeter;

/// How long the peers have to answer a Close before they are cut off.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// One end of a tunnel.
pub trait Carrier: AsyncRead + AsyncWrite + Unpin {
    /// Has what waits unsent thrown away when it is dropped, and the peer told so.
    fn reset(&mut self);
}

impl Carrier for Socket {
    fn reset(&mut self) {
        let _ = self.tcp().set_zero_linger();
    }
}

/// One end, and the bytes that it has sent already.
#[derive(Debug)]
pub struct Begun<C> {
    /// The connection.
    pub carrier: C,
    /// What was read from it.
    pub early: bytes::Bytes,
}

/// What became of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Why it has ended.
    pub end: End,
    /// What was refused, where that was the reason.
    pub refused: Option<Refusal>,
    /// Bytes to the client.
    pub sent: u64,
    /// Bytes from the client.
    pub received: u64,
    /// Messages in both directions.
    pub messages: u64,
}

impl Report {
    /// The code of what was refused, or of who wanted the end, for the log.
    pub fn reason(&self) -> Option<&'static str> {
        let operator = (self.end == End::Operator).then_some("closed_by_operator");
        self.refused.map(Refusal::code).or(operator)
    }

    /// Of a tunnel that nothing has passed.
    pub fn unused(end: End) -> Self {
        Self { end, refused: None, sent: 0, received: 0, messages: 0 }
    }
}

/// The times of one tunnel.
#[derive(Debug)]
struct Times {
    idle_timeout: Duration,
    progress_timeout: Duration,
    ends_at: Instant,
    /// What its end is then.
    at_end: End,
    /// When a byte last came.
    active: Instant,
}

/// What a tunnel must keep to.
#[derive(Debug)]
pub struct Rules<'a> {
    /// What its route says.
    pub tunnel: &'a config::Tunnel,
    /// How long a peer may take nothing.
    pub progress_timeout: Duration,
    /// When its token expires.
    pub expires_at: Option<Instant>,
    /// How others end it.
    pub control: &'a Control,
    /// What counts its bytes.
    pub meter: &'a TunnelMeter,
}

/// A tunnel.
#[derive(Debug)]
pub struct Pump<'a, C, U> {
    client: C,
    upstream: U,
    control: &'a Control,
    meter: &'a TunnelMeter,
    /// What was counted.
    counted: [u64; 3],
    /// From the client to the upstream.
    up: Pipe,
    down: Pipe,
    times: Times,
    alarm: Pin<Box<Sleep>>,
    end: Option<End>,
    refused: Option<Refusal>,
    /// When a Close of our own must have been answered.
    cut_at: Option<Instant>,
}

impl<'a, C: Carrier, U: Carrier> Pump<'a, C, U> {
    /// A tunnel that begins now.
    pub fn new(client: Begun<C>, upstream: Begun<U>, rules: &Rules<'a>) -> Self {
        let Rules { tunnel, progress_timeout, expires_at, control, meter } = *rules;
        let now = Instant::now();
        let too_old_at = now + tunnel.max_age;
        let (ends_at, at_end) = match expires_at {
            Some(at) if at < too_old_at => (at, End::Expired),
            _ => (too_old_at, End::Age),
        };
        let idle_timeout = tunnel.idle_timeout;
        let times = Times { idle_timeout, progress_timeout, ends_at, at_end, active: now };
        Self {
            up: Pipe::new(FlowRules::of_client(tunnel), &client.early),
            down: Pipe::new(FlowRules::default(), &upstream.early),
            client: client.carrier,
            upstream: upstream.carrier,
            control,
            meter,
            counted: [0; 3],
            alarm: Box::pin(tokio::time::sleep_until(times.deadline())),
            times,
            end: None,
            refused: None,
            cut_at: None,
        }
    }

    /// Runs until it has ended.
    pub async fn run(&mut self) {
        std::future::poll_fn(|cx| {
            let polled = self.poll(cx);
            if polled.is_ready() {
                // As much as goes at once: under TLS there is a word for it (RFC 8446 §6.1).
                let _ = Pin::new(&mut self.client).poll_shutdown(cx);
                let _ = Pin::new(&mut self.upstream).poll_shutdown(cx);
            }
            polled
        })
        .await;
    }

    /// Ends it at once.
    pub fn cut(&mut self) {
        self.end.get_or_insert(End::Cut);
        self.client.reset();
        self.upstream.reset();
    }

    /// What became of it.
    pub fn report(&self) -> Report {
        Report {
            end: self.end.unwrap_or(End::Cut),
            refused: self.refused,
            sent: self.down.bytes(),
            received: self.up.bytes(),
            messages: self.up.messages() + self.down.messages(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = Instant::now();
            let was_open = self.cut_at.is_none();
            let polled = self.poll_pipes(cx, now);
            self.count();
            if polled.is_ready() {
                return Poll::Ready(());
            }
            let asked = if was_open { self.control.poll(cx) } else { None };
            if let Some(end) = asked.or_else(|| self.over(now)) {
                if end == End::Cut {
                    self.cut();
                    return Poll::Ready(());
                }
                self.close(end, end.close(), now);
            }
            if was_open && self.cut_at.is_some() {
                // There is a Close to be sent.
                continue;
            }
            let deadline = self.deadline();
            if self.alarm.deadline() > deadline || self.alarm.is_elapsed() {
                self.alarm.as_mut().reset(deadline);
            }
            if self.alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Moves bytes in both directions. Ready when that is over.
    fn poll_pipes(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        let up = self.up.poll(cx, &mut self.client, &mut self.upstream, now);
        if self.up.has_closed() && self.end.is_none() {
            self.end = Some(End::Client);
        }
        let down = self.down.poll(cx, &mut self.upstream, &mut self.client, now);
        if self.down.has_closed() && self.end.is_none() {
            self.end = Some(End::Upstream);
        }
        if self.up.take_has_read() | self.down.take_has_read() {
            self.times.active = now;
        }
        let ends = [(up, End::Client, End::Upstream), (down, End::Upstream, End::Client)];
        for (polled, source, sink) in ends {
            let gone = match polled {
                Poll::Ready(Err(Fault::Source)) => source,
                Poll::Ready(Err(Fault::Sink)) => sink,
                Poll::Ready(Err(Fault::Refused(refusal))) => {
                    if self.refused.replace(refusal).is_none() {
                        self.end = None;
                        self.close(refusal.end(), refusal.close(), now);
                    }
                    continue;
                }
                _ => continue,
            };
            // Whoever is left learns it: an end without a Close is none (RFC 6455 §7.1.5).
            self.end.get_or_insert(gone);
            return Poll::Ready(());
        }
        if self.up.is_done() && self.down.is_done() {
            return Poll::Ready(());
        }
        if self.up.is_closing() && self.down.is_closing() {
            // Nothing follows but the ends of the connections: one is enough.
            if self.up.is_done() || self.down.is_done() {
                return Poll::Ready(());
            }
            self.cut_at.get_or_insert(now + CLOSE_TIME);
        }
        Poll::Pending
    }

    /// Counts what has passed since the last time.
    fn count(&mut self) {
        let now = [self.up.bytes(), self.down.bytes(), self.up.messages() + self.down.messages()];
        let before = std::mem::replace(&mut self.counted, now);
        self.meter.passed(now[0] - before[0], now[1] - before[1], now[2] - before[2]);
    }

    /// Has both peers told that it ends. They have [`CLOSE_TIME`] to answer.
    fn close(&mut self, end: End, (code, reason): (u16, &str), now: Instant) {
        self.end.get_or_insert(end);
        self.cut_at = Some(now + CLOSE_TIME);
        self.down.stop(frame::close(code, reason, None));
        // What the upstream sees is a client that goes away.
        self.up.stop(frame::close(1001, "", Some(fastrand::u32(..).to_be_bytes())));
    }

    /// Whether its time is over.
    fn over(&self, now: Instant) -> Option<End> {
        if self.cut_at.is_some_and(|at| at <= now) || self.stalls_at().is_some_and(|at| at <= now) {
            return Some(End::Cut);
        }
        if self.cut_at.is_some() {
            return None;
        }
        let Times { ends_at, at_end, active, idle_timeout, .. } = self.times;
        if ends_at <= now {
            Some(at_end)
        } else if active + idle_timeout <= now {
            Some(End::Idle)
        } else {
            None
        }
    }

    /// The next time at which something is to be done.
    fn deadline(&self) -> Instant {
        let waits = [self.cut_at, self.stalls_at(), self.up.wait_until()];
        let deadline = if self.cut_at.is_some() { None } else { Some(self.times.deadline()) };
        let next = waits.into_iter().chain([deadline]).flatten().min();
        next.unwrap_or_else(|| self.times.deadline())
    }

    /// When a peer that takes nothing will have done so for too long.
    fn stalls_at(&self) -> Option<Instant> {
        let blocked = self.up.blocked_since().into_iter().chain(self.down.blocked_since()).min();
        blocked.map(|since| since + self.times.progress_timeout)
    }
}

impl Times {
    fn deadline(&self) -> Instant {
        self.ends_at.min(self.active + self.idle_timeout)
    }
}
