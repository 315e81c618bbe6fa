//! The named ways in which a session ends. The range of the code tells the client what to do next.

/// Why a session is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// The client closed, or the server answers its close.
    Normal,
    /// The service stops.
    GoingAway,
    /// The client breaks the WebSocket protocol itself.
    ProtocolError,
    /// Too many bad control frames in a row.
    PolicyViolation,
    /// A control frame over the limit.
    TooLarge,
    /// Nothing was heard from the client.
    IdleTimeout,
    /// The client did not read.
    SlowClient,
    /// The session failed.
    Internal,
    /// No `hello` in time.
    HelloTimeout,
    /// The token has expired.
    TokenExpired,
}

impl CloseCode {
    /// Every code.
    pub const ALL: [Self; 10] = [
        Self::Normal,
        Self::GoingAway,
        Self::ProtocolError,
        Self::PolicyViolation,
        Self::TooLarge,
        Self::IdleTimeout,
        Self::SlowClient,
        Self::Internal,
        Self::HelloTimeout,
        Self::TokenExpired,
    ];

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::ProtocolError => 1002,
            Self::PolicyViolation => 1008,
            Self::TooLarge => 1009,
            Self::IdleTimeout => 4000,
            Self::SlowClient => 4001,
            Self::Internal => 4002,
            Self::HelloTimeout => 4500,
            Self::TokenExpired => 4501,
        }
    }

    /// The name, which is also the reason text and the metric label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::GoingAway => "going_away",
            Self::ProtocolError => "protocol_error",
            Self::PolicyViolation => "policy_violation",
            Self::TooLarge => "too_large",
            Self::IdleTimeout => "idle_timeout",
            Self::SlowClient => "slow_client",
            Self::Internal => "internal",
            Self::HelloTimeout => "hello_timeout",
            Self::TokenExpired => "token_expired",
        }
    }
}
