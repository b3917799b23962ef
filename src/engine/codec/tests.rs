//! Both codecs against PROTOCOL.md: literal frames (`frames`), commands (`commands`), and the
//! records declared here once more.

use rkyv::rancor::Error;

use super::*;

mod commands;
mod frames;

/// PROTOCOL.md's table of archived structs, as a client would declare them.
mod client {
    use rkyv::{Archive, Deserialize, Serialize};

    #[derive(Archive, Deserialize, Serialize, Debug, PartialEq)]
    pub(super) struct Comment {
        pub(super) id: [u8; 16],
        pub(super) origin: String,
        pub(super) time: u64,
        pub(super) user: String,
        pub(super) name: Option<String>,
        pub(super) text: String,
    }

    #[derive(Archive, Deserialize, Serialize, Debug, PartialEq)]
    pub(super) struct Welcome {
        pub(super) event: String,
        pub(super) node: String,
        pub(super) epoch: u64,
        pub(super) start: u64,
        pub(super) head: u64,
        pub(super) recovered: bool,
        pub(super) viewers: u32,
    }

    #[derive(Archive, Deserialize, Serialize, Debug, PartialEq)]
    pub(super) struct Ack {
        pub(super) reference: Option<String>,
        pub(super) id: [u8; 16],
    }

    #[derive(Archive, Deserialize, Serialize, Debug, PartialEq)]
    pub(super) struct Refusal {
        pub(super) reference: Option<String>,
        pub(super) code: String,
        pub(super) message: String,
    }

    #[derive(Archive, Deserialize, Serialize, Debug, PartialEq)]
    pub(super) struct Gap {
        pub(super) from: u64,
        pub(super) to: u64,
    }

    #[derive(Archive, Deserialize, Serialize, Debug, PartialEq)]
    pub(super) struct Drain {
        pub(super) delay_ms: u32,
    }

    #[derive(Archive, Deserialize, Serialize, Debug, PartialEq)]
    pub(super) struct You {
        pub(super) user: String,
        pub(super) role: Option<String>,
        pub(super) can: Vec<String>,
        pub(super) expires_ms: Option<u64>,
    }

    #[derive(Archive, Deserialize, Serialize, Debug, PartialEq)]
    pub(super) struct Post {
        pub(super) reference: Option<String>,
        pub(super) key: Option<String>,
        pub(super) text: String,
    }
}

/// A `ref` that was a string.
fn named(text: &str) -> Reference {
    Reference::Text(text.into())
}

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

#[test]
fn subprotocols_name_the_codecs() {
    for (index, codec) in Codec::ALL.into_iter().enumerate() {
        assert_eq!(codec.index(), index);
        assert_eq!(Codec::from_subprotocol(codec.subprotocol()), Some(codec));
    }
    assert_eq!(Codec::from_subprotocol("uproar.json.v2"), None);
}
