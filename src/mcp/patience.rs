//! How long a call may last before its host gives it up.

use std::time::Duration;

use rmcp::RoleServer;
use rmcp::service::RequestContext;

use crate::config::Mcp;

/// Below the shortest limits in use: several hosts have had fixed 60 seconds (LM Studio, Claude
/// Desktop, `OpenCode`), Codex 60 and more. Whoever hears of it in time loses no work.
const USUAL: Duration = Duration::from_secs(50);

/// Hosts that wait as long as there are signs of life: Claude Code's idle clock is 30 minutes, each
/// progress notification sets it back, and it moves long calls to the background itself.
const PATIENT: &[&str] = &["claude-code"];

/// How long a call of this host may last; none where it may as long as it takes.
pub(super) fn of(settings: &Mcp, context: &RequestContext<RoleServer>) -> Option<Duration> {
    let host = context.client_info().map(|client| client.name);
    limit(settings.sync_limit, host.as_deref())
}

fn limit(configured: Option<u64>, host: Option<&str>) -> Option<Duration> {
    match configured {
        Some(0) => None,
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None if host.is_some_and(|host| PATIENT.contains(&host)) => None,
        None => Some(USUAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_go_before_what_is_known_of_hosts() {
        let seconds = |configured, host| limit(configured, host).map(|limit| limit.as_secs());
        assert_eq!(seconds(None, Some("claude-code")), None);
        // Another product, with a limit of its own.
        assert_eq!(seconds(None, Some("claude-ai")), Some(50));
        assert_eq!(seconds(None, None), Some(50));
        assert_eq!(seconds(Some(0), Some("codex-mcp-client")), None);
        assert_eq!(seconds(Some(90), Some("claude-code")), Some(90));
    }
}
