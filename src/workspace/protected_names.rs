//! The one list of names that tools on the host execute or obey without being asked.
//!
//! On it is what takes effect when somebody opens the folder in an editor, starts an agent or a
//! shell there, or runs git. Not on it is what runs when a person builds or tests: that is the
//! work itself. All names are folded ([`super::names::fold`]), and count at any depth.

use std::collections::HashMap;
use std::path::Path;
use std::sync::LazyLock;

use super::names::{is_called, is_vendored};

/// What a name means to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Executed or obeyed: not changed without a person's yes.
    Protected(&'static str),
    /// Orders that agents and shells on the host follow: changed, and named.
    Obeyed(&'static str),
}

const AGENTS: &str = "agents on the host run or obey it";
const EDITORS: &str = "editors on the host run or obey it";
const SHELLS: &str = "shells or version managers on the host run or obey it";
const HOOKS: &str = "git on the host runs what it names";
const PACKAGES: &str = "package managers on the host obey it";
const PROGRAMS: &str = "programs that start in its folder run it";
const SERVER: &str = "it runs on the project's build server";

const ORDERS: &str = "agents on the host follow it";
const VARIABLES: &str = "agents and shells on the host may take settings from it";

/// Names, or a `name` in a `folder/`; a `*` stands for anything.
const PROTECTED: &[(&str, &[&str])] = &[
    (
        AGENTS,
        &[
            ".agent",
            ".agents",
            ".aiassistant",
            ".aider*",
            ".amazonq",
            ".amp",
            ".antigravity",
            ".augment",
            ".claude",
            ".claude-plugin",
            ".claude.json",
            ".cline",
            ".clinerules",
            ".codebuddy",
            ".codeium",
            ".codex",
            ".cody",
            ".continue",
            ".continuerc.json",
            ".copilot",
            ".crush",
            ".crush.json",
            ".cursor",
            ".cursor-plugin",
            ".factory",
            ".firebender",
            ".gemini",
            ".github/agents",
            ".github/copilot",
            ".github/extensions",
            ".github/hooks",
            ".github/lsp.json",
            ".github/mcp.json",
            ".github/plugin",
            ".github/skills",
            ".goose*",
            ".grok",
            ".idx",
            ".iflow",
            ".junie",
            ".kilo",
            ".kilocode",
            ".kilocodemodes",
            ".kimi",
            ".kiro",
            ".lsp.json",
            ".mcp",
            ".mcp.json",
            ".mux",
            ".omp",
            ".opencode",
            ".opencode.json",
            ".openhands",
            ".pi",
            ".plandex*",
            ".qoder",
            ".qwen",
            ".roo",
            ".roomodes",
            ".rovodev",
            ".sandbox-mcp.toml",
            ".serena",
            ".superset",
            ".tabnine",
            ".trae",
            ".vibe",
            ".warp",
            ".windsurf",
            ".zencoder",
            "conductor.json",
            "crush.json",
            "firebender.json",
            "kilo.json",
            "kilo.jsonc",
            "opencode.json",
            "opencode.jsonc",
        ],
    ),
    (
        EDITORS,
        &[
            "*.code-workspace",
            "*.sublime-project",
            ".devcontainer",
            ".devcontainer.json",
            ".devfile.yaml",
            ".dir-locals-2.el",
            ".dir-locals.el",
            ".exrc",
            ".fleet",
            ".gitpod.yml",
            ".gvimrc",
            ".helix",
            ".idea",
            ".kakrc",
            ".lapce",
            ".lazy.lua",
            ".luarc.json",
            ".luarc.jsonc",
            ".lvimrc",
            ".neoconf.json",
            ".nlsp-settings",
            ".nova",
            ".nvim",
            ".nvim.lua",
            ".nvimrc",
            ".rust-analyzer.toml",
            ".theia",
            ".vim",
            ".vimrc",
            ".vs",
            ".vscode",
            ".zed",
            "_exrc",
            "_vimrc",
            "devfile.yaml",
            "rust-analyzer.toml",
        ],
    ),
    (
        SHELLS,
        &[
            ".autoenv*",
            ".config/mise",
            ".config/mise.toml",
            ".direnv",
            ".envrc*",
            ".hg/hgrc",
            ".mise*",
            ".prototools",
            ".rtx*",
            ".shadowenv.d",
            ".tool-versions",
            "mise.*.toml",
            "mise.toml",
            "mise/config.toml",
        ],
    ),
    (
        HOOKS,
        &[
            ".captainhook",
            ".cargo-husky",
            ".commitlintrc*",
            ".git-hooks",
            ".githooks",
            ".hk-hooks",
            ".husky",
            ".huskyrc*",
            ".lefthook*",
            ".lfsconfig",
            ".lintstagedrc*",
            ".local-overcommit.yml",
            ".overcommit.yml",
            ".pre-commit-config.yaml",
            ".pre-commit-config.yml",
            ".rusty-hook.toml",
            ".simple-git-hooks.*",
            "captainhook.json",
            "commitlint.config.*",
            "grumphp.yaml",
            "grumphp.yml",
            "hk.pkl",
            "husky.config.*",
            "lefthook-local.json",
            "lefthook-local.jsonc",
            "lefthook-local.toml",
            "lefthook-local.yaml",
            "lefthook-local.yml",
            "lefthook.json",
            "lefthook.jsonc",
            "lefthook.toml",
            "lefthook.yaml",
            "lefthook.yml",
            "lint-staged.config.*",
            "prek.toml",
            "simple-git-hooks.*",
        ],
    ),
    (
        PACKAGES,
        &[
            ".bazeliskrc",
            ".bazelrc",
            ".buckconfig*",
            ".bundle/config",
            ".cargo/config",
            ".cargo/config.toml",
            ".condarc",
            ".mvn",
            ".npmrc",
            ".pip",
            ".pnpmfile.*",
            ".pypirc",
            ".yarn/plugins",
            ".yarn/releases",
            ".yarn/sdks",
            ".yarnrc*",
            "bunfig.toml",
            "nuget.config",
            "pip.conf",
            "pip.ini",
            "pnpmfile.js",
            "poetry.toml",
            "uv.toml",
        ],
    ),
    (
        PROGRAMS,
        &[
            ".erlang",
            ".gdbearlyinit",
            ".gdbinit",
            ".ghci",
            ".iex.exs",
            ".irbrc",
            ".lldbinit",
            ".ocamlinit",
            ".octaverc",
            ".pdbrc",
            ".pdbrc.py",
            ".pryrc",
            ".radare2rc",
            ".renviron",
            ".rprofile",
        ],
    ),
    (
        SERVER,
        &[
            ".appveyor.yml",
            ".azure-pipelines",
            ".build.yml",
            ".buildkite",
            ".builds",
            ".circleci",
            ".cirrus.star",
            ".cirrus.yml",
            ".drone.yml",
            ".forgejo/workflows",
            ".gitea/workflows",
            ".github/workflows",
            ".gitlab-ci.yaml",
            ".gitlab-ci.yml",
            ".onedev-buildspec.yml",
            ".semaphore",
            ".teamcity",
            ".travis.yml",
            ".woodpecker",
            ".woodpecker.yaml",
            ".woodpecker.yml",
            "appveyor.yml",
            "azure-pipelines.yaml",
            "azure-pipelines.yml",
            "bitbucket-pipelines.yml",
            "buildspec.yml",
            "cloudbuild.yaml",
            "codefresh.yml",
            "jenkinsfile",
            "wercker.yml",
        ],
    ),
];

/// Likewise, of files. What a file is obeyed for comes before the protection of its name, and of
/// the folder that is named with it.
const OBEYED: &[(&str, &[&str])] = &[
    (
        ORDERS,
        &[
            ".clinerules",
            ".cursorrules",
            ".github/chatmodes",
            ".github/instructions",
            ".github/prompts",
            ".goosehints",
            ".idx/airules.md",
            ".junie/agents.md",
            ".junie/guidelines.md",
            ".kilocoderules",
            ".roorules*",
            ".rules",
            ".windsurfrules",
            "agent.md",
            "agents.local.md",
            "agents.md",
            "agents.override.md",
            "claude.local.md",
            "claude.md",
            "codebuddy.md",
            "copilot-instructions.md",
            "crush.local.md",
            "crush.md",
            "gemini.md",
            "iflow.md",
            "kimi.md",
            "opencode.md",
            "qwen.md",
            "warp.md",
        ],
    ),
    (VARIABLES, &[".env"]),
];

#[derive(Debug, Default)]
struct Index {
    /// By the last name: the folder that it must be in, if that matters, and what it means there.
    names: HashMap<&'static str, Vec<(Option<&'static str>, Meaning)>>,
    /// Beginning and end of names.
    patterns: Vec<(&'static str, &'static str, Meaning)>,
    folders: Vec<&'static str>,
}

static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let mut index = Index::default();
    let obeyed = OBEYED.iter().map(|(why, names)| (Meaning::Obeyed(why), names));
    let protected = PROTECTED.iter().map(|(why, names)| (Meaning::Protected(why), names));
    for (meaning, names) in obeyed.chain(protected) {
        for name in *names {
            let (folder, last) = match name.split_once('/') {
                Some((folder, last)) => (Some(folder), last),
                None => (None, *name),
            };
            index.folders.extend(folder);
            match last.split_once('*') {
                Some((begin, end)) => index.patterns.push((begin, end, meaning)),
                None => index.names.entry(last).or_default().push((folder, meaning)),
            }
        }
    }
    index.folders.sort_unstable();
    index.folders.dedup();
    index
});

impl Index {
    /// All that a folded name means in a folder.
    fn meanings(&self, folder: &Path, name: &str) -> impl Iterator<Item = Meaning> {
        let is_in = |wanted: Option<&str>| wanted.is_none_or(|wanted| is_called(folder, wanted));
        let whole = self.names.get(name).into_iter().flatten();
        let whole = whole.filter(move |(wanted, _)| is_in(*wanted)).map(|(_, meaning)| *meaning);
        let patterns = self.patterns.iter().filter(move |(begin, end, _)| {
            name.strip_prefix(begin).is_some_and(|rest| rest.ends_with(end))
        });
        whole.chain(patterns.map(|(_, _, meaning)| *meaning))
    }
}

/// Why the folded name of something in a folder is protected, if it is.
pub(super) fn why_protected(folder: &Path, name: &str) -> Option<&'static str> {
    INDEX.meanings(folder, name).find_map(|meaning| match meaning {
        // What comes along with a package is no build server's to run.
        Meaning::Protected(SERVER) if is_vendored(folder) && name != "workflows" => None,
        Meaning::Protected(why) => Some(why),
        Meaning::Obeyed(_) => None,
    })
}

/// Why agents or shells would follow a file with this folded name, if they would.
pub(super) fn why_obeyed(folder: &Path, name: &str) -> Option<&'static str> {
    INDEX.meanings(folder, name).find_map(|meaning| match meaning {
        Meaning::Obeyed(why) => Some(why),
        Meaning::Protected(_) => None,
    })
}

/// Whether a file is orders by its name in a folder of this name, which is protected otherwise.
pub(super) fn is_order_of(folder: &Path, name: &str) -> bool {
    let known = INDEX.names.get(name).into_iter().flatten();
    known.into_iter().any(|(wanted, meaning)| {
        matches!(meaning, Meaning::Obeyed(_)) && wanted.is_some_and(|name| is_called(folder, name))
    })
}

/// Whether some names count only in a folder that is called so. What takes the place of the folder
/// counts, too.
pub(super) fn is_named_with(name: &str) -> bool {
    INDEX.folders.binary_search(&name).is_ok()
}

#[cfg(test)]
#[path = "protected_names_tests.rs"]
mod tests;
