//! Posting: acks, order, refusals, retries.

use serde_json::json;

use crate::node::Node;

const NO_CAPS: [&str; 4] = ["--posts-per-sec-connection", "0", "--posts-per-sec-event", "0"];

#[test]
fn an_author_gets_an_ack_and_sees_the_own_comment_in_order() {
    let node = Node::start(&NO_CAPS);
    let (mut ann, mut bob) = (node.join("e", "?user=ann&name=Ann"), node.join("e", "?user=bob"));
    for number in 0..50 {
        ann.post(&format!("a{number}"), &format!("ann {number}"));
        bob.post(&format!("b{number}"), &format!("bob {number}"));
    }
    let mut seen = Vec::new();
    let mut acks = Vec::new();
    while seen.len() < 100 || acks.len() < 50 {
        let frame = ann.next();
        match frame["type"].as_str().unwrap() {
            "comment" => seen.push(frame),
            "ack" => acks.push(frame),
            other => panic!("unexpected {other}"),
        }
    }
    let offsets: Vec<u64> = seen.iter().map(|frame| frame["offset"].as_u64().unwrap()).collect();
    assert_eq!(offsets, (1..=100).collect::<Vec<_>>());
    for ack in &acks {
        let offset = ack["offset"].as_u64().unwrap();
        let comment = &seen[usize::try_from(offset - 1).unwrap()];
        assert_eq!(ack["id"], comment["id"]);
        let number = ack["ref"].as_str().unwrap().strip_prefix('a').unwrap();
        assert_eq!(comment["text"], format!("ann {number}"));
        assert_eq!((&comment["user"], &comment["name"]), (&json!("ann"), &json!("Ann")));
    }
    let others = bob.comments(100);
    let texts: Vec<_> = seen.iter().map(|frame| frame["text"].as_str().unwrap()).collect();
    assert_eq!(others.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), texts);
    let of_bob = seen.iter().find(|frame| frame["user"] == "bob").unwrap();
    assert!(of_bob.get("name").is_none(), "absent, not null: {of_bob}");
}

#[test]
fn what_cannot_be_taken_is_refused_with_its_code_and_the_connection_stays() {
    let node = Node::start(&NO_CAPS);
    let mut viewer = node.join("e", "");
    let long = "x".repeat(2_001);
    for (command, code) in [
        (json!({ "type": "post", "ref": "1", "text": long }), "too_long"),
        (json!({ "type": "post", "ref": "2", "text": "" }), "empty"),
        (json!({ "type": "post", "ref": "3", "text": "bell \u{7}" }), "bad_text"),
        (json!({ "type": "post", "ref": "4" }), "bad_command"),
        (json!({ "type": "dance", "ref": "5" }), "bad_command"),
    ] {
        viewer.command(&command);
        let error = viewer.next();
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)), "{command}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()));
        if code != "bad_command" {
            assert_eq!(error["ref"], command["ref"]);
        }
    }
    viewer.socket.send(tungstenite::Message::text("not json")).unwrap();
    assert_eq!(viewer.next()["code"], "bad_command");
    assert_eq!(viewer.post_acked("fine\n\tindeed"), 1, "nothing refused took an offset");
    for code in ["too_long", "empty", "bad_text"] {
        assert_eq!(
            node.metric("uproar_posts_refused_total", &format!("\"{code}\"")),
            1.0,
            "{code}"
        );
    }
}

#[test]
fn a_retry_with_the_same_key_is_not_appended_again() {
    let node = Node::start(&NO_CAPS);
    let mut ann = node.join("e", "?user=ann");
    let post = json!({ "type": "post", "key": "k", "text": "once" });
    ann.command(&post);
    let first = ann.next_of("ack");
    assert!(first.get("ref").is_none(), "the post had none");
    let mut again = node.join("e", "?user=ann&history=0");
    again.command(&post);
    assert_eq!(again.next_of("ack"), first);
    let mut bob = node.join("e", "?user=bob&history=0");
    bob.command(&post);
    assert_eq!(bob.next_of("ack")["offset"], 2, "a key belongs to its user");
    assert_eq!(node.metric("uproar_posts_deduplicated_total", ""), 1.0);
}

#[test]
fn a_guests_retry_is_known_by_the_id_it_was_told() {
    let node = Node::start(&NO_CAPS);
    let mut guest = node.join("e", "?name=Ann");
    let post = json!({ "type": "post", "ref": 7, "key": "k", "text": "once" });
    guest.command(&post);
    let you = guest.next();
    assert_eq!(you["type"], "you", "before the ack, and before the comment");
    let user = you["user"].as_str().unwrap().to_owned();
    assert_eq!(you, json!({ "type": "you", "user": user }));
    let first = guest.next_of("ack");
    assert_eq!(first["ref"], 7, "a number comes back as that number");
    guest.command(&json!({ "type": "post", "ref": 8, "text": "another" }));
    assert_eq!(guest.next_of("ack")["offset"], 2);
    drop(guest);
    let mut again = node.join("e", &format!("?user={user}&history=0"));
    again.command(&post);
    assert_eq!(again.next_of("ack"), first);
    let mut stranger = node.join("e", "?history=0");
    stranger.command(&post);
    assert_ne!(stranger.next_of("you")["user"], user);
    assert_eq!(stranger.next_of("ack")["offset"], 3, "a key belongs to its guest");
    let page = node.get("/v1/events/e/comments").json();
    let users: Vec<_> = page["comments"].as_array().unwrap().iter().map(|c| &c["user"]).collect();
    assert_eq!((users.len(), users[0], users[1]), (3, &json!(user), &json!(user)));
}

#[test]
fn text_comes_back_as_it_was_written() {
    let node = Node::start(&NO_CAPS);
    let mut viewer = node.join("e", "?user=%C3%A9&name=J%C3%B6rg%20%22J%22");
    for text in
        ["\"quoted\" \\ back", "тест 🎉 末", "<b>&amp;</b>", "line\nfeed\ttab", "a\u{2028}b"]
    {
        viewer.post("t", text);
        let comment = viewer.next_of("comment");
        assert_eq!(comment["text"], text);
        assert_eq!((&comment["user"], &comment["name"]), (&json!("é"), &json!("Jörg \"J\"")));
    }
}
