//! What a WebAssembly module has of this process: files beneath directories, host input, sound (`docs/wasm.md`).
//!
//! The module's memory is guest RAM, so paths and data are read and written there; cpu-worker has checked that they are
//! inside the module's memory, and [`GuestRam`] checks that they are inside RAM. Nothing here is committed: files are
//! numbered anew by each process, so that a number of a predecessor's means nothing to its successor.

mod files;
mod list;
mod sound;

use std::os::fd::OwnedFd;

use quintet_protocol::input::InputEvent;
use quintet_protocol::layout::Ends;
use quintet_protocol::message::Command;
use quintet_protocol::ram::GuestRam;
use quintet_protocol::wasm::service::input;
use quintet_protocol::wasm::{Errno, Service};

use self::files::Files;
use self::sound::Sound;

/// Who takes what users did.
pub trait Inputs {
    /// The next thing.
    fn take_event(&mut self) -> Option<InputEvent>;
}

/// The services for one module after another.
#[derive(Debug)]
pub struct Services {
    ram: GuestRam,
    files: Files,
    sound: Sound,
}

impl Services {
    /// With the directories that the user gave, by their names for the module. `process` counts the processes that have
    /// had this role.
    pub fn new(dirs: Vec<(String, OwnedFd)>, process: u32, ram: GuestRam, ends: Ends) -> Self {
        Self {
            ram,
            files: Files::new(dirs, process),
            sound: Sound::new(ends),
        }
    }

    /// Answers a command if it is a module's call.
    pub fn answer(&mut self, command: &[u8], inputs: &mut impl Inputs) -> Option<Vec<u8>> {
        let Ok(Command::ModuleCall { service, words }) = Command::decode(command) else {
            return None;
        };
        let result = Service::from_words(service, words)
            .ok_or(Errno::NOSYS)
            .and_then(|service| self.call(service, inputs));
        let (errno, data) = match result {
            Ok(data) => (Errno::SUCCESS, data),
            Err(errno) => (errno, Vec::new()),
        };
        let mut reply = u32::from(errno.0).to_le_bytes().to_vec();
        reply.extend(data);
        Some(reply)
    }

    fn call(&mut self, service: Service, inputs: &mut impl Inputs) -> Result<Vec<u8>, Errno> {
        match service {
            Service::Begin => {
                self.files.close_all();
                self.sound.end();
                while inputs.take_event().is_some() {}
                Ok(Vec::new())
            }
            Service::Input => Ok(event(inputs.take_event())),
            Service::Sound { data } => self.sound.play(&self.ram, data),
            Service::SoundRate => Ok(self.sound.rate().to_le_bytes().to_vec()),
            file => self.files.call(file, &self.ram),
        }
    }
}

/// An event's kind and its two numbers.
fn event(event: Option<InputEvent>) -> Vec<u8> {
    let (kind, x, y) = match event {
        None => (input::NONE, 0, 0),
        Some(InputEvent::Key { key, down }) => (input::KEY, i32::from(key.0), i32::from(down)),
        Some(InputEvent::Motion { dx, dy }) => (input::MOTION, dx.into(), dy.into()),
        Some(InputEvent::Position { x, y }) => (input::POSITION, x.into(), y.into()),
        Some(InputEvent::Wheel { notches }) => (input::WHEEL, notches.into(), 0),
        Some(InputEvent::Button { button, down }) => (input::BUTTON, button as i32, i32::from(down)),
        Some(InputEvent::ReleaseAll) => (input::RELEASE_ALL, 0, 0),
    };
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend(x.to_le_bytes());
    bytes.extend(y.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests;
