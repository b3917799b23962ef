//! A viewer under test: tungstenite's client over a blocking socket.

use std::net::TcpStream;

use rustix::net::{AddressFamily, SocketType, sockopt};
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

use crate::node::{Node, PATIENCE};

pub(crate) struct Viewer {
    pub(crate) socket: WebSocket<TcpStream>,
    /// The first frame; null for the binary protocol.
    pub(crate) welcome: Value,
    /// The subprotocol the node chose.
    pub(crate) protocol: Option<String>,
}

impl Node {
    /// Joins an event; `query` begins with `?` or is empty.
    pub(crate) fn join(&self, event: &str, query: &str) -> Viewer {
        let mut viewer = self.upgrade(event, query, &[], self.connect()).expect("not upgraded");
        viewer.welcome = viewer.next();
        assert_eq!(viewer.welcome["type"], "welcome");
        viewer
    }

    /// Joins with a receive buffer so small that a viewer who does not read stalls at once.
    pub(crate) fn join_narrow(&self, event: &str, query: &str) -> Viewer {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        sockopt::set_socket_recv_buffer_size(&socket, 2_304).unwrap();
        rustix::net::connect(&socket, &self.public()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut viewer = self.upgrade(event, query, &[], stream).expect("not upgraded");
        viewer.welcome = viewer.next();
        viewer
    }

    /// Upgrades over `stream`, or says which status refused it.
    pub(crate) fn upgrade(
        &self,
        event: &str,
        query: &str,
        protocols: &[&str],
        stream: TcpStream,
    ) -> Result<Viewer, u16> {
        let url = format!("ws://{}/v1/events/{event}/live{query}", self.public());
        let mut request = url.into_client_request().unwrap();
        if !protocols.is_empty() {
            let offered = HeaderValue::from_str(&protocols.join(", ")).unwrap();
            request.headers_mut().insert("Sec-WebSocket-Protocol", offered);
        }
        match tungstenite::client(request, stream) {
            Ok((socket, answer)) => {
                let protocol = answer.headers().get("Sec-WebSocket-Protocol");
                let protocol = protocol.map(|value| value.to_str().unwrap().to_owned());
                Ok(Viewer { socket, welcome: Value::Null, protocol })
            }
            Err(HandshakeError::Failure(Error::Http(answer))) => Err(answer.status().as_u16()),
            Err(error) => panic!("the handshake failed: {error}"),
        }
    }
}

impl Viewer {
    /// The next frame of JSON; pings are answered on the way.
    pub(crate) fn next(&mut self) -> Value {
        serde_json::from_str(&self.next_text()).unwrap()
    }

    /// The same as it was sent.
    pub(crate) fn next_text(&mut self) -> String {
        loop {
            match self.socket.read().expect("a frame was due") {
                Message::Text(text) => return text.as_str().to_owned(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("no text: {other:?}"),
            }
        }
    }

    /// The next frame of this `type`; others are passed over.
    pub(crate) fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next();
            if frame["type"] == kind {
                return frame;
            }
            assert_ne!(frame["type"], "error", "waiting for {kind}: {frame}");
        }
    }

    /// The next `count` comments as (offset, text), in the order they came.
    pub(crate) fn comments(&mut self, count: usize) -> Vec<(u64, String)> {
        (0..count)
            .map(|_| {
                let comment = self.next_of("comment");
                let text = comment["text"].as_str().unwrap().to_owned();
                (comment["offset"].as_u64().unwrap(), text)
            })
            .collect()
    }

    pub(crate) fn command(&mut self, command: &Value) {
        self.socket.send(Message::text(command.to_string())).unwrap();
    }

    pub(crate) fn post(&mut self, reference: &str, text: &str) {
        self.command(&json!({ "type": "post", "ref": reference, "text": text }));
    }

    /// Posts and waits for the ack; its offset.
    pub(crate) fn post_acked(&mut self, text: &str) -> u64 {
        self.post("p", text);
        self.next_of("ack")["offset"].as_u64().unwrap()
    }

    /// The epoch of the welcome's position.
    pub(crate) fn epoch(&self) -> String {
        self.position().split_once('-').unwrap().0.to_owned()
    }

    pub(crate) fn position(&self) -> &str {
        self.welcome["position"].as_str().unwrap()
    }

    /// Reads until the node closes; its code and reason, or none when the socket just ended.
    pub(crate) fn closing(&mut self) -> Option<(u16, String)> {
        loop {
            match self.socket.read() {
                Ok(Message::Close(frame)) => {
                    return frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
                }
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }
}
