//! What handles may ask of the engine thread, and the way there.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::Thread;

use tokio::sync::{oneshot, watch};

use super::jobs::AnyJob;
use super::loaded_model::LoadedModel;
use super::pcm_ring::Reader;
use super::texts::VoiceTexts;
use super::{Ack, EngineError, ModelInfo, Place, Steer, VoiceSpec};
use crate::units::{ModelId, VoiceId};

pub(super) type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

/// What a handle may ask of the engine thread.
pub(super) enum Command {
    Join { spec: VoiceSpec, reply: Reply<Joined> },
    Steer { voice: VoiceId, steer: Steer, reply: Reply<Ack> },
    Reset { voice: VoiceId, reply: Reply<Ack> },
    SetModel { voice: VoiceId, model: ModelId, reply: Reply<Ack> },
    Pause { voice: VoiceId, reply: Reply<()> },
    Resume { voice: VoiceId, reply: Reply<()> },
    ResumeWhenFree { voice: VoiceId, place: watch::Sender<Place>, reply: Reply<()> },
    AddModel { model: Box<LoadedModel>, reply: Reply<()> },
    RemoveModel { model: ModelId, reply: Reply<()> },
    Submit { job: Box<dyn AnyJob> },
    Quit,
}

/// A voice that was taken in, for whoever asked.
pub(super) struct Joined {
    pub(super) id: VoiceId,
    pub(super) model: Arc<ModelInfo>,
    pub(super) reader: Reader,
    pub(super) texts: Arc<VoiceTexts>,
}

/// The way to the engine thread. When the last handle and the last voice are gone, the thread ends.
pub(super) struct CommandSender {
    pub(super) commands: Sender<Command>,
    pub(super) thread: Thread,
}

impl CommandSender {
    pub(super) fn send(&self, command: Command) -> Result<(), EngineError> {
        self.commands.send(command).map_err(|_| stopped())?;
        self.thread.unpark();
        Ok(())
    }

    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, EngineError>>) -> Command,
    ) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply))?;
        answer.await.map_err(|_| stopped())?
    }
}

impl Drop for CommandSender {
    fn drop(&mut self) {
        // The thread may have ended before; then there is nobody to tell.
        let _ = self.send(Command::Quit);
    }
}

pub(super) fn stopped() -> EngineError {
    EngineError::Gone("the engine has stopped".into())
}
