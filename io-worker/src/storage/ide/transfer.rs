//! Moving sectors: between disk and buffer, buffer and host, disk and bus master.
//!
//! What a call starts is done by the image's thread; the phase says what it was, so that a successor can start it
//! again ([`Drive::resume`]). Reading sectors twice is harmless; writing them twice is, because the next
//! command begins only after this one's end has been committed. Data of the bus master is collected from RAM again: a
//! guest must leave it alone until the end.

use super::atapi::PACKET_LEN;
use super::drive::{Addressing, Cable, DEVICE_LBA, Drive, DriveKind, Phase, State, error, status};
use super::identify::MAX_MULTIPLE;
use crate::block::Operation;
use crate::dma::Buffer;

/// Most bytes that go through the bus master in one request of the disk: what Linux asks for at most in one command whose pages are
/// scattered.
const DMA_CHUNK: u64 = 512 << 10;
/// Most sectors of a CD that go into the buffer at once: the buffer is committed.
pub(super) const CD_BLOCK: u32 = 4;

impl Drive {
    /// Whether a committed state is one that a drive like this can be in, with `held` bytes in its buffer.
    pub(super) fn can_be(&self, s: &State, held: usize) -> bool {
        let (run, unit) = (&s.run, self.unit() as usize);
        let end = run.lba.checked_add(u64::from(run.left));
        // What is left to read of another disc will not be read.
        let inside =
            run.left == 0 || s.packet.medium != self.medium || end.is_some_and(|end| end <= self.total);
        let chunk = run.chunk <= run.left && run.chunk as usize * unit <= DMA_CHUNK as usize;
        let buffer = match s.phase {
            Phase::DataIn => s.drq as usize <= held,
            Phase::DataOut => held + s.drq as usize == run.chunk as usize * unit,
            Phase::Packet => held + s.drq as usize == PACKET_LEN as usize,
            Phase::Store => held == run.chunk as usize * unit,
            _ => true,
        };
        inside && chunk && buffer && s.multiple <= MAX_MULTIPLE && run.block <= u32::from(MAX_MULTIPLE)
    }

    /// Begins to move the sectors of `self.s.run`, through the host.
    pub(super) fn begin_pio(&mut self, cable: &mut Cable<'_, '_>) {
        if self.s.run.write {
            self.want_block(cable);
        } else {
            self.fetch(cable);
        }
    }

    /// Waits for the bus master.
    pub(super) fn begin_dma(&mut self, cable: &mut Cable<'_, '_>) {
        self.s.phase = Phase::DmaHeld;
        self.s.task.status = status::DRDY | status::DSC | status::DRQ;
        self.dma_go(cable);
    }

    /// Shows `self.buffer` to the host; `interrupt` with it.
    pub(super) fn offer(&mut self, cable: &mut Cable<'_, '_>) {
        self.at = 0;
        self.s.phase = Phase::DataIn;
        self.s.drq = match self.kind {
            DriveKind::Cdrom if self.s.packet.running => self.packet_chunk(),
            _ => self.buffer.len() as u32,
        };
        self.s.task.status = status::DRDY | status::DSC | status::DRQ;
        cable.interrupt = true;
    }

    fn block(&self) -> u32 {
        self.s.run.left.min(self.s.run.block)
    }

    fn request(&self, sectors: u32) -> Operation {
        Operation::Read {
            offset: self.s.run.lba * self.unit(),
            len: sectors as usize * self.unit() as usize,
        }
    }

    pub(super) fn fetch(&mut self, cable: &mut Cable<'_, '_>) {
        self.s.run.chunk = self.block();
        self.s.phase = Phase::Fetch;
        self.ask(cable, self.request(self.s.run.chunk));
    }

    /// Asks the host for the next block.
    fn want_block(&mut self, _cable: &mut Cable<'_, '_>) {
        self.s.run.chunk = self.block();
        self.s.drq = self.s.run.chunk * self.unit() as u32;
        self.buffer.clear();
        self.s.phase = Phase::DataOut;
        self.s.task.status = status::DRDY | status::DSC | status::DRQ;
    }

    /// Has what the host has written into the buffer written to the disk.
    fn store(&mut self, cable: &mut Cable<'_, '_>) {
        let operation = Operation::Write {
            offset: self.s.run.lba * self.unit(),
            data: self.buffer.clone(),
            durable: !self.s.write_cache,
        };
        self.s.phase = Phase::Store;
        self.ask(cable, operation);
    }

    fn ask(&mut self, cable: &mut Cable<'_, '_>, operation: Operation) {
        self.s.task.status = status::BSY | status::DSC;
        self.ticket = Some(cable.bp.disks.ask(self.disk, operation));
    }

    pub(super) fn flush(&mut self, cable: &mut Cable<'_, '_>) {
        self.s.phase = Phase::Flush;
        self.ask(cable, Operation::Flush);
    }

    /// The data register is read.
    pub(super) fn data_in(&mut self, cable: &mut Cable<'_, '_>, bytes: usize) -> u64 {
        if self.s.phase != Phase::DataIn {
            return 0;
        }
        let n = bytes.min(self.s.drq as usize);
        let mut value = [0; 8];
        value[..n].copy_from_slice(&self.buffer[self.at..self.at + n]);
        self.at += n;
        self.s.drq -= n as u32;
        if self.s.drq == 0 {
            self.was_read(cable);
        }
        u64::from_le_bytes(value)
    }

    /// The host has read all of this DRQ phase.
    fn was_read(&mut self, cable: &mut Cable<'_, '_>) {
        if self.at < self.buffer.len() {
            // A packet's data in pieces of the size that the host asked for.
            self.buffer.drain(..self.at);
            self.offer(cable);
        } else if self.s.run.left > 0 {
            self.buffer.clear();
            self.at = 0;
            self.fetch(cable);
        } else if self.s.packet.running {
            self.packet_done(cable);
        } else {
            self.rest();
        }
    }

    /// The data register is written.
    pub(super) fn data_out(&mut self, cable: &mut Cable<'_, '_>, bytes: usize, value: u64) {
        if !matches!(self.s.phase, Phase::DataOut | Phase::Packet) {
            return;
        }
        let n = bytes.min(self.s.drq as usize);
        self.buffer.extend(&value.to_le_bytes()[..n]);
        self.s.drq -= n as u32;
        if self.s.drq > 0 {
            return;
        }
        if self.s.phase == Phase::Packet {
            self.execute_packet(cable);
        } else {
            self.store(cable);
        }
    }

    /// The bus master runs and may, or the command that it runs for has come: whichever is later. Answers whether
    /// anything was moved or asked for.
    pub(super) fn dma_go(&mut self, cable: &mut Cable<'_, '_>) -> bool {
        if self.s.phase != Phase::DmaHeld || !cable.bm.is_active() || !cable.bp.may_master {
            return false;
        }
        if !self.buffer.is_empty() {
            let data = std::mem::take(&mut self.buffer);
            if cable.bm.scatter(cable.bp.dma, &data) == data.len() {
                self.dma_done(cable);
            } else {
                self.table_too_short(cable);
            }
            return true;
        }
        let most = (DMA_CHUNK / self.unit()) as u32;
        self.s.run.chunk = self.s.run.left.min(most);
        if self.s.run.write {
            self.dma_store(cable);
        } else {
            self.s.phase = Phase::DmaFetch;
            self.ask(cable, self.request(self.s.run.chunk));
        }
        true
    }

    fn dma_store(&mut self, cable: &mut Cable<'_, '_>) {
        let len = u64::from(self.s.run.chunk) * self.unit();
        let from = cable.bm.regions(cable.bp.dma, len as usize);
        if Buffer::total(&from) < len {
            self.table_too_short(cable);
            return;
        }
        let operation = Operation::WriteFrom {
            offset: self.s.run.lba * self.unit(),
            from,
            durable: !self.s.write_cache,
        };
        self.s.phase = Phase::DmaStore;
        self.ask(cable, operation);
    }

    /// As QEMU: the engine stops, and nobody is interrupted.
    fn table_too_short(&mut self, cable: &mut Cable<'_, '_>) {
        cable.bm.give_up();
        self.rest();
    }

    fn dma_done(&mut self, cable: &mut Cable<'_, '_>) {
        cable.bm.finish();
        if self.s.packet.running {
            self.packet_done(cable);
        } else {
            self.succeed(cable);
        }
    }

    /// The bus master is stopped: what it was to move stays where it is.
    pub(super) fn dma_stop(&mut self) {
        if matches!(self.s.phase, Phase::DmaFetch | Phase::DmaStore) {
            self.dma_hold();
        }
    }

    fn dma_hold(&mut self) {
        self.s.phase = Phase::DmaHeld;
        self.s.task.status = status::DRDY | status::DSC | status::DRQ;
        self.ticket = None;
    }

    /// Starts again what a predecessor had under way.
    pub(super) fn resume(&mut self, cable: &mut Cable<'_, '_>) {
        if self.s.packet.medium != self.medium {
            self.change_disc(cable);
        }
        match self.s.phase {
            Phase::Fetch | Phase::DmaFetch => self.ask(cable, self.request(self.s.run.chunk)),
            Phase::Store => self.store(cable),
            Phase::DmaStore => self.dma_store(cable),
            Phase::Flush => self.flush(cable),
            Phase::Idle | Phase::DataIn | Phase::DataOut | Phase::Packet | Phase::DmaHeld => {}
        }
    }

    /// Takes up what the disk has done. Answers whether anything has changed.
    pub(super) fn advance(&mut self, cable: &mut Cable<'_, '_>) -> bool {
        // The function may have been made a bus master since.
        let mut changed = self.dma_go(cable);
        while let Some(done) = cable.bp.disks.take(self.disk) {
            if self.ticket != Some(done.ticket) {
                continue;
            }
            self.ticket = None;
            changed = true;
            match done.result {
                Ok(data) => self.disk_did(cable, data.held()),
                Err(_) => self.disk_failed(cable),
            }
        }
        changed
    }

    fn disk_did(&mut self, cable: &mut Cable<'_, '_>, data: Vec<u8>) {
        match self.s.phase {
            Phase::Fetch => {
                self.buffer = self.as_asked(data);
                self.moved();
                self.offer(cable);
            }
            Phase::Store => {
                self.moved();
                if self.s.run.left > 0 {
                    self.want_block(cable);
                    cable.interrupt = true;
                } else {
                    self.succeed(cable);
                }
            }
            // The function is no bus master any more: it reads again when it is.
            Phase::DmaFetch if !cable.bp.may_master => self.dma_hold(),
            Phase::DmaFetch => {
                let data = self.as_asked(data);
                if cable.bm.scatter(cable.bp.dma, &data) < data.len() {
                    self.table_too_short(cable);
                } else {
                    self.dma_next(cable);
                }
            }
            Phase::DmaStore => {
                let len = self.s.run.chunk as usize * self.unit() as usize;
                cable.bm.skip(cable.bp.dma, len);
                self.dma_next(cable);
            }
            Phase::Flush => self.succeed(cable),
            Phase::Idle | Phase::DataIn | Phase::DataOut | Phase::Packet | Phase::DmaHeld => {}
        }
    }

    fn dma_next(&mut self, cable: &mut Cable<'_, '_>) {
        self.moved();
        if self.s.run.left > 0 {
            self.s.phase = Phase::DmaHeld;
            self.dma_go(cable);
        } else {
            self.dma_done(cable);
        }
    }

    fn disk_failed(&mut self, cable: &mut Cable<'_, '_>) {
        if matches!(self.s.phase, Phase::DmaFetch | Phase::DmaStore) {
            cable.bm.give_up();
        }
        if self.s.packet.running {
            self.packet_failed(cable, super::atapi::UNRECOVERED);
            return;
        }
        let why = match self.s.phase {
            Phase::Fetch | Phase::DmaFetch => error::UNC,
            _ => error::ABRT,
        };
        if self.s.phase == Phase::Flush {
            self.fail(cable, why);
            self.s.task.status |= status::DF;
        } else {
            self.fail(cable, why);
        }
    }

    /// A chunk has been moved: the registers name the next sector.
    fn moved(&mut self) {
        let run = &mut self.s.run;
        run.lba += u64::from(run.chunk);
        run.left -= run.chunk;
        run.chunk = 0;
        if self.kind == DriveKind::Disk {
            self.show_place();
        }
    }

    /// Writes the run's place into the task file, in the way in which the command named it.
    pub(super) fn show_place(&mut self) {
        let (lba, left) = (self.s.run.lba, self.s.run.left);
        let t = &mut self.s.task;
        let bytes = lba.to_le_bytes();
        t.count = [left as u8, (left >> 8) as u8];
        match self.s.run.addressing {
            Addressing::Lba48 => {
                t.low = [bytes[0], bytes[3]];
                t.mid = [bytes[1], bytes[4]];
                t.high = [bytes[2], bytes[5]];
            }
            Addressing::Lba28 => {
                (t.low[0], t.mid[0], t.high[0]) = (bytes[0], bytes[1], bytes[2]);
                t.device = t.device & 0xF0 | bytes[3] & 0xF;
            }
            Addressing::Chs => {
                let (heads, sectors) = (u64::from(self.s.heads).max(1), u64::from(self.s.sectors).max(1));
                let cylinder = lba / (heads * sectors);
                t.low[0] = (lba % sectors) as u8 + 1;
                t.device = t.device & 0xF0 | (lba / sectors % heads) as u8;
                (t.mid[0], t.high[0]) = (cylinder as u8, (cylinder >> 8) as u8);
            }
        }
    }

    /// The first sector that a command names; `None` when there is none of that name.
    pub(super) fn named(&self, addressing: Addressing) -> Option<u64> {
        let t = &self.s.task;
        let byte = u64::from;
        let low = byte(t.low[0]) | byte(t.mid[0]) << 8 | byte(t.high[0]) << 16;
        match addressing {
            Addressing::Lba48 => {
                Some(low | byte(t.low[1]) << 24 | byte(t.mid[1]) << 32 | byte(t.high[1]) << 40)
            }
            Addressing::Lba28 => Some(low | byte(t.device & 0xF) << 24),
            Addressing::Chs => {
                let (head, sector) = (t.device & 0xF, t.low[0]);
                let cylinder = low >> 8;
                let fits = sector != 0 && sector <= self.s.sectors && head < self.s.heads;
                fits.then(|| {
                    (cylinder * byte(self.s.heads) + byte(head)) * byte(self.s.sectors) + byte(sector) - 1
                })
            }
        }
    }

    /// How a command of 28 bits names sectors.
    pub(super) fn addressing(&self, wide: bool) -> Addressing {
        match wide {
            true => Addressing::Lba48,
            false if self.s.task.device & DEVICE_LBA != 0 => Addressing::Lba28,
            false => Addressing::Chs,
        }
    }
}
