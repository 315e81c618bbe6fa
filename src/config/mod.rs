//! Configuration: the only place that reads files or the environment.

pub mod secret;
