//! What becomes of a body and of its copy, whoever leaves and however it ends.

use std::sync::Mutex;
use std::task::{Context, Poll};

use http_body::Frame;
use tokio::sync::{Semaphore, mpsc};

use super::*;

/// A body that arrives as the test says.
struct Source(mpsc::UnboundedReceiver<Result<Bytes, &'static str>>);

impl Body for Source {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        self.0.poll_recv(cx).map(|next| next.map(|next| next.map(Frame::data)))
    }
}

/// Notes what it is told.
struct Notes {
    room: Arc<Semaphore>,
    why: Arc<Mutex<Option<NotKept>>>,
}

impl Keep for Notes {
    type Kept = Bytes;

    fn room(&self, _: u64) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_owned().ok()
    }

    fn is_awaited(&self) -> bool {
        false
    }

    async fn complete(self, body: Bytes) -> Bytes {
        body
    }

    fn is_not_kept(&mut self, why: NotKept) {
        *self.why.lock().unwrap() = Some(why);
    }
}

/// A capture of at most five bytes, what sends its body, its reader, and why nothing was kept.
struct Case {
    capture: Capture<Source, Notes>,
    sender: mpsc::UnboundedSender<Result<Bytes, &'static str>>,
    reader: BodyReader,
    why: Arc<Mutex<Option<NotKept>>>,
}

fn case(announced: Option<u64>, has_room: bool) -> Case {
    let (sender, source) = mpsc::unbounded_channel();
    let (shared, writer) = SharedBody::begin();
    let why = Arc::default();
    let room = Arc::new(Semaphore::new(if has_room { 9 } else { 0 }));
    let keeper = Notes { room, why: Arc::clone(&why) };
    let capture = Capture { keeper, source: Source(source), writer, announced, bytes_max: 5 };
    Case { capture, sender, reader: shared.read(BodyReader::ALL), why }
}

async fn read(mut reader: BodyReader) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    loop {
        match std::future::poll_fn(|cx| reader.poll_next(cx)).await {
            Some(Ok(bytes)) => all.extend_from_slice(&bytes),
            end => return (all, end.is_none()),
        }
    }
}

#[tokio::test]
async fn a_body_that_is_here_is_complete_at_once() {
    let Case { capture, sender, reader, .. } = case(Some(5), true);
    for piece in ["abc", "de"] {
        sender.send(Ok(piece.into())).unwrap();
    }
    let Captured::Complete(kept) = capture.begin().await else { panic!("it is not complete") };
    assert_eq!(kept, "abcde");
    assert_eq!(read(reader).await, (b"abcde".to_vec(), true));
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_kept_though_the_client_leaves_but_not_for_ever() {
    for arrives in [true, false] {
        let Case { capture, sender, reader, why } = case(None, true);
        sender.send(Ok("ab".into())).unwrap();
        let Captured::Pending(rest) = capture.begin().await else { panic!("it is here") };
        drop(reader);
        let rest = tokio::spawn(rest);
        sender.send(Ok("c".into())).unwrap();
        if arrives {
            drop(sender);
            assert_eq!(rest.await.unwrap().as_deref(), Some(b"abc".as_slice()));
        } else {
            // The clock goes on by itself while everybody waits.
            assert_eq!(rest.await.unwrap(), None);
            assert_eq!(*why.lock().unwrap(), Some(NotKept::Deserted));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_the_source_is_silent_is_missed() {
    let Case { capture, sender, reader, why } = case(None, true);
    let Captured::Pending(rest) = capture.begin().await else { panic!("nothing is here") };
    let rest = tokio::spawn(rest);
    // It waits by now, for nobody else runs.
    tokio::task::yield_now().await;
    drop(reader);
    let ended = tokio::time::timeout(DESERTED_MAX * 2, rest).await;
    assert_eq!(ended.expect("it goes on for ever").unwrap(), None);
    assert_eq!(*why.lock().unwrap(), Some(NotKept::Deserted));
    drop(sender);
}

#[tokio::test]
async fn what_cannot_be_kept_is_passed_on_whole() {
    for (has_room, expected) in [(true, NotKept::TooLong), (false, NotKept::NoRoom)] {
        let Case { capture, sender, reader, why } = case(None, has_room);
        for piece in ["abcd", "ef", "gh"] {
            sender.send(Ok(piece.into())).unwrap();
        }
        drop(sender);
        assert!(matches!(capture.begin().await, Captured::Discarded));
        assert_eq!(read(reader).await, (b"abcdefgh".to_vec(), true));
        assert_eq!(*why.lock().unwrap(), Some(expected));
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_never_taken_for_whole() {
    for (announced, last) in [(None, Some(Err("reset"))), (Some(4), None)] {
        let Case { capture, sender, reader, why } = case(announced, true);
        sender.send(Ok("abc".into())).unwrap();
        last.into_iter().for_each(|last| sender.send(last).unwrap());
        drop(sender);
        assert!(matches!(capture.begin().await, Captured::Discarded));
        assert_eq!(read(reader).await, (b"abc".to_vec(), false));
        assert_eq!(*why.lock().unwrap(), Some(NotKept::CutOff));
    }
}
