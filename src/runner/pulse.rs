//! Telling work that takes its time from an agent that has stopped without ending.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Config;
use crate::gateway::{Record, Traffic};

/// How long an agent may take to begin, at the least: on a busy machine its program loads slowly.
const START: Duration = Duration::from_secs(60);

/// The last signs of life of an agent: its lines, traffic at the gateway, a tool that runs.
#[derive(Debug)]
pub struct Pulse {
    /// How long nothing may happen; none where nobody minds.
    bound: Option<Duration>,
    /// How long the model may take to begin an answer, which is its own to judge.
    first_byte: Duration,
    last: Instant,
    /// The agent loads, or a request is at the model, which the gateway ends by then.
    asked: Option<Instant>,
    loading: bool,
    /// Tools that the model has named and that have not ended.
    tools: u64,
    /// Bytes that had passed when they were last looked at.
    bytes: u64,
}

impl Pulse {
    pub fn new(config: &Config) -> Self {
        let seconds = config.limits.stall;
        Self {
            bound: (seconds > 0).then(|| Duration::from_secs(seconds)),
            first_byte: Duration::from_secs(config.model.first_byte_timeout),
            last: Instant::now(),
            asked: Some(Instant::now() + START),
            loading: true,
            tools: 0,
            bytes: 0,
        }
    }

    /// When it has to be looked at next. A tool may take what time it needs.
    pub fn until(&self) -> Option<Instant> {
        let due = self.last + self.bound?;
        (self.tools == 0).then(|| self.asked.map_or(due, |asked| due.max(asked)))
    }

    /// A line of the agent, maybe the end of a tool.
    pub fn line(&mut self, tool_ended: bool) {
        self.last = Instant::now();
        self.begun();
        self.tools = self.tools.saturating_sub(u64::from(tool_ended));
    }

    /// The first sign of life ends the time that loading may take.
    fn begun(&mut self) {
        if std::mem::take(&mut self.loading) {
            self.asked = None;
        }
    }

    pub fn traffic(&mut self, traffic: &Traffic) {
        self.last = Instant::now();
        self.begun();
        match traffic {
            // Who asks for the next step has ended its tools, or a subagent asks, whose own
            // requests are the sign of life.
            Traffic::RequestStarted { .. } => {
                self.tools = 0;
                self.asked = Some(self.last + self.first_byte);
            }
            Traffic::ToolCall { .. } => self.tools += 1,
            Traffic::FirstByte { .. } | Traffic::Answered { .. } | Traffic::Faulted(_) => {
                self.asked = None;
            }
            Traffic::Egress(_) | Traffic::Waiting(_) => {}
        }
    }

    /// The moment of [`Pulse::until`] has passed: how long there was nothing, unless bytes have
    /// moved since the last look, as in a long answer of a slow model.
    pub fn is_gone(&mut self, record: &Record) -> Option<Duration> {
        let egress = &record.egress;
        let bytes =
            record.bytes_sent + record.bytes_received + egress.bytes_sent + egress.bytes_received;
        if std::mem::replace(&mut self.bytes, bytes) == bytes {
            return self.bound;
        }
        self.last = Instant::now();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse(stall: u64) -> Pulse {
        let mut config = Config::default();
        config.limits.stall = stall;
        config.model.first_byte_timeout = 60;
        Pulse::new(&config)
    }

    fn call() -> Traffic {
        Traffic::ToolCall { number: 1, name: "bash".into(), arguments: serde_json::Value::Null }
    }

    fn seconds(pulse: &Pulse) -> Option<u64> {
        pulse.until().map(|until| until.duration_since(Instant::now()).as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_running_tool_and_a_model_that_reads_are_no_silence() {
        let mut pulse = pulse(10);
        assert_eq!(seconds(&pulse), Some(60), "it has to load first");
        pulse.line(false);
        assert_eq!(seconds(&pulse), Some(10));
        pulse.traffic(&Traffic::RequestStarted { number: 1 });
        assert_eq!(seconds(&pulse), Some(60), "the model has its own time to begin");
        pulse.line(false);
        assert_eq!(seconds(&pulse), Some(60), "whatever the agent still says of the last step");
        pulse.traffic(&Traffic::FirstByte { number: 1, after_ms: 1 });
        assert_eq!(seconds(&pulse), Some(10));
        pulse.traffic(&call());
        pulse.traffic(&call());
        pulse.line(true);
        assert_eq!(pulse.until(), None, "one of two has ended");
        pulse.line(false);
        assert_eq!(pulse.until(), None);
        pulse.line(true);
        assert_eq!(seconds(&pulse), Some(10));
        assert_eq!(pulse.tools, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_move_are_life() {
        let mut pulse = pulse(10);
        let mut record = Record { bytes_received: 5, ..Record::default() };
        assert_eq!(pulse.is_gone(&record), None);
        assert_eq!(pulse.is_gone(&record), Some(Duration::from_secs(10)));
        record.egress.bytes_sent = 1;
        assert_eq!(pulse.is_gone(&record), None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_can_be_switched_off() {
        assert_eq!(pulse(0).until(), None);
    }
}
