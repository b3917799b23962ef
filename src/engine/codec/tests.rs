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
    pub(super) struct Post {
        pub(super) reference: Option<String>,
        pub(super) key: Option<String>,
        pub(super) text: String,
    }
}

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

#[test]
fn texts_and_labels_are_checked_as_documented() {
    for (text, expected) in [
        ("x", Ok(())),
        ("two\nlines\tand a tab", Ok(())),
        ("ééééé", Ok(())),
        ("", Err(PostRefusal::Empty)),
        (" \n\t\u{3000}", Err(PostRefusal::Empty)),
        ("a\rb", Err(PostRefusal::BadText)),
        ("a\0", Err(PostRefusal::BadText)),
        ("\u{1b}[31m", Err(PostRefusal::BadText)),
        ("a\u{7f}", Err(PostRefusal::BadText)),
        ("a\u{85}b", Err(PostRefusal::BadText)),
    ] {
        assert_eq!(check_text(text, 2_000), expected, "{text:?}");
    }
    assert_eq!(check_text(&"é".repeat(1_000), 2_000), Ok(()));
    assert_eq!(check_text(&"x".repeat(2_001), 2_000), Err(PostRefusal::TooLong));
    assert_eq!(check_text(&" ".repeat(2_001), 2_000), Err(PostRefusal::TooLong));
    for good in ["u", "Ann é", &"x".repeat(64)] {
        assert_eq!(check_label(good), Ok(()), "{good}");
    }
    for bad in ["", "a\nb", "\u{9f}", &"x".repeat(65), &"é".repeat(33)] {
        assert_eq!(check_label(bad), Err(PostRefusal::BadText), "{bad}");
    }
}

#[test]
fn subprotocols_name_the_codecs() {
    for (index, codec) in Codec::ALL.into_iter().enumerate() {
        assert_eq!(codec.index(), index);
        assert_eq!(Codec::from_subprotocol(codec.subprotocol()), Some(codec));
    }
    assert_eq!(Codec::from_subprotocol("uproar.json.v2"), None);
}
