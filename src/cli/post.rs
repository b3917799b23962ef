//! `uproar post`: one comment over the REST API.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use clap::ArgMatches;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;
use uproar_engine::ids::EventId;

use super::url::NodeUrl;
use super::{Failure, print_line, required};

/// From the request to the whole answer; the node itself gives up after a few seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What to look at when the port has no events.
const NO_SUCH_PATH: &str = "there is no such path (404); is --url the public port (`listen` of the configuration, \
8080 by default), and does it end before /v1?";

/// What to post, and where.
#[derive(Debug)]
pub(super) struct Options {
    event: String,
    text: String,
    user: Option<String>,
    name: Option<String>,
    url: String,
}

impl Options {
    pub(super) fn from_args(args: &ArgMatches) -> Self {
        Self {
            event: required(args, "event").to_owned(),
            text: required(args, "text").to_owned(),
            user: args.get_one("user").cloned(),
            name: args.get_one("name").cloned(),
            url: required(args, "url").to_owned(),
        }
    }
}

/// The node's answer to a post that it took.
#[derive(Deserialize)]
struct Posted {
    id: String,
    offset: u64,
}

/// The node's answer to anything it refused.
#[derive(Deserialize)]
pub(super) struct Refusal {
    pub(super) code: String,
    pub(super) message: String,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let url = NodeUrl::parse(&options.url)?;
    let event: EventId = options.event.parse().map_err(|why| Failure(format!("EVENT: {why}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (status, body) = runtime
        .block_on(async { timeout(ANSWER_TIMEOUT, exchange(&url, &event, options)).await })
        .map_err(|_| {
            let seconds = ANSWER_TIMEOUT.as_secs();
            Failure(format!("{} did not answer within {seconds} s", url.authority))
        })??;
    if status != StatusCode::CREATED {
        return Err(refused(status, &body));
    }
    let Posted { id, offset } = serde_json::from_slice(&body)
        .map_err(|why| Failure(format!("the answer is not uproar's ({why}); wrong --url?")))?;
    print_line(&format!("{id} at offset {offset}"))
}

/// What a status other than success says.
pub(super) fn refused(status: StatusCode, body: &[u8]) -> Failure {
    match serde_json::from_slice(body) {
        Ok(Refusal { code, .. }) if code == "not_found" => Failure(NO_SUCH_PATH.to_owned()),
        Ok(Refusal { code, message }) => {
            Failure(format!("refused with {} {code}: {message}", status.as_u16()))
        }
        Err(_) => Failure(format!("the answer is {status}, which is not uproar's; wrong --url?")),
    }
}

async fn exchange(
    url: &NodeUrl,
    event: &EventId,
    options: &Options,
) -> Result<(StatusCode, Bytes), Failure> {
    let stream = url.connect().map_err(|why| url.unreachable(&why))?;
    stream.set_nonblocking(true)?;
    let io = TokioIo::new(tokio::net::TcpStream::from_std(stream)?);
    let broken = |why: hyper::Error| Failure(format!("{} broke off: {why}", url.authority));
    let (mut sender, connection) = http1::handshake(io).await.map_err(broken)?;
    tokio::spawn(connection);
    let body = json!({ "text": options.text, "user": options.user, "name": options.name });
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{}/v1/events/{event}/comments", url.prefix))
        .header(header::HOST, &url.authority)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .map_err(|why| Failure(format!("--url makes no valid request: {why}")))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    let (head, body) = response.into_parts();
    let body = to_bytes(Body::new(body), ANSWER_BYTES_MAX)
        .await
        .map_err(|why| Failure(io::Error::other(why).to_string()))?;
    Ok((head.status, body))
}
