use serde_json::{Value, json};

use super::document::{Document, Error, Format};

fn parse(text: &str, format: Format) -> Document {
    Document::parse(text.as_bytes().to_vec(), format).expect("it parses")
}

fn entry() -> Value {
    json!({"command": "/bin/sandbox-mcp", "args": ["a"], "env": {"A": "1"}, "timeout": 5})
}

/// The lines of `old` that are not in `new`, in order.
fn lost<'a>(old: &'a str, new: &str) -> Vec<&'a str> {
    let mut rest = new.lines();
    old.lines().filter(|line| !rest.by_ref().any(|other| other == *line)).collect()
}

const ZED: &str = "// my settings\r\n{\r\n\t\"theme\": \"dark\", // at night\r\n\t/* servers */\r\n\t\
                   \"context_servers\": {\r\n\t\t// the other\r\n\t\t\"other\": { \"command\": \
                   \"x\", },\r\n\t},\r\n\t\"tab_size\": 4,\r\n}\r\n";

#[test]
fn comments_order_and_line_ends_stay() {
    let old = parse(ZED, Format::Jsonc);
    let new = old.with(&["context_servers", "sandbox"], &entry()).expect("edited");
    assert_eq!(lost(ZED, new.text()), [""; 0], "{}", new.text());
    assert_eq!(new.text().matches('\n').count(), new.text().matches("\r\n").count());
    assert_eq!(new.get(&["context_servers", "sandbox"]), Some(&entry()));
    let back = new.without(&["context_servers", "sandbox"]).expect("edited");
    assert_eq!(back.text(), ZED);
}

const CODEX: &str = "# mine\nmodel = \"m\"   # spaced\n\n[mcp_servers.other] # theirs\ncommand = \
                     'x'\n\n  [tui]\ntheme = \"dark\"\nstarted = 1979-05-27T07:32:00Z\n";

#[test]
fn toml_keeps_comments_order_and_line_ends() {
    for text in [CODEX.to_owned(), CODEX.replace('\n', "\r\n")] {
        let old = parse(&text, Format::Toml);
        let new = old.with(&["mcp_servers", "sandbox"], &entry()).expect("edited");
        assert_eq!(lost(&text, new.text()), [""; 0], "{}", new.text());
        assert!(new.text().contains("[mcp_servers.sandbox]"), "{}", new.text());
        let ends = (text.matches("\r\n").count() > 0).then(|| new.text().matches("\r\n").count());
        assert!(ends.is_none_or(|ends| ends == new.text().matches('\n').count()));
        let back = new.without(&["mcp_servers", "sandbox"]).expect("edited");
        assert_eq!(back.text(), text);
    }
}

#[test]
fn one_value_is_changed_in_its_place() {
    let old = parse(ZED, Format::Jsonc);
    let path = ["context_servers", "sandbox"];
    let new = old.with(&path, &entry()).expect("edited");
    let longer = new.with(&path, &json!({"timeout": 9})).expect("edited");
    assert_eq!(longer.text(), new.text().replace("\"timeout\": 5", "\"timeout\": 9"));

    let old = parse(CODEX, Format::Toml);
    let path = ["mcp_servers", "sandbox"];
    let new = old.with(&path, &entry()).expect("edited");
    let longer = new.with(&path, &json!({"timeout": 9})).expect("edited");
    assert_eq!(longer.text(), new.text().replace("timeout = 5", "timeout = 9"));
    assert_eq!(longer.with(&path, &json!({"timeout": 9})).expect("edited").text(), longer.text());
}

#[test]
fn every_shape_of_a_valid_file_takes_an_entry_and_gives_it_back() {
    let json = [
        "",
        " \n\t",
        "{}",
        "{ }\n",
        "\u{feff}{\"a\":1}\n",
        "{\"a\":{\"b\":[1,{\"c\":null}]}}",
        "{\"servers\":{}}",
        "{\"servers\": {\"x\": {}}, \"z\": 1.50, \"big\": 123456789012345678901234567890}",
        "{\n    \"servers\": {\n    }\n}",
        "[\"no\"]",
        "{\"\\u0073ervers\": {\"quoted \\\"name\\\" \u{1f600}\": {}}}",
        "{\"a\":\"/* no comment */ // none\"}\n\n\n",
        "{\r\n  \"servers\": {\r\n    \"x\": {}\r\n  }\n}",
    ];
    let jsonc =
        ["// only a comment\n", "{\"servers\":{\"x\":1,},}", "{/**/\"servers\"/**/:/**/{/**/}}"];
    let toml = [
        "",
        "# only a comment\n",
        "a = 1",
        "servers = { x = { command = 'y' } }\n",
        "servers.x.command = 'y'\n[b]\n",
        "[servers]\n[servers.x]\ncommand = 'y'\n[[list]]\na = 1\n[[list]]\n",
        "[a.b.c]\nd = '''\n[servers.sandbox]\n'''\n",
        "\"servers\".\"x y\".command = \"z\"\n",
        "\u{feff}a = 1\n",
    ];
    let all = json
        .iter()
        .flat_map(|text| [(*text, Format::Json), (*text, Format::Jsonc)])
        .chain(jsonc.iter().map(|text| (*text, Format::Jsonc)))
        .chain(toml.iter().map(|text| (*text, Format::Toml)));
    for (text, format) in all {
        let path = ["servers", "sandbox"];
        let Ok(old) = Document::parse(text.as_bytes().to_vec(), format) else {
            assert_eq!(text, "[\"no\"]");
            continue;
        };
        let new = old.with(&path, &entry()).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(new.get(&path), Some(&entry()), "{text:?}");
        assert_eq!(text.starts_with('\u{feff}'), new.text().starts_with('\u{feff}'), "{text:?}");
        let again = parse(new.text(), format);
        let back = again.without(&path).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(back.get(&path), None);
        let others = |document: &Document| {
            let all =
                document.entries("servers").map(|(name, value)| (name.to_owned(), value.clone()));
            all.collect::<Vec<_>>()
        };
        assert_eq!(others(&back), others(&old), "{text:?}");
        assert_eq!(back.get(&["a"]), old.get(&["a"]), "{text:?}");
        assert_eq!(back.without(&path).expect("nothing to do").text(), back.text());
    }
}

#[test]
fn what_does_not_parse_is_refused_with_its_line() {
    let line = |text: &str, format| match Document::parse(text.as_bytes().to_vec(), format) {
        Err(Error::Syntax { line, reason }) if !reason.is_empty() => line,
        other => panic!("{text:?}: {other:?}"),
    };
    assert_eq!(line("{\n  \"a\": 1\n  \"b\": 2\n}", Format::Jsonc), 2);
    assert_eq!(line("{\n\n  'a': 1}", Format::Jsonc), 3);
    assert_eq!(line("{}\n// no", Format::Json), 2);
    assert_eq!(line("{\"a\": 1,\n}", Format::Json), 2);
    assert_eq!(line("{\"a\": 1}\n{}", Format::Jsonc), 2);
    assert_eq!(line("a = 1\nb = \n", Format::Toml), 2);
    assert_eq!(line("a = 1\na = 2\n", Format::Toml), 2);
    let deep = |count: usize| format!("{}{}", "{\"a\":".repeat(count), "[".repeat(100_000));
    assert!(Document::parse(deep(1000).into_bytes(), Format::Json).is_err());
    assert!(
        Document::parse(format!("a = {}", "[".repeat(100_000)).into_bytes(), Format::Toml).is_err()
    );
    assert!(matches!(Document::parse(vec![b'{', 0xff, b'}'], Format::Json), Err(Error::NotText)));
}

#[test]
fn what_is_no_table_or_is_there_twice_is_left_alone() {
    let path = ["servers", "sandbox"];
    for text in ["{\"servers\": null}", "{\"servers\": []}", "{\"servers\": \"x\"}"] {
        let refused = parse(text, Format::Jsonc).with(&path, &entry()).expect_err("refused");
        assert!(matches!(refused, Error::NotATable { .. }), "{text}: {refused}");
    }
    let refused = parse("servers = 5\n", Format::Toml).with(&path, &entry()).expect_err("refused");
    assert!(refused.to_string().contains("`servers`"), "{refused}");
    let refused = parse("[[servers]]\na = 1\n", Format::Toml).with(&path, &entry());
    refused.expect_err("a list of tables");
    let text = "{\"servers\": {\"sandbox\": {}, \"sandbox\": {}}}";
    let twice = parse(text, Format::Jsonc);
    assert!(matches!(twice.with(&path, &entry()), Err(Error::Twice { .. })));
    assert!(matches!(twice.without(&path), Err(Error::Twice { .. })));
    let twice = parse("{\"servers\": {}, \"servers\": {}}", Format::Jsonc);
    assert!(matches!(twice.with(&path, &entry()), Err(Error::Twice { .. })));
}

/// Random files by a small generator of our own, so that a failure is found again by its number.
#[test]
fn random_documents_lose_nothing() {
    for seed in 1..400_u64 {
        let mut dice = Dice(seed);
        let value = dice.value(4);
        let mut text = dice.text(&value);
        let table = json!({"other": value, "servers": {"x": dice.value(2)}});
        text = format!(
            "{{{}\"other\":{text},{}\"servers\":{}}}",
            dice.space(),
            dice.space(),
            dice.text(&table["servers"])
        );
        let old = parse(&text, Format::Jsonc);
        let path = ["servers", "sandbox"];
        let new =
            old.with(&path, &entry()).unwrap_or_else(|error| panic!("{seed} {text}: {error}"));
        assert_eq!(new.get(&["other"]), Some(&table["other"]), "{seed}");
        assert_eq!(new.get(&path), Some(&entry()), "{seed}");
        let comments = |text: &str| text.matches("/*c*/").count() + text.matches("//c\n").count();
        assert_eq!(comments(new.text()), comments(&text), "{seed}: {text}\n{}", new.text());
        let back = new.without(&path).expect("removed");
        assert_eq!(back.get(&["servers"]), Some(&table["servers"]), "{seed}");
        assert_eq!(comments(back.text()), comments(&text), "{seed}: {text}\n{}", back.text());
    }
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn value(&mut self, depth: u64) -> Value {
        match self.roll(if depth == 0 { 4 } else { 6 }) {
            0 => Value::Null,
            1 => self.roll(1000).into(),
            2 => "a \"b\" \\ \u{e9} // /* \n".into(),
            3 => true.into(),
            4 => (0..self.roll(4)).map(|_| self.value(depth - 1)).collect(),
            _ => {
                let count = self.roll(4);
                (0..count)
                    .map(|at| (format!("k{at}"), self.value(depth - 1)))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }
        }
    }

    fn space(&mut self) -> &'static str {
        ["", " ", "\n", "\n\t", "  /*c*/ ", " //c\n", "\n\n"]
            [usize::try_from(self.roll(7)).unwrap_or(0)]
    }

    /// The value as somebody may have written it.
    fn text(&mut self, value: &Value) -> String {
        let mut out = self.space().to_owned();
        match value {
            Value::Array(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out += if at > 0 { "," } else { "" };
                    out += &self.text(item);
                }
                out.push(']');
            }
            Value::Object(table) => {
                out.push('{');
                for (at, (key, item)) in table.iter().enumerate() {
                    out += if at > 0 { "," } else { "" };
                    out += self.space();
                    out += &[&format!("{key:?}"), self.space(), ":"].concat();
                    out += &self.text(item);
                }
                out.push('}');
            }
            plain => out += &plain.to_string(),
        }
        out + self.space()
    }
}
