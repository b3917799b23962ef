//! The opening handshake, RFC 6455 §4: the request by hand, the answer by httparse.

use tungstenite::handshake::derive_accept_key;

/// More header fields than this in an answer are an error.
const HEADERS_MAX: usize = 32;
/// An answer longer than this without an end is an error, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What the server's answer to an upgrade amounts to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// More bytes are needed.
    Partial,
    /// 101 with the right accept key; the frames begin after this many bytes.
    Switched(usize),
    /// Another status.
    Refused(u16),
    /// Not an answer to our handshake.
    Broken,
}

/// The `Sec-WebSocket-Key` of a connection: 16 bytes from its number, in base64.
///
/// The key only has to differ between connections; making it from the number means that
/// nothing is remembered until the answer comes.
pub(crate) fn key(nonce: u64) -> String {
    let mut bytes = [0u8; 16];
    bytes[..8].copy_from_slice(&nonce.to_le_bytes());
    bytes[8..].copy_from_slice(&nonce.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    let mut text = String::with_capacity(24);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, &b| word << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let sextet = (word >> (18 - 6 * digit) & 63) as usize;
            let is_padding = digit > chunk.len();
            text.push(if is_padding { '=' } else { BASE64[sextet] as char });
        }
    }
    text
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends the upgrade request.
pub(crate) fn write_request(
    target: &str,
    host: &str,
    key: &str,
    subprotocol: Option<&str>,
    out: &mut Vec<u8>,
) {
    let head = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
    );
    out.extend_from_slice(head.as_bytes());
    if let Some(subprotocol) = subprotocol {
        out.extend_from_slice(format!("Sec-WebSocket-Protocol: {subprotocol}\r\n").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Reads the answer at the front of `bytes`.
pub(crate) fn read_answer(bytes: &[u8], key: &str, subprotocol: Option<&str>) -> Answer {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Answer::Partial,
        Ok(httparse::Status::Partial) | Err(_) => return Answer::Broken,
    };
    let status = response.code.unwrap_or(0);
    if status != 101 {
        return Answer::Refused(status);
    }
    let value = |name: &str| {
        let field = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        field.map(|field| field.value)
    };
    let accepted =
        value("sec-websocket-accept") == Some(derive_accept_key(key.as_bytes()).as_bytes());
    let chosen = value("sec-websocket-protocol") == subprotocol.map(str::as_bytes);
    if accepted && chosen { Answer::Switched(head_bytes) } else { Answer::Broken }
}

/// A refusal's status and what to do about it.
pub(crate) fn explain(status: u16) -> String {
    let advice = match status {
        400 | 426 => ": it takes this for no upgrade; check --target and --path",
        401 | 403 => ": it wants credentials or another origin",
        404 => ": there is nothing to watch under that path; check --target, --speak and --path",
        429 => ": too many from one address; raise the server's limit or give more --source-ip",
        503 => ": the server is full or drains; check its limits of connections and addresses",
        _ => "",
    };
    format!("status {status}{advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sixteen_bytes_of_base64_and_differ() {
        assert_eq!(key(0), "AAAAAAAAAAAAAAAAAAAAAA==");
        assert_eq!(key(1).len(), 24);
        assert_ne!(key(1), key(2));
    }

    #[test]
    fn only_a_right_accept_key_and_subprotocol_switch() {
        // The key and its answer from RFC 6455 §1.3.
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: p\r\n\r\nrest";
        assert_eq!(read_answer(answer, key, Some("p")), Answer::Switched(answer.len() - 4));
        assert_eq!(read_answer(&answer[..60], key, Some("p")), Answer::Partial);
        assert_eq!(read_answer(answer, key, Some("q")), Answer::Broken);
        assert_eq!(read_answer(answer, "other", Some("p")), Answer::Broken);
        let full = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n\r\n";
        assert_eq!(read_answer(full, key, Some("p")), Answer::Refused(503));
    }
}
