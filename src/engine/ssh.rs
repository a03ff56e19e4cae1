//! An engine on another machine, reached by the user's own `ssh`: a private socket here leads to the
//! engine's there.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// Longest time for ssh to connect.
const LIMIT: Duration = Duration::from_secs(20);

/// The socket of an engine whose address names none.
const USUAL: &str = "/var/run/docker.sock";

const PREFIX: &str = "sandbox-mcp-ssh-";

/// A connection that is carried for as long as this lives.
#[derive(Debug)]
pub struct Tunnel {
    folder: TempDir,
    /// Ends with us: what it runs there ends with our end of its standard input.
    _ssh: Child,
}

/// The parts of `ssh://[user@]host[:port][/path]`.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    /// `user@host`.
    to: String,
    port: Option<u16>,
    socket: String,
}

impl Tunnel {
    /// Connects. The error is what ssh says.
    pub async fn open(host: &str) -> Result<Self, String> {
        let address = parse(host).ok_or(
            "write ssh://user@host, ssh://user@host:port or ssh://user@host/path/of/the/socket",
        )?;
        remove_old(&std::env::temp_dir());
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir();
        let folder = folder.map_err(|error| format!("no folder for its socket: {error}"))?;
        let socket = folder.path().join("engine.sock");
        let mut command = Command::new("ssh");
        // Nobody is there to be asked, and nothing of the user's goes along.
        for option in [
            "BatchMode=yes",
            "ConnectTimeout=10",
            "ControlMaster=no",
            "ControlPath=none",
            "ExitOnForwardFailure=yes",
            "ForwardAgent=no",
            "ForwardX11=no",
            "PermitLocalCommand=no",
            "RemoteCommand=none",
            "RequestTTY=no",
            "ServerAliveInterval=15",
            "StreamLocalBindMask=0177",
        ] {
            command.args(["-o", option]);
        }
        if let Some(port) = address.port {
            command.args(["-p", &port.to_string()]);
        }
        command.arg("-L").arg(format!("{}:{}", socket.display(), address.socket));
        // It ends when its input does, and so does ssh: also where we are killed.
        command.args(["--", &address.to, "cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let ssh = command.kill_on_drop(true).spawn();
        let mut ssh = ssh.map_err(|error| format!("ssh cannot be started: {error}"))?;
        let until = Instant::now() + LIMIT;
        while UnixStream::connect(&socket).await.is_err() {
            let ended = ssh.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || Instant::now() > until {
                return Err(last_words(&mut ssh).await);
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { folder, _ssh: ssh })
    }

    /// The address of the socket here.
    pub fn host(&self) -> String {
        format!("unix://{}", self.folder.path().join("engine.sock").display())
    }
}

/// Removes what is left of processes that were killed.
fn remove_old(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry.metadata().is_ok_and(|meta| meta.uid() == rustix::process::geteuid().as_raw());
        if is_ours && is_over(&path) {
            // Whoever else removes it is as good.
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}

/// Returns true where nobody listens any more. One that is being made has no socket yet.
fn is_over(folder: &Path) -> bool {
    let socket: PathBuf = folder.join("engine.sock");
    let connected = std::os::unix::net::UnixStream::connect(socket);
    connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

async fn last_words(ssh: &mut Child) -> String {
    // Else its end is waited for.
    let _ = ssh.start_kill();
    let mut said = Vec::new();
    if let Some(stderr) = ssh.stderr.take() {
        let read: io::Result<usize> = stderr.take(4096).read_to_end(&mut said).await;
        if let Err(error) = read {
            return error.to_string();
        }
    }
    let said = String::from_utf8_lossy(&said);
    match said.trim() {
        "" => "ssh does not get there".to_owned(),
        said => format!("ssh says: {}", crate::text::one_line(said, 300)),
    }
}

fn parse(host: &str) -> Option<Address> {
    let rest = host.strip_prefix("ssh://")?;
    let (authority, path) = rest.split_once('/').map_or((rest, ""), |(one, path)| (one, path));
    let (to, port) = match authority.rsplit_once(':') {
        Some((to, port)) if !port.ends_with(']') => (to, Some(port.parse().ok()?)),
        _ => (authority, None),
    };
    let is_plain = |text: &str| {
        !text.is_empty() && !text.starts_with('-') && !text.contains(char::is_whitespace)
    };
    let socket = if path.is_empty() { USUAL.to_owned() } else { format!("/{path}") };
    // Of an address of version 6, ssh takes no brackets.
    let to = to.replace(['[', ']'], "");
    (is_plain(&to) && !socket.contains(':')).then_some(Address { to, port, socket })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_docker_and_podman_write_them() {
        let address = |to: &str, port, socket: &str| {
            Some(Address { to: to.to_owned(), port, socket: socket.to_owned() })
        };
        assert_eq!(parse("ssh://me@box"), address("me@box", None, USUAL));
        assert_eq!(parse("ssh://box:2222/"), address("box", Some(2222), USUAL));
        assert_eq!(
            parse("ssh://me@box:22/run/user/1000/podman/podman.sock"),
            address("me@box", Some(22), "/run/user/1000/podman/podman.sock")
        );
        assert_eq!(parse("ssh://me@[::1]:22"), address("me@::1", Some(22), USUAL));
        for wrong in
            ["ssh://", "ssh://-oProxyCommand=x", "ssh://me@box:port", "ssh://a b", "tcp://box"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_a_live_ones_stays() {
        let home = tempfile::tempdir().expect("a folder");
        let make = |name: &str| {
            let folder = home.path().join(name);
            std::fs::create_dir(&folder).expect("a folder");
            std::os::unix::net::UnixListener::bind(folder.join("engine.sock")).expect("a socket")
        };
        let _live = make("sandbox-mcp-ssh-live");
        drop(make("sandbox-mcp-ssh-dead"));
        drop(make("another"));
        std::fs::create_dir(home.path().join("sandbox-mcp-ssh-new")).expect("a folder");
        remove_old(home.path());
        let is_there = |name: &str| home.path().join(name).exists();
        assert!(!is_there("sandbox-mcp-ssh-dead"));
        assert!(
            ["sandbox-mcp-ssh-live", "sandbox-mcp-ssh-new", "another"]
                .iter()
                .all(|name| is_there(name))
        );
    }
}
