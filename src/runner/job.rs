//! A run to be: what was asked, and the ends by which its asker holds it.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::Event;
use super::cancel::Canceller;
use super::shared::Shared;
use super::task::Checked;
use crate::history::Record;
use crate::ids::RunId;

/// A run to be.
#[derive(Debug)]
pub struct Job {
    pub shared: Arc<Shared>,
    pub id: RunId,
    pub task: Checked,
    pub asked: Instant,
    pub events: mpsc::UnboundedSender<Event>,
    pub canceller: Canceller,
    /// Begun already, so that whoever is told of the run finds it.
    pub record: Option<Record>,
}
