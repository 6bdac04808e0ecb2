//! What is sent to one server of a Redis Cluster, and where each command of a pipeline goes.

use std::ops::Range;
use std::sync::Arc;

use redis::{Cmd, Pipeline, Value};

use super::server::Server;
use super::slots::key_of;
use crate::store::keys::slot;
use crate::store::{Reply, StoreError};

/// Commands that go to one server together: one, or a transaction.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    pub(super) commands: Range<usize>,
    pub(super) slot: Option<u16>,
}

impl Unit {
    /// There are no replies to it, and this is why.
    pub(super) fn fail(&self, error: &StoreError, replies: &mut [Reply<Value>]) {
        replies.get_mut(self.commands.clone()).unwrap_or_default().fill(Err(error.clone()));
    }

    /// The units of a pipeline, in their order.
    pub(super) fn of(pipeline: &Pipeline) -> Vec<Self> {
        let mut units: Vec<Self> = Vec::with_capacity(pipeline.len());
        let mut is_open = false;
        for (at, command) in pipeline.cmd_iter().enumerate() {
            let slot = key_of(command).map(slot);
            match units.last_mut().filter(|_| is_open) {
                Some(unit) => {
                    unit.commands.end = at + 1;
                    unit.slot = unit.slot.or(slot);
                }
                None => units.push(Self { commands: at..at + 1, slot }),
            }
            match verb(command) {
                b"MULTI" => is_open = true,
                b"EXEC" => is_open = false,
                _ => {}
            }
        }
        units
    }
}

/// What came of commands that were sent to one server.
#[derive(Debug)]
pub(super) enum Came {
    /// It answered all of them: one reply for each.
    Whole(Vec<Value>),
    /// It sent some of them on: the reply to each, or why there is none.
    Apart(Vec<Reply<Value>>),
}

fn verb(command: &Cmd) -> &[u8] {
    match command.args_iter().next() {
        Some(redis::Arg::Simple(verb)) => verb,
        _ => b"",
    }
}

/// Where a unit goes.
#[derive(Debug)]
pub(super) enum To {
    /// To who has its slot.
    Owner,
    /// The same, after a pause.
    OwnerLater,
    /// To who is about to get its slot.
    Asking(Arc<Server>),
}

/// What goes to one server, and whether each unit is asked for there before its time.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) server: Arc<Server>,
    pub(super) units: Vec<(Unit, bool)>,
    /// How many times its units were sent on.
    pub(super) round: usize,
    /// Whether there is a pause before it.
    pub(super) is_late: bool,
}

impl Errand {
    /// Whether it is the pipeline as it stands.
    pub(super) fn is_all_of(&self, pipeline: &Pipeline) -> bool {
        let commands: usize = self.units.iter().map(|(unit, _)| unit.commands.len()).sum();
        commands == pipeline.len() && self.units.iter().all(|(_, is_asking)| !is_asking)
    }

    /// The commands to send.
    pub(super) fn commands(&self, pipeline: &Pipeline) -> Pipeline {
        let all: usize = self.units.iter().map(|(unit, _)| unit.commands.len() + 1).sum();
        let mut own = Pipeline::with_capacity(all + 1);
        for (unit, is_asking) in &self.units {
            if *is_asking {
                // It holds for the next command, or all of a transaction.
                own.cmd("ASKING");
            }
            for command in pipeline.cmd_iter().skip(unit.commands.start).take(unit.commands.len()) {
                own.add_command(command.clone());
            }
        }
        own
    }

    /// Puts the replies where their commands stand.
    pub(super) fn take(&self, values: Vec<Value>, replies: &mut [Reply<Value>]) {
        let mut values = values.into_iter();
        for (unit, is_asking) in &self.units {
            if *is_asking {
                values.next();
            }
            for reply in replies.get_mut(unit.commands.clone()).unwrap_or_default() {
                *reply = Ok(values.next().unwrap_or_default());
            }
        }
    }
}
