//! What this machine has: folders, variables and programs, as one value that tests can make up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::{Config, Environment};

/// Where a client keeps something.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The variable that moves its folder, and what is below it then.
    pub moved: Option<(&'static str, &'static str)>,
    pub base: Base,
    pub below: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub enum Base {
    Home,
    /// `XDG_CONFIG_HOME`, which is `~/.config` unless set.
    Config,
}

impl Place {
    pub const fn home(below: &'static str) -> Self {
        Self { moved: None, base: Base::Home, below }
    }

    pub const fn config(below: &'static str) -> Self {
        Self { moved: None, base: Base::Config, below }
    }

    pub const fn unless(self, variable: &'static str, then: &'static str) -> Self {
        Self { moved: Some((variable, then)), ..self }
    }
}

/// The surroundings of this process.
#[derive(Clone, Debug)]
pub struct Around {
    pub home: PathBuf,
    pub variables: BTreeMap<String, String>,
    /// The folder whose project is meant.
    pub project: PathBuf,
    /// This program.
    pub program: PathBuf,
    /// Seconds that a run may take by these settings, verification included.
    pub longest_run: u64,
    /// Seconds after which a call answers that its run goes on, where that is set.
    pub sync_limit: Option<u64>,
    /// The variable that holds the model server's key.
    pub key_variable: String,
}

impl Around {
    pub fn here(config: &Config) -> anyhow::Result<Self> {
        let home = Environment::default().home();
        let home = home.ok_or_else(|| anyhow::anyhow!("failed to find a home folder; set HOME"))?;
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let variables = std::env::vars_os().filter_map(text).filter(|(_, value)| !value.is_empty());
        Ok(Self {
            home,
            variables: variables.collect(),
            project: std::env::current_dir()?,
            program: std::env::current_exe()?,
            longest_run: config.limits.max_timeout.saturating_add(config.limits.verify_timeout),
            sync_limit: config.mcp.sync_limit,
            key_variable: config.model.api_key_env.clone(),
        })
    }

    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    pub fn path(&self, place: &Place) -> PathBuf {
        let folder = |name| self.variable(name).map(Path::new).filter(|path| path.is_absolute());
        if let Some((variable, below)) = place.moved
            && let Some(folder) = folder(variable)
        {
            return folder.join(below);
        }
        match place.base {
            Base::Home => self.home.join(place.below),
            Base::Config => match folder("XDG_CONFIG_HOME") {
                Some(folder) => folder.join(place.below),
                None => self.home.join(".config").join(place.below),
            },
        }
    }

    /// Whether a program of this name can be started.
    pub fn has_program(&self, name: &str) -> bool {
        self.find_program(name).is_some()
    }

    /// The file that starting `name` would start.
    pub fn find_program(&self, name: &str) -> Option<PathBuf> {
        let runs = |path: &Path| {
            path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
        };
        if name.contains('/') {
            return Some(PathBuf::from(name)).filter(|path| path.is_absolute() && runs(path));
        }
        let folders = std::env::split_paths(self.variable("PATH").unwrap_or_default());
        folders.map(|folder| folder.join(name)).find(|path| runs(path))
    }

    /// With `~` for the home folder, as people write it.
    pub fn shown(&self, path: &Path) -> String {
        let text = match path.strip_prefix(&self.home) {
            Ok(below) if below != Path::new("") => format!("~/{}", below.display()),
            _ => path.display().to_string(),
        };
        crate::text::one_line(&text, 500)
    }
}
