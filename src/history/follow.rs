//! A run's events while it goes on.

use std::fs::File;
use std::io::{BufRead, BufReader};

use super::{Entry, Error, Part, State};

/// Reads what is there and then what comes. It asks the file: the writer may be any process.
#[derive(Debug)]
pub struct Follow {
    entry: Entry,
    file: Option<BufReader<File>>,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
    /// Set before the last look at the file, so that nothing written before the end is missed.
    over: Option<State>,
}

/// What there is for who follows.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Line(String),
    /// Nothing yet; ask again in a while.
    Wait,
    /// The run is over, and so are its events.
    Over(State),
}

impl Follow {
    pub fn new(entry: Entry) -> Self {
        Self { entry, file: None, partial: Vec::new(), over: None }
    }

    pub fn look(&mut self) -> Result<Next, Error> {
        loop {
            if self.file.is_none() {
                self.file = self.entry.open(Part::Events)?;
            }
            if let Some(file) = &mut self.file {
                file.read_until(b'\n', &mut self.partial)
                    .map_err(|error| self.entry.trouble(error))?;
                if self.partial.pop_if(|byte| *byte == b'\n').is_some() {
                    let line = String::from_utf8_lossy(&self.partial).into_owned();
                    self.partial.clear();
                    return Ok(Next::Line(line));
                }
            }
            match (self.over, self.entry.state()) {
                // What has no end of line was cut when the writer died.
                (Some(state), _) => return Ok(Next::Over(state)),
                (None, State::Running) => return Ok(Next::Wait),
                (None, state) => self.over = Some(state),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::Record;
    use super::*;
    use crate::ids::RunId;

    #[test]
    fn lines_come_whole_as_they_are_written_and_end_with_the_run() {
        let state = tempfile::tempdir().expect("temp dir");
        let id = RunId::new();
        let mut record = Record::create(state.path(), &id).expect("record");
        let entry = Entry::of(state.path(), &id).expect("an entry");
        let mut follow = Follow::new(entry);
        let mut next = || follow.look().expect("readable");
        assert_eq!(next(), Next::Wait);
        record.event(&1);
        record.event(&2);
        assert_eq!(next(), Next::Line("1".into()));
        assert_eq!(next(), Next::Line("2".into()));
        assert_eq!(next(), Next::Wait);
        let mut raw = File::options().append(true).open(record.transcript()).expect("open");
        raw.write_all(b"{\"ha").expect("written");
        assert_eq!(next(), Next::Wait);
        raw.write_all(b"lf\":1}\n{\"cut").expect("written");
        assert_eq!(next(), Next::Line("{\"half\":1}".into()));
        record.finish(&0).expect("finished");
        assert_eq!(next(), Next::Over(State::Ended));
        assert_eq!(next(), Next::Over(State::Ended));
    }
}
