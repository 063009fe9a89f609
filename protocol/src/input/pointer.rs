//! What `quintet mouse` can be told, as events.

use super::{Button, InputEvent};

/// Words that are no action of a pointer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "A mouse cannot {0:?}; it can: move DX DY, to X Y (0 to 1 each), click, down or up [left|right|middle|back|forward], wheel N"
)]
pub struct PointerError(pub String);

const BUTTONS: [(&str, Button); 5] = [
    ("left", Button::Left),
    ("right", Button::Right),
    ("middle", Button::Middle),
    ("back", Button::Back),
    ("forward", Button::Forward),
];

/// Parses an action: `move DX DY` (mickeys, downwards), `to X Y` (parts of the screen, 0–1), `click`, `down`, `up` with a
/// button (left without one), `wheel N` (notches, positive is away from the user).
///
/// # Errors
/// [`PointerError`] with the words.
pub fn parse_pointer(action: &str) -> Result<Vec<InputEvent>, PointerError> {
    let error = || PointerError(action.to_owned());
    let words: Vec<&str> = action.split_whitespace().collect();
    let button = |name: Option<&&str>| match name {
        None => Some(Button::Left),
        Some(name) => BUTTONS
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|&(_, button)| button),
    };
    let press = |down| move |button| InputEvent::Button { button, down };
    let events = match *words.as_slice() {
        ["move", dx, dy] => match (dx.parse(), dy.parse()) {
            (Ok(dx), Ok(dy)) => Some(vec![InputEvent::Motion { dx, dy }]),
            _ => None,
        },
        ["to", x, y] => match (x.parse::<f64>(), y.parse::<f64>()) {
            (Ok(x), Ok(y)) if (0.0..=1.0).contains(&x) && (0.0..=1.0).contains(&y) => {
                let part = |v: f64| (v * 32767.0).round() as u16;
                Some(vec![InputEvent::Position {
                    x: part(x),
                    y: part(y),
                }])
            }
            _ => None,
        },
        ["wheel", notches] => notches
            .parse()
            .ok()
            .map(|notches| vec![InputEvent::Wheel { notches }]),
        ["click", ref name @ ..] if name.len() <= 1 => {
            button(name.first()).map(|b| vec![press(true)(b), press(false)(b)])
        }
        ["down", ref name @ ..] if name.len() <= 1 => button(name.first()).map(|b| vec![press(true)(b)]),
        ["up", ref name @ ..] if name.len() <= 1 => button(name.first()).map(|b| vec![press(false)(b)]),
        _ => None,
    };
    events.ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_become_events() {
        let button = |button, down| InputEvent::Button { button, down };
        let cases = [
            ("move 3 -4", vec![InputEvent::Motion { dx: 3, dy: -4 }]),
            ("to 0 1", vec![InputEvent::Position { x: 0, y: 32767 }]),
            (
                "click",
                vec![button(Button::Left, true), button(Button::Left, false)],
            ),
            ("down back", vec![button(Button::Back, true)]),
            ("up Middle", vec![button(Button::Middle, false)]),
            ("wheel -2", vec![InputEvent::Wheel { notches: -2 }]),
        ];
        for (action, events) in cases {
            assert_eq!(parse_pointer(action), Ok(events), "{action}");
        }
    }

    #[test]
    fn what_is_no_action_is_named() {
        for action in [
            "",
            "move 1",
            "move 1 x",
            "to 2 0",
            "to 0.5",
            "click nose",
            "wheel 200",
            "jump",
        ] {
            assert_eq!(parse_pointer(action), Err(PointerError(action.to_owned())));
        }
    }
}
