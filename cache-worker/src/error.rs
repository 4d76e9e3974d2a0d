//! What can go wrong while following. Nothing of it ends the worker: it starts over.

/// Why a session cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Redis refuses writes that need memory.
    #[error("Redis is full (maxmemory): the changed entries are removed instead")]
    Full,
    /// The cache was rebuilt or emptied by somebody else.
    #[error("the cache was rebuilt or emptied by somebody else")]
    Fenced,
    /// Another worker is rebuilding the cache.
    #[error("another worker is rebuilding the cache")]
    Busy,
    /// The cursor in Redis does not stay where it is put.
    #[error("the cursor in Redis changes all the time: too many workers?")]
    Unsettled,
    /// A call took longer than it may.
    #[error("{0} took longer than {1:?}")]
    TimedOut(&'static str, std::time::Duration),
    /// The connection to PostgreSQL is gone.
    #[error("the connection to PostgreSQL is gone")]
    Disconnected,
    /// The database answered something that the contract does not know.
    #[error("not understood: {0}")]
    NotUnderstood(String),
    /// An error of Redis, or on the way to it.
    #[error("Redis: {0}")]
    Redis(redis::RedisError),
    /// An error of PostgreSQL, or on the way to it.
    #[error("PostgreSQL: {}", with_cause(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// Encryption cannot be set up on this machine.
    #[error("TLS: {0}")]
    Tls(#[from] native_tls::Error),
    /// An entry that cannot be written as JSON.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<redis::RedisError> for Error {
    fn from(error: redis::RedisError) -> Self {
        // From within a script, Redis 6 puts the code into the middle of the text.
        let full =
            error.code() == Some("OOM") || error.to_string().contains("OOM command not allowed");
        if full { Error::Full } else { Error::Redis(error) }
    }
}

/// tokio-postgres says "db error" and hides the message in the cause.
pub(crate) fn with_cause(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
