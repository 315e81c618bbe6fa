//! Opens WebSocket connections for the clients.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub type Socket = WebSocketStream<TcpStream>;

/// Connects to `/ws` at `address` (`host:port`). `receive_buffer` in bytes limits what the kernel takes for a client
/// that does not read.
pub async fn open(address: &str, subprotocol: Option<&str>, receive_buffer: Option<u32>) -> Result<Socket, String> {
    open_with(address, subprotocol, receive_buffer, &[]).await
}

/// More headers of the upgrade.
pub type Headers = [(&'static str, String)];

/// As [`open`], with more headers. Of several subprotocols the service must choose the first.
pub async fn open_with(
    address: &str,
    subprotocols: Option<&str>,
    receive_buffer: Option<u32>,
    headers: &Headers,
) -> Result<Socket, String> {
    match tokio::time::timeout(CONNECT_TIMEOUT, try_open(address, subprotocols, receive_buffer, headers)).await {
        Ok(result) => result,
        Err(_) => Err(format!("{address} did not answer the upgrade within {CONNECT_TIMEOUT:?}")),
    }
}

async fn try_open(
    address: &str,
    subprotocols: Option<&str>,
    receive_buffer: Option<u32>,
    headers: &Headers,
) -> Result<Socket, String> {
    let target: SocketAddr = address.parse().map_err(|_| format!("{address} is no address"))?;
    let socket = TcpSocket::new_v4().map_err(|error| error.to_string())?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes).map_err(|error| error.to_string())?;
    }
    let stream = socket.connect(target).await.map_err(|error| format!("{address}: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let mut request = format!("ws://{address}/ws").into_client_request().map_err(|error| error.to_string())?;
    let named = subprotocols.map(|names| (SEC_WEBSOCKET_PROTOCOL.as_str(), names.to_owned()));
    for (name, value) in named.iter().chain(headers) {
        let value = HeaderValue::from_str(value).map_err(|error| error.to_string())?;
        request.headers_mut().insert(*name, value);
    }
    // A batch of large records is one message.
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    let (socket, response) = tokio_tungstenite::client_async_with_config(request, stream, Some(config))
        .await
        .map_err(|error| format!("{address}: upgrade: {error}"))?;
    let chosen = response.headers().get(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    match chosen == subprotocols.and_then(|names| names.split(", ").next()) {
        true => Ok(socket),
        false => Err(format!("asked for subprotocols {subprotocols:?}, the service chose {chosen:?}")),
    }
}
