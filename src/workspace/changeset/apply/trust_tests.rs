//! What needs a yes, and what is never done.

use super::ApplyError;
use super::tests::{Ground, paths_of};

#[test]
fn what_tools_on_the_host_trust_needs_a_yes() {
    let mut ground = Ground::new(
        &[("pkg/.ENVRC", "x"), ("in/y", "1")],
        &[
            ("ok", "1"),
            ("src/.vscode/tasks.json", "{}"),
            (".MCP.json", "{}"),
            (".github/workflows/ci.yml", "on: push"),
            (".github/other", "1"),
            ("x/.github/workflows", "-> y"),
            ("bare/HEAD", "ref"),
            ("bare/objects/", ""),
            ("bare/refs/", ""),
            ("bare/config", "[core]"),
            ("build/run.sh", "rm"),
            ("out", "-> /etc/passwd"),
            ("sub/up", "-> ../../x"),
            ("sub/fine", "-> ../ok"),
            ("sub/chain", "-> ../out/x"),
            ("sub/round", "-> round"),
            ("hooks", "-> .git/hooks"),
            ("in/y", "1"),
            ("into", "-> build"),
        ],
    );
    ground.protected = vec!["./Build/".into()];
    let needs = ground.needs();
    for wanted in [
        "src/.vscode",
        "src/.vscode/tasks.json",
        ".MCP.json",
        ".github/workflows",
        ".github/workflows/ci.yml",
        "x/.github/workflows",
        "bare/HEAD",
        "bare/config",
        "build/run.sh",
        "out",
        "sub/up",
        "sub/chain",
        "sub/round",
        "hooks",
        "into",
        "pkg/.ENVRC",
    ] {
        assert!(needs.iter().any(|path| path == wanted), "{wanted}: {needs:?}");
    }
    for fine in ["ok", "sub", "sub/fine", ".github", ".github/other", "src"] {
        assert!(!needs.iter().any(|path| path == fine), "{fine}: {needs:?}");
    }
    ground.assert_untouched();
    assert_eq!(paths_of(&ground.ask(&["ok", "sub/fine"], false, false)), ["ok", "sub", "sub/fine"]);
    ground.ask(&[], true, false).expect("with a yes");
    assert_eq!(ground.now(), ground.after);
    // What is there needs no yes any more.
    assert!(ground.ask(&[], false, false).expect("nothing to do").changed.is_empty());
}

#[test]
fn what_git_is_led_to_needs_a_yes_too() {
    let ground = Ground::new(
        &[(".git/config", "[core]\n\thooksPath = tools/hooks\n"), ("tools/hooks/pre-commit", "a")],
        &[(".git/config", "[core]\n\thooksPath = tools/hooks\n"), ("tools/hooks/pre-commit", "b")],
    );
    assert_eq!(ground.needs(), ["tools/hooks/pre-commit"]);
}

#[test]
fn nothing_of_git_is_ever_carried_over() {
    for name in [".git/hooks/pre-commit", "sub/.GIT/config", ".git", "a/git~1/x"] {
        let ground = Ground::new(&[], &[(name, "x")]);
        let refused = ground.apply().expect_err(name);
        assert!(matches!(refused, ApplyError::Git(_)), "{refused}");
        ground.assert_untouched();
    }
}
