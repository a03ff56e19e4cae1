//! What values are allowed, one rule per line.

use super::{Config, Domain, Effective, Error, Name, Origin, Size};
use crate::text::one_line;

/// A setting that is refused unless the rule holds.
struct Rule {
    key: &'static str,
    allowed: &'static str,
    holds: fn(&Config) -> bool,
}

const fn rule(key: &'static str, allowed: &'static str, holds: fn(&Config) -> bool) -> Rule {
    Rule { key, allowed, holds }
}

const DAY: u64 = 86_400;
const WEEK: u64 = 7 * DAY;

/// The controls that a run may go without.
const ACCEPT: &str = "no-memory-limit, no-pids-limit, no-cpu-limit, root-inside";
/// The statuses of runs that leave work behind.
const APPLY_ON: &str = "completed, truncated, no_output, failed, timed_out, budget_exhausted, out_of_memory, cancelled";

const RULES: &[Rule] = &[
    rule(
        "model.url",
        "http:// or https:// with a host, and no user name, password, `?` or `#` (name the key's variable in `model.api_key_env`, and that of a name with a password in `model.headers`)",
        |c| c.model.url.as_deref().is_none_or(is_server_url),
    ),
    rule(
        "model.url",
        "no address while `model.source` is \"rehearsal\": remove one of the two",
        |c| c.model.url.is_none() || c.model.source != super::Source::Rehearsal,
    ),
    rule("model.model", "1 to 256 characters without spaces", |c| {
        c.model.model.as_deref().is_none_or(|id| is_word(id, 256))
    }),
    rule(
        "model.api_key_env",
        "the name of an environment variable (letters, digits and `_`), never the key itself",
        |c| is_variable(&c.model.api_key_env),
    ),
    rule(
        "model.headers",
        "headers that HTTP knows, none of its connection or body, each with the name of an environment variable, never the value itself",
        |c| {
            let headers = &c.model.headers;
            headers.iter().all(|(name, variable)| is_own_header(name) && is_variable(variable))
        },
    ),
    rule("model.ca_bundle", "a whole path, or one that starts with `~/`", |c| {
        c.model.ca_bundle.as_deref().is_none_or(std::path::Path::is_absolute)
    }),
    rule("model.context", "1024 to 100000000 tokens", |c| {
        c.model.context.is_none_or(|tokens| (1024..=100_000_000).contains(&tokens))
    }),
    rule("model.output", "at least 1 token, and less than `model.context`", |c| {
        let most = c.model.context.unwrap_or(100_000_000);
        c.model.output.is_none_or(|tokens| (1..most).contains(&tokens))
    }),
    rule("model.first_byte_timeout", "1 to 86400 seconds", |c| {
        (1..=DAY).contains(&c.model.first_byte_timeout)
    }),
    rule("model.stall_timeout", "1 to 86400 seconds", |c| {
        (1..=DAY).contains(&c.model.stall_timeout)
    }),
    rule(
        "engine.host",
        "`unix:///…` with a whole path, `tcp://host:port`, or `ssh://user@host`",
        |c| c.engine.host.as_deref().is_none_or(is_engine_host),
    ),
    rule("image.name", "an image name without spaces", |c| is_image(c.image.name.as_deref())),
    rule("image.base", "an image name without spaces", |c| is_image(c.image.base.as_deref())),
    rule(
        "image.packages",
        "names of Debian packages (lower-case letters, digits, `+`, `-`, `.`)",
        |c| c.image.packages.iter().all(|name| is_package(name)),
    ),
    rule("image.ca_bundle", "a whole path, or one that starts with `~/`", |c| {
        c.image.ca_bundle.as_deref().is_none_or(std::path::Path::is_absolute)
    }),
    rule("image.max_age", "0 (never) to 36500 days", |c| c.image.max_age <= 36_500),
    rule("sandbox.user", "`uid:gid` in numbers, neither of them 0", |c| {
        c.sandbox.user.as_deref().is_none_or(is_user)
    }),
    rule(
        "sandbox.umask",
        "three octal digits that leave the owner its rights, \"000\" to \"077\"",
        |c| is_umask(&c.sandbox.umask),
    ),
    rule("sandbox.runtime", "the name of a runtime that the engine knows", |c| {
        c.sandbox.runtime.as_deref().is_none_or(|name| is_name(name, "._-"))
    }),
    rule("sandbox.accept", ACCEPT, |c| {
        c.sandbox.accept.iter().all(|one| ACCEPT.split(", ").any(|known| known == one))
    }),
    rule("limits.timeout", "at least 1 second", |c| c.limits.timeout >= 1),
    rule("limits.max_timeout", "`limits.timeout` to 604800 seconds; set both", |c| {
        (c.limits.timeout..=WEEK).contains(&c.limits.max_timeout)
    }),
    rule("limits.concurrency", "1 to 1024 runs", |c| {
        c.limits.concurrency.is_none_or(|runs| (1..=1024).contains(&runs))
    }),
    rule("limits.memory", "\"448m\" to \"16t\" (OpenCode is killed with less)", |c| {
        within(c.limits.memory, 448 << 20, 16 << 40)
    }),
    rule("limits.cpus", "0.1 to 1024 cores", |c| (0.1..=1024.0).contains(&c.limits.cpus)),
    rule("limits.pids", "32 to 4194304 processes", |c| (32..=4_194_304).contains(&c.limits.pids)),
    rule("limits.tmp", "\"16m\" to \"16t\" (OpenCode keeps its state there)", |c| {
        within(c.limits.tmp, 16 << 20, 16 << 40)
    }),
    rule("limits.home", "\"2m\" to \"16t\"", |c| within(c.limits.home, 2 << 20, 16 << 40)),
    rule("limits.max_requests", "at least 1 request", |c| c.limits.max_requests >= 1),
    rule("limits.task", "\"1k\" to \"1g\"", |c| within(c.limits.task, 1 << 10, 1 << 30)),
    rule("limits.output", "\"64k\" to \"16g\"", |c| within(c.limits.output, 64 << 10, 16 << 30)),
    rule("limits.stall", "0 (never) to 604800 seconds", |c| c.limits.stall <= WEEK),
    rule("limits.verify_timeout", "1 to 604800 seconds", |c| {
        (1..=WEEK).contains(&c.limits.verify_timeout)
    }),
    rule("workspace.roots", "whole paths below `/`, or such that start with `~/`", |c| {
        c.workspace.roots.iter().all(|root| root.is_absolute() && root.parent().is_some())
    }),
    rule("workspace.objects", "whole paths below `/`, or such that start with `~/`", |c| {
        c.workspace.objects.iter().all(|store| store.is_absolute() && store.parent().is_some())
    }),
    rule("sandbox.path", "a path below `/` without `..`, such as `/workspace`", |c| {
        c.sandbox.path.as_deref().is_none_or(|path| {
            path.strip_prefix('/').is_some_and(|rest| is_inside(rest.trim_end_matches('/')))
        })
    }),
    rule(
        "workspace.protected",
        "up to 128 paths inside the workspace, without `..`, not starting with `/`, and of up to 32 plain names",
        |c| {
            let places = &c.workspace.protected;
            places.len() <= 128 && places.iter().all(|path| is_inside(path))
        },
    ),
    rule("workspace.apply_on", APPLY_ON, |c| {
        let is_known = |status: &String| APPLY_ON.split(", ").any(|known| known == status);
        c.workspace.apply_on.iter().all(is_known)
    }),
    rule("limits.disk", "\"1m\" to \"16t\"", |c| within(c.limits.disk, 1 << 20, 16 << 40)),
    rule("limits.files", "at least 100 files", |c| c.limits.files >= 100),
    rule(
        "egress.allow",
        "domains: `api.example.com`, or `.example.com` for it and all below",
        |c| c.egress.allow.iter().all(|domain| domain.parse::<Domain>().is_ok()),
    ),
    rule("egress.ports", "1 to 65535, but not 80 or 443, which belong to every domain", |c| {
        c.egress.ports.iter().all(|port| ![0, 80, 443].contains(port))
    }),
    rule("egress.host_ports", "1 to 65535, but not 4141 or 4142, and not more than 32", |c| {
        let ports = &c.egress.host_ports;
        ports.len() <= 32 && ports.iter().all(|port| ![0, 4141, 4142].contains(port))
    }),
    rule("env.pass", "names of variables on both sides, none of those that are set by us", |c| {
        c.env.pass.iter().all(|(inside, outside)| is_passable(inside) && is_variable(outside))
    }),
    rule("env.set", "names of variables, none of those that are set by us, and plain text", |c| {
        c.env.set.iter().all(|(name, value)| is_passable(name) && !value.contains('\0'))
    }),
    rule("git.name", "one line of text", |c| c.git.name.as_deref().is_none_or(is_line)),
    rule("git.email", "one line of text", |c| c.git.email.as_deref().is_none_or(is_line)),
    rule("hooks.before_start", "shell lines, up to 64 KiB, without NUL", |c| {
        c.hooks.before_start.as_deref().is_none_or(|lines| {
            !lines.trim().is_empty() && lines.len() <= 64 << 10 && !lines.contains('\0')
        })
    }),
    rule("hooks.timeout", "1 to 3600 seconds", |c| (1..=3600).contains(&c.hooks.timeout)),
    rule("credential", "a `header` that HTTP knows and no hop or proxy header", |c| {
        c.credential.iter().all(|credential| is_header(&credential.header))
    }),
    rule("credential", "one `host` by its name", |c| {
        c.credential.iter().all(|credential| Name::parse(&credential.host).is_ok())
    }),
    rule(
        "credential",
        "`value_env` as the name of an environment variable, never the key itself",
        |c| c.credential.iter().all(|credential| is_variable(&credential.value_env)),
    ),
    rule("credential", "a `prefix` in one line", |c| {
        c.credential.iter().all(|credential| !credential.prefix.contains(|c: char| c.is_control()))
    }),
    rule("mount", "`read_only` true: nothing but the workspace can be written", |c| {
        c.mount.iter().all(|mount| mount.read_only)
    }),
    rule("mount", "whole paths, or such that start with `~/`", |c| {
        c.mount.iter().all(|mount| mount.path.is_absolute() && mount.path.parent().is_some())
    }),
    rule("mount", "a `target` that is `/mnt/` and one name, each of them once", |c| {
        let targets: Vec<_> = c.mount.iter().map(super::Mount::target).collect();
        targets.iter().all(Option::is_some)
            && (1..targets.len()).all(|at| !targets[..at].contains(&targets[at]))
    }),
    rule("agent.mcp", "names of letters, digits, `-` and `_`, up to 32", |c| {
        c.agent.mcp.keys().all(|name| is_name(name, "-_") && name.len() <= 32)
    }),
    rule("agent.mcp", "either a `command` or a `url` (http:// or https://) for each", |c| {
        c.agent.mcp.values().all(|server| match &server.url {
            Some(url) => server.command.is_empty() && is_server_url(url),
            None => server.command.first().is_some_and(|program| !program.is_empty()),
        })
    }),
    rule("agent.verify", "a shell command, up to 32 KiB, without NUL", |c| {
        c.agent.verify.as_deref().is_none_or(|command| {
            !command.trim().is_empty() && command.len() <= 32 << 10 && !command.contains('\0')
        })
    }),
    rule("agent.continue", "0 to 10 times", |c| c.agent.continues <= 10),
    rule("mcp.heartbeat", "1 to 10 seconds", |c| (1..=10).contains(&c.mcp.heartbeat)),
    rule("mcp.sync_limit", "0, or 5 to 86400 seconds", |c| {
        c.mcp.sync_limit.is_none_or(|seconds| seconds == 0 || (5..=DAY).contains(&seconds))
    }),
    rule("http.allowed_hosts", "names or addresses, each with a port or without one", |c| {
        c.http.allowed_hosts.iter().all(|host| is_host_and_port(host))
    }),
    rule(
        "http.allowed_origins",
        "origins as browsers send them: `https://name`, with the port where it is an unusual one",
        |c| c.http.allowed_origins.iter().all(|origin| is_origin(origin)),
    ),
    rule("http.sessions", "1 to 100000 sessions", |c| (1..=100_000).contains(&c.http.sessions)),
    rule("http.session_idle", "1 to 604800 seconds", |c| (1..=WEEK).contains(&c.http.session_idle)),
    rule("http.connections", "4 to 10000 connections", |c| {
        (4..=10_000).contains(&c.http.connections)
    }),
    rule("http.ping", "1 to 300 seconds", |c| (1..=300).contains(&c.http.ping)),
    rule("history.keep", "1 to 1000000 runs", |c| (1..=1_000_000).contains(&c.history.keep)),
    rule("history.max_age_days", "1 to 36500 days", |c| {
        (1..=36_500).contains(&c.history.max_age_days)
    }),
    rule("history.max_bytes", "\"1m\" to \"16t\"", |c| {
        within(c.history.max_bytes, 1 << 20, 16 << 40)
    }),
];

/// What is allowed for a key, in words; several where several rules apply.
pub fn allowed(key: &str) -> impl Iterator<Item = &'static str> {
    RULES.iter().filter(move |rule| rule.key == key).map(|rule| rule.allowed)
}

/// Refuses the first setting that no run could work with.
pub(super) fn check(effective: &Effective) -> Result<(), Error> {
    let Some(broken) = RULES.iter().find(|rule| !(rule.holds)(&effective.config)) else {
        return Ok(());
    };
    let place = match effective.origin(broken.key) {
        // Only a combination with another setting can make a default wrong.
        Origin::Default => "settings".to_owned(),
        origin => origin.to_string(),
    };
    Err(Error::NotAllowed {
        place,
        key: broken.key,
        value: shown(broken.key, &effective.config),
        allowed: broken.allowed.to_owned(),
    })
}

/// The value as it may be shown: an address can hold a password, and a key is easily written
/// where only its variable's name belongs.
fn shown(key: &str, config: &Config) -> String {
    match key {
        "model.api_key_env" => "not such a name".to_owned(),
        // Values that may be secret, or a key where only its variable's name belongs.
        "env.set" | "env.pass" | "credential" | "agent.mcp" | "model.headers" => {
            "something else".to_owned()
        }
        "model.url" => format!("\"{}\"", without_secrets(config.model.url.as_deref())),
        "engine.host" => format!("\"{}\"", without_secrets(config.engine.host.as_deref())),
        _ => {
            let values = serde_json::to_value(config).unwrap_or_default();
            let value = super::keys::find(key).map(|key| key.value_in(&values).to_string());
            one_line(&value.unwrap_or_default(), 120)
        }
    }
}

/// An address up to what may be secret: nothing in front of an `@`, nothing behind `?` or `#`.
pub(super) fn without_secrets(url: Option<&str>) -> String {
    let url = url.unwrap_or_default();
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let cut = if end < url.len() { "…" } else { "" };
    let url = &url[..end];
    let shown = match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://…{}", &url[..scheme], &url[at..]),
        (None, Some(at)) => format!("…{}", &url[at..]),
        _ => url.to_owned(),
    };
    one_line(&(shown + cut), 120)
}

fn within(size: Size, least: u64, most: u64) -> bool {
    (least..=most).contains(&size.bytes())
}

fn is_word(text: &str, longest: usize) -> bool {
    !text.is_empty()
        && text.chars().count() <= longest
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// Letters, digits and some marks, not starting with a mark.
fn is_name(text: &str, marks: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || marks.contains(c))
}

fn is_variable(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether a variable may be handed to the agent. Ours decide what it is configured by and how it
/// reaches the gateway; programs read them in both spellings.
fn is_passable(name: &str) -> bool {
    const OURS: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "HOME"];
    let upper = name.to_ascii_uppercase();
    is_variable(name) && !upper.starts_with("OPENCODE") && !OURS.contains(&upper.as_str())
}

fn is_line(text: &str) -> bool {
    !text.is_empty() && text.len() <= 256 && !text.contains(|c: char| c.is_control())
}

/// A header that can carry a credential: not one that means something to the connection itself.
fn is_header(name: &str) -> bool {
    const CONNECTION: [&str; 9] = [
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    http::HeaderName::try_from(name).is_ok_and(|name| {
        !CONNECTION.contains(&name.as_str()) && !name.as_str().starts_with("proxy-")
    })
}

/// A header that may be added to the requests to the model: not one that says what a body is.
fn is_own_header(name: &str) -> bool {
    const BODY: [&str; 4] = ["accept", "accept-encoding", "content-encoding", "content-type"];
    is_header(name) && !BODY.contains(&name.to_ascii_lowercase().as_str())
}

/// Package names end up in a shell line of the image's build.
fn is_package(name: &str) -> bool {
    name.len() >= 2 && is_name(name, "+-.") && !name.chars().any(|c| c.is_ascii_uppercase())
}

fn is_image(name: Option<&str>) -> bool {
    name.is_none_or(|name| is_name(name, "._-/:@") && name.len() <= 512)
}

fn is_server_url(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.query().is_none()
        && !url.contains('#')
        && uri.authority().is_some_and(|authority| is_host_and_port(authority.as_str()))
}

fn is_host_and_port(authority: &str) -> bool {
    let Ok(parsed) = authority.parse::<http::uri::Authority>() else { return false };
    // Behind the host there is nothing, or a colon and a number; a name with `@` has more in front.
    let port = authority.strip_prefix(parsed.host());
    !parsed.host().is_empty()
        && port.is_some_and(|port| port.is_empty() || parsed.port_u16().is_some_and(|p| p > 0))
}

fn is_origin(origin: &str) -> bool {
    let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    host.is_some_and(is_host_and_port)
}

fn is_engine_host(host: &str) -> bool {
    if let Some(path) = host.strip_prefix("unix://") {
        return path.starts_with('/') && path.len() > 1;
    }
    if let Some(rest) = host.strip_prefix("ssh://") {
        let authority = rest.split('/').next().unwrap_or_default();
        let (user, host) = authority.split_once('@').unwrap_or(("user", authority));
        return !user.is_empty()
            && !authority.starts_with('-')
            && !user.contains([':', ' '])
            && is_host_and_port(host);
    }
    host.strip_prefix("tcp://").is_some_and(|rest| {
        is_host_and_port(rest) && rest.rsplit(':').next().is_some_and(|p| p.parse::<u16>().is_ok())
    })
}

fn is_user(user: &str) -> bool {
    let number = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_digit())
            && text.parse::<i32>().is_ok_and(|number| number > 0)
    };
    user.split_once(':').is_some_and(|(uid, gid)| number(uid) && number(gid))
}

fn is_umask(umask: &str) -> bool {
    let digits = umask.len() == 3 || (umask.len() == 4 && umask.starts_with('0'));
    digits
        && umask.bytes().all(|byte| byte.is_ascii_digit())
        && u32::from_str_radix(umask, 8).is_ok_and(|mask| mask & 0o700 == 0)
}

/// Whether a protected path stays inside of a workspace.
fn is_inside(path: &str) -> bool {
    use std::path::Component;
    let parts = || std::path::Path::new(path).components();
    let is_plain = |part: Component<'_>| match part {
        Component::Normal(name) => name.len() <= 255,
        Component::CurDir => true,
        _ => false,
    };
    let names = parts().filter(|part| matches!(part, Component::Normal(_))).count();
    (1..=32).contains(&names) && parts().all(is_plain) && !path.chars().any(char::is_control)
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
