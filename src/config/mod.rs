//! Configuration: the only place that reads files or the environment.
//!
//! One [`table`] names every setting with its variable, default, range and explanation. The documented `config.toml`, the
//! environment layer, the range checks and the reference page all come from it; [`sections`] are the types that the rest
//! of the program sees. [`load::load`] puts the layers together: defaults, file, environment, flags. Nothing is clamped:
//! a value that cannot be used refuses the start.

pub mod secret;

pub mod doors;

pub mod quality;

pub mod replay;

pub mod sections;

mod units;

pub mod setting;

pub mod forms;

pub mod table;

pub mod render;

pub mod environment;

pub mod problem;

mod file;

pub mod load;

mod validate;

pub mod instance;

pub use sections::Config;
