//! A connection without a mind of its own: says what the test says, hears one message after the other.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::client::{Closed, SUBPROTOCOL};
use super::contract::offset;
use super::runtime;
use super::socket::{self, Socket};

const PATIENCE: Duration = Duration::from_secs(20);

/// What a connection brings, protocol pings left out.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    Text(Value),
    Binary(Bytes),
    Closed(Closed),
}

pub struct Raw {
    socket: Socket,
}

impl Raw {
    #[track_caller]
    pub fn v1(address: &str) -> Self {
        Self::open(address, None)
    }

    #[track_caller]
    pub fn v2(address: &str) -> Self {
        Self::open(address, Some(SUBPROTOCOL))
    }

    #[track_caller]
    fn open(address: &str, subprotocol: Option<&str>) -> Self {
        Self::try_open(address, subprotocol).expect("a connection")
    }

    pub fn try_open(address: &str, subprotocol: Option<&str>) -> Result<Self, String> {
        runtime().block_on(socket::open(address, subprotocol, None)).map(|socket| Self { socket })
    }

    /// As [`Raw::try_open`], with more headers of the upgrade.
    pub fn try_open_with(address: &str, subprotocols: Option<&str>, headers: &socket::Headers) -> Result<Self, String> {
        runtime().block_on(socket::open_with(address, subprotocols, None, headers)).map(|socket| Self { socket })
    }

    /// Both dialects, with their names.
    #[track_caller]
    pub fn of_each_dialect(address: &str) -> [(&'static str, Self); 2] {
        [("v1", Self::v1(address)), ("v2", Self::v2(address))]
    }

    pub fn say(&mut self, message: &Value) {
        self.send(Message::text(message.to_string()));
    }

    /// A connection that has ended takes it, too: its end is heard.
    pub fn send(&mut self, message: Message) {
        let _ = runtime().block_on(async { tokio::time::timeout(PATIENCE, self.socket.send(message)).await });
    }

    /// A text frame that may be no text, or one fragment of a message.
    pub fn send_part(&mut self, bytes: &[u8], opcode: Data, last: bool) {
        let frame = Frame::message(bytes.to_vec(), OpCode::Data(opcode), last);
        self.send(Message::Frame(frame));
    }

    /// The next message; `None` when none comes within `bound`.
    pub fn hear_within(&mut self, bound: Duration) -> Option<Heard> {
        let next = async {
            loop {
                return match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        Heard::Text(serde_json::from_str(&text).expect("text frames are JSON"))
                    }
                    Some(Ok(Message::Binary(bytes))) => Heard::Binary(bytes),
                    Some(Ok(Message::Close(frame))) => Heard::Closed(Closed::by(frame)),
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => Heard::Closed(Closed::without_code(error)),
                    None => Heard::Closed(Closed::without_code("end of stream")),
                };
            }
        };
        runtime().block_on(async { tokio::time::timeout(bound, next).await.ok() })
    }

    #[track_caller]
    pub fn hear(&mut self) -> Heard {
        self.hear_within(PATIENCE).expect("the service says something")
    }

    /// The next text frame, whatever lies before it.
    #[track_caller]
    pub fn hear_text(&mut self) -> Value {
        loop {
            match self.hear() {
                Heard::Text(text) if text["type"] == "heartbeat" => {}
                Heard::Text(text) => return text,
                Heard::Binary(_) => {}
                Heard::Closed(closed) => panic!("the connection ended: {closed:?}"),
            }
        }
    }

    /// The next heartbeat, whatever lies before it; one comes with the welcome.
    #[track_caller]
    pub fn hear_heartbeat(&mut self) -> Value {
        loop {
            match self.hear() {
                Heard::Text(text) if text["type"] == "heartbeat" => return text,
                Heard::Text(_) | Heard::Binary(_) => {}
                Heard::Closed(closed) => panic!("the connection ended: {closed:?}"),
            }
        }
    }

    /// The next text frame of a type, whatever lies before it.
    #[track_caller]
    pub fn hear_type(&mut self, of_type: &str) -> Value {
        loop {
            let text = self.hear_text();
            if text["type"] == of_type {
                return text;
            }
        }
    }

    /// How it ends, whatever lies before that.
    #[track_caller]
    pub fn hear_close(&mut self) -> Closed {
        loop {
            if let Heard::Closed(closed) = self.hear() {
                return closed;
            }
        }
    }

    /// v1: the records up to a text frame of a type, as partition and offset, the text frames between them, and that one.
    #[track_caller]
    pub fn v1_until(&mut self, of_type: &str) -> (Vec<(i32, i64)>, Vec<Value>, Value) {
        let (mut records, mut texts) = (Vec::new(), Vec::new());
        loop {
            match self.hear() {
                Heard::Text(text) if text["type"] == "cursor" => {
                    let partition = text["partition"].as_i64().and_then(|number| i32::try_from(number).ok());
                    records.push((partition.expect("a partition"), offset(&text, "offset").expect("an offset")));
                    assert!(matches!(self.hear(), Heard::Binary(_)), "a cursor announces a record");
                }
                Heard::Text(text) if text["type"] == of_type => return (records, texts, text),
                Heard::Text(text) => texts.push(text),
                other => panic!("{other:?} instead of {of_type}"),
            }
        }
    }
}
