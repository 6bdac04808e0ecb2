//! SIGUSR2: another process takes the listeners over, with the program and the configuration as
//! they are by then, and this one ends what it has begun. Nobody is refused: the
//! sockets stay open all the time. Whatever goes wrong before the other process is ready changes
//! nothing.
//!
//! The sockets pass over an exec, not by `SO_REUSEPORT`, which drops what waits in the queue of a
//! socket that is closed.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::Signal;

use super::sockets::{Row, Sockets};
use crate::net::supervisor;
use crate::runtime::Gateway;

/// What the new process says when it listens.
const READY: &[u8] = b"ready\n";
/// Tells the new process that its standard input is a pipe to say so by. That number is the only
/// one that can be had without unsafe code.
const READY_BY: &str = "PORTCULLIS_READY_BY";
/// The process that a container lives as long as.
const FIRST_PROCESS: u32 = 1;
/// How long a process that has closed its pipe may take to end by itself: looks, and their pause.
const END_LOOKS: u32 = 100;
const END_PAUSE: Duration = Duration::from_millis(10);

/// Why everything is as it was.
#[derive(Debug, thiserror::Error)]
pub enum NotHandedOver {
    /// A container ends with its first process.
    #[error(
        "this is the first process of its container, which would end with it\n    help: start \
         another container, or run the gateway under an init process (docker run --init)"
    )]
    FirstProcess,
    /// Nobody is to be accepted any more.
    #[error("the gateway listens no more")]
    Ending,
    /// File descriptors, mostly.
    #[error("its sockets or its pipe cannot be opened: {0}; is `ulimit -n` reached?")]
    NoFiles(#[from] std::io::Error),
    /// There is no such program.
    #[error("{0:?} cannot be started: {1}\n    help: put a program there that may be executed")]
    NotStarted(OsString, std::io::Error),
    /// It ended, or has said something else.
    #[error(
        "the new process ended before it was ready: {0}\n    help: it has written why; \
         `portcullis check` finds mistakes of the configuration"
    )]
    Died(ExitStatus),
    /// It was ended.
    #[error("the new process was not ready within server.handover_timeout ({0:?}), and was ended")]
    Silent(Duration),
}

/// Hands over at SIGUSR2, one attempt at a time; returns when that has succeeded, and this process
/// is to accept no more.
pub async fn at_each(signal: Option<&mut Signal>, gateway: &Arc<Gateway>, sockets: &Sockets) {
    let Some(signal) = signal else { return std::future::pending().await };
    while signal.recv().await.is_some() {
        let running = gateway.running();
        let server = &running.plan.config.server;
        if !server.handover {
            tracing::info!(
                "SIGUSR2: nothing to do, for server.handover is false; SIGHUP reloads the \
                 configuration, SIGTERM drains"
            );
            continue;
        }
        tracing::info!("SIGUSR2: a new process is started, and takes over when it is ready");
        match hand_over(sockets, server.handover_timeout).await {
            Ok(pid) => {
                gateway.observer.metrics.handed_over("done");
                crate::admin::told(gateway, "SIGUSR2", "handover", "done");
                supervisor::replaced_by(pid);
                gateway.leave();
                tracing::info!("handed over to process {pid}; what is in flight is finished here");
                return;
            }
            Err(failure) => {
                gateway.observer.metrics.handed_over("failed");
                crate::admin::told(gateway, "SIGUSR2", "handover", "failed");
                tracing::error!("not handed over; this process goes on as before: {failure}");
            }
        }
    }
    std::future::pending().await
}

/// In the process that takes over: says that it listens. False in one that was started otherwise.
pub fn say_ready() -> bool {
    if std::env::var_os(READY_BY).is_none() {
        return false;
    }
    let input = std::io::stdin().as_fd().try_clone_to_owned();
    if let Err(error) = input.and_then(|pipe| File::from(pipe).write_all(READY)) {
        // Whoever started it has ended since: the sockets are here all the same.
        tracing::warn!(%error, "the process before this one cannot be told that this one is ready");
    }
    true
}

/// The id of the process that has taken over.
async fn hand_over(sockets: &Sockets, limit: Duration) -> Result<u32, NotHandedOver> {
    if std::process::id() == FIRST_PROCESS {
        return Err(NotHandedOver::FirstProcess);
    }
    let row = sockets.row()?.ok_or(NotHandedOver::Ending)?;
    let (reading, writing) = std::io::pipe()?;
    let reading = Receiver::from_owned_fd(OwnedFd::from(reading))?;
    let heir = Heir::start(&row, OwnedFd::from(writing))?;
    // What is open without CLOEXEC is open no longer than this.
    drop(row);
    let mut said = [0; READY.len()];
    let mut reading = std::pin::pin!(reading);
    match tokio::time::timeout(limit, reading.read_exact(&mut said)).await {
        Ok(Ok(_)) if said == READY => Ok(heir.let_go()),
        Ok(_) => Err(NotHandedOver::Died(heir.end().await?)),
        Err(_) => Err(NotHandedOver::Silent(limit)),
    }
}

/// The process that is to take over; it is ended where it does not.
struct Heir(Option<Child>);

impl Heir {
    /// Starts the program as this one was started.
    fn start(row: &Row, writing: OwnedFd) -> Result<Self, NotHandedOver> {
        let mut arguments = std::env::args_os();
        let program = arguments.next().unwrap_or_else(|| "portcullis".into());
        let started = Command::new(&program)
            .args(arguments)
            .stdin(writing)
            .env("LISTEN_FDS", row.sockets.len().to_string())
            .env("LISTEN_FDS_FIRST_FD", row.first().to_string())
            .env("LISTEN_FDNAMES", &row.names)
            .env_remove("LISTEN_PID")
            .env(READY_BY, "stdin")
            .spawn();
        started.map(|child| Self(Some(child))).map_err(|it| NotHandedOver::NotStarted(program, it))
    }

    /// It goes on by itself.
    fn let_go(mut self) -> u32 {
        self.0.take().map_or(0, |child| child.id())
    }

    /// How it has ended. It is ended if it has not: what closes its pipe and goes on is no gateway.
    async fn end(mut self) -> std::io::Result<ExitStatus> {
        let Some(child) = &mut self.0 else { return Ok(ExitStatus::default()) };
        for _ in 0..END_LOOKS {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            tokio::time::sleep(END_PAUSE).await;
        }
        child.kill()?;
        child.wait()
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
