//! Who holds a place among the connections to the status port. When all are taken, the one that
//! has been waiting longest without a request makes room: silent strangers must not keep others out.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use tokio::sync::Notify;

use super::deadline::Progress;

/// All that are taken, the oldest first.
#[derive(Default)]
pub(super) struct Seats(RefCell<Vec<Weak<Seat>>>);

/// The place of one connection, for as long as that lives.
#[derive(Default)]
pub(super) struct Seat {
    /// What it is doing, once that is HTTP.
    progress: RefCell<Option<Rc<Progress>>>,
    was_told: Cell<bool>,
    leave: Notify,
}

impl Seats {
    /// Takes a place.
    pub(super) fn take(&self) -> Rc<Seat> {
        let seat = Rc::new(Seat::default());
        let mut seats = self.0.borrow_mut();
        seats.retain(|seat| seat.strong_count() > 0);
        seats.push(Rc::downgrade(&seat));
        seat
    }

    /// Tells the oldest one that has no request to leave, if there is one.
    pub(super) fn make_room(&self) {
        let seats = self.0.borrow();
        let mut taken = seats.iter().filter_map(Weak::upgrade);
        if let Some(seat) = taken.find(|seat| seat.is_waiting()) {
            seat.was_told.set(true);
            seat.leave.notify_one();
        }
    }
}

impl Seat {
    /// The connection speaks HTTP from now on.
    pub(super) fn follow(&self, progress: &Rc<Progress>) {
        *self.progress.borrow_mut() = Some(Rc::clone(progress));
    }

    /// Waits to be told to leave.
    pub(super) async fn told_to_leave(&self) {
        self.leave.notified().await;
    }

    fn is_waiting(&self) -> bool {
        let progress = self.progress.borrow();
        !self.was_told.get() && progress.as_ref().is_none_or(|progress| progress.is_waiting())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_oldest_that_waits_is_told_to_leave() {
        let seats = Seats::default();
        let (busy, gone, first, second) = (seats.take(), seats.take(), seats.take(), seats.take());
        let progress = Progress::new(Duration::from_secs(60));
        busy.follow(&progress);
        let _deadline = progress.service_begins();
        drop(gone);
        let told = || [&busy, &first, &second].map(|seat| seat.was_told.get());
        for expected in [[false, true, false], [false, true, true], [false, true, true]] {
            seats.make_room();
            assert_eq!(told(), expected);
        }
        progress.service_ends();
        seats.make_room();
        assert!(!busy.was_told.get(), "its answer is on its way");
    }
}
