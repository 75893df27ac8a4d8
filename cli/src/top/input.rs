//! What keys do.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::state::State;
use super::view::View;

/// Rows that the page keys move.
const PAGE: isize = 15;

/// What comes of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    Stay,
    Leave,
}

/// Does what a key says.
pub(super) fn on_key(key: KeyEvent, state: &mut State) -> Wish {
    if key.kind == KeyEventKind::Release {
        return Wish::Stay;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return if key.code == KeyCode::Char('c') { Wish::Leave } else { Wish::Stay };
    }
    if std::mem::take(&mut state.shows_keys) {
        return Wish::Stay;
    }
    match key.code {
        KeyCode::Char('?' | 'h' | 'H') => state.shows_keys = true,
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => return Wish::Leave,
        KeyCode::Tab | KeyCode::Right => state.look_at(state.view.turned(1)),
        KeyCode::BackTab | KeyCode::Left => state.look_at(state.view.turned(View::ALL.len() - 1)),
        KeyCode::Char(digit @ '1'..='4') => {
            let at = digit as usize - '1' as usize;
            state.look_at(View::ALL[at]);
        }
        KeyCode::Char('s' | 'S') => state.turn_order(),
        KeyCode::Down | KeyCode::Char('j') => state.scroll(1),
        KeyCode::Up | KeyCode::Char('k') => state.scroll(-1),
        KeyCode::PageDown => state.scroll(PAGE),
        KeyCode::PageUp => state.scroll(-PAGE),
        KeyCode::Home => state.scroll(isize::MIN),
        KeyCode::End => state.scroll(isize::MAX),
        _ => {}
    }
    Wish::Stay
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressed(state: &mut State, code: KeyCode) -> Wish {
        on_key(KeyEvent::new(code, KeyModifiers::NONE), state)
    }

    #[test]
    fn tab_goes_around_and_digits_go_there() {
        let mut state = State::new(String::new(), false);
        pressed(&mut state, KeyCode::BackTab);
        assert_eq!(state.view, View::Peers);
        pressed(&mut state, KeyCode::Tab);
        assert_eq!(state.view, View::Overview);
        pressed(&mut state, KeyCode::Char('3'));
        assert_eq!(state.view, View::Subscriptions);
    }

    #[test]
    fn any_key_closes_the_list_of_keys_and_does_nothing_else() {
        let mut state = State::new(String::new(), false);
        for (open, close) in
            [('?', KeyCode::Char('q')), ('h', KeyCode::Tab), ('?', KeyCode::Char('?'))]
        {
            pressed(&mut state, KeyCode::Char(open));
            assert!(state.shows_keys);
            assert_eq!(pressed(&mut state, close), Wish::Stay);
            assert_eq!((state.shows_keys, state.view), (false, View::Overview));
        }
        pressed(&mut state, KeyCode::Char('?'));
        let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(on_key(ctrl_c, &mut state), Wish::Leave);
    }

    #[test]
    fn q_and_ctrl_c_leave() {
        let mut state = State::new(String::new(), false);
        assert_eq!(pressed(&mut state, KeyCode::Char('q')), Wish::Leave);
        let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(on_key(ctrl_c, &mut state), Wish::Leave);
        assert_eq!(pressed(&mut state, KeyCode::Char('c')), Wish::Stay);
    }
}
