//! Dead letters: what is kept of a record that cannot be processed. Stub: types only.

/// A dead letter, ready to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The Kafka key: `<topic>-<partition>-<offset>`.
    pub key: String,
    /// The JSON text.
    pub json: Vec<u8>,
    /// The kind of failure, for metrics.
    pub kind: crate::pipeline::decode::Kind,
    /// The source record's headers, encoded as in a batch's arena.
    pub headers: Vec<u8>,
}
