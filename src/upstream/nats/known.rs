//! What outlives a connection of who pulls from a stream.

/// What is known of a consumer beyond one connection.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// When it was made, and its stream.
    pub(super) made: Option<[String; 2]>,
    /// The first message that the stream had when it was last noted that earlier ones are missed.
    pub(super) first: u64,
    /// Whether some were missed that nobody was told of.
    pub(super) has_missed: bool,
}
