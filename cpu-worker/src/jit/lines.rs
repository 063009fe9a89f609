//! Which line of the profile stands for what translated code hands to handlers: one for each encoding that always goes to
//! its handler, one for each whose access missed the TLB or whose operands were not for translated code.

use std::collections::HashMap;

use iced_x86::Code;
use quintet_protocol::profile::{Activity, LINES, ProfileWriter};

/// The lines given out so far. They stay for the life of the process, so that counts of one encoding stay together.
#[derive(Debug, Default)]
pub(super) struct Lines {
    writer: ProfileWriter,
    given: HashMap<(Code, bool), u16>,
}

impl Lines {
    /// Lines in the profile that `writer` writes.
    pub fn new(writer: ProfileWriter) -> Self {
        Self {
            writer,
            given: HashMap::new(),
        }
    }

    /// The line of `code`, handed to its handler always or, with `missed`, only now and then.
    pub fn line(&mut self, code: Code, missed: bool) -> u16 {
        let next = Activity::Other.line() + 1 + self.given.len() as u16;
        if let Some(line) = self.given.get(&(code, missed)) {
            return *line;
        }
        if usize::from(next) >= LINES {
            return Activity::Other.line();
        }
        self.given.insert((code, missed), next);
        let what = if missed { "missed: " } else { "handler: " };
        self.writer.set_name(next, &format!("{what}{code:?}"));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_keeps_its_two_lines_and_the_rest_shares_one() {
        let mut lines = Lines::default();
        let first = lines.line(Code::Rdmsr, false);
        assert_ne!(first, lines.line(Code::Rdmsr, true));
        assert_eq!(first, lines.line(Code::Rdmsr, false));
        let last = Code::values().map(|code| lines.line(code, true)).last();
        assert_eq!(last, Some(Activity::Other.line()));
        assert!(lines.given.len() + usize::from(Activity::Other.line()) < LINES);
    }
}
