use std::ffi::OsStr;

use super::super::names::fold;
use super::*;

fn protected(path: &str) -> bool {
    let path = Path::new(path);
    path.ancestors().any(|place| {
        let (Some(folder), Some(name)) = (place.parent(), place.file_name()) else { return false };
        why_protected(folder, &fold(name)).is_some()
    })
}

fn obeyed(path: &str) -> bool {
    let path = Path::new(path);
    let (folder, name) = (path.parent().expect("a folder"), path.file_name().expect("a name"));
    why_obeyed(folder, &fold(name)).is_some()
}

/// What agents, editors, shells, git and build servers run or obey by itself, as they call it.
const RUN: &[&str] = &[
    ".agent/rules/a.md",
    ".agents/skills/x/run.sh",
    ".aider.conf.yml",
    ".aider.model.settings.yml",
    ".aiassistant/rules/a.md",
    ".amazonq/mcp.json",
    ".amazonq/cli-agents/a.json",
    ".amp/settings.json",
    ".augment/settings.json",
    ".autoenv.zsh",
    ".bazelrc",
    ".bundle/config",
    ".cargo/config",
    ".cargo/config.toml",
    ".circleci/config.yml",
    ".claude/settings.json",
    ".cline/mcp.json",
    ".clinerules/hooks/PreToolUse",
    ".codex/config.toml",
    ".codex/hooks.json",
    ".commitlintrc.js",
    ".config/mise/config.toml",
    ".continue/config.yaml",
    ".continue/mcpServers/x.yaml",
    ".crush.json",
    ".cursor/hooks.json",
    ".cursor/mcp.json",
    ".cursor/rules/x.mdc",
    ".devcontainer/devcontainer.json",
    ".devcontainer.json",
    ".dir-locals.el",
    ".direnv/bin/x",
    ".envrc",
    ".envrc.local",
    ".exrc",
    ".factory/mcp.json",
    ".fleet/run.json",
    ".gdbinit",
    ".gemini/settings.json",
    ".ghci",
    ".githooks/pre-commit",
    ".github/hooks/hooks.json",
    ".github/mcp.json",
    ".github/workflows/ci.yml",
    ".gitlab-ci.yml",
    ".goose/config.yaml",
    ".gooseignore",
    ".helix/languages.toml",
    ".hg/hgrc",
    ".huskyrc.json",
    ".husky/pre-commit",
    ".idea/workspace.xml",
    ".idx/dev.nix",
    ".junie/mcp/mcp.json",
    ".kilo/kilo.jsonc",
    ".kilocode/mcp.json",
    ".kiro/hooks/x.kiro.hook",
    ".kiro/settings/mcp.json",
    ".lazy.lua",
    ".lefthook-local.yml",
    ".lefthook.toml",
    ".lefthook/pre-commit/x.sh",
    ".lintstagedrc.js",
    ".lldbinit",
    ".mcp.json",
    ".mise.toml",
    ".mise/config.toml",
    ".nova/Tasks/x.json",
    ".npmrc",
    ".nvim.lua",
    ".nvimrc",
    ".openhands/setup.sh",
    ".opencode/plugin/x.ts",
    ".overcommit.yml",
    ".pi/extensions/x.ts",
    ".pnpmfile.cjs",
    ".pre-commit-config.yaml",
    ".prototools",
    ".pypirc",
    ".qwen/settings.json",
    ".Rprofile",
    ".roo/mcp.json",
    ".roomodes",
    ".rovodev/config.yml",
    ".rust-analyzer.toml",
    ".serena/project.yml",
    ".tool-versions",
    ".trae/mcp.json",
    ".travis.yml",
    ".vim/coc-settings.json",
    ".vimrc",
    ".vs/mcp.json",
    ".vscode/tasks.json",
    ".vscode/mcp.json",
    ".windsurf/workflows/x.md",
    ".yarn/plugins/x.cjs",
    ".yarn/releases/yarn.cjs",
    ".yarnrc",
    ".yarnrc.yml",
    ".zed/settings.json",
    ".zed/tasks.json",
    "bunfig.toml",
    "crush.json",
    "firebender.json",
    "Jenkinsfile",
    "kilo.jsonc",
    "lefthook-local.json",
    "lefthook.yaml",
    "lefthook.yml",
    "lint-staged.config.mjs",
    "mise.local.toml",
    "mise.toml",
    "opencode.json",
    "opencode.jsonc",
    "pip.conf",
    "prek.toml",
    "project.code-workspace",
    "project.sublime-project",
];

#[test]
fn what_runs_by_itself_is_protected_at_any_depth_and_in_any_spelling() {
    for path in RUN {
        assert!(protected(path), "{path}");
        assert!(protected(&format!("a/b c/{path}")), "{path}");
        assert!(protected(&path.to_uppercase()), "{path}");
        let spelt = path.replace('.', ".\u{200d}").replace('/', ". /");
        assert!(protected(&format!("{spelt}::$DATA")), "{spelt}");
    }
    assert!(RUN.len() >= 74);
}

/// Work as any other: what a person runs, and what only looks like a name of the list.
#[test]
fn what_a_person_runs_is_not() {
    for path in [
        "package.json",
        "Makefile",
        "build.rs",
        "Cargo.toml",
        ".cargo/audit.toml",
        ".github/CODEOWNERS",
        ".github/actions/x/action.yml",
        "config",
        "cargo/config.toml",
        "workflows/ci.yml",
        "lefthook.go",
        "src/mise.rs",
        ".gitignore",
        ".editorconfig",
        ".nvmrc",
        ".yarn/cache/x.zip",
        "docs/claude/x",
        "envrc",
        "node_modules/x/.travis.yml",
    ] {
        assert!(!protected(path) && !obeyed(path), "{path}");
    }
    // Packages bring these as well, and editors open them all the same.
    assert!(protected("node_modules/x/.vscode/tasks.json"));
    assert!(protected("node_modules/x/.github/workflows/ci.yml"));
}

#[test]
fn orders_for_agents_are_told_from_what_is_run() {
    for path in [
        "AGENTS.md",
        "a/AGENTS.override.md",
        "CLAUDE.md",
        "CLAUDE.local.md",
        "GEMINI.md",
        "QWEN.md",
        "CRUSH.md",
        ".cursorrules",
        ".windsurfrules",
        ".clinerules",
        ".goosehints",
        ".roorules-code",
        ".rules",
        ".github/copilot-instructions.md",
        "copilot-instructions.md",
        ".junie/guidelines.md",
        ".env",
    ] {
        assert!(obeyed(path), "{path}");
        assert!(obeyed(&path.to_lowercase()), "{path}");
    }
    assert!(is_named_with(".github") && is_named_with(".cargo") && !is_named_with(".vscode"));
}

/// A name that is not written as it is folded would never be found.
#[test]
fn every_name_of_the_list_is_folded_and_there_once() {
    let mut seen = std::collections::HashSet::new();
    for (_, names) in PROTECTED {
        for name in *names {
            assert!(seen.insert(name), "{name} twice");
        }
    }
    for (_, names) in PROTECTED.iter().chain(OBEYED) {
        assert!(names.is_sorted(), "{names:?}");
        for part in names.iter().flat_map(|name| name.split('/')) {
            assert_eq!(fold(OsStr::new(part)), part);
        }
        assert!(names.iter().all(|name| name.split('/').count() <= 2));
    }
}
