//! What there is to count, in Prometheus' text format.
//!
//! The runs are those that were asked for through this server, since its start, told when they end.
//! How many run and wait is the machine's.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::StatusCode;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::spawn_blocking;

use super::sessions::Sessions;
use crate::runner::{Failure, Report, Runner, Status};

/// Upper bounds of the buckets for durations, in seconds.
const BUCKETS: [f64; 12] = [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0];

#[derive(Debug)]
pub(super) struct Metrics {
    runner: Runner,
    runs: Mutex<Runs>,
    answers: Mutex<BTreeMap<u16, u64>>,
    connections: AtomicUsize,
    connected: AtomicU64,
}

#[derive(Debug, Default)]
struct Runs {
    by_status: BTreeMap<String, u64>,
    /// By the kind of the error.
    sandbox_errors: BTreeMap<String, u64>,
    /// Those of them that are the engine's.
    engine_errors: BTreeMap<String, u64>,
    queued: Histogram,
    total: Histogram,
    requests: u64,
    input_tokens: u64,
    output_tokens: u64,
    reasoning_tokens: u64,
    allowed: u64,
    refused: u64,
}

#[derive(Debug, Default)]
struct Histogram {
    counts: [u64; BUCKETS.len()],
    count: u64,
    milliseconds: u64,
}

impl Histogram {
    fn see(&mut self, milliseconds: u64) {
        #[expect(clippy::cast_precision_loss, reason = "no run takes 285 000 years")]
        let seconds = milliseconds as f64 / 1000.0;
        for (bound, count) in BUCKETS.iter().zip(&mut self.counts) {
            *count += u64::from(seconds <= *bound);
        }
        self.count += 1;
        self.milliseconds += milliseconds;
    }
}

/// A connection that is counted for as long as this lives.
#[derive(Debug)]
pub(super) struct Connected(std::sync::Arc<Metrics>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    pub fn new(runner: Runner) -> Self {
        Self {
            runner,
            runs: Mutex::default(),
            answers: Mutex::default(),
            connections: AtomicUsize::new(0),
            connected: AtomicU64::new(0),
        }
    }

    /// Counts the runs that end, for as long as there can be any.
    pub async fn count(&self, mut reports: UnboundedReceiver<Report>) {
        while let Some(report) = reports.recv().await {
            self.ended(&report);
        }
    }

    fn ended(&self, report: &Report) {
        let mut runs = lock(&self.runs);
        let status = if report.is_of_death() { "died".to_owned() } else { word(report.status) };
        *runs.by_status.entry(status).or_default() += 1;
        if report.status == Status::SandboxError {
            let kind = report.error.as_ref().map_or("unknown", |error| error.kind.as_str());
            *runs.sandbox_errors.entry(kind.to_owned()).or_default() += 1;
            if report.error.as_ref().is_some_and(Failure::is_of_engine) {
                *runs.engine_errors.entry(kind.to_owned()).or_default() += 1;
            }
        }
        runs.queued.see(report.timing.queued_ms);
        runs.total.see(report.timing.total_ms);
        runs.requests += report.usage.requests;
        runs.input_tokens += report.usage.input_tokens;
        runs.output_tokens += report.usage.output_tokens;
        runs.reasoning_tokens += report.usage.reasoning_tokens;
        runs.allowed += report.egress.allowed;
        runs.refused += report.egress.refused;
    }

    pub fn answered(&self, status: StatusCode) {
        *lock(&self.answers).entry(status.as_u16()).or_default() += 1;
    }

    pub fn connected(self: &std::sync::Arc<Self>) -> Connected {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.connected.fetch_add(1, Ordering::Relaxed);
        Connected(self.clone())
    }

    pub async fn exposition(&self, sessions: &Sessions) -> String {
        let runner = self.runner.clone();
        let crowd = spawn_blocking(move || runner.crowd()).await;
        let mut page = Page::default();
        page.of_runs(&lock(&self.runs));
        match crowd {
            Ok(Ok((running, waiting))) => {
                let name = "sandbox_mcp_runs_running";
                page.gauge(
                    name,
                    "Runs that have a place, of all processes of this machine.",
                    running,
                );
                let name = "sandbox_mcp_runs_waiting";
                page.gauge(name, "Runs that wait for a place, of all processes.", waiting);
            }
            // Left out, which alerts can see; a zero would be a lie.
            Ok(Err(error)) => tracing::warn!("failed to look at the line of runs: {error}"),
            Err(error) => tracing::warn!("failed to look at the line of runs: {error}"),
        }
        let name = "sandbox_mcp_http_requests_total";
        page.head(name, "counter", "HTTP requests by the status of their answer.");
        for (status, count) in lock(&self.answers).iter() {
            page.sample(name, &[("code", &status.to_string())], count);
        }
        let name = "sandbox_mcp_http_sessions";
        page.gauge(name, "MCP sessions that are open.", sessions.count());
        let begun = sessions.begun.load(Ordering::Relaxed);
        page.counter("sandbox_mcp_http_sessions_total", "MCP sessions that were begun.", begun);
        let forgotten = sessions.forgotten.load(Ordering::Relaxed);
        let name = "sandbox_mcp_http_sessions_forgotten_total";
        page.counter(name, "MCP sessions that were idle and had to go.", forgotten);
        let open = self.connections.load(Ordering::Relaxed);
        page.gauge("sandbox_mcp_http_connections", "Connections that are open.", open);
        let all = self.connected.load(Ordering::Relaxed);
        page.counter("sandbox_mcp_http_connections_total", "Connections that were made.", all);
        let name = "sandbox_mcp_build_info";
        page.head(name, "gauge", "The version of this server.");
        page.sample(name, &[("version", env!("CARGO_PKG_VERSION"))], 1);
        page.0
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A status as reports have it.
fn word(status: Status) -> String {
    match serde_json::to_value(status) {
        Ok(Value::String(word)) => word,
        _ => status.label().replace(' ', "_"),
    }
}

/// The page that is written.
#[derive(Default)]
struct Page(String);

impl Page {
    fn of_runs(&mut self, runs: &Runs) {
        let name = "sandbox_mcp_runs_total";
        self.head(name, "counter", "Runs of this server that have ended, by status.");
        for (status, count) in &runs.by_status {
            self.sample(name, &[("status", status)], count);
        }
        let name = "sandbox_mcp_sandbox_errors_total";
        self.head(name, "counter", "Runs that ended with sandbox_error, by kind.");
        for (kind, count) in &runs.sandbox_errors {
            self.sample(name, &[("kind", kind)], count);
        }
        let name = "sandbox_mcp_engine_errors_total";
        self.head(name, "counter", "Those of them that are the engine's, by kind.");
        for (kind, count) in &runs.engine_errors {
            self.sample(name, &[("kind", kind)], count);
        }
        let name = "sandbox_mcp_run_duration_seconds";
        self.histogram(name, "From the call to the report.", &runs.total);
        let name = "sandbox_mcp_run_queued_seconds";
        self.histogram(name, "Waiting for a place and for the workspace.", &runs.queued);
        let name = "sandbox_mcp_model_requests_total";
        self.counter(name, "Requests of agents to the model.", runs.requests);
        let name = "sandbox_mcp_tokens_total";
        self.head(name, "counter", "Tokens as the model server counted them.");
        for (kind, count) in [
            ("input", runs.input_tokens),
            ("output", runs.output_tokens),
            ("reasoning", runs.reasoning_tokens),
        ] {
            self.sample(name, &[("kind", kind)], count);
        }
        let name = "sandbox_mcp_egress_total";
        self.head(name, "counter", "Attempts of sandboxes to reach something besides the model.");
        for (verdict, count) in [("allowed", runs.allowed), ("refused", runs.refused)] {
            self.sample(name, &[("verdict", verdict)], count);
        }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "counter", help);
        self.sample(name, &[], value);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        for (bound, count) in BUCKETS.iter().zip(histogram.counts) {
            self.sample(&bucket, &[("le", &bound.to_string())], count);
        }
        self.sample(&bucket, &[("le", "+Inf")], histogram.count);
        let sum = format!("{}.{:03}", histogram.milliseconds / 1000, histogram.milliseconds % 1000);
        self.sample(&format!("{name}_sum"), &[], sum);
        self.sample(&format!("{name}_count"), &[], histogram.count);
    }

    /// The values of labels are ours, but for the kinds of errors, which are escaped all the same.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> = labels
            .iter()
            .map(|(name, value)| {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                format!("{name}=\"{value}\"")
            })
            .collect();
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a text cannot fail.
        let _ = writeln!(self.0, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_upwards() {
        let mut histogram = Histogram::default();
        for milliseconds in [0, 100, 101, 4000, 7_200_000] {
            histogram.see(milliseconds);
        }
        let mut page = Page::default();
        page.histogram("x_seconds", "Help.", &histogram);
        let lines: Vec<_> = page.0.lines().collect();
        assert_eq!(lines[..2], ["# HELP x_seconds Help.", "# TYPE x_seconds histogram"]);
        for expected in [
            "x_seconds_bucket{le=\"0.1\"} 2",
            "x_seconds_bucket{le=\"0.5\"} 3",
            "x_seconds_bucket{le=\"5\"} 4",
            "x_seconds_bucket{le=\"3600\"} 4",
            "x_seconds_bucket{le=\"+Inf\"} 5",
            "x_seconds_sum 7204.201",
            "x_seconds_count 5",
        ] {
            assert!(lines.contains(&expected), "{expected} in {lines:#?}");
        }
    }

    #[test]
    fn no_label_breaks_out_of_its_line() {
        let mut page = Page::default();
        page.sample("x", &[("kind", "a\"} 1\ny \\")], 3);
        assert_eq!(page.0, "x{kind=\"a\\\"} 1\\ny \\\\\"} 3\n");
        assert_eq!(word(Status::OutOfMemory), "out_of_memory");
    }
}
