//! What becomes of request bodies on their way.

use super::*;
use crate::base::copied::TooLong;

async fn sent(bytes: &'static str, bytes_max: u64) -> Vec<Result<Bytes, UploadFault>> {
    let progress_timeout = Duration::from_secs(1);
    let limits = UploadLimits { bytes_max, progress_timeout, progress_bytes: 1 };
    let (mut upload, _) = Upload::new(Inbound::Bytes(bytes.into()), limits, false);
    let mut sent = Vec::new();
    let next = |upload: &mut Upload, cx: &mut Context<'_>| Pin::new(upload).poll_frame(cx);
    while let Some(frame) = std::future::poll_fn(|cx| next(&mut upload, cx)).await {
        sent.push(frame.map(|frame| frame.into_data().unwrap_or_default()));
        if sent.last().is_some_and(Result::is_err) {
            break;
        }
    }
    sent
}

#[tokio::test]
async fn what_is_put_back_comes_first_and_is_counted_once() {
    let limits =
        UploadLimits { bytes_max: 3, progress_timeout: Duration::from_secs(1), progress_bytes: 1 };
    let (mut upload, progress) = Upload::new(Inbound::Bytes("abc".into()), limits, false);
    let next = async |upload: &mut Upload| {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *upload).poll_frame(cx)).await;
        frame.map(|frame| frame.unwrap().into_data().unwrap())
    };
    let read = next(&mut upload).await.unwrap();
    assert!(upload.is_end_stream());
    progress.is_awaited.store(true, Ordering::Relaxed);
    progress.has_moved();
    upload.put_back(read);
    assert!(!upload.is_end_stream());
    assert_eq!(upload.size_hint().exact(), Some(3));
    assert_eq!(next(&mut upload).await, Some(Bytes::from("abc")));
    assert!(progress.has_moved() && !progress.is_awaited());
    assert_eq!(next(&mut upload).await, None);
    assert!(upload.is_end_stream());
    // Of what was read twice, the second piece is here yet when the first one comes back.
    upload.0.as_mut().unwrap().ahead = VecDeque::from(["a".into(), "b".into()]);
    let read = next(&mut upload).await.unwrap();
    upload.put_back(read);
    assert_eq!(next(&mut upload).await, Some(Bytes::from("a")));
    assert_eq!(next(&mut upload).await, Some(Bytes::from("b")));
}

#[tokio::test]
async fn a_copy_is_whole_or_none() {
    let read = async |body: &mut Inbound| {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        frame.map(|frame| frame.unwrap().into_data().unwrap())
    };
    for (bytes_max, expected) in [(3, Ok(Bytes::from("abc"))), (2, Err(TooLong))] {
        let (mut body, mut copy) = Inbound::Bytes("abc".into()).copied(bytes_max);
        assert!(!body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(3));
        assert!(copy.try_recv().is_err());
        assert_eq!(read(&mut body).await, Some(Bytes::from("abc")));
        // The last byte is here, whether or not anybody reads on.
        assert!(body.is_end_stream());
        assert_eq!(copy.try_recv(), Ok(expected));
        assert_eq!(read(&mut body).await, None);
    }
    let (body, copy) = Inbound::Bytes("abc".into()).copied(3);
    drop(body);
    assert!(copy.await.is_err(), "nobody has read it to its end");
}

#[tokio::test]
async fn what_is_kept_can_be_had_again() {
    let limits =
        UploadLimits { bytes_max: 3, progress_timeout: Duration::from_secs(1), progress_bytes: 1 };
    let next = async |upload: &mut Upload| {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *upload).poll_frame(cx)).await;
        frame.map(|frame| frame.map(|frame| frame.into_data().unwrap()))
    };
    for (bytes_max, is_kept) in [(3, true), (2, false), (0, false)] {
        let (mut upload, _) = Upload::new(Inbound::Bytes("abc".into()), limits, false);
        let replay = upload.keep(bytes_max).unwrap();
        for _ in 0..2 {
            assert_eq!(next(&mut upload).await, Some(Ok(Bytes::from("abc"))));
            assert!(!replay.is_here(), "somebody is sending it");
            drop(upload);
            assert_eq!(replay.is_here(), is_kept);
            upload = replay.take().unwrap_or_else(Upload::none);
            if !is_kept {
                break;
            }
            assert_eq!(upload.size_hint().exact(), Some(3));
        }
    }
    // Nothing was read of it; or it is broken.
    let (mut upload, _) = Upload::new(Inbound::Bytes("abc".into()), limits, false);
    let replay = upload.keep(0).unwrap();
    drop(upload);
    assert!(replay.is_here());
    let (mut upload, _) = Upload::new(Inbound::Bytes("abcd".into()), limits, false);
    let replay = upload.keep(9).unwrap();
    assert_eq!(next(&mut upload).await, Some(Err(UploadFault::TooLarge)));
    drop(upload);
    assert!(!replay.is_here());
}

#[tokio::test(start_paused = true)]
async fn it_is_noted_when_the_client_has_sent_all_of_it() {
    let limits =
        UploadLimits { bytes_max: 3, progress_timeout: Duration::from_secs(1), progress_bytes: 1 };
    let next = async |upload: &mut Upload| {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *upload).poll_frame(cx)).await;
        frame.map(|frame| frame.unwrap().into_data().unwrap())
    };
    assert!(Upload::none().timed().is_none());
    let begun = Instant::now();
    let (mut upload, progress) = Upload::new(Inbound::Bytes("abc".into()), limits, false);
    assert!(upload.timed().is_some());
    assert_eq!(progress.ended(), None, "nobody has read anything");
    tokio::time::advance(Duration::from_secs(1)).await;
    // Nobody reads on behind the last byte.
    let read = next(&mut upload).await.unwrap();
    let ended = begun + Duration::from_secs(1);
    assert_eq!(progress.ended(), Some(ended));
    tokio::time::advance(Duration::from_secs(1)).await;
    upload.put_back(read);
    next(&mut upload).await.unwrap();
    assert_eq!(progress.ended(), Some(ended), "what is read again was sent before");
    // It was read before anybody wanted to know.
    let (mut upload, progress) = Upload::new(Inbound::Bytes("abc".into()), limits, false);
    let read = next(&mut upload).await.unwrap();
    assert_eq!(progress.ended(), None);
    upload.put_back(read);
    assert!(upload.timed().is_some() && progress.ended().is_some());
}

#[tokio::test]
async fn a_body_at_hand_is_sent_within_the_same_bounds() {
    assert_eq!(sent("", 3).await, []);
    assert_eq!(sent("abc", 3).await, [Ok(Bytes::from("abc"))]);
    assert_eq!(sent("abcd", 3).await, [Err(UploadFault::TooLarge)]);
}
