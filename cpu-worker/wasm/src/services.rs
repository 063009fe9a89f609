//! This process's end of the calls to io-worker (`quintet_protocol::wasm::service`).

use quintet_protocol::doorbell::Doorbell;
use quintet_protocol::layout::{Ends, SleeperId};
use quintet_protocol::message::{Command, MAX_COMMAND};
use quintet_protocol::reply::{REPLY_DATA, ReplyReader};
use quintet_protocol::ring::{Producer, PushError};
use quintet_protocol::wasm::{Errno, Service};

/// One call at a time.
#[derive(Debug)]
pub(crate) struct Client {
    commands: Producer,
    replies: ReplyReader,
    bell: Doorbell,
}

impl Client {
    /// Goes on in the ring where a predecessor stood.
    pub(crate) fn new(ends: &Ends) -> Result<Self, PushError> {
        Ok(Self {
            commands: ends.command_producer(0)?,
            replies: ends.reply_reader(0),
            bell: ends.doorbell(SleeperId::Io),
        })
    }

    /// Sends a call; the number that its answer has.
    pub(crate) fn ask(&mut self, service: Service) -> Result<u64, PushError> {
        let (service, words) = service.to_words();
        let mut buffer = [0; MAX_COMMAND];
        let len = Command::ModuleCall { service, words }.encode(&mut buffer);
        // One call at a time fits: what a machine that was stopped left unanswered is at most one more.
        let number = self.commands.stage_two(&buffer[..len], &[])?;
        self.commands.publish();
        self.bell.ring();
        Ok(number)
    }

    /// Whether the answer is there: one load.
    pub(crate) fn is_answered(&self, number: u64) -> bool {
        self.replies.is_ready(number)
    }

    /// The answer, if it is there.
    pub(crate) fn answer(&self, number: u64) -> Option<Result<Vec<u8>, Errno>> {
        let mut data = [0; REPLY_DATA];
        // A reply that makes no sense is none: its writer dies of that, or its successor answers.
        let (_, len) = self.replies.take(number, &mut data).ok()??;
        let Some((errno, rest)) = data[..len].split_first_chunk() else {
            return Some(Err(Errno::NOSYS));
        };
        match u32::from_le_bytes(*errno) {
            0 => Some(Ok(rest.to_vec())),
            errno => Some(Err(Errno(errno as u16))),
        }
    }

    /// Rings again, in case that a successor has not heard.
    pub(crate) fn ring(&self) {
        self.bell.ring();
    }
}
