//! The worked example of docs/conductor.md, played again: its calls are made, and its results are
//! what comes.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::common::{Mcp, Model, Product, Script, Workspace};

const PAGE: &str = include_str!("../../docs/conductor.md");

/// The fenced blocks of the example: what stands behind the fence, and the text.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let (_, example) = PAGE.split_once("## A worked example").expect("the example");
    let mut blocks = Vec::new();
    let mut rest = example;
    while let Some((_, after)) = rest.split_once("```") {
        let (info, after) = after.split_once('\n').expect("a line");
        let (text, after) = after.split_once("```").expect("an end");
        blocks.push((info, text));
        rest = after;
    }
    blocks
}

/// The ids of the page, and those that they are this time.
#[derive(Default)]
struct Ids(HashMap<String, String>);

const LENGTH: usize = "20260131-235959-k3f9".len();

fn ids(text: &str) -> Vec<&str> {
    let is_id = |part: &[u8]| {
        part.iter().enumerate().all(|(at, byte)| match at {
            8 | 15 => *byte == b'-',
            0..=14 => byte.is_ascii_digit(),
            _ => byte.is_ascii_lowercase() || byte.is_ascii_digit(),
        })
    };
    let places = text.as_bytes().windows(LENGTH).enumerate().filter(|(_, part)| is_id(part));
    places.map(|(at, _)| &text[at..at + LENGTH]).collect()
}

impl Ids {
    /// Learns from a text of the page and what really came in its place.
    fn learn(&mut self, page: &str, real: &str) {
        for (page, real) in ids(page).into_iter().zip(ids(real)) {
            self.0.entry(page.to_owned()).or_insert_with(|| real.to_owned());
        }
    }

    fn put(&self, text: &str) -> String {
        let ids = ids(text).into_iter();
        ids.fold(text.to_owned(), |all, id| all.replace(id, self.0.get(id).map_or(id, |id| id)))
    }

    /// Whether what the page shows is there: each key, each text to its end or to its `…`.
    fn compare(&mut self, page: &Value, real: &Value, at: &str) {
        match (page, real) {
            (Value::Object(page), Value::Object(_)) => {
                for (key, page) in page {
                    self.compare(page, &real[key], &format!("{at}.{key}"));
                }
            }
            (Value::Array(page), Value::Array(all)) => {
                assert_eq!(page.len(), all.len(), "{at}: {real:#}");
                for (number, (page, real)) in page.iter().zip(all).enumerate() {
                    self.compare(page, real, &format!("{at}[{number}]"));
                }
            }
            (Value::String(page), Value::String(real)) => self.compare_text(page, real, at),
            _ => assert_eq!(page, real, "{at}"),
        }
    }

    fn compare_text(&mut self, page: &str, real: &str, at: &str) {
        self.learn(page, real);
        let page = self.put(page);
        match page.strip_suffix('…') {
            Some(beginning) => assert!(real.starts_with(beginning), "{at}: {real}"),
            None => assert_eq!(page, real, "{at}"),
        }
    }
}

/// What the small model does, by a word of each task; a talk that goes on holds those before.
async fn model() -> Model {
    let slug = |body: &str| {
        let text = format!(
            "cat > slug.py <<'END'\nimport re\nimport unicodedata\n\n\ndef slug(title{body}\nEND"
        );
        Script::bash(&text)
    };
    let doc = "    \"\"\"The part of an address that a title becomes.\"\"\"\n";
    let first = format!(
        "cat > slug.py <<'END'\nimport re\n\n\ndef slug(title):\n{doc}    return \"-\".join(\
         re.findall(r\"\\w+\", title.lower()))\nEND\ncat >> test_slug.py <<'END'\n\n    \
         def test_punctuation(self):\n        self.assertEqual(slug(\"Hello,  World!\"), \
         \"hello-world\")\nEND"
    );
    let dropped = format!(
        "):\n{doc}    title = title.encode(\"ascii\", \"ignore\").decode()\n    return \"-\".join(\
         re.findall(r\"\\w+\", title.lower()))"
    );
    let plain = "    title = \"\".join(c for c in unicodedata.normalize(\"NFKD\", title) if not \
                 unicodedata.combining(c))\n";
    let right =
        format!("):\n{doc}{plain}    return \"-\".join(re.findall(r\"\\w+\", title.lower()))");
    let cut = |how: &str| {
        format!(
            ", limit=None):\n{doc}{plain}    words = \"-\".join(re.findall(r\"\\w+\", \
             title.lower()))\n{how}    return words"
        )
    };
    let shorten = cut("    if limit:\n        words = textwrap.shorten(words, limit)\n");
    let dash = cut(
        "    if limit and len(words) > limit:\n        words = words[: limit + 1].rpartition(\"-\")[0]\n",
    );
    Model::routed([
        ("Your change was discarded", slug(&right).then_say("Accents go, letters stay.")),
        ("letters with accents", slug(&dropped).then_say("Accents are handled; all tests pass.")),
        ("textwrap.shorten", slug(&shorten).then_say("Done with textwrap.")),
        ("drop what follows", slug(&dash).then_say("It cuts at the last dash that fits.")),
        ("drop punctuation", Script::bash(&first).then_say("slug() now joins the words alone.")),
    ])
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worked_example_is_what_happens() {
    let model = model().await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::named("/var/tmp", "sw-");
    let mut host = Mcp::start(&product, &workspace).await;
    let mut known = Ids::default();
    let (mut came, mut calls) = (Value::Null, 0);
    for (info, text) in blocks() {
        match info.split_once(' ') {
            Some(("python", name)) => workspace.write(name, text),
            Some(("json", "call")) => {
                calls += 1;
                let call: Value = serde_json::from_str(&known.put(text)).expect("JSON");
                came = if call["method"] == "resources/read" {
                    let read = host.ask("resources/read", json!({"uri": call["uri"]})).await;
                    read["contents"][0]["text"].clone()
                } else {
                    let name = call["name"].as_str().expect("a name");
                    let result = host.tool(name, call["arguments"].clone()).await;
                    result["structuredContent"].clone()
                };
            }
            Some(("json", "result")) => {
                let page: Value = serde_json::from_str(text).expect("JSON");
                assert!(page.as_object().is_some_and(|page| !page.is_empty()), "shows something");
                known.compare(&page, &came, &format!("the result of call {calls}"));
            }
            Some(("diff", "result")) => assert_eq!(came, *text, "the result of call {calls}"),
            _ => panic!("a block that nobody knows: {info}"),
        }
    }
    assert_eq!(calls, 10);
    // What the page says in words of the two talks.
    let steps = model.steps();
    let talk = steps.iter().find(|step| step.said_by("user").contains("Your change was discarded"));
    let talk = talk.expect("the correction").said_by("user");
    assert!(talk.contains("letters with accents"), "it remembers: {talk}");
    host.close().await.assert_code(0);
    product.check_nothing_left().await;
}
