//! Having the sandbox tell how a run's overlay looks, when nothing else lives in it; and after a
//! crash, having another one tell it.

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::commits::{self, Packed};
use super::{Error, deadlines, git};
use crate::config::Config;
use crate::engine::Engine;
use crate::ids::Owner;
use crate::sandbox::{self, Copies, Line, Overlay, Policy, Sandbox, Spec, User};
use crate::workspace::changeset::{Merged, Survey};
use crate::workspace::git::{Given, noted};
use crate::workspace::layer::{Layer, Setup};
use crate::workspace::mirror;

/// How long what goes on in a sandbox may take to end.
const STOP: Duration = Duration::from_secs(5);

/// How long a look may take: half a million names are told in some seconds.
const LOOK: Duration = Duration::from_secs(60);

/// How long a sandbox of its own may live for it.
const LIFETIME: Duration = Duration::from_secs(180);

/// The same where it has to bring files from the engine's machine.
const LIFETIME_OF_COPIES: Duration = Duration::from_secs(3600);

/// Ends what goes on in a run's sandbox, and has it tell how its overlay looks. Nothing where there
/// is none, or where it does not answer: then another sandbox has to.
pub async fn last_look(sandbox: &mut Sandbox, layer: &Layer) -> Option<Merged> {
    layer.mounted()?;
    let looked = async {
        if !quiet(sandbox).await {
            return Err("it does not become empty".to_owned());
        }
        match timeout(LOOK, look(sandbox, layer, true)).await {
            Ok(Ok(merged)) => Ok(merged),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it takes too long".to_owned()),
        }
    };
    looked
        .await
        .inspect_err(|why| tracing::debug!("the sandbox does not tell its view: {why}"))
        .ok()
}

/// Ends what goes on in a run's sandbox. False where that takes too long.
pub async fn quiet(sandbox: &mut Sandbox) -> bool {
    timeout(STOP, stop(sandbox)).await.is_ok() && sandbox.is_idle()
}

async fn stop(sandbox: &mut Sandbox) {
    if sandbox.is_idle() || sandbox.stop().is_err() {
        return;
    }
    while let Some(line) = sandbox.next_line().await {
        if matches!(line, Ok(Line::Ended(_)) | Err(_)) {
            return;
        }
    }
}

/// Has a sandbox whose processes are paused tell how its overlay looks; nothing where there is none.
pub async fn look_paused(sandbox: &mut Sandbox, layer: &Layer) -> Result<Option<Merged>, String> {
    if layer.mounted().is_none() {
        return Ok(None);
    }
    match timeout(LOOK, look(sandbox, layer, false)).await {
        Ok(looked) => looked.map(Some).map_err(|error| error.to_string()),
        Err(_) => Err("it takes too long".to_owned()),
    }
}

async fn look(sandbox: &mut Sandbox, layer: &Layer, is_over: bool) -> Result<Merged, Error> {
    let what = "look into the run's layer";
    let mut survey = Survey::begin(layer, is_over).map_err(|source| Error::Io { what, source })?;
    loop {
        let wanted = survey.wanted();
        if wanted.is_empty() {
            return Ok(survey.done());
        }
        let seen = sandbox.list(&wanted).await?;
        survey = spawn_blocking(move || {
            survey.take(seen);
            survey
        })
        .await
        .map_err(|_| Error::Looking)?;
    }
}

/// Returns whether git inside has made anything, and what it was given.
async fn news_of(layer: &Layer) -> Result<(bool, Given), Error> {
    let (folder, asked) = (layer.git()?, layer.clone());
    let looking = spawn_blocking(move || (commits::are_in(&asked), noted(&folder)));
    looking.await.map_err(|_| Error::Looking)
}

/// Brings back what a run has left on the engine's machine.
async fn copies_back(
    copies: &Copies,
    engine: &Engine,
    policy: &Policy,
    spec: &Spec<'_>,
) -> Result<(), Error> {
    let bringing = copies.bring_back(engine, policy, spec, mirror::take);
    timeout(LIFETIME_OF_COPIES, bringing).await.map_err(|_| Error::Looking)?.map_err(Error::from)
}

/// The user that a run had. The engine that answers now may be another one, where root is root.
async fn user_of(engine: &Engine, setup: &Setup) -> Result<User, Error> {
    let root = User::of_rootless_engine();
    if setup.user != root.to_string() {
        return Ok(setup.user.parse::<User>()?);
    }
    let is_accepted = setup.accepted.iter().any(|one| one == sandbox::ROOT_INSIDE);
    match engine.facts().await? {
        facts if facts.makes_its_user_root() && is_accepted => Ok(root),
        _ => Err(sandbox::Error::RootInside.into()),
    }
}

/// The image for a look after a crash. Where the run's own has been removed meanwhile, any of ours
/// can look, and the newest is the likeliest to be of this version.
async fn image_of(engine: &Engine, setup: &Setup) -> Result<String, Error> {
    if engine.image(&setup.image).await?.is_some() {
        return Ok(setup.image.clone());
    }
    // Where there is none, the engine says which one is missing.
    Ok(sandbox::image::newest(engine).await?.unwrap_or_else(|| setup.image.clone()))
}

/// The same by a sandbox of its own, for a run whose sandbox is gone; git there packs what is new,
/// too. No sandbox is made where there is nothing to be asked.
pub async fn look_again(engine: &Engine, layer: &Layer) -> Result<(Option<Merged>, Packed), Error> {
    let (Some(setup), Some(run)) = (layer.setup(), layer.run()) else {
        return Ok(Default::default());
    };
    let mut copies = layer.copies().filter(|_| layer.view().is_some());
    let mut news = news_of(layer).await?;
    let is_asked = layer.mounted().is_some() || (layer.view().is_some() && news.0);
    if copies.is_none() && !is_asked {
        return Ok(Default::default());
    }
    let user = user_of(engine, setup).await?.with(setup.shared);
    let owner =
        Owner::current().map_err(|source| Error::Io { what: "read our own start time", source })?;
    let mut config = Config::default();
    config.sandbox.runtime.clone_from(&setup.runtime);
    config.sandbox.accept.clone_from(&setup.accepted);
    // It leads nowhere, and runs nothing of the agent's.
    let policy = |mounts| Policy {
        doors: Vec::new(),
        ..Policy::new(&config, user, setup.inside.clone(), mounts)
    };
    let lifetime = if layer.copies().is_some() { LIFETIME_OF_COPIES } else { LIFETIME };
    let labels = deadlines::labels(&run, owner, lifetime);
    let sockets = tempfile::tempdir()
        .map_err(|source| Error::Io { what: "make a folder for a socket", source })?;
    let image = image_of(engine, setup).await?;
    let spec = Spec { image: &image, labels: &labels, sockets: Some(sockets.path()) };
    if let Some(there) = copies {
        let brought = copies_back(there, engine, &policy(Vec::new()), &spec).await;
        if let Err(Error::Sandbox(error @ sandbox::Error::Gone { .. })) = brought {
            // It never comes back, so what was brought before is all there is.
            tracing::error!("run {run}: {error}; what it changed last is lost");
            copies = None;
        } else {
            brought?;
        }
        news = news_of(layer).await?;
    }
    let (has_news, given) = news;
    let workspace = layer.workspace().to_owned();
    let view = match layer.mounted() {
        Some((upper, work)) => {
            let overlay = Overlay { volume: format!("sandbox-mcp-{run}-look"), upper, work };
            Policy::overlay_mount(workspace, setup.inside.clone(), overlay)
        }
        None if layer.view().is_some() && has_news => {
            Policy::workspace_mount(layer.written(), setup.inside.clone(), false)
        }
        None => return Ok(Default::default()),
    };
    let mut mounts = vec![view];
    // Where the user's objects are elsewhere by now, only the files come back.
    let has_git = has_news && given.is_as_it_was();
    if has_git {
        mounts.extend(git::mounts(&given));
    }
    let policy = policy(mounts);
    let (mut sandbox, policy) = match copies {
        Some(copies) => Sandbox::start_again_with_copies(engine, &policy, &spec, copies).await?,
        None => (Sandbox::start(engine, &policy, &spec).await?, policy),
    };
    let looked = async {
        sandbox.receipt(&policy).await?;
        let packed = if has_git { commits::pack(&mut sandbox, layer).await } else { None };
        // Git may still be at work.
        if !quiet(&mut sandbox).await {
            return Err(Error::Looking);
        }
        let merged = match layer.mounted() {
            Some(_) => Some(look(&mut sandbox, layer, true).await?),
            None => None,
        };
        sandbox.bring_back(mirror::take).await?;
        Ok((merged, packed.unwrap_or_default()))
    };
    let looked = timeout(lifetime, looked).await.unwrap_or(Err(Error::Looking));
    sandbox.remove().await?;
    looked
}
