//! What needs a yes, and what is never done.

use super::super::RelPath;
use super::ground::{Ground, paths_of};
use super::{Agreed, ApplyError};

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
        assert!(matches!(refused, ApplyError::Git { .. }), "{refused}");
        ground.assert_untouched();
    }
}

/// What somebody looked at is what is carried over, or nothing is.
#[test]
fn a_yes_is_for_what_was_looked_at_and_for_nothing_else() {
    let ground = Ground::new(&[(".envrc", "old"), ("a", "1")], &[(".envrc", "new"), ("a", "2")]);
    let Err(ApplyError::Protected(needs)) = ground.ask(&[], false, false) else {
        panic!("no yes needed")
    };
    let agreed = Agreed::These(needs.clone());

    let mut of_another_content = needs.clone();
    of_another_content[0].change.after = None;
    let mut of_another_path = needs.clone();
    of_another_path[0].change.path = RelPath::new("a").expect("a path");
    for other in [of_another_content, of_another_path, Vec::new()] {
        let refused = ground.ask_with(&[], &Agreed::These(other), false);
        assert!(matches!(refused, Err(ApplyError::Protected(_))), "{refused:?}");
        ground.assert_untouched();
    }
    std::fs::write(ground.root().join(".envrc"), "somebody else's").expect("written");
    let refused = ground.ask_with(&[], &agreed, false);
    assert!(matches!(refused, Err(ApplyError::Conflicts(_))), "{refused:?}");
    std::fs::write(ground.root().join(".envrc"), "old").expect("written");
    ground.ask_with(&[], &agreed, false).expect("with the yes");
    assert_eq!(ground.now(), ground.after);
}

/// The link was there before the run, and is the user's own.
#[test]
fn what_a_trusted_name_leads_to_is_trusted() {
    let links = [(".vscode", "-> conf/editor"), ("sub/.envrc", "-> ../conf/env")];
    let before = [&links[..], &[("conf/editor/tasks.json", "1"), ("conf/env", "1")]].concat();
    let after =
        [&links[..], &[("conf/editor/tasks.json", "2"), ("conf/env", "2"), ("conf/other", "2")]]
            .concat();
    let ground = Ground::new(&before, &after);
    assert_eq!(ground.needs(), ["conf/editor/tasks.json", "conf/env"]);
}

#[test]
fn what_gits_settings_run_needs_a_yes() {
    let config = "[filter \"x\"]\n\tclean = python3 tools/clean.py %f\n\
                  [include]\n\tpath = ../settings/git\n";
    let before =
        [(".git/config", config), ("nested/.git/config", "[diff \"y\"]\n\ttextconv=./show")];
    let after = [
        &before[..],
        &[("tools/clean.py", "x"), ("settings/git", "[x]"), ("nested/show", "x"), ("tools/x", "x")],
    ]
    .concat();
    let ground = Ground::new(&before, &after);
    assert_eq!(ground.needs(), ["nested/show", "settings/git", "tools/clean.py"]);
}

#[test]
fn orders_for_agents_need_no_yes_and_are_named() {
    let ground = Ground::new(
        &[("CLAUDE.md", "old")],
        &[
            ("sub/Agents.MD", "do"),
            (".cursorrules", "do"),
            (".junie/guidelines.md", "do"),
            (".github/copilot-instructions.md", "do"),
            ("other", "1"),
        ],
    );
    let carried = ground.ask(&[], false, false).expect("no yes needed");
    let named: Vec<_> = carried.obeyed.iter().map(|one| one.path.as_str()).collect();
    let all = [
        ".cursorrules",
        ".github/copilot-instructions.md",
        ".junie/guidelines.md",
        "CLAUDE.md",
        "sub/Agents.MD",
    ];
    assert_eq!(named, all);
    // Not where the folder is another tool's, and not what else is in that folder.
    let ground = Ground::new(
        &[],
        &[(".claude/AGENTS.md", "x"), (".junie/mcp/mcp.json", "x"), (".clinerules/hooks/x", "x")],
    );
    let needs = ground.needs();
    for path in [".claude/AGENTS.md", ".junie/mcp/mcp.json", ".clinerules/hooks/x"] {
        assert!(needs.iter().any(|need| need == path), "{path}: {needs:?}");
    }
}
