//! `sandbox-mcp runs events RUN`: what has happened so far.

use std::io::Write;

use serde_json::Value;

use super::list::duration;
use crate::history::{Entry, Part};
use crate::runner::{Event, EventKind};
use crate::text::{clean, one_line};

/// Longest line that is shown of one event.
const WIDTH: usize = 240;

pub fn run(entry: &Entry, json: bool, out: &mut impl Write) -> anyhow::Result<u8> {
    let Some(file) = entry.open(Part::Events)? else { return Ok(0) };
    super::each_line(file, |line| print(line, json, out))?;
    Ok(0)
}

/// One line of the record, for people unless they ask for JSON.
pub fn print(line: &str, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    // What is no JSON was cut: by a crash, or because it is very long.
    let Ok(event) = serde_json::from_str::<Value>(line) else { return Ok(()) };
    if json {
        writeln!(out, "{}", clean(line))?;
    } else {
        let at = event["at_ms"].as_u64().map(duration).unwrap_or_default();
        writeln!(out, "{at:>12}  {}", one_line(&describe(event), WIDTH))?;
    }
    // A reader on a pipe is to see it when it happens.
    Ok(out.flush()?)
}

fn describe(event: Value) -> String {
    let kind = event["event"]["type"].as_str().unwrap_or("?").to_owned();
    // What another version calls otherwise is named and no more.
    let Ok(event) = serde_json::from_value::<Event>(event) else { return format!("({kind})") };
    match event.event {
        EventKind::Queued { ahead } => format!("waiting behind {ahead} runs"),
        EventKind::Phase { phase } => phase.label().to_owned(),
        EventKind::Notice { message } => message,
        EventKind::Step { number } => format!("step {number}"),
        EventKind::ToolStarted { name, title } => format!("→ {name} {title}"),
        EventKind::ToolFinished { name, title, ok, exit } => {
            let mark = if ok && exit.is_none_or(|exit| exit == 0) { "✓" } else { "✗" };
            let exit = exit.filter(|exit| *exit != 0);
            let exit = exit.map(|exit| format!(" (exit {exit})")).unwrap_or_default();
            format!("{mark} {name} {title}{exit}")
        }
        EventKind::Text { text } => format!("» {text}"),
        EventKind::ModelAnswer { finish_reason, input_tokens, output_tokens } => {
            let why = finish_reason.unwrap_or_else(|| "no reason given".into());
            format!("model answered: {input_tokens} + {output_tokens} tokens ({why})")
        }
        EventKind::Egress { host, port, refused: None } => format!("{host}:{port} is reached"),
        EventKind::Egress { host, port, refused: Some(why) } => {
            format!("! {host}:{port} is not reached ({why})")
        }
        EventKind::Trouble { message } => format!("! {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_any_version_are_told() {
        let told = |line: &str| {
            let mut out = Vec::new();
            print(line, false, &mut out).expect("printed");
            String::from_utf8(out).expect("text")
        };
        let text = r#"{"seq":1,"at_ms":1500,"event":{"type":"text","text":"a\u001b[31mb"}}"#;
        assert_eq!(told(text), "       1.5 s  » ab\n");
        let later = r#"{"seq":1,"at_ms":0,"event":{"type":"flew","height":3}}"#;
        assert_eq!(told(later), "       0.0 s  (flew)\n");
        assert_eq!(told(r#"{"seq":1,"at_"#), "");
        assert!(told("3").contains("(?)"));
    }
}
