//! The binary subprotocol, read with structs written down here from PROTOCOL.md alone.

use rkyv::rancor::Error;
use rkyv::{Archive, Deserialize, Serialize};
use tungstenite::Message;

use crate::node::Node;
use crate::viewer::Viewer;

#[derive(Archive, Serialize, Deserialize, Debug)]
struct Comment {
    id: [u8; 16],
    origin: String,
    time: u64,
    user: String,
    name: Option<String>,
    text: String,
}

#[derive(Archive, Serialize, Deserialize, Debug)]
struct Welcome {
    event: String,
    node: String,
    epoch: u64,
    start: u64,
    head: u64,
    recovered: bool,
    viewers: u32,
}

#[derive(Archive, Serialize, Deserialize, Debug)]
struct Ack {
    reference: Option<String>,
    id: [u8; 16],
}

#[derive(Archive, Serialize, Deserialize, Debug)]
struct Refusal {
    reference: Option<String>,
    code: String,
    message: String,
}

#[derive(Archive, Serialize, Deserialize, Debug)]
struct You {
    user: String,
    role: Option<String>,
    can: Vec<String>,
    expires_ms: Option<u64>,
}

#[derive(Archive, Serialize, Deserialize, Debug)]
struct Post {
    reference: Option<String>,
    key: Option<String>,
    text: String,
}

/// The envelope's kind and offset, and the archive.
fn next(viewer: &mut Viewer) -> (u8, u64, Vec<u8>) {
    let Message::Binary(bytes) = viewer.socket.read().unwrap() else { panic!("not binary") };
    assert_eq!(bytes[0], 1, "format version");
    let length = u32::from_le_bytes(bytes[4..8].try_into().unwrap());
    assert_eq!(usize::try_from(length).unwrap(), bytes.len() - 16);
    let offset = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
    (bytes[1], offset, bytes[16..].to_vec())
}

fn post(viewer: &mut Viewer, text: &str) {
    let post = Post { reference: Some("r".into()), key: None, text: text.into() };
    let archive = rkyv::to_bytes::<Error>(&post).unwrap();
    let mut bytes = vec![1, 16, 0, 0];
    bytes.extend(u32::try_from(archive.len()).unwrap().to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(archive.iter());
    viewer.socket.send(Message::binary(bytes)).unwrap();
}

#[test]
fn both_subprotocols_show_the_same_room() {
    let node = Node::start(&["--node", "n7"]);
    let offered = ["unknown", "uproar.rkyv.v1", "uproar.json.v1"];
    let mut binary = node.upgrade("e", "?user=ann", &offered, node.connect()).unwrap();
    assert_eq!(binary.protocol.as_deref(), Some("uproar.rkyv.v1"));
    let (kind, _, archive) = next(&mut binary);
    assert_eq!(kind, 2);
    let welcome = rkyv::from_bytes::<Welcome, Error>(&archive).unwrap();
    assert_eq!((welcome.event.as_str(), welcome.node.as_str(), welcome.head), ("e", "n7", 0));
    assert!(!welcome.recovered && welcome.viewers == 1 && welcome.start == 0);

    let mut json = node.join("e", "");
    assert_eq!(json.epoch(), format!("{:x}", welcome.epoch));
    post(&mut binary, "from binary");
    let (mut ack, mut comment) = (None, None);
    while ack.is_none() || comment.is_none() {
        let (kind, offset, archive) = next(&mut binary);
        assert_eq!(offset, 1);
        match kind {
            3 => ack = Some(rkyv::from_bytes::<Ack, Error>(&archive).unwrap()),
            1 => comment = Some(rkyv::from_bytes::<Comment, Error>(&archive).unwrap()),
            other => panic!("kind {other}"),
        }
    }
    let (ack, comment) = (ack.unwrap(), comment.unwrap());
    assert_eq!((ack.reference.as_deref(), ack.id), (Some("r"), comment.id));
    assert_eq!((comment.text.as_str(), comment.origin.as_str()), ("from binary", "n7"));
    let shown = json.next_of("comment");
    assert_eq!((&shown["text"], &shown["user"]), (&"from binary".into(), &"ann".into()));
    assert_eq!(shown["time"], comment.time);
    let hex: String = comment.id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(shown["id"].as_str().unwrap().replace('-', ""), hex);
}

#[test]
fn refusals_and_unknown_versions_speak_binary_too() {
    let node = Node::start(&[]);
    let mut viewer = node.upgrade("e", "", &["uproar.rkyv.v1"], node.connect()).unwrap();
    next(&mut viewer);
    post(&mut viewer, "");
    let (kind, _, archive) = next(&mut viewer);
    let error = rkyv::from_bytes::<Refusal, Error>(&archive).unwrap();
    assert_eq!((kind, error.code.as_str(), error.reference.as_deref()), (4, "empty", Some("r")));
    assert!(!error.message.is_empty());
    viewer
        .socket
        .send(Message::binary(vec![9, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
        .unwrap();
    assert_eq!(viewer.closing().map(|(code, _)| code), Some(1003), "an unknown version");

    let mut texter = node.upgrade("e", "", &["uproar.rkyv.v1"], node.connect()).unwrap();
    texter.socket.send(Message::text("{}")).unwrap();
    assert_eq!(texter.closing().map(|(code, _)| code), Some(1003), "text over the binary one");
}

#[test]
fn a_guest_is_told_its_id_before_the_first_ack() {
    let node = Node::start(&[]);
    let mut guest = node.upgrade("e", "", &["uproar.rkyv.v1"], node.connect()).unwrap();
    next(&mut guest);
    post(&mut guest, "");
    assert_eq!(next(&mut guest).0, 4, "what is refused makes nobody a guest");
    post(&mut guest, "hello");
    let (kind, offset, archive) = next(&mut guest);
    assert_eq!((kind, offset), (7, 0));
    let you = rkyv::from_bytes::<You, Error>(&archive).unwrap();
    assert!(you.user.starts_with("guest-") && you.user.len() == 18, "{you:?}");
    assert!(you.role.is_none() && you.can.is_empty() && you.expires_ms.is_none());
    let mut kinds = [next(&mut guest), next(&mut guest)];
    kinds.sort_by_key(|(kind, ..)| *kind);
    let comment = rkyv::from_bytes::<Comment, Error>(&kinds[0].2).unwrap();
    assert_eq!((kinds[0].0, kinds[1].0, &comment.user), (1, 3, &you.user));
    post(&mut guest, "again");
    let again = [next(&mut guest).0, next(&mut guest).0];
    assert!(!again.contains(&7), "told once: {again:?}");
}

#[test]
fn the_first_known_subprotocol_is_chosen() {
    let node = Node::start(&[]);
    for (offered, chosen) in [
        (&["uproar.json.v1", "uproar.rkyv.v1"][..], Some("uproar.json.v1")),
        (&["x", "uproar.json.v1"][..], Some("uproar.json.v1")),
        (&[][..], None),
    ] {
        let viewer = node.upgrade("e", "", offered, node.connect()).unwrap();
        assert_eq!(viewer.protocol.as_deref(), chosen, "{offered:?}");
    }
}
