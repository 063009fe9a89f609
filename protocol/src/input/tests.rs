use super::*;

const EVENTS: [InputEvent; 9] = [
    InputEvent::Key {
        key: Key::ENTER,
        down: true,
    },
    InputEvent::Key {
        key: Key(0xE7),
        down: false,
    },
    InputEvent::Motion { dx: -1, dy: i16::MAX },
    InputEvent::Position { x: 32767, y: 1 },
    InputEvent::Wheel { notches: -3 },
    InputEvent::Button {
        button: Button::Forward,
        down: true,
    },
    InputEvent::Button {
        button: Button::Left,
        down: false,
    },
    InputEvent::ReleaseAll,
    InputEvent::Key {
        key: Key(0),
        down: true,
    },
];

#[test]
fn s3_54_every_event_survives_its_record_with_its_time() {
    for event in EVENTS {
        assert_eq!(
            InputEvent::from_record(event.to_record(77).as_bytes()),
            Ok((event, Some(77)))
        );
        assert_eq!(
            InputEvent::from_record(event.to_record(0).as_bytes()),
            Ok((event, None))
        );
    }
}

#[test]
fn s3_54_the_record_has_the_magic_and_the_version_of_the_contract() {
    let record = InputEvent::Key {
        key: Key::ESCAPE,
        down: true,
    }
    .to_record(0x0102_0304);
    assert_eq!(
        record.as_bytes(),
        b"HIDR\x01\0\0\x01\x04\x03\x02\x01\x02\0\0\0\x29\x01"
    );
}

#[test]
fn s3_54_records_cut_short_anywhere_are_refused() {
    for event in EVENTS {
        let record = event.to_record(1);
        for len in 0..record.as_bytes().len() {
            assert_eq!(
                InputEvent::from_record(&record.as_bytes()[..len]),
                Err(RecordError::Short(len)),
                "{event:?} cut to {len}"
            );
        }
    }
}

#[test]
fn a_record_with_any_one_header_byte_changed_is_refused_or_another_event() {
    for event in EVENTS {
        let record = event.to_record(0);
        for at in (0..8).chain(12..16) {
            let mut bytes = record.as_bytes().to_vec();
            bytes[at] ^= 0x55;
            assert_ne!(
                InputEvent::from_record(&bytes).map(|(event, _)| event),
                Ok(event),
                "byte {at}"
            );
        }
    }
}

#[test]
fn a_button_or_state_that_does_not_exist_is_refused() {
    let mut bytes = InputEvent::Button {
        button: Button::Left,
        down: true,
    }
    .to_record(0)
    .as_bytes()
    .to_vec();
    bytes[16] = 5;
    assert!(matches!(
        InputEvent::from_record(&bytes),
        Err(RecordError::Unknown { .. })
    ));
    bytes[16] = 0;
    bytes[17] = 2;
    assert!(matches!(
        InputEvent::from_record(&bytes),
        Err(RecordError::Unknown { .. })
    ));
}

#[test]
fn printable_ascii_is_typed_with_as_many_strokes_and_no_stroke_twice() {
    let text: String = (' '..='~').collect();
    let strokes = strokes_of(&text).expect("a US keyboard types ASCII");
    assert_eq!(strokes.len(), 95);
    for (index, stroke) in strokes.iter().enumerate() {
        assert!(!strokes[..index].contains(stroke), "stroke {index}");
    }
}

#[test]
fn shift_is_held_around_the_key() {
    let stroke = strokes_of("A").expect("typable")[0];
    let key = Key(0x04);
    let expected = [
        (Key::LEFT_SHIFT, true),
        (key, true),
        (key, false),
        (Key::LEFT_SHIFT, false),
    ]
    .map(|(key, down)| InputEvent::Key { key, down });
    assert_eq!(stroke.events().collect::<Vec<_>>(), expected);
}

#[test]
fn the_symbols_above_the_digits_are_those_of_a_us_keyboard() {
    let stroke = |text: &str| strokes_of(text).expect("typable")[0];
    for (symbol, digit) in [("!", "1"), ("@", "2"), ("(", "9"), (")", "0"), ("^", "6")] {
        assert_eq!(
            stroke(symbol),
            KeyStroke {
                shift: true,
                ..stroke(digit)
            }
        );
    }
    assert_eq!(
        stroke("_"),
        KeyStroke {
            shift: true,
            ..stroke("-")
        }
    );
}

#[test]
fn a_character_that_has_no_key_is_named_and_nothing_is_typed() {
    assert_eq!(
        strokes_of("caf\u{E9}"),
        Err(Untypable {
            character: '\u{E9}',
            position: 3
        })
    );
}

#[test]
fn chords_are_parsed_with_either_separator_and_the_longer_name_wins() {
    let keys = |text: &str| parse_chord(text).expect("a chord").keys().to_vec();
    assert_eq!(
        keys("ctrl-alt-delete"),
        [Key::LEFT_CTRL, Key::LEFT_ALT, Key::DELETE]
    );
    assert_eq!(keys("Ctrl+C"), [Key::LEFT_CTRL, Key(0x06)]);
    assert_eq!(keys("shift-page-up"), [Key::LEFT_SHIFT, Key::PAGE_UP]);
    assert_eq!(keys("alt-right"), [Key::RIGHT_ALT]);
    assert_eq!(keys("alt+right"), [Key::LEFT_ALT, Key::RIGHT]);
    assert_eq!(keys("7"), [Key(0x24)]);
    assert_eq!(parse_chord("ctrl-frob"), Err(ChordError("frob".to_owned())));
    assert_eq!(parse_chord(""), Err(ChordError(String::new())));
}

#[test]
fn a_chord_lets_its_keys_go_in_the_opposite_order() {
    let chord = parse_chord("ctrl-c").expect("a chord");
    let events: Vec<_> = chord.events().collect();
    assert_eq!(
        events[1],
        InputEvent::Key {
            key: Key(0x06),
            down: true
        }
    );
    assert_eq!(
        events[2],
        InputEvent::Key {
            key: Key(0x06),
            down: false
        }
    );
    assert_eq!(
        events[3],
        InputEvent::Key {
            key: Key::LEFT_CTRL,
            down: false
        }
    );
}

#[test]
fn key_names_are_unique() {
    for (index, (name, _)) in Key::NAMES.iter().enumerate() {
        assert_eq!(
            Key::NAMES.iter().position(|(other, _)| other == name),
            Some(index)
        );
    }
}
