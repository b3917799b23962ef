//! Positions and event ids: what is taken is what the protocol describes.

use uproar_engine::ids::{EventId, Position};

use super::for_seeds;

#[test]
fn a_position_is_two_numbers_or_refused() {
    for_seeds(0..10_000, |dice| {
        let epoch = dice.0.bits() >> dice.roll(64);
        let offset = dice.0.bits() >> dice.roll(64);
        let sound = Position { epoch, offset };
        let mut text = sound.to_string().into_bytes();
        dice.damage(&mut text, b"0123456789abcdefF-+_ x");
        let Ok(text) = String::from_utf8(text) else { return };
        let expected = text.split_once('-').and_then(|(epoch, offset)| {
            let is_hex = !epoch.is_empty() && epoch.bytes().all(|b| b.is_ascii_hexdigit());
            let is_decimal = !offset.is_empty() && offset.bytes().all(|b| b.is_ascii_digit());
            (is_hex && is_decimal).then(|| {
                let epoch = u64::from_str_radix(epoch, 16).ok()?;
                Some(Position { epoch, offset: offset.parse().ok()? })
            })?
        });
        assert_eq!(text.parse().ok(), expected, "{text}");
        if let Some(position) = expected {
            assert_eq!(position.to_string().parse(), Ok(position));
        }
    });
}

#[test]
fn an_event_id_keeps_to_its_characters() {
    for_seeds(0..5_000, |dice| {
        let len = dice.pick(&[1, 2, 10, 127, 128]);
        let mut text = (0..len).map(|_| dice.pick(b"aZ09._~:-")).collect();
        dice.damage(&mut text, b"aZ09._~:-/%? \xc3");
        let Ok(text) = String::from_utf8(text) else { return };
        let is_sound = (1..=128).contains(&text.len())
            && !matches!(text.as_str(), "." | "..")
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._~:-".contains(c));
        match text.parse::<EventId>() {
            Ok(event) => assert!(is_sound && event.as_str() == text, "{text}"),
            Err(_) => assert!(!is_sound, "{text}"),
        }
    });
}
