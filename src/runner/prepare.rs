//! Finding everything that a run needs, before anything is made for it.

use super::earlier::{self, Earlier};
use super::openings::Openings;
use super::shared::Shared;
use super::story::Story;
use super::task::Checked;
use super::user::user;
use super::{Error, deadlines, git, isolated, probe, session};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::agent::{Abilities, Request, opencode};
use crate::engine::{Engine, Facts};
use crate::ids::{Owner, RunId};
use crate::model::{self, Endpoint, Patience};
use crate::runner::room::Room;
use crate::sandbox::image::{Chosen, Inputs};
use crate::sandbox::{self, MODEL_PORT, Mount, Policy, RunFolder, SESSION, User};
use crate::workspace::changeset::RelPath;
use crate::workspace::git::Given;
use crate::workspace::layer::mounts_below;
use crate::workspace::{Kind, Place, WorkspacePath, existing, led_to, sockets};

/// All that a run starts from.
#[derive(Debug)]
pub struct Prepared {
    pub engine: Engine,
    pub facts: Facts,
    pub endpoint: Endpoint,
    pub image: String,
    pub abilities: Abilities,
    pub user: User,
    /// The path of the workspace inside.
    pub inside: PathBuf,
    pub mounts: Vec<Mount>,
    /// What the agent must not see of the workspace, and whether it is a folder.
    pub masks: Vec<(PathBuf, bool)>,
    /// Changes that the view begins with.
    pub earlier: Option<Arc<Earlier>>,
    /// The workspace's own words to the agent, as paths inside.
    pub instructions: Vec<String>,
    pub openings: Openings,
    /// What the sandbox gets of the workspace's repository.
    pub repository: Given,
    /// Whether the conversation is to outlive the sandbox.
    pub remembers: bool,
    /// The agent's own name for the conversation to go on with.
    pub conversation: Option<String>,
    /// This process.
    pub owner: Owner,
}

impl Prepared {
    /// What the agent is asked, in the agent's terms.
    pub fn request<'a>(&'a self, task: &'a Checked) -> Request<'a> {
        Request {
            model: &self.endpoint.model,
            context: self.endpoint.context,
            output: self.endpoint.output,
            vision: self.endpoint.vision,
            command: task.command.as_deref(),
            model_port: MODEL_PORT,
            instructions: &self.instructions,
            // The gateway and our own deadline decide; the agent must not give up before them.
            answer_timeout_ms: super::story::millis(task.timeout) + 60_000,
            web: self.openings.web,
            memory: self.remembers.then_some(SESSION),
            conversation: self.conversation.as_deref(),
            mcp: &task.config.agent.mcp,
        }
    }
}

pub async fn prepare(
    shared: &Arc<Shared>,
    id: &RunId,
    task: &Checked,
    story: &mut Story,
    room: &mut Room,
) -> Result<Prepared, Error> {
    let config = &task.config;
    if let Some(remark) = &task.remark {
        story.remark(remark);
    }
    let openings = Openings::find(task, id, story).await?;
    let ((engine, facts), endpoint) = find(shared, task, story).await?;
    story.hide(endpoint.secrets());
    openings.check_against(&endpoint)?;
    for warning in &endpoint.warnings {
        story.remark(warning);
    }
    let inputs = Inputs::new(&config.image)?;
    room.engine = Some(engine.clone());
    let chosen = ensure_image(&inputs, &engine, shared, story).await?;
    room.image = Some(chosen.in_use);
    let image = chosen.name;
    let user = user(&config.sandbox, &facts, task)?;
    git::tell(task, user, story).await?;
    let (masks, hidden) = masks(task, story).await?;
    let owner =
        Owner::current().map_err(|source| Error::Io { what: "read our own start time", source })?;
    let folder = RunFolder::create(&shared.runtime, id, &owner)
        .map_err(|source| Error::Io { what: "make the run's private folder", source })?;
    room.folder = Some(folder);
    let asked = config.sandbox.path.as_deref().map(Path::new);
    let below = git::below_top(task).await?;
    let (inside, told) = sandbox::place(task.workspace.path(), &below, asked, &openings.mounts);
    if let Some(told) = told {
        story.remark(&told);
    }
    let mut repository = Given::default();
    if task.has_view() {
        let layer = isolated::make(&shared.state, id, &owner, task, &masks)?;
        let layer = room.layer.insert(layer);
        layer.hide(hidden)?;
        repository = git::give(task, user, &inside, layer, story).await?;
    }
    for mount in mounts_below(task.workspace.path()) {
        story.remark(&format!("{mount} is empty inside, because something else is mounted there"));
    }
    let uid_gid = (user.uid(), user.gid());
    if let Some(held) = session::take(shared, task, uid_gid).await? {
        room.session = Some(held);
    }
    let earlier = earlier::find(shared, task, room.session.as_ref(), story).await?;
    if let (Some(earlier), Some(layer)) = (&earlier, &room.layer) {
        repository = git::go_on(id, (task, user), (earlier, layer), repository, story).await?;
    }
    let mut mounts = Vec::new();
    if !task.has_view() {
        let source = task.workspace.path().to_owned();
        mounts.push(Policy::workspace_mount(source, inside.clone(), true));
    }
    mounts.extend(git::mounts(&repository));
    mounts.extend(openings.mounts.iter().cloned());
    mounts.extend(room.session.iter().map(|held| Policy::session_mount(held.agent_folder())));
    let labels = deadlines::labels(id, owner.clone(), Duration::from_secs(60));
    let policy = Policy::new(config, user, inside.clone(), Vec::new());
    let abilities = probe::abilities(&engine, &image, &shared.state, &policy, &labels).await?;
    let conversation =
        room.session.as_ref().and_then(|held| held.agent_session().map(str::to_owned));
    if conversation.is_some() && !abilities.session_flag {
        return Err(Error::NoSessions);
    }
    let (instructions, _) = existing(&task.workspace, &opencode::INSTRUCTIONS);
    // Where both are there, they say the same or the first one counts, as with the agent itself.
    let instructions = instructions.iter().take(1).map(|file| inside.join(&file.relative));
    let instructions = instructions.map(|file| file.display().to_string()).collect();
    Ok(Prepared {
        engine,
        facts,
        endpoint,
        image,
        abilities,
        user,
        inside,
        mounts,
        masks,
        earlier: earlier.map(Arc::new),
        instructions,
        openings,
        repository,
        remembers: room.session.is_some(),
        conversation,
        owner,
    })
}

/// The engine and the model server, which are looked for at the same time. A wait for a model that
/// loads is told as it begins.
async fn find(
    shared: &Shared,
    task: &Checked,
    story: &mut Story,
) -> Result<((Engine, Facts), Endpoint), Error> {
    let config = &task.config;
    let (words, mut said) = tokio::sync::mpsc::unbounded_channel::<String>();
    let tell = move |line: &str| {
        // The receiver outlives the search.
        let _ = words.send(line.to_owned());
    };
    let limit = Duration::from_secs(config.model.first_byte_timeout);
    let patience = Patience { limit, tell: &tell };
    let finding = async {
        // The engine's trouble comes first: without one, no model server helps.
        let engine = async {
            let met = shared.host.meet(config.engine.host.as_deref()).await?;
            Ok::<_, Error>(met.clone())
        };
        let search =
            async { Ok(model::discover(&config.model, task.model.as_deref(), patience).await) };
        let (engine, endpoint) = tokio::try_join!(engine, search)?;
        Ok((engine, endpoint?))
    };
    tokio::pin!(finding);
    loop {
        tokio::select! {
            biased;
            Some(line) = said.recv() => story.notice(&line),
            found = &mut finding => return found,
        }
    }
}

/// The image, with the lines of its build told as they come.
async fn ensure_image(
    inputs: &Inputs,
    engine: &Engine,
    shared: &Shared,
    story: &mut Story,
) -> Result<Chosen, Error> {
    let (lines, mut said) = tokio::sync::mpsc::unbounded_channel::<String>();
    let building = inputs.ensure(engine, &shared.state, move |line: &str| {
        // The receiver outlives the build.
        let _ = lines.send(line.to_owned());
    });
    tokio::pin!(building);
    loop {
        tokio::select! {
            biased;
            // A build prints thousands of lines; its steps are what a person can use.
            Some(line) = said.recv() => if is_milestone(&line) { story.notice(&line) },
            image = &mut building => return Ok(image?),
        }
    }
}

/// Our own words about a build, and the names of its steps.
fn is_milestone(line: &str) -> bool {
    ["building", "pulling", "Step "].iter().any(|start| line.starts_with(start))
}

/// The agent's settings in the workspace, to be hidden from it: they can run code at its start and
/// lead its model requests elsewhere. And sockets, behind which there are programs of the host.
/// The second list is of links, over which nothing can be mounted: a view goes without them.
async fn masks(
    task: &Checked,
    story: &mut Story,
) -> Result<(Vec<(PathBuf, bool)>, Vec<RelPath>), Error> {
    let workspace = &task.workspace;
    let kept = (!git::has_git(task)).then_some(".git");
    let names: Vec<&str> = opencode::SETTINGS.into_iter().chain(kept).collect();
    let why = |place: &Path| {
        if place.starts_with(".git") {
            "`workspace.git` is none"
        } else {
            "it could run code at its start"
        }
    };
    let (mut places, obstacles) = existing(workspace, &names);
    let mut hidden = Vec::new();
    for obstacle in obstacles {
        match RelPath::new(&obstacle.relative) {
            Ok(link) if task.has_view() => {
                story.remark(&format!(
                    "{link} of the workspace is not in the run's view: {}",
                    why(link.as_path())
                ));
                hidden.push(link);
            }
            // Nothing can be mounted over the link itself, so its end is hidden.
            _ if obstacle.is_link() => match led_to(workspace, &obstacle.relative) {
                Some(end) if end.relative.file_name().is_none() => {
                    return Err(Error::Unprotectable(obstacle));
                }
                end => places.extend(end),
            },
            _ => return Err(Error::Unprotectable(obstacle)),
        }
    }
    // A place has one mount, also where several links lead to it.
    places.sort_by(|one, other| one.relative.cmp(&other.relative));
    places.dedup();
    let all = places.clone();
    places.retain(|place| {
        let above = |other: &Place| other != place && place.relative.starts_with(&other.relative);
        !all.iter().any(above)
    });
    for place in &places {
        let (place, why) = (place.relative.display(), why(&place.relative));
        story.remark(&format!("{place} of the workspace is hidden from the agent: {why}"));
    }
    let mut masks: Vec<_> =
        places.into_iter().map(|place| (place.relative, place.kind == Kind::Dir)).collect();
    if task.has_view() {
        // A copy has no sockets, and in an overlay they are other inodes than the ones that
        // programs listen at. So nothing has to be looked for, in a folder of whatever size.
        return Ok((masks, hidden));
    }
    let (sockets, all) = look(workspace, sockets).await?;
    if !all {
        story.remark("the workspace may have more sockets than were found and hidden");
    }
    let is_hidden = |place: &PathBuf| masks.iter().any(|(mask, _)| place.starts_with(mask));
    let sockets: Vec<_> = sockets.into_iter().filter(|socket| !is_hidden(socket)).collect();
    for socket in sockets {
        story.remark(&format!(
            "the socket {} of the workspace is hidden from the agent",
            socket.display()
        ));
        masks.push((socket, false));
    }
    Ok((masks, hidden))
}

/// Looks at a workspace, which can be large, without holding up anything else.
async fn look<T: Send + 'static>(
    workspace: &WorkspacePath,
    how: impl FnOnce(&WorkspacePath) -> T + Send + 'static,
) -> Result<T, Error> {
    let workspace = workspace.clone();
    let looking = tokio::task::spawn_blocking(move || how(&workspace));
    looking.await.map_err(|_| Error::Looking)
}
