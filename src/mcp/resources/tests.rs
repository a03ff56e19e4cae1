use super::*;
use crate::history::Record;

#[test]
fn only_what_is_there_to_be_named_is_a_resource() {
    let id: RunId = "20260131-235959-k3f9".parse().expect("an id");
    assert_eq!(parse(&uri_of(&id)), Some((id.clone(), View::Report)));
    assert_eq!(parse(&format!("{}/events", uri_of(&id))), Some((id, View::Events)));
    for wrong in [
        "",
        "sandbox://runs/",
        "sandbox://runs/last",
        "sandbox://runs/20260131-235959-k3f9/",
        "sandbox://runs/20260131-235959-k3f9/owner",
        "sandbox://runs/20260131-235959-k3f9/events/",
        "sandbox://runs/20260131-235959-k3f9/../x",
        "sandbox://runs/../20260131-235959-k3f9",
        "sandbox://runs//20260131-235959-k3f9",
        "sandbox://runs/20260131-235959-k3f9%2Fevents",
        "SANDBOX://runs/20260131-235959-k3f9",
        "file:///etc/passwd",
    ] {
        assert_eq!(parse(wrong), None, "{wrong}");
    }
}

#[test]
fn long_ones_are_cut_where_they_say_so() {
    let state = tempfile::tempdir().expect("temp dir");
    let id = RunId::new();
    let mut record = Record::create(state.path(), &id).expect("record");
    for number in 0..3000 {
        record.log(&format!("{number} \u{1b}[31m{}", "x".repeat(500)));
        record.event(&json!({ "seq": number, "text": "y".repeat(500) }));
    }
    let file = |n: usize| json!({ "path": format!("{n}{}", "z".repeat(100)), "change": "added" });
    let files: Vec<_> = (0..20_000).map(file).collect();
    let whole = "ä\u{202e}".repeat(1 << 20);
    let report = json!({ "answer": whole, "changes": { "files": files, "truncated": false } });
    record.finish(&report).expect("finished");
    let entry = Entry::of(state.path(), &id).expect("an entry");

    let log = part(&entry, Part::Log).expect("read");
    assert!(log.len() <= LONGEST + 100 && log.len() > LONGEST - 50_000, "{}", log.len());
    assert!(log.ends_with(" bytes cut]\n") && !log.contains('\u{1b}'));
    let events = part(&entry, Part::Events).expect("read");
    assert!(events.len() <= LONGEST + 100, "{}", events.len());
    let mut lines = events.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    assert!(lines.next_back().is_some_and(|last| last["cut_bytes"].as_u64() > Some(0)));
    assert!(lines.enumerate().all(|(at, line)| line["seq"] == at));
    assert_eq!(part(&entry, Part::Egress).expect("read"), "");

    let answer = answer(&entry).expect("read");
    assert!(answer.len() <= LONGEST + 100 && answer.ends_with(" bytes cut]"));
    let text = super::report(&entry).expect("read");
    assert!(text.len() <= LONGEST, "{}", text.len());
    let cut: Value = serde_json::from_str(&text).expect("still JSON");
    assert_eq!(cut["changes"]["truncated"], true);
    assert!(cut["changes"]["files"].as_array().is_some_and(|files| files.len() > 1000));
    assert!(cut["answer"].as_str().is_some_and(|text| text.contains("/answer has more]")));
}

#[test]
fn it_is_known_how_long_json_writes_a_text() {
    for text in (0..=0x2100).filter_map(char::from_u32).map(String::from) {
        let written = serde_json::to_string(&text).expect("JSON").len();
        assert_eq!(on_wire(&text) + 2, written, "{text:?}");
    }
    assert_eq!(on_wire("\n"), LINE_END);
}

#[test]
fn what_json_makes_longer_stays_within_what_clients_take() {
    let state = tempfile::tempdir().expect("temp dir");
    let id = RunId::new();
    let mut record = Record::create(state.path(), &id).expect("record");
    let bad = "\"\\\t".repeat(100);
    for number in 0..4000 {
        record.log(&bad);
        record.event(&json!({ "seq": number, "text": bad }));
    }
    let file = |n: usize| json!({ "path": format!("{n}{bad}"), "change": "added" });
    let files: Vec<_> = (0..2000).map(file).collect();
    let report = json!({
        "answer": "\"\\\n".repeat(1 << 18), "changes": { "files": files, "truncated": false },
    });
    record.finish(&report).expect("finished");
    let entry = Entry::of(state.path(), &id).expect("an entry");

    let patch = "+\"\\\t\u{1}\u{1b}\n".repeat(1 << 18);
    let texts = [
        (part(&entry, Part::Log).expect("read"), " bytes cut]\n"),
        (part(&entry, Part::Events).expect("read"), "}\n"),
        (answer(&entry).expect("read"), " bytes cut]"),
        (drawn(patch.as_bytes()), " bytes cut]\n"),
        (super::report(&entry).expect("read"), "}"),
    ];
    for (at, (text, end)) in texts.into_iter().enumerate() {
        assert!(text.ends_with(end), "{at}");
        let contents = ResourceContents::text(text.clone(), uri_of(&id));
        let written = serde_json::to_string(&contents).expect("JSON").len();
        assert!(written < (1 << 20) - 8192, "{at}: {written}");
        assert!(written > LONGEST / 3, "{at}: as much as there is room for: {written}");
    }
    let log = part(&entry, Part::Log).expect("read");
    let told: usize = log
        .lines()
        .next_back()
        .and_then(|mark| mark.trim_matches(['[', ']', '…', ' ']).split(' ').next()?.parse().ok())
        .expect("how much was cut");
    let shown: usize = log.lines().rev().skip(1).map(|line| line.len() + 1).sum();
    let total = entry.open(Part::Log).expect("open").expect("there").get_ref().metadata();
    assert_eq!((told + shown) as u64, total.expect("there").len());
}
