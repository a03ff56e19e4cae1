//! Carry the changes of a run over into its workspace.
//!
//! What tools on the host execute or trust is changed only when a person says so: a model's own yes
//! counts for nothing, because what the model has read may have told it to say yes.

use std::time::Duration;

use futures_util::FutureExt;
use rmcp::RoleServer;
use rmcp::model::{CallToolResponse, CallToolResult, ErrorData, JsonObject, Tool};
use rmcp::service::RequestContext;
use serde_json::json;

use super::arguments::Reader;
use super::changes::{self, Error};
use super::entry::Entry;
use crate::mcp::asked::{About, Wanted};
use crate::mcp::elicit::{self, Way};
use crate::mcp::questions::{Retry, Said};
use crate::mcp::session::Session;
use crate::runner::{Applied, ApplyOptions, OutcomeError};
use crate::text::{one_line, visible};
use crate::workspace::changeset::{Agreed, ApplyError, NeedsYes, Node};

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    describe: |_| tool(),
    call: |session, arguments, context| call(session, arguments, context).map(Some).boxed(),
    refuse: changes::refused,
    example: r#"{"run_id": "…"}"#,
};

const NAME: &str = "apply_changes";
const DESCRIPTION: &str = "\
Copies a run's changes so far into the workspace, all or none. `only` picks paths. `partial` \
leaves out what conflicts or host tools trust (else the user is asked).";
const ARGUMENTS: &[&str] = &["run_id", "only", "partial", "dry_run"];

/// A host waits for the answer, and so for no other run for long.
const WAIT: Duration = Duration::from_secs(10);

/// What a question may hold: who cannot read all of it cannot say yes to all of it.
const MOST: usize = 20;
const LONGEST: usize = 4000;

const NO_PERSON: &str = "nothing was changed, and the user is not asked here: tell them that they \
    can look at these paths and run `sandbox-mcp apply RUN --allow-protected`; or leave them out \
    by naming others in `only`";

const NO_ANSWER: &str = "nothing was changed, and nobody said no: some hosts close questions by \
    themselves; tell the user what `next` says, or ask again when they are there";

const ENOUGH: &str = "nothing was changed; leave these paths out by naming others in `only`, and leave \
    the rest to the user";

fn tool() -> Tool {
    changes::tool(
        NAME,
        DESCRIPTION,
        json!({
            "only": { "type": "array", "items": { "type": "string" } },
            "partial": { "type": "boolean" },
            "dry_run": { "type": "boolean" },
        }),
    )
}

async fn call(
    session: Session,
    arguments: JsonObject,
    context: RequestContext<RoleServer>,
) -> CallToolResponse {
    let mut reader = Reader::new(arguments, ARGUMENTS);
    let wanted = Wanted {
        // One run has one name here, or a no could be walked around.
        run: reader.required_text("run_id").trim().to_owned(),
        only: reader.texts("only"),
        partial: reader.flag("partial").unwrap_or(false),
        dry_run: reader.flag("dry_run").unwrap_or(false),
    };
    if let Err(error) = reader.finish() {
        return changes::refused(&error.to_string()).into();
    }
    if let Some(retry) = context.extensions.get::<Retry>() {
        return match retry.clone().answer(&session.questions) {
            Some((about, said)) if about.wanted == wanted => {
                heard(&session, &context, &wanted, about.needs, &said).await.into()
            }
            _ => changes::refused(
                "this is the answer to no open question: it was answered, is too old, or was about \
                 something else; call again without it",
            )
            .into(),
        };
    }
    let done = apply(&session, &context, &wanted, Agreed::Nothing).await;
    let needs = match &done {
        Err(Error::Outcome(OutcomeError::Apply(ApplyError::Protected(needs))))
            if !wanted.dry_run =>
        {
            needs.clone()
        }
        _ => return answer(done).into(),
    };
    let Some(way) = elicit::way(&context) else {
        let next = by_hand(&wanted.run);
        return changes::protected(&needs, ("protected", None), NO_PERSON, Some(next)).into();
    };
    let Some(question) = question(&wanted.run, &needs) else {
        let hint = "nothing was changed; these are more than one question can show: ask for fewer by \
                    naming them in `only`";
        let next = by_hand(&wanted.run);
        return changes::protected(&needs, ("protected", None), hint, Some(next)).into();
    };
    if let Err(why) = session.asked.note(&wanted.run, &needs) {
        return changes::protected(&needs, ("not_asked", Some(why)), ENOUGH, None).into();
    }
    match way {
        Way::Request => {
            let said = elicit::ask(&session, &context, &question).await;
            heard(&session, &context, &wanted, needs, &said).await.into()
        }
        Way::Answer => match session.questions.put(&question, About { wanted, needs }) {
            Ok(question) => question.into(),
            Err(ErrorData { message, .. }) => changes::refused(&message).into(),
        },
    }
}

/// Does what the person said.
async fn heard(
    session: &Session,
    context: &RequestContext<RoleServer>,
    wanted: &Wanted,
    needs: Vec<NeedsYes>,
    said: &Said,
) -> CallToolResult {
    if *said == Said::No {
        session.asked.refuse(&wanted.run, &needs);
    }
    if let Some(told) = said.told() {
        let (hint, next) = match said {
            Said::No => ("nothing was changed; do not ask for the same again", None),
            Said::NotAsked(_) => (NO_PERSON, Some(by_hand(&wanted.run))),
            _ => (NO_ANSWER, Some(by_hand(&wanted.run))),
        };
        return changes::protected(&needs, (told.0, Some(&told.1)), hint, next);
    }
    answer(apply(session, context, wanted, Agreed::These(needs)).await)
}

/// The commands for a user whom no question has reached.
fn by_hand(run: &str) -> String {
    let run = one_line(run, 40);
    format!(
        "Tell the user: `sandbox-mcp diff {run}` shows these changes, and \
         `sandbox-mcp apply {run} --allow-protected` carries them over."
    )
}

fn answer(done: Result<Applied, Error>) -> CallToolResult {
    changes::answer(done.map(|applied| changes::of_applied(&applied)))
}

async fn apply(
    session: &Session,
    context: &RequestContext<RoleServer>,
    wanted: &Wanted,
    agreed: Agreed,
) -> Result<Applied, Error> {
    let Wanted { run, only, partial, dry_run } = wanted.clone();
    let wait = Some(WAIT);
    let options = ApplyOptions { only, agreed, partial, dry_run, wait, ..ApplyOptions::default() };
    changes::work(session, context, &run, move |runner, entry| {
        runner.apply(entry, &options, |_| {})
    })
    .await
}

/// The question, which shows all that it is about; none where that would be too much.
fn question(run: &str, needs: &[NeedsYes]) -> Option<String> {
    use std::fmt::Write;
    let mut text = format!(
        "Run {} wants to change what editors, shells, git or other tools on this computer execute or \
         trust:\n",
        one_line(run, 40)
    );
    // Hosts show it as Markdown, and a backtick would let a name out of its code.
    let shown = |bytes: &[u8]| visible(&String::from_utf8_lossy(bytes)).0.replace('`', "ˋ");
    for need in needs {
        let path = shown(need.change.path.as_path().as_os_str().as_encoded_bytes());
        let to = match &need.change.after {
            Some(Node::Link { target }) => format!(", a link to `{}`", shown(&target.0)),
            _ => String::new(),
        };
        // Writing to a text cannot fail.
        let _ = writeln!(text, "- `{path}` ({}{to}): {}", need.change.word(), need.why);
    }
    let _ = write!(
        text,
        "An AI agent made these changes in a sandbox. Look at them first: sandbox-mcp diff {}\n\
         May they be copied into the workspace?",
        one_line(run, 40)
    );
    (needs.len() <= MOST && text.len() <= LONGEST).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::changeset::{Alteration, Escaped, RelPath};

    fn need(path: &str, after: Option<Node>) -> NeedsYes {
        let path = RelPath::new(path).expect("a path");
        NeedsYes {
            path: path.to_string(),
            why: "it is trusted",
            change: Alteration {
                path,
                before: None,
                after,
                from: None,
                base_moved: false,
                written: None,
            },
        }
    }

    #[test]
    fn a_question_shows_all_that_it_is_about_and_steers_nothing() {
        let link = Node::Link { target: Escaped(b"/etc/\x1b[31mpasswd".to_vec()) };
        let needs = [
            need("a\n- `ok` (added): fine", None),
            need("b\u{202e}c", None),
            need("l", Some(link)),
            need("x`![](y)`", Some(Node::Link { target: Escaped(b"`![](//evil)".to_vec()) })),
        ];
        let asked = question("20260131-235959-k3f9", &needs).expect("short enough");
        let lines: Vec<_> = asked.lines().collect();
        assert_eq!(lines.len(), 7, "{asked}");
        assert!(lines[1].starts_with("- `a␊- ˋokˋ (added): fine` ("), "{asked}");
        assert!(lines[2].starts_with("- `b\u{fffd}c` ("), "{asked}");
        assert_eq!(lines[3], "- `l` (added, a link to `/etc/␛[31mpasswd`): it is trusted");
        let hidden =
            "- `x\u{2cb}![](y)\u{2cb}` (added, a link to `\u{2cb}![](//evil)`): it is trusted";
        assert_eq!(lines[4], hidden, "no name leaves its code, where a host shows Markdown");
    }

    #[test]
    fn nobody_is_asked_about_what_they_are_not_shown() {
        let many: Vec<_> = (0..=MOST).map(|number| need(&format!("{number}"), None)).collect();
        assert!(question("r", &many[..MOST]).is_some());
        assert_eq!(question("r", &many), None);
        assert_eq!(question("r", &[need("x/".repeat(2000).trim_end_matches('/'), None)]), None);
    }
}
