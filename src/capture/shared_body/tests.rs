//! The shared body: what each reader sees, whenever it comes.

use std::task::Waker;

use super::*;

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// What a reader gets until it must wait or is done; the last item says which.
fn drain(reader: &mut BodyReader) -> (Vec<u8>, Poll<Result<(), CutOff>>) {
    let mut got = Vec::new();
    loop {
        match reader.poll_next(&context()) {
            Poll::Ready(Some(Ok(piece))) => got.extend_from_slice(&piece),
            Poll::Ready(Some(Err(cut))) => return (got, Poll::Ready(Err(cut))),
            Poll::Ready(None) => return (got, Poll::Ready(Ok(()))),
            Poll::Pending => return (got, Poll::Pending),
        }
    }
}

#[test]
fn every_reader_sees_the_whole_body_whenever_it_comes() {
    let (shared, writer) = SharedBody::begin();
    let mut early = shared.read(BodyReader::ALL);
    assert_eq!(drain(&mut early), (vec![], Poll::Pending));
    writer.push(Bytes::from_static(b"abc"));
    assert_eq!(drain(&mut early), (b"abc".to_vec(), Poll::Pending));
    writer.push(Bytes::from_static(b"de"));
    let mut late = shared.read(BodyReader::ALL);
    assert_eq!(writer.collect(b"f"), Bytes::from_static(b"abcdef"));
    writer.complete();
    assert_eq!(drain(&mut early), (b"de".to_vec(), Poll::Ready(Ok(()))));
    assert_eq!(drain(&mut late), (b"abcde".to_vec(), Poll::Ready(Ok(()))));
    assert_eq!(drain(&mut late), (vec![], Poll::Ready(Ok(()))));
}

#[test]
fn a_body_without_its_end_is_never_taken_for_complete() {
    let (shared, writer) = SharedBody::begin();
    writer.push(Bytes::from_static(b"abc"));
    let mut reader = shared.read(BodyReader::ALL);
    drop(writer);
    assert_eq!(drain(&mut reader), (b"abc".to_vec(), Poll::Ready(Err(CutOff))));
}

#[test]
fn ranges_are_cut_out_over_the_borders_of_pieces() {
    let body: Vec<u8> = (0..=255).collect();
    for (start, end) in [(0, 256), (0, 1), (5, 9), (7, 8), (250, 256), (100, 100), (3, 200)] {
        let (shared, writer) = SharedBody::begin();
        let mut reader = shared.read(start..end);
        for piece in body.chunks(7) {
            writer.push(Bytes::copy_from_slice(piece));
        }
        let expected = body[start as usize..end as usize].to_vec();
        if end < 256 {
            // A range that is here is done, however long the rest takes.
            assert_eq!(drain(&mut reader), (expected, Poll::Ready(Ok(()))), "{start}..{end}");
            continue;
        }
        writer.complete();
        assert_eq!(drain(&mut reader), (expected, Poll::Ready(Ok(()))), "{start}..{end}");
    }
}

#[test]
fn what_is_not_kept_waits_for_its_reader_and_is_let_go() {
    let (shared, writer) = SharedBody::begin();
    let mut reader = shared.read(BodyReader::ALL);
    let room = Arc::new(tokio::sync::Semaphore::new(3));
    let piece = Bytes::from(vec![7; 100 * 1024]);
    for _ in 0..3 {
        assert!(writer.poll_room(&context()).is_ready());
        writer.keep_room(Arc::clone(&room).try_acquire_owned().ok());
        writer.push(piece.clone());
    }
    writer.let_go();
    assert_eq!(room.available_permits(), 0, "all of it is here yet");
    assert!(writer.poll_room(&context()).is_pending(), "300 KiB wait, 256 KiB may");
    assert!(matches!(reader.poll_next(&context()), Poll::Ready(Some(Ok(_)))));
    assert_eq!(writer.poll_room(&context()), Poll::Ready(Ok(())));
    assert_eq!(shared.lock().pieces.len(), 2);
    assert_eq!(room.available_permits(), 3, "what waits is no more than any reader may leave");
    let mut late = shared.read(BodyReader::ALL);
    assert_eq!(drain(&mut late), (vec![], Poll::Ready(Err(CutOff))), "the beginning is gone");
    drop((reader, late));
    assert_eq!(writer.poll_room(&context()), Poll::Ready(Err(CutOff)), "nobody reads");
}

#[test]
fn a_writer_that_waits_is_woken_by_its_reader() {
    let woken = Arc::new(std::sync::atomic::AtomicBool::new(false));
    struct Flag(Arc<std::sync::atomic::AtomicBool>);
    impl std::task::Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let waker = Waker::from(Arc::new(Flag(Arc::clone(&woken))));
    let (shared, writer) = SharedBody::begin();
    let mut reader = shared.read(BodyReader::ALL);
    writer.let_go();
    writer.push(Bytes::from(vec![7; 300 * 1024]));
    assert!(writer.poll_room(&Context::from_waker(&waker)).is_pending());
    let _ = drain(&mut reader);
    assert!(woken.load(std::sync::atomic::Ordering::SeqCst));
}

#[test]
fn an_empty_piece_is_not_kept() {
    let (shared, writer) = SharedBody::begin();
    for piece in ["", "a", ""] {
        writer.push(Bytes::from_static(piece.as_bytes()));
    }
    assert_eq!(shared.lock().pieces, ["a"]);
}
