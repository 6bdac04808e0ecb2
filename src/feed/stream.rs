//! Events of a stream: what is new is carried out and then acknowledged, what was not acknowledged
//! is carried out first. An entry that is gone before it was read is a gap, and so is a stream that
//! has lost what it had. A stream that nobody has read is read from its beginning, without one.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::reader::{POLL, Reader};
use crate::events::{Skipped, of_entry};
use crate::runtime::{AppEvent, Gateway};
use crate::store::{EventBody, EventEntry, EventPage, EventStream, StoreError, Unread};

/// How far the time in an entry's id may be from now, in milliseconds, to be taken for a time.
const ID_TIME_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Reads until the gateway ends or the source is another one.
pub(super) async fn read(reader: &Reader, key: &str) {
    while let Some(gateway) = reader.gateway() {
        let looked = look(reader, &gateway, key).await;
        drop(gateway);
        match looked {
            Ok(is_all) => {
                reader.succeeds();
                if is_all {
                    tokio::time::sleep(POLL).await;
                }
            }
            Err(error) => {
                reader.fails(&error);
                tokio::time::sleep(POLL).await;
            }
        }
    }
}

/// One look: whether that was all there is.
async fn look(reader: &Reader, gateway: &Gateway, key: &str) -> Result<bool, StoreError> {
    let group = gateway.running().plan.keys.events_group(&reader.name);
    let stream = EventStream { key, group: &group };
    let page = gateway.store.read_events(stream).await?;
    let before = reader.added.load(Ordering::Relaxed);
    // Where the store refuses to begin, the same is seen at each look.
    let is_done =
        page.unread.is_some() && page.unread == *lock(&reader.done) && page.added >= before;
    if !is_done && is_gap(&page, before) {
        gateway.events_missed(&reader.name).await?;
    }
    reader.added.store(page.added, Ordering::Relaxed);
    *lock(&reader.done) = page.unread;
    if let Some(unread) = page.unread {
        gateway.store.begin_events(stream, unread).await?;
        *lock(&reader.done) = None;
        return Ok(false);
    }
    let is_all = !page.has_more;
    let ids: Vec<String> = page.entries.iter().map(|entry| entry.id.clone()).collect();
    let events: Vec<AppEvent> =
        page.entries.into_iter().map(|entry| event(entry, page.now_ms)).collect();
    gateway.take_events(&reader.name, &events).await?;
    if !ids.is_empty() {
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        gateway.store.acknowledge_events(stream, &ids).await?;
    }
    let told = events.last().map(|event| event.told_ms);
    let lag = told.map_or(0, |told| page.now_ms.saturating_sub(told));
    reader.seen.meter.lags(Duration::from_millis(lag));
    Ok(is_all)
}

/// Whether something may have been missed, by whoever saw the stream with so many entries before.
fn is_gap(page: &EventPage, before: u64) -> bool {
    let is_lost = before > 0 && (page.unread.is_some() || page.added < before);
    let is_gone = matches!(page.unread, Some(Unread::Gone(_)));
    is_gone || is_lost || page.entries.iter().any(|entry| entry.body == EventBody::Gone)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn event(entry: EventEntry, now_ms: u64) -> AppEvent {
    // An id may be the application's own, and no time at all.
    let is_near = |told_ms: &u64| now_ms.abs_diff(*told_ms) <= ID_TIME_MS_MAX;
    let told_ms = entry.added_ms().filter(is_near).unwrap_or(now_ms);
    let said = match entry.body {
        EventBody::Pairs(pairs) => Ok(of_entry(pairs)),
        EventBody::Gone => Err(Skipped::Gone),
        EventBody::TooLong => Err(Skipped::TooMuch),
    };
    AppEvent { id: entry.id, told_ms, said }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_a_gap_and_what_is_new_is_none() {
        let page = |unread, added| EventPage { unread, added, ..EventPage::default() };
        for (unread, added, before, expected) in [
            (Some(Unread::New), 0, 0, false),
            (Some(Unread::New), 5, 0, false),
            (Some(Unread::New), 5, 1, true),
            (Some(Unread::Gone(2)), 5, 0, true),
            (None, 5, 5, false),
            (None, 4, 5, true),
        ] {
            assert_eq!(is_gap(&page(unread, added), before), expected, "{unread:?} {added}");
        }
        let gone = EventEntry { id: "1-0".to_owned(), body: EventBody::Gone };
        assert!(is_gap(&EventPage { entries: vec![gone], ..EventPage::default() }, 0));
    }

    #[test]
    fn an_id_that_is_no_time_of_late_is_none() {
        let now_ms = 1_700_000_000_000;
        let told = |id: &str| {
            let entry = EventEntry { id: id.to_owned(), body: EventBody::TooLong };
            event(entry, now_ms).told_ms
        };
        assert_eq!(told("1699999999000-0"), 1_699_999_999_000);
        for id in ["42-0", "1600000000000-0", "1800000000000-0"] {
            assert_eq!(told(id), now_ms, "{id}");
        }
    }
}
