//! What servers send, and what is understood of it.

use serde_json::{Value, json};

use super::super::answer::{Ending, MAX_TEXT};
use super::super::calls::MAX_CALLS;
use super::super::piece::ToolCall;
use super::*;

/// Everything of one answer: its pieces, and the reader or why it failed.
fn bytes(bytes: &[u8]) -> (Vec<Piece>, Reader, Result<(), Fault>) {
    let mut reader = Reader::new(&Secrets::default());
    let mut pieces = Vec::new();
    let outcome = reader.push(bytes, &mut pieces).and_then(|()| reader.finish(&mut pieces));
    (pieces, reader, outcome)
}

fn read(events: &[Value]) -> (Vec<Piece>, Reader, Result<(), Fault>) {
    bytes(&events.iter().map(sse::encode).collect::<Vec<_>>().concat())
}

/// Name and arguments of each call, with the ids that are not made up.
fn calls(events: &[Value]) -> Vec<(String, String)> {
    let (pieces, _, outcome) = read(events);
    outcome.expect("complete");
    let mut sent: Vec<(String, String, String)> = Vec::new();
    let mut called = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Call { index, id, name } => {
                assert_eq!(index, sent.len(), "no gap");
                assert!(!id.is_empty() && sent.iter().all(|(other, ..)| *other != id), "{id}");
                sent.push((id, name, String::new()));
            }
            Piece::Arguments { index, text } => sent[index].2 += &text,
            Piece::Called(ToolCall { id, name, arguments, .. }) => {
                called.push((id, name, arguments));
            }
            _ => {}
        }
    }
    called.sort();
    let mut sorted = sent.clone();
    sorted.sort();
    assert_eq!(called, sorted, "what goes on is what is told");
    sent.into_iter().map(|(_, name, arguments)| (name, arguments)).collect()
}

fn delta(delta: &Value) -> Value {
    json!({"choices": [{"index": 0, "delta": delta}]})
}

fn finish(reason: &str) -> Value {
    json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
}

/// A piece of a call; fields that are null stay away.
#[expect(clippy::needless_pass_by_value)]
fn call(index: Value, id: Value, name: Value, arguments: Value) -> Value {
    let mut function = json!({"name": name, "arguments": arguments});
    let mut call = json!({"index": index, "id": id});
    for object in [&mut function, &mut call] {
        object.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    }
    call["function"] = function;
    delta(&json!({"tool_calls": [call]}))
}

#[test]
#[expect(clippy::too_many_lines)]
fn calls_are_put_together_however_a_server_names_their_pieces() {
    let none = Value::Null;
    let ls = r#"{"command":"ls"}"#;
    let two = [
        ("bash".to_owned(), ls.to_owned()),
        ("bash".to_owned(), r#"{"command":"pwd"}"#.to_owned()),
    ];
    let pwd = r#"{"command":"pwd"}"#;
    for (shape, events) in [
        (
            "as described",
            vec![
                call(json!(0), json!("a"), json!("bash"), json!("")),
                call(json!(0), none.clone(), none.clone(), json!(&ls[..5])),
                call(json!(0), none.clone(), none.clone(), json!(&ls[5..])),
                call(json!(1), json!("b"), json!("bash"), json!(pwd)),
            ],
        ),
        (
            "without ids",
            vec![
                call(json!(0), none.clone(), json!("bash"), json!(ls)),
                call(json!(1), none.clone(), json!("bash"), json!(pwd)),
            ],
        ),
        (
            "one index for both",
            vec![
                call(json!(0), json!("a"), json!("bash"), json!(ls)),
                call(json!(0), json!("b"), json!("bash"), json!(pwd)),
            ],
        ),
        (
            "one index, no ids",
            vec![
                call(json!(0), none.clone(), json!("bash"), json!(ls)),
                call(json!(0), none.clone(), json!("bash"), json!(pwd)),
            ],
        ),
        (
            "no index, with ids",
            vec![
                call(none.clone(), json!("a"), json!("bash"), json!(ls)),
                call(none.clone(), json!("b"), json!("bash"), json!(pwd)),
            ],
        ),
        (
            "no index, one id for both",
            vec![
                call(none.clone(), json!(""), json!("bash"), json!(ls)),
                call(none.clone(), json!(""), json!("bash"), json!(pwd)),
            ],
        ),
        (
            "interleaved",
            vec![
                call(json!(0), json!("a"), json!("bash"), json!(&ls[..5])),
                call(json!(1), json!("b"), json!("bash"), json!(&pwd[..5])),
                call(json!(0), none.clone(), none.clone(), json!(&ls[5..])),
                call(json!(1), none.clone(), none.clone(), json!(&pwd[5..])),
            ],
        ),
        (
            "id and name in each piece",
            vec![
                call(json!(0), json!("a"), json!("bash"), json!(&ls[..5])),
                call(json!(0), json!("a"), json!("bash"), json!(&ls[5..])),
                call(json!(1), json!("b"), json!("bash"), json!(pwd)),
            ],
        ),
        (
            "another id in each piece",
            vec![
                call(json!(0), json!("a"), json!("bash"), json!(&ls[..5])),
                call(json!(0), json!("x"), none.clone(), json!(&ls[5..])),
                call(json!(1), json!("b"), json!("bash"), json!(pwd)),
            ],
        ),
        (
            "indexes from one, as texts",
            vec![
                call(json!("1"), json!(7), json!("bash"), json!(ls)),
                call(json!("2"), json!(8), json!("bash"), json!(pwd)),
            ],
        ),
        (
            "objects",
            vec![
                call(json!(0), json!("a"), json!("bash"), json!({"command": "ls"})),
                call(json!(1), json!("b"), json!("bash"), json!({"command": "pwd"})),
            ],
        ),
        (
            "JSON in JSON",
            vec![
                call(json!(0), json!("a"), json!("bash"), json!(json!(ls).to_string())),
                call(json!(1), json!("b"), json!("bash"), json!(pwd)),
            ],
        ),
        (
            "empty arguments first, the whole once more",
            vec![
                call(json!(0), json!("a"), json!("bash"), json!("{}")),
                call(json!(0), none.clone(), none.clone(), json!(ls)),
                call(json!(0), json!("a"), json!("bash"), json!(ls)),
                call(json!(1), json!("b"), json!("bash"), json!(pwd)),
            ],
        ),
        (
            "a name in two parts",
            vec![
                call(json!(0), json!("a"), json!("ba"), json!("")),
                call(json!(0), none.clone(), json!("sh"), json!(ls)),
                call(json!(1), json!("b"), json!("bash"), json!(pwd)),
            ],
        ),
        (
            "one id for both",
            vec![
                call(json!(0), json!("a"), json!("bash"), json!(ls)),
                call(json!(1), json!("a"), json!("bash"), json!(pwd)),
            ],
        ),
        (
            "whole, in a message",
            vec![json!({"choices": [{"message": {"tool_calls": [
                {"id": "a", "function": {"name": "bash", "arguments": ls}},
                {"id": "b", "function": {"name": "bash", "arguments": pwd}},
            ]}}]})],
        ),
    ] {
        for reason in ["tool_calls", "stop", "eos_token"] {
            let mut events = events.clone();
            events.push(finish(reason));
            assert_eq!(calls(&events), two, "{shape}");
        }
    }
}

#[test]
fn vllms_two_parts_of_one_call_in_one_chunk_are_one_call() {
    let events = [
        delta(&json!({"tool_calls": [
            {"id": "x", "type": "function", "index": 0, "function": {"name": "bash"}},
            {"index": 0, "function": {"arguments": "{\"command\": \"ls\"}"}},
        ]})),
        finish("tool_calls"),
    ];
    assert_eq!(calls(&events), [("bash".into(), "{\"command\": \"ls\"}".into())]);
}

#[test]
fn a_call_without_arguments_has_an_empty_object_and_one_without_a_name_is_a_fault() {
    let bare = call(json!(0), json!("a"), json!("list"), Value::Null);
    assert_eq!(calls(&[bare, finish("tool_calls")]), [("list".into(), "{}".into())]);
    let old = delta(&json!({"function_call": {"name": "list", "arguments": "{}"}}));
    assert_eq!(calls(&[old, finish("function_call")]), [("list".into(), "{}".into())]);
    let nameless = call(json!(0), json!("a"), Value::Null, json!("{}"));
    let fault = read(&[nameless, finish("stop")]).2.expect_err("a fault");
    assert!(fault.kind == FaultKind::StreamError && fault.message.contains("without a name"));
}

#[test]
fn the_end_is_told_from_what_came() {
    let text = delta(&json!({"content": "x"}));
    let tool = call(json!(0), json!("a"), json!("x"), json!("{}"));
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}});
    let done = || -> Vec<u8> { b"data: [DONE]\n\n".to_vec() };
    let ending = |events: &[&Value], end: &[u8]| {
        let events: Vec<_> = events.iter().map(|event| sse::encode(event)).collect();
        let (_, reader, outcome) = bytes(&[events.concat(), end.to_vec()].concat());
        outcome.map(|()| reader.answer().ending().expect("an end"))
    };
    for reason in ["stop", "tool_calls", "eos_token", "end_turn", "function_call"] {
        assert_eq!(ending(&[&text, &finish(reason)], b"").expect("fine"), Ending::Stop, "{reason}");
        assert_eq!(ending(&[&tool, &finish(reason)], b"").expect("fine"), Ending::ToolCalls);
    }
    assert_eq!(ending(&[&text, &finish("")], &done()).expect("fine"), Ending::Stop);
    assert_eq!(ending(&[&tool], &done()).expect("fine"), Ending::ToolCalls);
    assert_eq!(ending(&[&text, &usage], b"").expect("fine"), Ending::Stop, "counted last");
    assert_eq!(ending(&[&text, &finish("length")], b"").expect("fine"), Ending::Length);
    let sglang =
        json!({"choices": [{"delta": {}, "finish_reason": {"type": "length", "length": 9}}]});
    assert_eq!(ending(&[&text, &sglang], b"").expect("fine"), Ending::Length);
    for (events, end) in [
        (vec![&text], &b""[..]),
        (vec![&text, &finish("")], b""),
        (vec![&text, &finish("abort"), &usage], &done()),
        (vec![], b""),
    ] {
        let fault = ending(&events, end).expect_err("a fault");
        assert_eq!(fault.kind, FaultKind::StreamCut, "{fault}");
    }
}

#[test]
fn words_and_thoughts_are_sorted_and_other_fields_pass() {
    let (pieces, reader, outcome) = read(&[
        delta(
            &json!({"role": "", "reasoning": "hm", "reasoning_content": "hm", "token_ids": null}),
        ),
        delta(&json!({"reasoning": ", "})),
        delta(&json!({"content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "so"}]},
            {"type": "text", "text": "Hello"},
            " there",
        ]})),
        delta(&json!({"content": ".", "thinking_blocks": [{"signature": "s"}]})),
        finish("stop"),
    ]);
    outcome.expect("complete");
    assert_eq!(reader.answer().text(), "Hello there.");
    assert_eq!(reader.answer().thoughts(), "hm, so");
    let extra: Vec<_> = pieces.iter().filter(|piece| matches!(piece, Piece::Extra(_))).collect();
    assert_eq!(format!("{extra:?}").matches("signature").count(), 1, "{extra:?}");
    assert_eq!(extra.len(), 1);
}

#[test]
fn the_shape_is_told_from_the_bytes() {
    let whole = json!({"object": "chat.completion", "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]});
    let chunk = delta(&json!({"content": "hi"}));
    for (shape, body) in [
        ("one object", whole.to_string()),
        ("over many lines", format!("\u{feff}\n{whole:#}\n")),
        ("a line", format!("{whole}\n")),
        ("lines", format!("{chunk}\n{}\n", finish("stop"))),
        ("events", format!(": hello\n\ndata: {chunk}\n\ndata: {}\n\n", finish("stop"))),
        ("one event", format!("data: {whole}\n\n")),
        ("events with names", format!("event: message\r\nid: 1\r\ndata: {whole}\r\n\r\n")),
    ] {
        for size in [1, 3, body.len()] {
            let mut reader = Reader::new(&Secrets::default());
            let mut pieces = Vec::new();
            for piece in body.as_bytes().chunks(size) {
                reader.push(piece, &mut pieces).expect(shape);
            }
            reader.finish(&mut pieces).expect(shape);
            assert_eq!(reader.answer().text(), "hi", "{shape}");
            assert_eq!(reader.answer().ending(), Some(Ending::Stop), "{shape}");
        }
    }
}

#[test]
fn every_servers_way_of_counting_is_read() {
    let usage = json!({"prompt_tokens": 7, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 3}});
    for (counted, expected) in [
        (json!({"choices": [], "usage": usage}), (7, 5, 3)),
        (json!({"timings": {"prompt_n": 4, "cache_n": 3, "predicted_n": 5}}), (7, 5, 0)),
        (json!({"prompt_eval_count": 7, "eval_count": 5}), (7, 5, 0)),
        (json!({"usage": null}), (0, 0, 0)),
    ] {
        let usage = read(&[finish("stop"), counted]).1.answer().usage();
        assert_eq!((usage.input, usage.output, usage.reasoning), expected);
    }
}

#[test]
fn tokens_of_which_nothing_came_were_swallowed() {
    let swallowed = |said: Value, output: u64, reasoning: u64| {
        let counted = json!({"prompt_tokens": 9, "completion_tokens": output, "completion_tokens_details": {"reasoning_tokens": reasoning}});
        let counted = json!({"choices": [], "usage": counted});
        read(&[delta(&said), finish("stop"), counted]).1.answer().swallowed()
    };
    assert_eq!(swallowed(json!({"reasoning": "I make the note, "}), 27, 2), Some(27));
    assert_eq!(swallowed(json!({}), 27, 0), Some(27));
    assert_eq!(swallowed(json!({}), 2, 0), None, "marks are tokens too");
    assert_eq!(swallowed(json!({"reasoning": "Hm, I think."}), 7, 0), None);
    assert_eq!(swallowed(json!({"reasoning": "x"}), 900, 898), None);
    assert_eq!(swallowed(json!({"content": "x"}), 27, 0), None);
}

#[test]
fn errors_in_a_success_are_faults() {
    let kind = |event: &Value| read(std::slice::from_ref(event)).2.expect_err("a fault").kind;
    assert_eq!(kind(&json!({"error": {"message": "CUDA out of memory"}})), FaultKind::StreamError);
    assert_eq!(
        kind(&json!({"object": "error", "message": "x", "code": 500})),
        FaultKind::StreamError
    );
    assert_eq!(kind(&json!({"detail": "x"})), FaultKind::StreamError);
    assert_eq!(kind(&json!("text")), FaultKind::NotJson);
    let fault = |text: &[u8]| bytes(text).2.expect_err("a fault");
    assert_eq!(fault(b"<html>\n").kind, FaultKind::NotJson);
    assert_eq!(fault(b"data: {broken\n\n").kind, FaultKind::NotJson);
    for bare in
        [&b"{\"error\": {\"message\": \"engine died\"}}\n"[..], b"{\"error\": \"engine died\"}"]
    {
        let fault = fault(bare);
        assert_eq!((fault.kind, fault.message.as_str()), (FaultKind::StreamError, "engine died"));
    }
    let old = fault(b"error: {\"code\": 500, \"message\": \"context size exceeded\"}\n");
    assert_eq!(old.kind, FaultKind::ContextOverflow);
}

#[test]
fn memory_is_bounded_and_what_goes_on_is_not_cut() {
    let big = "x".repeat(100_000);
    let (pieces, reader, outcome) = read(&[
        delta(&json!({"content": big})),
        delta(&json!({"content": big})),
        call(json!(0), json!("a"), json!("write"), json!("{\"x\":\"")),
        call(json!(0), Value::Null, Value::Null, json!(big.repeat(4))),
        call(json!(0), Value::Null, Value::Null, json!("\"}")),
        finish("stop"),
    ]);
    outcome.expect("complete");
    assert!(reader.answer().text().len() <= MAX_TEXT);
    let sum = |pick: fn(&Piece) -> usize| pieces.iter().map(pick).sum::<usize>();
    assert_eq!(sum(|piece| if let Piece::Text(text) = piece { text.len() } else { 0 }), 200_000);
    assert_eq!(
        sum(|piece| if let Piece::Arguments { text, .. } = piece { text.len() } else { 0 }),
        400_008
    );
    let clipped = |piece: &Piece| matches!(piece, Piece::Called(call) if call.clipped && call.arguments.len() < 300_000);
    assert!(pieces.iter().any(clipped));

    let many: Vec<_> =
        (0..=MAX_CALLS).map(|at| call(json!(at), Value::Null, json!("t"), json!("{}"))).collect();
    assert_eq!(read(&many).2.expect_err("too many").kind, FaultKind::StreamError);
    let long = sse::encode(&delta(&json!({"content": "x".repeat(MAX_EVENT)})));
    assert_eq!(bytes(&long).2.expect_err("too long").kind, FaultKind::NotJson);
    let (pieces, ..) = read(&vec![delta(&json!({"signature": big})); 20]);
    assert!(pieces.len() <= 10, "{}", pieces.len());
}
