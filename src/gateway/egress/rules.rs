//! What a person allowed, and how much of it.

use std::time::Duration;

use super::credential::Credential;
use super::head::Head;
use super::{Kind, Refusal};
use crate::config::{Domain, Name};

/// What a sandbox may reach besides its model. The default is nothing.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    pub allow: Vec<Domain>,
    /// Every name passes, if all its addresses are on the internet. Addresses themselves (`1.2.3.4`)
    /// never pass, not even then.
    pub open: bool,
    /// More ports than 443 for TLS and 80 for plain HTTP, on every allowed name, for both.
    pub ports: Vec<u16>,
    /// Ports of this machine's loopback.
    pub host_ports: Vec<u16>,
    pub credentials: Vec<Credential>,
}

impl Egress {
    pub(super) fn judge(&self, head: &Head) -> Result<(), Refusal> {
        if !self.allows(&head.name) && !self.lends(head) {
            return Err(Refusal::NotAllowed);
        }
        let fit = match head.kind {
            Kind::Connect => head.port == 443 || self.ports.contains(&head.port),
            // Nothing but TLS belongs on 443, whatever the list says.
            _ => head.port == 80 || (head.port != 443 && self.ports.contains(&head.port)),
        };
        if fit { Ok(()) } else { Err(Refusal::Port) }
    }

    /// A host with a credential is allowed where the credential goes, and nowhere else.
    fn lends(&self, head: &Head) -> bool {
        head.kind == Kind::Connect
            && head.port == 443
            && self.credentials.iter().any(|credential| *credential.host() == head.name)
    }

    fn allows(&self, name: &Name) -> bool {
        self.open || self.allow.iter().any(|domain| domain.matches(name))
    }
}

/// How much of it a sandbox may use.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Both ways together, in the whole run.
    pub bytes: u64,
    /// Connections to the outside at the same time.
    pub tunnels: usize,
    /// Connections to the proxy at the same time; more than tunnels, so that who finds none free
    /// is told so.
    pub clients: usize,
    /// Connections to one host port at the same time.
    pub host_port_clients: usize,
    /// Until the head of a request is there.
    pub head_time: Duration,
    /// Until a `ClientHello` is there.
    pub hello_time: Duration,
    pub resolve_time: Duration,
    /// For all addresses of a name together.
    pub connect_time: Duration,
    /// Without a byte in either direction.
    pub idle_time: Duration,
    pub head_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            bytes: 4 << 30,
            tunnels: 64,
            clients: 96,
            host_port_clients: 32,
            head_time: Duration::from_secs(10),
            hello_time: Duration::from_secs(10),
            resolve_time: Duration::from_secs(10),
            connect_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(300),
            head_bytes: 32 * 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(egress: &Egress, kind: Kind, name: &str, port: u16) -> Result<(), Refusal> {
        egress.judge(&Head { kind, name: Name::parse(name).expect("a name"), port })
    }

    #[test]
    fn nothing_passes_unless_it_was_allowed() {
        for kind in [Kind::Connect, Kind::Http] {
            for port in [80, 443, 22] {
                let nothing = judge(&Egress::default(), kind, "example.com", port);
                assert_eq!(nothing, Err(Refusal::NotAllowed));
            }
        }
        let allow = vec![".github.com".parse().expect("a domain")];
        let egress = Egress { allow, ..Egress::default() };
        assert_eq!(judge(&egress, Kind::Connect, "api.github.com", 443), Ok(()));
        for stranger in ["evilgithub.com", "github.com.evil.org", "githubxcom.org"] {
            let strange = judge(&egress, Kind::Connect, stranger, 443);
            assert_eq!(strange, Err(Refusal::NotAllowed), "{stranger}");
        }
    }

    #[test]
    fn tls_and_plain_have_their_ports_and_share_those_added() {
        let open = Egress { open: true, ports: vec![8443, 443], ..Egress::default() };
        for (kind, port, fit) in [
            (Kind::Connect, 443, true),
            (Kind::Connect, 8443, true),
            (Kind::Connect, 80, false),
            (Kind::Connect, 22, false),
            (Kind::Http, 80, true),
            (Kind::Http, 8443, true),
            (Kind::Http, 443, false),
            (Kind::Http, 25, false),
        ] {
            let expected = if fit { Ok(()) } else { Err(Refusal::Port) };
            assert_eq!(judge(&open, kind, "example.com", port), expected, "{kind:?} {port}");
        }
    }
}
