//! Asking a node's admin port, for commands that an operator types.

use std::io::{self, Read, Write};
use std::time::Duration;

use super::Failure;
use super::post::Refusal;
use super::url::NodeUrl;

/// The longest answer read, in bytes.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How long the node may take to answer; a stuck shard costs it three seconds.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// What to look at when something else answers.
const WRONG_PORT: &str = "is --url the admin port (`admin` of the configuration, 8081 by default)?";

/// The body of a good answer.
pub(super) fn ask(url: &NodeUrl, method: &str, path: &str) -> Result<Vec<u8>, Failure> {
    let answer = exchange(url, method, path)?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let status = answer.get(9..12).and_then(|code| std::str::from_utf8(code).ok()?.parse().ok());
    let (Some(end), Some(status), true) = (end, status, answer.starts_with(b"HTTP/1.")) else {
        return Err(Failure(format!("{} does not speak HTTP; {WRONG_PORT}", url.authority)));
    };
    let body = &answer[end + 4..];
    match status {
        200..300 => Ok(body.to_vec()),
        status => Err(refused(url, path, status, body)),
    }
}

/// What a status other than success says.
fn refused(url: &NodeUrl, path: &str, status: u16, body: &[u8]) -> Failure {
    match serde_json::from_slice::<Refusal>(body) {
        Ok(Refusal { code, message }) if status != 404 && status != 405 => {
            Failure(format!("refused with {status} {code}: {message}"))
        }
        _ => Failure(format!("{} has no {path} ({status}); {WRONG_PORT}", url.authority)),
    }
}

/// Everything that comes back. HTTP/1.0: the answer is whole, unchunked, and ends with the connection.
fn exchange(url: &NodeUrl, method: &str, path: &str) -> Result<Vec<u8>, Failure> {
    let NodeUrl { authority, prefix } = url;
    let mut stream = url.connect().map_err(|why| url.unreachable(&why))?;
    let mut answer = Vec::new();
    let mut talk = || -> io::Result<()> {
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        let head = format!("{method} {prefix}{path} HTTP/1.0\r\nhost: {authority}\r\n");
        stream.write_all(format!("{head}content-length: 0\r\n\r\n").as_bytes())?;
        (&stream).take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map(|_| ())
    };
    talk().map_err(|why| match why.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            let seconds = ANSWER_MAX.as_secs();
            Failure(format!("{authority} gave no whole answer within {seconds} s; {WRONG_PORT}"))
        }
        _ => Failure(format!("{authority} broke off: {why}")),
    })?;
    Ok(answer)
}

/// What to say about an answer that is not uproar's.
pub(super) fn foreign(url: &NodeUrl, why: &dyn std::fmt::Display) -> Failure {
    Failure(format!("the answer of {} is not uproar's ({why}); {WRONG_PORT}", url.authority))
}
