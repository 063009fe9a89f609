//! What the user of the window asks for.

use std::sync::Arc;

use quintet_protocol::control::Drive;
use quintet_protocol::handshake::Role;
use quintet_protocol::layout::Region;
use quintet_protocol::lifecycle::{Input, Outcome};
use quintet_protocol::status::{MachineState, StatusWord};
use quintet_protocol::window::{WindowCommand, WindowPlace};

use super::Machine;

impl Machine {
    /// Carries out what has come from the window. A ring that contradicts itself is the end of the process that wrote it.
    pub(super) fn obey_window(&mut self) {
        if self.config.gpu.headless {
            return;
        }
        let mut commands = Vec::new();
        let result = self.ends.lifecycle_from_consumer(Role::Gpu).and_then(|mut ring| {
            let mut bytes = [0; 64];
            while let Some(record) = ring.next(&mut bytes)? {
                commands.push(WindowCommand::from_record(&bytes[..record.len]));
                ring.release_all();
            }
            Ok(())
        });
        if let Err(e) = result {
            let process = self.life.generation(Role::Gpu);
            self.fleet.doom(
                Role::Gpu,
                process,
                format!("its window cannot be understood: {e}"),
            );
        }
        for command in commands {
            match command {
                Some(command) => self.obey(command),
                None => tracing::warn!("the {} asks for something strange", Role::Gpu),
            }
        }
    }

    fn obey(&mut self, command: WindowCommand) {
        tracing::info!("the window asks: {command:?}");
        match command {
            WindowCommand::TogglePause if self.life.machine() == MachineState::Paused => {
                self.step(Input::Resume);
            }
            WindowCommand::TogglePause => self.step(Input::Pause),
            WindowCommand::Reset => self.step(Input::Reset),
            WindowCommand::PowerButton => {
                self.status.add(StatusWord::PowerPresses, 1);
                self.wake_everybody();
            }
            WindowCommand::NextDiskette => self.next_medium(Drive::Floppy),
            WindowCommand::NextDisc => self.next_medium(Drive::Cdrom),
            WindowCommand::Quit => self.step(Input::Stop(Outcome::Asked(0))),
            WindowCommand::Screenshot => self.save_screenshot(),
        }
    }

    /// Keeps how the window was for the next machine.
    pub(super) fn keep_window(&self) {
        if let Some(place) = WindowPlace::load(&self.ends.view(Region::window_place())) {
            self.window_files.keep(place.settings());
        }
    }

    /// Has a screenshot written to a file of its own. A thread asks for it as `quintet screenshot` does,
    /// since the answer takes a while.
    fn save_screenshot(&self) {
        let name = self.config.name.clone();
        let files = Arc::clone(&self.window_files);
        let thread = std::thread::Builder::new()
            .name("screenshot".into())
            .spawn(move || {
                let saved = files.new_screenshot(&name).and_then(|file| {
                    crate::commands::screenshot(&name, &file).map_err(|e| e.to_string())?;
                    Ok(file)
                });
                match saved {
                    Ok(file) => eprintln!("quintet: screenshot saved as {}", file.display()),
                    Err(e) => eprintln!("quintet: no screenshot: {e}"),
                }
            });
        if let Err(e) = thread {
            tracing::warn!("no screenshot: {e}");
        }
    }
}
