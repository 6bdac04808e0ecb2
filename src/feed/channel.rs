//! Events of a channel, and of keys that change: told to whoever listens at that moment. Nobody
//! knows what was told while nobody listened, so that each new connection is a gap.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::reader::{POLL, Reader};
use crate::events::{Fields, Skipped, of_body};
use crate::runtime::AppEvent;
use crate::store::{EVENTS_PAGE, EventTopic, Listening, StoreError, Told};

/// Listens until the gateway ends or the source is another one.
pub(super) async fn hear(reader: &Reader, topic: &EventTopic) {
    while let Some(gateway) = reader.gateway() {
        let listening = gateway.store.listen(topic).await;
        drop(gateway);
        let ended = match listening {
            Ok(listening) => stay(reader, topic, listening).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            reader.fails(&error);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Hears until the connection is lost, or something told was lost: then whoever listens anew begins
/// with a gap.
async fn stay(
    reader: &Reader,
    topic: &EventTopic,
    mut listening: Listening,
) -> Result<(), StoreError> {
    let Some(gateway) = reader.gateway() else { return Ok(()) };
    // Behind the subscription: what is told from now on is heard.
    gateway.events_missed(&reader.name).await?;
    reader.succeeds();
    drop(gateway);
    loop {
        let told = listening.hear(EVENTS_PAGE).await?;
        let Some(gateway) = reader.gateway() else { return Ok(()) };
        if told.is_empty() {
            reader.seen.meter.lags(Duration::ZERO);
            continue;
        }
        let now_ms = now_ms();
        let events: Vec<AppEvent> = told.iter().map(|it| event(topic, it, now_ms)).collect();
        drop(gateway);
        take(reader, &events).await;
    }
}

/// Nobody tells them again: they are tried until they are taken, or the source is another one.
async fn take(reader: &Reader, events: &[AppEvent]) {
    while let Some(gateway) = reader.gateway() {
        match gateway.take_events(&reader.name, events).await {
            Ok(()) => break,
            Err(error) => reader.fails(&error),
        }
        drop(gateway);
        tokio::time::sleep(POLL).await;
    }
    reader.succeeds();
    let heard = events.first().map_or(0, |event| event.told_ms);
    let lag = now_ms().saturating_sub(heard);
    reader.seen.meter.lags(Duration::from_millis(lag));
}

fn event(topic: &EventTopic, told: &Told, told_ms: u64) -> AppEvent {
    let channel = String::from_utf8_lossy(&told.channel).into_owned();
    let said = match topic {
        EventTopic::Channel(_) => of_body(&told.payload).ok_or(Skipped::NoObject),
        EventTopic::Keys(pattern) => Ok(of_key(pattern, &channel, &told.payload)),
    };
    AppEvent { id: channel, told_ms, said }
}

/// What a change of a key says: its `key`, the `event`, and the `star`: what stands for the first
/// star of the pattern.
fn of_key(pattern: &str, channel: &str, event: &[u8]) -> Fields {
    let key = channel.split_once("__:").map_or(channel, |(_, key)| key);
    let event = String::from_utf8_lossy(event).into_owned();
    let mut fields =
        Fields::from([("key".to_owned(), key.to_owned()), ("event".to_owned(), event)]);
    if let Some((before, behind)) = pattern.split_once('*')
        && let Some(star) = key.strip_prefix(before).and_then(|rest| rest.strip_suffix(behind))
    {
        fields.insert("star".to_owned(), star.to_owned());
    }
    fields
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_key_says_what_its_star_stands_for() {
        let fields = of_key("product:*", "__keyspace@0__:product:42", b"set");
        assert_eq!(fields["key"], "product:42");
        assert_eq!((&*fields["event"], &*fields["star"]), ("set", "42"));
        assert!(!of_key("product:1", "__keyspace@0__:product:1", b"del").contains_key("star"));
    }
}
