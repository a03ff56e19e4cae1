//! Questions to the person at the host, and what counts as an answer: nothing but an explicit yes is
//! one.
//!
//! Where a call is answered with a question, what was asked stays here, under a name that nobody can
//! guess and that is good for one answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rmcp::model::{
    BooleanSchema, CallToolRequestParams, ElicitRequest, ElicitRequestParams, ElicitResult,
    ElicitationAction, ElicitationSchema, ErrorData, InputRequest, InputRequiredResult,
    InputResponses, PrimitiveSchemaDefinition,
};
use serde_json::Value;
use tokio::time::Instant;

use crate::text;

/// The one thing that is asked.
const ALLOW: &str = "allow";

/// How many questions may be open at once, and how long.
const OPEN: usize = 64;
const OPEN_FOR: Duration = Duration::from_secs(600);

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Yes,
    /// The person sent the form without the yes.
    No,
    /// The question was declined or closed. Some hosts do so by themselves, so that it is no word of
    /// a person's.
    Nothing,
    /// Nobody answered in time.
    TooLate,
    /// The host did not ask, or did not say what the person said.
    NotAsked(String),
    /// The connection broke on which the host would have shown the question.
    Lost,
    /// Nobody waits for it any more.
    Withdrawn,
}

impl Said {
    /// A stable word for programs, and a message; none for a yes.
    pub fn told(&self) -> Option<(&'static str, String)> {
        Some(match self {
            Self::Yes => return None,
            Self::No => ("declined", "the person said no".to_owned()),
            Self::Nothing => {
                ("not_answered", "the question was closed or declined without an answer".to_owned())
            }
            Self::TooLate => ("not_answered", "the person did not answer in time".to_owned()),
            Self::NotAsked(why) => ("not_asked", format!("no person could be asked: {why}")),
            Self::Lost => {
                ("not_answered", "the connection broke before the person answered".to_owned())
            }
            Self::Withdrawn => ("cancelled", "the call was cancelled".to_owned()),
        })
    }
}

pub(super) fn form(question: &str) -> ElicitRequestParams {
    let allow = BooleanSchema::new()
        .title("Allow")
        .description("Whether these files may be changed")
        .with_default(false);
    let mut requested_schema = ElicitationSchema::new(
        std::iter::once((ALLOW.to_owned(), PrimitiveSchemaDefinition::Boolean(allow))).collect(),
    );
    requested_schema.required = Some(vec![ALLOW.to_owned()]);
    ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: question.to_owned(),
        requested_schema,
    }
}

/// To accept the form is not yet a yes: some hosts send it off as it was given to them.
pub(super) fn said(answer: &ElicitResult) -> Said {
    match answer.action {
        ElicitationAction::Accept => {
            match answer.content.as_ref().and_then(|content| content.get(ALLOW)) {
                Some(Value::Bool(true)) => Said::Yes,
                Some(Value::Bool(false)) => Said::No,
                _ => Said::NotAsked(format!("the host's answer has no `{ALLOW}`, true or false")),
            }
        }
        ElicitationAction::Decline | ElicitationAction::Cancel => Said::Nothing,
        _ => Said::NotAsked("the host's answer is of a kind that is not known".to_owned()),
    }
}

/// The questions of a session that were given out as answers. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Questions<T>(Arc<Mutex<Vec<Open<T>>>>);

impl<T> Default for Questions<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

#[derive(Debug)]
struct Open<T> {
    name: String,
    until: Instant,
    about: T,
}

impl<T> Questions<T> {
    /// The answer to a call that asks; `about` is what a yes will be for.
    pub fn put(&self, question: &str, about: T) -> Result<InputRequiredResult, ErrorData> {
        let mut bytes = [0_u8; 16];
        let flags = rustix::rand::GetRandomFlags::empty();
        // Sixteen bytes are never handed out in part.
        rustix::rand::getrandom(&mut bytes, flags).map_err(|errno| {
            ErrorData::internal_error(format!("failed to name a question: {errno}"), None)
        })?;
        let name = text::hex(&bytes);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        open.retain(|one| one.until > now);
        if open.len() >= OPEN {
            open.remove(0);
        }
        open.push(Open { name: name.clone(), until: now + OPEN_FOR, about });
        let asked = InputRequest::Elicitation(ElicitRequest::new(form(question)));
        let requests = std::iter::once((ALLOW.to_owned(), asked)).collect();
        Ok(InputRequiredResult::new(Some(requests), Some(name)))
    }

    /// What a question was about. It is over with this, whatever the answer.
    fn take(&self, name: &str) -> Option<T> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = open.iter().position(|one| one.name == name)?;
        let found = open.remove(at);
        (found.until > Instant::now()).then_some(found.about)
    }
}

/// What a host says in a second call, after a question was the answer to its first.
#[derive(Clone, Debug)]
pub(super) struct Retry {
    question: String,
    responses: InputResponses,
}

impl Retry {
    /// Takes it out of a request.
    pub fn of(request: &mut CallToolRequestParams) -> Option<Self> {
        let question = request.request_state.take()?;
        Some(Self { question, responses: request.input_responses.take().unwrap_or_default() })
    }

    /// What was asked and what was said; nothing where no such question is open (any more).
    pub fn answer<T>(self, questions: &Questions<T>) -> Option<(T, Said)> {
        let about = questions.take(&self.question)?;
        let answer = self.responses.get(ALLOW).cloned();
        let answer = answer.map(serde_json::from_value::<ElicitResult>);
        let said = match answer {
            Some(Ok(answer)) => said(&answer),
            Some(Err(_)) => Said::NotAsked("the host's answer has not the shape of one".to_owned()),
            None => Said::NotAsked("the host called again without an answer".to_owned()),
        };
        Some((about, said))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(answer: Value) -> Said {
        said(&serde_json::from_value(answer).expect("an answer"))
    }

    #[test]
    fn only_a_yes_is_one() {
        assert_eq!(of(json!({"action": "accept", "content": {"allow": true}})), Said::Yes);
        for (answer, kind) in [
            (json!({"action": "accept", "content": {"allow": false}}), "declined"),
            (json!({"action": "decline", "content": {"allow": true}}), "not_answered"),
            (json!({"action": "decline", "content": {"allow": false}}), "not_answered"),
            (json!({"action": "cancel", "content": {"allow": true}}), "not_answered"),
            (json!({"action": "accept"}), "not_asked"),
            (json!({"action": "accept", "content": {}}), "not_asked"),
            (json!({"action": "accept", "content": {"allow": "true"}}), "not_asked"),
            (json!({"action": "accept", "content": [true]}), "not_asked"),
        ] {
            let told = of(answer.clone()).told();
            assert_eq!(told.map(|(kind, _)| kind), Some(kind), "{answer}");
        }
    }

    fn retry(question: &str, responses: Value) -> Retry {
        let responses = serde_json::from_value(responses).expect("responses");
        Retry { question: question.to_owned(), responses }
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_is_answered_once_and_in_time() {
        let questions = Questions::default();
        let yes = json!({"allow": {"action": "accept", "content": {"allow": true}}});
        let name = |about: u32| {
            let asked = questions.put("?", about).expect("asked");
            asked.request_state.expect("a name")
        };
        let first = name(1);
        assert_eq!(retry(&first, yes.clone()).answer(&questions), Some((1, Said::Yes)));
        assert_eq!(retry(&first, yes.clone()).answer(&questions), None, "once");
        assert_eq!(retry("guessed", yes.clone()).answer(&questions), None);
        for odd in [json!({}), json!({"other": {"action": "accept"}}), json!({"allow": "accept"})] {
            let (_, said) = retry(&name(2), odd).answer(&questions).expect("asked");
            assert!(matches!(said, Said::NotAsked(_)), "{said:?}");
        }
        let late = name(3);
        tokio::time::advance(OPEN_FOR).await;
        assert_eq!(retry(&late, yes.clone()).answer(&questions), None, "too late");
        let names: Vec<_> = (0..100).map(name).collect();
        assert_eq!(retry(&names[0], yes.clone()).answer(&questions), None, "too many");
        assert_eq!(retry(&names[99], yes).answer(&questions), Some((99, Said::Yes)));
    }
}
