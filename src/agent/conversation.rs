//! What an agent's events add up to: the answer, the tools it used, how it ended.

use super::AgentEvent;

/// How often one tool was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCount {
    pub name: String,
    pub calls: u64,
    pub errors: u64,
}

/// How the agent's last step ended, by its own account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// No step has ended.
    Nothing,
    /// The model ended its answer by itself.
    Stop,
    /// The answer was cut at the output limit.
    Length,
    /// It ended in the middle of work, or for a reason that says nothing.
    Other(String),
}

/// Tools that are told apart; more names than this come from a model that makes them up.
const MOST_TOOLS: usize = 64;

/// Most bytes of one answer that are kept; the transcript has the rest.
const MOST_ANSWER: usize = 4 << 20;

/// The sum of the events so far.
#[derive(Debug, Default)]
pub struct Conversation {
    steps: u64,
    tools: Vec<ToolCount>,
    /// The texts of the step that is going on, or was the last to end.
    texts: Vec<String>,
    texts_len: usize,
    step_open: bool,
    last_reason: Option<String>,
    error: Option<(String, String)>,
    same_ending: u32,
}

impl Conversation {
    pub fn take(&mut self, event: &AgentEvent) {
        match event {
            AgentEvent::StepStarted => {
                self.texts.clear();
                self.texts_len = 0;
                self.step_open = true;
            }
            AgentEvent::Text { text } => {
                if !self.step_open {
                    self.texts.clear();
                    self.texts_len = 0;
                    self.step_open = true;
                }
                let room = MOST_ANSWER.saturating_sub(self.texts_len);
                let text = crate::text::prefix(text, room);
                self.texts_len += text.len();
                self.texts.push(text.to_owned());
            }
            AgentEvent::StepFinished { reason } => {
                self.steps += 1;
                self.step_open = false;
                self.same_ending = if reason == "unknown" { self.same_ending + 1 } else { 0 };
                self.last_reason = Some(reason.clone());
            }
            AgentEvent::Tool { name, ok, .. } => self.count(name, *ok),
            AgentEvent::Error { name, message, .. } => {
                self.error = Some((name.clone(), message.clone()));
            }
        }
    }

    /// From here on another part of the same work is told: its ending is its own, the sums go on.
    pub fn resume(&mut self) {
        // What was said is kept until something else is.
        self.step_open = false;
        self.last_reason = None;
        self.error = None;
        self.same_ending = 0;
    }

    /// The words of the last step without what the model thought aloud, whole when it ended by
    /// [`Ending::Stop`].
    pub fn answer(&self) -> String {
        let texts = self.texts.iter().map(|text| crate::text::without_thoughts(text));
        texts.collect::<String>().trim().to_owned()
    }

    pub fn ending(&self) -> Ending {
        // A step that began and never ended says that the last one was not the end.
        if self.step_open && self.last_reason.is_some() {
            return Ending::Other("unfinished step".into());
        }
        match self.last_reason.as_deref() {
            None => Ending::Nothing,
            Some("stop" | "end_turn") => Ending::Stop,
            Some("length" | "max_tokens") => Ending::Length,
            Some(other) => Ending::Other(other.to_owned()),
        }
    }

    /// The last error that the agent told of: its name and message.
    pub fn error(&self) -> Option<(&str, &str)> {
        self.error.as_ref().map(|(name, message)| (name.as_str(), message.as_str()))
    }

    /// Tools that have ended, well or not.
    pub fn tool_calls(&self) -> u64 {
        self.tools.iter().map(|tool| tool.calls).sum()
    }

    pub fn steps(&self) -> u64 {
        self.steps
    }

    pub fn tools(&self) -> &[ToolCount] {
        &self.tools
    }

    /// Steps in a row that ended for no reason: the sign of a stream that is cut again and again.
    pub fn endless(&self) -> bool {
        self.same_ending >= 3
    }

    fn count(&mut self, name: &str, ok: bool) {
        let at = self.tools.iter().position(|tool| tool.name == name).unwrap_or_else(|| {
            if self.tools.len() == MOST_TOOLS {
                return MOST_TOOLS - 1;
            }
            self.tools.push(ToolCount { name: name.to_owned(), calls: 0, errors: 0 });
            self.tools.len() - 1
        });
        self.tools[at].calls += 1;
        self.tools[at].errors += u64::from(!ok);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(events: &[AgentEvent]) -> Conversation {
        let mut conversation = Conversation::default();
        for event in events {
            conversation.take(event);
        }
        conversation
    }

    fn text(text: &str) -> AgentEvent {
        AgentEvent::Text { text: text.into() }
    }

    fn finish(reason: &str) -> AgentEvent {
        AgentEvent::StepFinished { reason: reason.into() }
    }

    fn tool(name: &str, ok: bool) -> AgentEvent {
        AgentEvent::Tool { name: name.into(), title: String::new(), ok, exit: None, error: None }
    }

    #[test]
    fn the_answer_is_the_last_steps_text() {
        let conversation = talk(&[
            AgentEvent::StepStarted,
            text("I will look."),
            tool("bash", true),
            tool("bash", false),
            finish("tool-calls"),
            AgentEvent::StepStarted,
            text("All "),
            text("done."),
            finish("stop"),
        ]);
        assert_eq!(conversation.answer(), "All done.");
        assert_eq!(conversation.ending(), Ending::Stop);
        assert_eq!(conversation.steps(), 2);
        assert_eq!(conversation.tools(), [ToolCount { name: "bash".into(), calls: 2, errors: 1 }]);
    }

    #[test]
    fn a_cut_answer_is_not_an_end() {
        assert_eq!(talk(&[AgentEvent::StepStarted, text("Half")]).ending(), Ending::Nothing);
        let cut = talk(&[AgentEvent::StepStarted, text("Long"), finish("length")]);
        assert_eq!(cut.ending(), Ending::Length);
        let open = talk(&[AgentEvent::StepStarted, finish("stop"), AgentEvent::StepStarted]);
        assert_eq!(open.ending(), Ending::Other("unfinished step".into()));
    }

    #[test]
    fn three_endings_without_reason_in_a_row_are_endless() {
        let unknown = finish("unknown");
        let again = [unknown.clone(), unknown.clone(), unknown.clone()];
        assert!(talk(&again).endless());
        assert!(
            !talk(&[unknown.clone(), finish("tool-calls"), unknown.clone(), unknown]).endless()
        );
    }

    #[test]
    fn the_ending_and_the_answer_are_those_of_the_last_part() {
        let mut cut = talk(&[
            AgentEvent::StepStarted,
            text("Half"),
            tool("bash", true),
            AgentEvent::Error { name: "e".into(), message: "m".into(), status: None },
            finish("length"),
        ]);
        cut.resume();
        assert_eq!((cut.ending(), cut.error()), (Ending::Nothing, None));
        for event in [AgentEvent::StepStarted, text("The rest."), finish("stop")] {
            cut.take(&event);
        }
        assert_eq!((cut.ending(), cut.answer().as_str()), (Ending::Stop, "The rest."));
        assert_eq!((cut.steps(), cut.tools().len()), (2, 1));
    }

    #[test]
    fn made_up_tool_names_do_not_grow_without_end() {
        let mut conversation = Conversation::default();
        for number in 0..1000 {
            conversation.take(&tool(&format!("made-up-{number}"), false));
        }
        assert_eq!(conversation.tools().len(), MOST_TOOLS);
        assert_eq!(conversation.tools().iter().map(|tool| tool.calls).sum::<u64>(), 1000);
    }
}
