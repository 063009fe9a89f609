//! Requests as spans of a timeline, from their asking to the taking of their end.

use std::collections::VecDeque;

use quintet_protocol::trace::{Begun, Kind, TRACKS, Tracer};

use super::{DiskId, Operation, Ticket};

/// What is under way, while somebody traces.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    tracer: Tracer,
    open: VecDeque<Request>,
}

#[derive(Debug)]
struct Request {
    disk: DiskId,
    ticket: Ticket,
    begun: Begun,
    kind: Kind,
    bytes: u64,
}

impl Timeline {
    pub(super) fn new(tracer: Tracer) -> Self {
        Self {
            tracer,
            open: VecDeque::new(),
        }
    }

    pub(super) fn asked(&mut self, disk: DiskId, ticket: Ticket, operation: &Operation) {
        if !self.tracer.is_on() {
            return;
        }
        let kind = match operation {
            Operation::Read { .. } | Operation::ReadInto { .. } => Kind::DiskRead,
            Operation::Write { .. } | Operation::WriteFrom { .. } => Kind::DiskWrite,
            Operation::Flush => Kind::DiskFlush,
            Operation::Discard { .. } => Kind::DiskDiscard,
            Operation::Zero { .. } => Kind::DiskZero,
        };
        self.open.push_back(Request {
            disk,
            ticket,
            begun: self.tracer.begin(),
            kind,
            bytes: operation.bytes(),
        });
    }

    pub(super) fn ended(&mut self, disk: DiskId, ticket: Ticket) {
        // The oldest is nearly always first.
        if let Some(at) = self
            .open
            .iter()
            .position(|r| (r.disk, r.ticket) == (disk, ticket))
            && let Some(request) = self.open.remove(at)
        {
            let track = u16::from(disk.0).min(TRACKS - 1);
            self.tracer
                .end_on(request.kind, track, request.begun, request.bytes);
        }
    }
}
