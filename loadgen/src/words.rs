//! What others' errors mean to whoever runs this tool, with what to do next. Not here: printing it (`say`).

use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::AddrParseError;
use std::num::{ParseFloatError, ParseIntError};

use clap::error::ErrorKind as Usage;

/// What clap says of words that cannot be; what a flag takes, where the standard library says how it stumbled.
pub(crate) fn usage(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let Some(source) = error.source().filter(|_| error.kind() == Usage::ValueValidation) else {
        return text;
    };
    let takes = if source.is::<ParseIntError>() {
        "it takes a whole number"
    } else if source.is::<ParseFloatError>() {
        "it takes a number, as in 2 or 0.5"
    } else if source.is::<AddrParseError>() {
        "it takes an IP address with a port, as in 10.0.0.7:7000"
    } else {
        return text;
    };
    text.replacen(&format!(": {source}"), &format!(": {takes}"), 1)
}

/// Why a socket cannot listen at an address.
pub(crate) fn cannot_listen(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => "the port is in use; `ss -ltnp` shows by whom".to_owned(),
        ErrorKind::AddrNotAvailable => {
            "this host does not have that address; `ip addr` shows those it has".to_owned()
        }
        ErrorKind::PermissionDenied => {
            "ports under 1024 are for root; choose one from 1024 on".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Why a folder or file cannot be written or read.
pub(crate) fn of_file(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        ErrorKind::PermissionDenied => "this user may not".to_owned(),
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
            "that is a file; name a folder".to_owned()
        }
        ErrorKind::StorageFull => "the disk is full".to_owned(),
        _ => error.to_string(),
    }
}

/// What the server's code for a refused post means, where it says something about the run.
pub(crate) fn refused_post(code: &str) -> String {
    let advice = match code {
        "rate_limited" => {
            ": the server caps posts; start the node with --posts-per-sec-connection 0 --posts-per-sec-event 0"
        }
        "too_long" => {
            ": --comment-bytes is more than the server takes (the node's comment_bytes_max)"
        }
        "overloaded" => ": the server is at its limit",
        "rooms_full" => {
            ": the server has as many events as it may (the node's rooms_max); fewer --events"
        }
        _ => "",
    };
    format!("a post was refused: {code}{advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_posts_say_what_to_change() {
        assert!(refused_post("rate_limited").contains("--posts-per-sec-event 0"));
        assert!(refused_post("too_long").contains("--comment-bytes"));
        assert_eq!(refused_post("odd"), "a post was refused: odd");
    }
}
