//! What can go wrong with Redis, sorted by what somebody has to do about it.

use deadpool_redis::PoolError;
use deadpool_redis::redis::{ErrorKind, RedisError, ServerError};

/// Longest text of an error that is kept.
const MAX_TEXT: usize = 200;

/// A kind of fault: a label of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No answer in time.
    Timeout,
    /// No connection, or it was lost.
    Unreachable,
    /// Redis is full and evicts nothing.
    OutOfMemory,
    /// The server is a replica.
    ReadOnly,
    /// It cannot persist, or lacks replicas, and refuses writes for that.
    RefusesWrites,
    /// It is still loading its data.
    Loading,
    /// The cluster cannot serve the key now.
    Cluster,
    /// Credentials are missing, wrong, or not enough.
    Authentication,
    /// An entry is none of ours, or damaged.
    Corrupt,
    /// The cluster does not tell the id of the topic: its history cannot be told from that of another one of its name.
    NamelessTopic,
    /// Anything else.
    Other,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Timeout,
        Self::Unreachable,
        Self::OutOfMemory,
        Self::ReadOnly,
        Self::RefusesWrites,
        Self::Loading,
        Self::Cluster,
        Self::Authentication,
        Self::Corrupt,
        Self::NamelessTopic,
        Self::Other,
    ];

    /// The value of the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::OutOfMemory => "out_of_memory",
            Self::ReadOnly => "read_only",
            Self::RefusesWrites => "refuses_writes",
            Self::Loading => "loading",
            Self::Cluster => "cluster",
            Self::Authentication => "authentication",
            Self::Corrupt => "corrupt",
            Self::NamelessTopic => "nameless_topic",
            Self::Other => "other",
        }
    }

    /// Whether any answer at all shows that it is over.
    pub const fn ends_with_an_answer(self) -> bool {
        matches!(self, Self::Timeout | Self::Unreachable | Self::Loading | Self::Authentication | Self::Cluster)
    }

    /// The kind that an error code of the server stands for.
    fn of_code(code: &str) -> Self {
        match code {
            "OOM" => Self::OutOfMemory,
            "READONLY" => Self::ReadOnly,
            "MISCONF" | "NOREPLICAS" => Self::RefusesWrites,
            "LOADING" | "MASTERDOWN" | "BUSY" => Self::Loading,
            "CLUSTERDOWN" | "MOVED" | "ASK" | "TRYAGAIN" | "CROSSSLOT" => Self::Cluster,
            "NOAUTH" | "WRONGPASS" | "NOPERM" => Self::Authentication,
            _ => Self::Other,
        }
    }
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What kind of fault it is.
    pub fault: Fault,
    /// For people. Holds no credentials.
    pub text: String,
}

impl Failure {
    /// A failure with a text of its own.
    pub fn new(fault: Fault, text: impl Into<String>) -> Self {
        let text: String = text.into();
        Self { fault, text: text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect() }
    }

    /// See [`Fault::NamelessTopic`].
    pub fn nameless_topic() -> Self {
        Self::new(
            Fault::NamelessTopic,
            "the cluster does not tell the id of the topic: its history cannot be kept apart",
        )
    }

    /// No answer within the deadline.
    pub fn timeout(what: &str) -> Self {
        Self::new(Fault::Timeout, format!("{what} took longer than allowed"))
    }
}

impl From<&ServerError> for Failure {
    fn from(error: &ServerError) -> Self {
        Self::new(Fault::of_code(error.code()), error.to_string())
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        // A refused transaction tells its causes command by command; they say more than the refusal.
        if let Some(errors) = error.clone().into_server_errors()
            && let Some((_, cause)) = errors.first()
        {
            return Self::from(cause);
        }
        let fault = match error.kind() {
            _ if error.is_timeout() => Fault::Timeout,
            ErrorKind::Io => Fault::Unreachable,
            ErrorKind::AuthenticationFailed => Fault::Authentication,
            ErrorKind::ClusterConnectionNotFound
            | ErrorKind::MasterNameNotFoundBySentinel
            | ErrorKind::NoValidReplicasFoundBySentinel
            | ErrorKind::EmptySentinelList => Fault::Unreachable,
            _ => error.code().map_or(Fault::Other, Fault::of_code),
        };
        Self::new(fault, error.to_string())
    }
}

impl From<PoolError> for Failure {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => error.into(),
            PoolError::Timeout(_) => Self::timeout("getting a connection"),
            other => Self::new(Fault::Other, other.to_string()),
        }
    }
}
