//! Why a run could not do its work, and what that means for its status.

use super::{Failure, Status};
use crate::{engine, gateway, model, sandbox, workspace};

/// Trouble outside the agent's own work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    #[error(transparent)]
    Gateway(#[from] gateway::Error),
    #[error(transparent)]
    Model(#[from] model::Error),
    #[error(transparent)]
    Workspace(#[from] workspace::Error),
    #[error(transparent)]
    Unprotectable(workspace::Obstacle),
    #[error("failed to {0}")]
    Guard(#[from] workspace::GuardError),
    #[error("failed to {0}")]
    Layer(workspace::LayerError),
    #[error(
        "`workspace.isolation` is overlay, and the workspace's path has a comma, a colon or a backslash, which no overlay takes"
    )]
    NoOverlay,
    #[error(transparent)]
    Session(#[from] crate::session::Error),
    #[error("the agent in this image cannot go on with a conversation")]
    NoSessions,
    #[error("failed to look at the workspace; this is a fault of sandbox-mcp, please report it")]
    Looking,
    #[error("`hooks.before_start` {why}")]
    Hook { why: String },
    #[error(
        "`egress.host_ports` has {port}, the model server's own port, which is reached through the relay alone; take it out"
    )]
    ModelPort { port: u16 },
    #[error("`egress.allow`: {0}")]
    Domain(#[from] crate::config::NotADomain),
    #[error("`mount` has {0}")]
    Material(#[from] workspace::MaterialError),
    #[error("a run keeps what it changes in its record, which cannot be made; the log says why")]
    NoRecord,
    #[error("what an earlier run of the session left waiting cannot be gone on from: {0}")]
    Earlier(String),
    #[error("failed to {what}: {source}")]
    Io { what: &'static str, source: std::io::Error },
}

/// The kinds of errors that are the engine's: it is not there, does not do what it is told, or has
/// no image to do it with.
const OF_ENGINE: &[&str] = &[
    "no_engine",
    "engine_denied",
    "engine",
    "image_build",
    "no_image",
    "policy_mismatch",
    // Of runs that had begun, in `verdict`.
    "connection_lost",
    "killed_from_outside",
];

impl Failure {
    /// Whether it is the engine that failed.
    pub fn is_of_engine(&self) -> bool {
        OF_ENGINE.contains(&self.kind.as_str())
    }
}

impl From<workspace::LayerError> for Error {
    fn from(error: workspace::LayerError) -> Self {
        match error {
            workspace::LayerError::Workspace(error) => error.into(),
            other => Self::Layer(other),
        }
    }
}

impl Error {
    /// A stable word for programs.
    fn kind(&self) -> &'static str {
        match self {
            Self::Engine(engine::Error::NotFound { .. } | engine::Error::Unsupported { .. }) => {
                "no_engine"
            }
            Self::Engine(engine::Error::Denied { .. }) => "engine_denied",
            Self::Engine(engine::Error::Build { .. })
            | Self::Sandbox(sandbox::Error::Engine(engine::Error::Build { .. })) => "image_build",
            Self::Engine(_) | Self::Sandbox(sandbox::Error::Engine(_)) => "engine",
            Self::Sandbox(sandbox::Error::NoImage { .. } | sandbox::Error::NoBase { .. }) => {
                "no_image"
            }
            Self::Sandbox(sandbox::Error::Mismatch(_) | sandbox::Error::RootInside) => {
                "policy_mismatch"
            }
            Self::Sandbox(sandbox::Error::RootOwned { .. } | sandbox::Error::User { .. }) => "user",
            Self::Sandbox(sandbox::Error::NoAgent { .. }) => "no_agent",
            Self::Sandbox(_) => "sandbox",
            Self::Gateway(_) => "gateway",
            Self::Model(
                model::Error::Unusable { fault, .. } | model::Error::Faulted { fault, .. },
            ) => fault.kind.as_str(),
            Self::Model(model::Error::NoneFound { .. }) => "no_model_server",
            Self::Model(model::Error::NoModels { .. } | model::Error::UnknownModel { .. }) => {
                "no_model"
            }
            Self::Model(_) => "model_settings",
            Self::Workspace(_)
            | Self::Unprotectable(_)
            | Self::Guard(_)
            | Self::Layer(_)
            | Self::NoOverlay
            | Self::Looking
            | Self::Earlier(_) => "workspace",
            Self::Session(crate::session::Error::Busy(_)) => "session_busy",
            Self::Session(_) | Self::NoSessions => "session",
            Self::Hook { .. } => "hook",
            Self::Domain(_) | Self::ModelPort { .. } => "egress",
            Self::Material(_) => "mount",
            Self::Io { .. } | Self::NoRecord => "io",
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Model(model::Error::Unusable { fault, .. }) if fault.hint.is_some() => {
                fault.hint.as_deref().unwrap_or_default()
            }
            Self::Model(
                model::Error::NoModels { .. }
                | model::Error::UnknownModel { .. }
                | model::Error::Unusable { .. },
            ) => "`sandbox-mcp doctor` shows what the server says of itself",
            Self::Domain(_)
            | Self::Material(_)
            | Self::Model(
                model::Error::BadUrl { .. }
                | model::Error::BadKey { .. }
                | model::Error::Authorities { .. },
            ) => "`sandbox-mcp config` shows where the setting comes from",
            Self::Model(_) => {
                "start the model server or name it with --model-url; `sandbox-mcp doctor` shows what was tried"
            }
            Self::Layer(workspace::LayerError::TooLarge { .. }) => {
                "raise the limit, use the mode direct, or an engine and a file system with overlays"
            }
            Self::Session(_) => "leave `session` out to run without what was said before",
            Self::NoSessions => "use the image that sandbox-mcp builds, or leave `session` out",
            Self::NoOverlay => "set `workspace.isolation` to auto or copy, or rename the folder",
            Self::Hook { .. } => {
                "run the lines by hand in your home folder, and mend or remove them"
            }
            _ => "`sandbox-mcp doctor` checks engine, image and model server",
        }
    }

    /// What this means for the run.
    pub(super) fn verdict(&self) -> (Status, Failure) {
        let status = match self {
            // A server that answers is there, whatever it says.
            Self::Model(model::Error::Unusable { fault, .. }) if !fault.is_unreachable() => {
                Status::ModelError
            }
            Self::Model(model::Error::NoModels { .. } | model::Error::UnknownModel { .. }) => {
                Status::ModelError
            }
            Self::Model(_) => Status::ModelUnreachable,
            _ => Status::SandboxError,
        };
        let failure = Failure {
            kind: self.kind().to_owned(),
            message: crate::text::clean(&match self {
                // These complete "failed to …".
                Self::Model(error) => format!("failed to {error}"),
                other => other.to_string(),
            }),
            hint: Some(self.hint().to_owned()),
        };
        (status, failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_users_is_no_error_of_the_engine() {
        let of_engine = |error: Error| error.verdict().1.is_of_engine();
        assert!(of_engine(sandbox::Error::NoImage { image: "x".into() }.into()));
        assert!(of_engine(sandbox::Error::Mismatch(vec!["x".into()]).into()));
        for other in [
            Error::Sandbox(sandbox::Error::User { given: "0:0".into() }),
            Error::Hook { why: "x".into() },
            Error::ModelPort { port: 1 },
            Error::NoOverlay,
            Error::NoRecord,
        ] {
            assert!(!of_engine(other));
        }
    }
}
