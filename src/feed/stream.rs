//! Events of a stream: what is new is carried out and then acknowledged, what was not acknowledged
//! is carried out first. An entry that is gone before it was read is a gap.

use std::time::Duration;

use super::reader::{POLL, Reader};
use crate::events::{Skipped, of_entry};
use crate::runtime::AppEvent;
use crate::store::{EVENTS_PAGE, EventEntry, StoreError};

/// Reads until the gateway ends or the source is another one.
pub(super) async fn read(reader: &Reader, key: &str) {
    // What whoever read before has left.
    let mut again = true;
    loop {
        let looked = match look(reader, key, again).await {
            None => return,
            Some(looked) => looked,
        };
        match looked {
            Ok(found) => {
                reader.succeeds();
                let is_all = found < EVENTS_PAGE;
                if is_all && !again {
                    tokio::time::sleep(POLL).await;
                }
                again = again && !is_all;
            }
            Err(error) => {
                reader.fails(&error);
                again = true;
                tokio::time::sleep(POLL).await;
            }
        }
    }
}

/// One look: how many entries there were; nothing where it is over.
async fn look(reader: &Reader, key: &str, again: bool) -> Option<Result<usize, StoreError>> {
    let gateway = reader.gateway()?;
    let work = async {
        let page = gateway.store.read_events(key, again).await?;
        let is_gone = page.entries.iter().any(|entry| entry.pairs.is_none());
        if page.missed.is_some() || is_gone {
            gateway.events_missed(&reader.name).await?;
        }
        if let Some(gone) = page.missed {
            gateway.store.events_missed(key, gone).await?;
            return Ok(EVENTS_PAGE);
        }
        let count = page.entries.len();
        let ids: Vec<String> = page.entries.iter().map(|entry| entry.id.clone()).collect();
        let events: Vec<AppEvent> =
            page.entries.into_iter().map(|entry| event(entry, page.now_ms)).collect();
        gateway.take_events(&reader.name, &events).await?;
        if !ids.is_empty() {
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            gateway.store.acknowledge_events(key, &ids).await?;
        }
        let told = events.last().map(|event| event.told_ms);
        let lag = told.map_or(0, |told| page.now_ms.saturating_sub(told));
        reader.seen.meter.lags(Duration::from_millis(lag));
        Ok(count)
    };
    Some(work.await)
}

fn event(entry: EventEntry, now_ms: u64) -> AppEvent {
    let told_ms = entry.added_ms().unwrap_or(now_ms);
    let said = entry.pairs.map(of_entry).ok_or(Skipped::Gone);
    AppEvent { id: entry.id, told_ms, said }
}
