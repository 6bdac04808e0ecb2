//! Boxes whose future is made where it stays. `Box::pin` gets one that was made somewhere else, and
//! copies it: the future of a request is several KiB, of which a few bytes are set when it begins.

use std::pin::Pin;

/// What `make` makes, pinned in a box from the beginning. That takes a `make` which cannot panic,
/// such as a call of an `async fn`: otherwise the compiler keeps to the order of things and copies.
#[inline]
pub fn pin<F>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    // The room comes first, so that the future can be made in it.
    let room = Box::new_uninit();
    Box::into_pin(Box::write(room, make()))
}

/// A future of a way that few requests take. Its type is forgotten, so that its code is no part of
/// the way that all others take: what is in one function with it is not inlined any more.
#[cold]
pub fn rare<'f, F: Future + Send + 'f>(
    make: impl FnOnce() -> F,
) -> Pin<Box<dyn Future<Output = F::Output> + Send + 'f>> {
    pin(make)
}
