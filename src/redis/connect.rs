//! Connections: to one server, through Sentinels, or to a cluster, with TLS where the address says so.
//!
//! Every wait has an end: opening a connection, an answer, a place in the pool. A connection that failed in a way that may
//! have left it in a bad state is thrown away. It must not know what is asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_redis::redis::aio::{ConnectionLike, MultiplexedConnection};
use deadpool_redis::redis::cluster_async::ClusterConnection;
use deadpool_redis::redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, Pipeline, RedisConnectionInfo,
    RedisError, Value,
};
use deadpool_redis::sentinel::{SentinelNodeConnectionInfo, SentinelServerType, TlsMode};
use deadpool_redis::{BuildError, PoolConfig, Runtime, Timeouts, cluster, sentinel};
use url::Url;

use super::fault::Failure;
use super::settings::{RedisSettings, Topology};

/// The servers. Cloning shares the connections.
#[derive(Clone)]
pub struct Redis {
    pools: Pools,
    response_timeout: Duration,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}

#[derive(Clone)]
enum Pools {
    Standalone(deadpool_redis::Pool),
    Sentinel(sentinel::Pool),
    Cluster(cluster::Pool),
}

/// Why there can be no client with these settings.
#[derive(Debug, thiserror::Error)]
#[error("redis.url or redis.nodes cannot be used: {0}")]
pub struct ConnectError(String);

impl From<RedisError> for ConnectError {
    fn from(error: RedisError) -> Self {
        Self(Failure::from(error).text)
    }
}

impl From<BuildError> for ConnectError {
    fn from(error: BuildError) -> Self {
        Self(error.to_string())
    }
}

impl Redis {
    /// Clients with at most `connections` connections. Connects to nobody yet.
    ///
    /// # Errors
    /// When an address cannot be used.
    pub fn new(settings: &RedisSettings, connections: usize) -> Result<Self, ConnectError> {
        choose_cryptography();
        let config = PoolConfig {
            timeouts: Timeouts {
                wait: Some(settings.response_timeout),
                // To connect is to say hello, too.
                create: Some(settings.connect_timeout + settings.response_timeout),
                recycle: Some(settings.response_timeout),
            },
            ..PoolConfig::new(connections)
        };
        let addresses = addresses(settings)?;
        let response_timeout = settings.response_timeout;
        let pools = match &settings.topology {
            Topology::Standalone => {
                let connection = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(settings.connect_timeout))
                    .set_response_timeout(Some(response_timeout));
                let first = addresses.into_iter().next().ok_or_else(no_address)?;
                let manager = deadpool_redis::Manager::new_with_config(first, connection)?;
                Pools::Standalone(
                    deadpool_redis::Pool::builder(manager).config(config).runtime(Runtime::Tokio1).build()?,
                )
            }
            Topology::Sentinel { master, password } => {
                let server = behind_sentinels(addresses.first().ok_or_else(no_address)?);
                let own = match password.reveal() {
                    "" => RedisConnectionInfo::default(),
                    password => RedisConnectionInfo::default().set_password(password),
                };
                let sentinels = addresses.into_iter().map(|info| info.set_redis_settings(own.clone())).collect();
                let manager =
                    sentinel::Manager::new(sentinels, master.clone(), Some(server), SentinelServerType::Master)?;
                let patience = sentinel::Hook::sync_fn(move |connection: &mut MultiplexedConnection, _| {
                    connection.set_response_timeout(response_timeout);
                    Ok(())
                });
                let pool = sentinel::Pool::builder(manager).config(config).post_create(patience);
                Pools::Sentinel(pool.runtime(Runtime::Tokio1).build()?)
            }
            Topology::Cluster => {
                let manager = cluster::Manager::new(addresses, false)?;
                Pools::Cluster(cluster::Pool::builder(manager).config(config).runtime(Runtime::Tokio1).build()?)
            }
        };
        Ok(Self { pools, response_timeout })
    }

    /// A connection that has just answered, or a new one.
    ///
    /// # Errors
    /// When there is none before the deadline.
    pub async fn connection(&self, deadline: Instant) -> Result<Connection, Failure> {
        let got = async {
            Ok::<_, Failure>(match &self.pools {
                Pools::Standalone(pool) => Lease::Standalone(pool.get().await?),
                Pools::Sentinel(pool) => Lease::Sentinel(pool.get().await?),
                Pools::Cluster(pool) => Lease::Cluster(pool.get().await?),
            })
        };
        let lease = within(deadline, "getting a connection", got).await?;
        let line = match &lease {
            Lease::Standalone(connection) => Line::Server((**connection).clone()),
            Lease::Sentinel(connection) => Line::Server((**connection).clone()),
            Lease::Cluster(connection) => Line::Cluster((**connection).clone()),
        };
        Ok(Connection { line, lease, response_timeout: self.response_timeout })
    }

    /// Throws away the connections that nobody uses: the server they lead to is another one than it was.
    pub fn forget_idle(&self) {
        match &self.pools {
            Pools::Standalone(pool) => drop(pool.retain(|_, _| false)),
            Pools::Sentinel(pool) => drop(pool.retain(|_, _| false)),
            Pools::Cluster(pool) => drop(pool.retain(|_, _| false)),
        }
    }
}

/// A connection out of the pool. It goes back when it is dropped.
pub struct Connection {
    line: Line,
    lease: Lease,
    response_timeout: Duration,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

enum Lease {
    Standalone(deadpool_redis::Connection),
    Sentinel(sentinel::Connection),
    Cluster(cluster::Connection),
}

/// Sends requests; several at a time may be on their way.
#[derive(Clone)]
enum Line {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    /// Asks; one answer per command, errors of single commands among them.
    ///
    /// # Errors
    /// When there is no answer, or none that makes sense.
    pub fn ask(
        &self,
        pipeline: Arc<Pipeline>,
        deadline: Instant,
    ) -> impl Future<Output = Result<Vec<Value>, Failure>> + use<> {
        let line = self.line.clone();
        // A cluster knows no timeout of its own here.
        let deadline = deadline.min(Instant::now() + self.response_timeout);
        within(deadline, "an answer", async move {
            match line {
                Line::Server(mut connection) => answers(&pipeline, &mut connection).await,
                Line::Cluster(mut connection) => answers(&pipeline, &mut connection).await,
            }
        })
    }

    /// Closes it instead of giving it back.
    pub fn discard(self) {
        match self.lease {
            Lease::Standalone(connection) => drop(deadpool_redis::Connection::take(connection)),
            Lease::Sentinel(connection) => drop(sentinel::Connection::take(connection)),
            Lease::Cluster(connection) => drop(cluster::Connection::take(connection)),
        }
    }
}

async fn answers(pipeline: &Pipeline, connection: &mut impl ConnectionLike) -> Result<Vec<Value>, Failure> {
    Ok(pipeline.query_async::<Vec<Value>>(connection).await?)
}

async fn within<T>(
    deadline: Instant,
    what: &str,
    request: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match tokio::time::timeout_at(deadline.into(), request).await {
        Ok(result) => result,
        Err(_elapsed) => Err(Failure::timeout(what)),
    }
}

/// redis leaves the choice to the program, and panics at the first connection when nobody has made it.
fn choose_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Somebody else may have been faster, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

fn no_address() -> ConnectError {
    ConnectError("there is no address".into())
}

/// The first address, and the others with its scheme, credentials and database.
fn addresses(settings: &RedisSettings) -> Result<Vec<ConnectionInfo>, ConnectError> {
    let first = Url::parse(settings.url.reveal()).map_err(|error| ConnectError(error.to_string()))?;
    let mut urls = vec![first.clone()];
    for node in &settings.nodes {
        let mut url = first.clone();
        let broken = || ConnectError(format!("{node} is not host:port"));
        let (host, port) = node.rsplit_once(':').ok_or_else(broken)?;
        url.set_host(Some(host)).map_err(|_| broken())?;
        url.set_port(Some(port.parse().map_err(|_| broken())?)).map_err(|()| broken())?;
        urls.push(url);
    }
    urls.into_iter().map(|url| Ok(url.into_connection_info()?)).collect()
}

/// What the server that the Sentinels name is told: the credentials and the database of the address.
fn behind_sentinels(address: &ConnectionInfo) -> SentinelNodeConnectionInfo {
    let tls = matches!(address.addr(), ConnectionAddr::TcpTls { .. });
    SentinelNodeConnectionInfo {
        tls_mode: tls.then_some(TlsMode::Secure),
        redis_connection_info: Some(address.redis_settings().clone().into()),
    }
}
