//! Events over NATS: on a subject, where each new connection is a gap, and of a stream, where what
//! was not acknowledged comes again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::fault::Fault;
use super::reader::{POLL, Reader};
use crate::events::{Skipped, of_body};
use crate::runtime::{AppEvent, Gateway};
use crate::store::EVENTS_PAGE;
use crate::upstream::{Bus, Consumer, Heard, Listener, Pulled};

/// How long one look waits where there is nothing new.
const LOOK: Duration = Duration::from_millis(500);
/// Nanoseconds in a millisecond.
const NS_PER_MS: u64 = 1_000_000;

/// Listens to a subject until the gateway ends or the source is another one.
pub(super) async fn hear(reader: &Reader, subject: &str) {
    let Some(bus) = reader.bus() else { return };
    while reader.gateway().is_some() {
        let ended = match bus.listen(subject).await {
            Ok(listener) => stay(reader, listener).await,
            Err(error) => Err(error.into()),
        };
        if let Err(fault) = ended {
            reader.fails(&fault);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Hears until the connection, or something told, is lost.
async fn stay(reader: &Reader, mut listener: Listener) -> Result<(), Fault> {
    // Behind the subscription: what is told from now on is heard.
    if !insist(reader, &[], true).await {
        return Ok(());
    }
    loop {
        let heard = listener.hear(EVENTS_PAGE, LOOK).await?;
        let told_ms = now_ms();
        let events: Vec<AppEvent> = heard.into_iter().map(|it| told(it, told_ms)).collect();
        if !insist(reader, &events, false).await {
            return Ok(());
        }
        let lag = if events.is_empty() { 0 } else { now_ms().saturating_sub(told_ms) };
        reader.seen.meter.lags(Duration::from_millis(lag));
    }
}

/// Does what they say, which nobody tells again, as often as it takes. False where it is not to be
/// read any more.
async fn insist(reader: &Reader, events: &[AppEvent], mut has_missed: bool) -> bool {
    loop {
        let Some(gateway) = reader.gateway() else { return false };
        match take(&gateway, reader, events, &mut has_missed).await {
            Ok(()) => {
                reader.succeeds();
                return true;
            }
            Err(fault) => reader.fails(&fault),
        }
        drop(gateway);
        tokio::time::sleep(POLL).await;
    }
}

fn told(heard: Heard, told_ms: u64) -> AppEvent {
    let said = of_body(&heard.payload).ok_or(Skipped::NoObject);
    AppEvent { id: heard.subject, told_ms, said }
}

/// Pulls from a stream until the gateway ends or the source is another one.
pub(super) async fn pull(reader: &Reader, (stream, consumer): (&str, &str)) {
    let Some(bus) = reader.bus() else { return };
    let mut has_missed = false;
    while reader.gateway().is_some() {
        let ended = work(reader, &bus, (stream, consumer), &mut has_missed).await;
        if let Err(fault) = ended {
            reader.fails(&fault);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Works until it fails. `has_missed`: whether there is a gap that is not dealt with yet.
async fn work(
    reader: &Reader,
    bus: &Bus,
    (stream, name): (&str, &str),
    has_missed: &mut bool,
) -> Result<(), Fault> {
    let mut consumer = bus.consume(stream, name).await?;
    reader.succeeds();
    loop {
        let pulled = consumer.pull(LOOK).await?;
        *has_missed |= pulled.has_missed;
        let Some(gateway) = reader.gateway() else { return Ok(()) };
        let events: Vec<AppEvent> = pulled.messages.iter().map(event).collect();
        let taken = take(&gateway, reader, &events, has_missed).await;
        if let Err(fault) = taken {
            hand_back(&consumer, &pulled.messages).await;
            return Err(fault);
        }
        consumer.acknowledge(&pulled.messages).await?;
        let last = pulled.messages.last().map(|message| message.at.stored_ns / NS_PER_MS);
        let lag = last.map_or(0, |told_ms| now_ms().saturating_sub(told_ms));
        reader.seen.meter.lags(Duration::from_millis(lag));
    }
}

/// Does what they say, and deals with a gap before that.
async fn take(
    gateway: &Gateway,
    reader: &Reader,
    events: &[AppEvent],
    has_missed: &mut bool,
) -> Result<(), Fault> {
    if *has_missed {
        gateway.events_missed(&reader.name).await?;
        *has_missed = false;
    }
    Ok(gateway.take_events(&reader.name, events).await?)
}

/// What the store has not taken comes again soon, and not only when its time is over.
async fn hand_back(consumer: &Consumer<'_>, messages: &[Pulled]) {
    for message in messages {
        if consumer.hand_back(message).await.is_err() {
            return;
        }
    }
}

fn event(message: &Pulled) -> AppEvent {
    let said = of_body(&message.payload).ok_or(Skipped::NoObject);
    let (seq, told_ms) = (message.at.stream_seq, message.at.stored_ns / NS_PER_MS);
    AppEvent { id: format!("{seq} {}", message.subject), told_ms, said }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
