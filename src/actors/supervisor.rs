//! Not written yet.

/// Placeholder.
#[derive(Clone, Debug, Default)]
pub struct Pulse;

impl Pulse {
    /// Placeholder.
    pub fn touch(&self) {}
}

/// Placeholder.
#[derive(Debug)]
pub struct Guard;
