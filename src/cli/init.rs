//! `sandbox-mcp init`: writes a project's own file, with everything in it as a comment.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::Usage;
use crate::config::PROJECT_FILE;

const TEMPLATE: &str = include_str!("../../config/project.toml");

pub fn run(workspace: Option<&Path>, out: &mut impl Write) -> anyhow::Result<()> {
    let folder = workspace.map_or_else(|| PathBuf::from("."), Path::to_owned);
    let path = folder.join(PROJECT_FILE);
    let mut file =
        std::fs::File::options().write(true).create_new(true).open(&path).map_err(|error| {
            let message = match error.kind() {
                std::io::ErrorKind::AlreadyExists => {
                    format!("{} is there already; nothing was changed", path.display())
                }
                _ => format!("failed to write {}: {error}", path.display()),
            };
            anyhow::Error::new(Usage(message))
        })?;
    file.write_all(TEMPLATE.as_bytes())
        .with_context(|| format!("failed to write {}", path.display()))?;
    writeln!(
        out,
        "{} is written; edit it, then `sandbox-mcp trust` puts it in force",
        path.display()
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment, LoadOptions, Project, load_for};

    #[test]
    fn what_it_writes_sets_nothing_until_edited_and_is_never_overwritten() {
        let folder = tempfile::tempdir().expect("temp");
        run(Some(folder.path()), &mut Vec::new()).expect("written");
        let again = run(Some(folder.path()), &mut Vec::new()).expect_err("there already");
        assert!(again.to_string().contains("nothing was changed"), "{again}");
        let project = Project::read(folder.path()).expect("readable").expect("there");
        let environment = Environment::of([("HOME", "/nowhere/at/all")]);
        let options = LoadOptions { environment, ..LoadOptions::default() };
        let loaded = load_for(&options, Some(&project), true).expect("valid");
        assert_eq!(loaded.config, Config::default());
    }

    #[test]
    fn each_of_its_lines_is_a_setting() {
        let uncommented: Vec<_> = TEMPLATE
            .lines()
            .map(|line| {
                line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line)
            })
            .collect();
        let folder = tempfile::tempdir().expect("temp");
        std::fs::write(folder.path().join(PROJECT_FILE), uncommented.join("\n")).expect("write");
        let project = Project::read(folder.path()).expect("readable").expect("there");
        let environment = Environment::of([("HOME", "/nowhere/at/all")]);
        let options = LoadOptions { environment, ..LoadOptions::default() };
        let loaded = load_for(&options, Some(&project), true).expect("valid");
        assert_eq!(loaded.config.egress.host_ports, [5432]);
        assert_eq!(project.asks(&Config::default()).expect("settings").len(), 7);
    }
}
