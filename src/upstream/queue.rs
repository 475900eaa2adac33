//! A limit of what runs at once, and the queue of those that wait for a place: first in, first out, or in another order.
//!
//! One atomic word counts both: while the queue is empty, no lock is taken. The limit may change at any time: more places are
//! given away at once, fewer as soon as enough are free.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use tokio::sync::oneshot;

/// Places, taken and waited for.
#[derive(Debug)]
pub struct Queue {
    /// The places that are taken; from [`WAITING`] on, those that wait.
    word: AtomicU64,
    limit: AtomicU32,
    tickets: Mutex<Tickets>,
}

/// A place. It is free again when this is dropped.
#[derive(Debug)]
pub struct Place(Arc<Queue>);

/// How somebody came in.
#[derive(Debug)]
pub enum Entry {
    In(Place),
    Wait(Waiting),
}

/// A place in the queue. Dropped, it is given up.
#[derive(Debug)]
pub struct Waiting {
    queue: Arc<Queue>,
    ticket: Ticket,
    granted: oneshot::Receiver<Place>,
}

/// Who is served first among those that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// Who came first.
    #[default]
    Oldest,
    /// Who came last.
    Newest,
    /// The lower rank; among equals who came first.
    Rank(u8),
}

/// As many wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

#[derive(Debug, Default)]
struct Tickets {
    waiting: BTreeMap<Ticket, oneshot::Sender<Place>>,
    next: i64,
}

/// A rank and a number: the least one is served first, the greatest one is the first that loses its place where there are too
/// many.
type Ticket = (u8, i64);

const TAKEN: u64 = 1;
const WAITING: u64 = 1 << 32;

// === impl Queue ===

impl Queue {
    pub fn new(limit: u32) -> Self {
        Self { word: AtomicU64::new(0), limit: AtomicU32::new(limit), tickets: Mutex::default() }
    }

    /// Takes a place, or the last of at most `most` places in the queue.
    pub fn enter(self: &Arc<Self>, most: u32) -> Result<Entry, Full> {
        self.enter_in_turn(most, Turn::Oldest)
    }

    /// Takes a place, or one of at most `most` places in the queue. If all of these are taken, who would be served last of all
    /// gets none, or loses it.
    pub fn enter_in_turn(self: &Arc<Self>, most: u32, turn: Turn) -> Result<Entry, Full> {
        if self.take() {
            return Ok(Entry::In(Place(self.clone())));
        }
        let mut tickets = self.lock();
        // One may be free that nobody has been given yet.
        self.grant(&mut tickets);
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let (next, waits) = match waiting(word) {
                0 if taken(word) < self.limit() => (word + TAKEN, false),
                // Only under the lock does this number change.
                count if count >= most => return self.replace(&mut tickets, turn),
                _ => (word + WAITING, true),
            };
            match self.word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) if waits => return Ok(Entry::Wait(self.wait(&mut tickets, turn))),
                Ok(_) => return Ok(Entry::In(Place(self.clone()))),
                Err(changed) => word = changed,
            }
        }
    }

    /// From now on so many places can be taken.
    pub fn set_limit(self: &Arc<Self>, limit: u32) {
        if self.limit() == limit {
            return;
        }
        let mut tickets = self.lock();
        self.limit.store(limit, Ordering::Release);
        self.grant(&mut tickets);
    }

    /// Places that are taken.
    pub fn taken(&self) -> u32 {
        taken(self.word.load(Ordering::Relaxed))
    }

    /// How many wait for one.
    pub fn waiting(&self) -> u32 {
        waiting(self.word.load(Ordering::Relaxed))
    }

    fn limit(&self) -> u32 {
        self.limit.load(Ordering::Acquire)
    }

    /// Takes a free place, unless the queue has others before.
    fn take(&self) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while waiting(word) == 0 && taken(word) < self.limit() {
            match self.word.compare_exchange_weak(word, word + TAKEN, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(changed) => word = changed,
            }
        }
        false
    }

    fn wait(self: &Arc<Self>, tickets: &mut Tickets, turn: Turn) -> Waiting {
        let (give, granted) = oneshot::channel();
        let ticket = tickets.ticket(turn);
        tickets.next += 1;
        tickets.waiting.insert(ticket, give);
        Waiting { queue: self.clone(), ticket, granted }
    }

    /// Takes the place of the request that would leave the queue last, unless this one would.
    fn replace(self: &Arc<Self>, tickets: &mut Tickets, turn: Turn) -> Result<Entry, Full> {
        let ticket = tickets.ticket(turn);
        match tickets.waiting.last_entry() {
            Some(last) if *last.key() > ticket => {
                // Its receiver is told by the drop.
                drop(last.remove());
                Ok(Entry::Wait(self.wait(tickets, turn)))
            }
            _ => Err(Full),
        }
    }

    /// Gives free places to those that wait.
    fn grant(self: &Arc<Self>, tickets: &mut Tickets) {
        let mut word = self.word.load(Ordering::Acquire);
        while waiting(word) > 0 && taken(word) < self.limit() {
            let next = word + TAKEN - WAITING;
            if let Err(changed) =
                self.word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire)
            {
                word = changed;
                continue;
            }
            word = next;
            let (_, give) =
                tickets.waiting.pop_first().expect("the word counts the tickets, under their lock");
            // Its receiver is there: whoever drops one takes its ticket away before.
            let _ = give.send(Place(self.clone()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Queue {
    /// Without a limit.
    fn default() -> Self {
        Self::new(u32::MAX)
    }
}

fn taken(word: u64) -> u32 {
    word as u32
}

fn waiting(word: u64) -> u32 {
    (word >> 32) as u32
}

// === impl Tickets ===

impl Tickets {
    /// The next one.
    fn ticket(&self, turn: Turn) -> Ticket {
        match turn {
            Turn::Oldest => (0, self.next),
            Turn::Newest => (0, -self.next),
            Turn::Rank(rank) => (rank, self.next),
        }
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        let before = self.0.word.fetch_sub(TAKEN, Ordering::AcqRel);
        if waiting(before) > 0 {
            let mut tickets = self.0.lock();
            self.0.grant(&mut tickets);
        }
    }
}

// === impl Waiting ===

impl Future for Waiting {
    /// An error where somebody else took the place in the queue.
    type Output = Result<Place, Full>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Place, Full>> {
        let granted = Pin::new(&mut self.granted);
        granted.poll(cx).map_err(|_| Full)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut tickets = self.queue.lock();
        // One that was granted is no longer there: the place comes back with the receiver.
        let given_up = tickets.waiting.remove(&self.ticket);
        if given_up.is_some() {
            self.queue.word.fetch_sub(WAITING, Ordering::AcqRel);
            drop(tickets);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicUsize, task::Waker};

    use super::*;

    fn place(queue: &Arc<Queue>) -> Place {
        match queue.enter(0) {
            Ok(Entry::In(place)) => place,
            other => panic!("no place is free: {other:?}"),
        }
    }

    fn wait(queue: &Arc<Queue>) -> Waiting {
        match queue.enter(9) {
            Ok(Entry::Wait(waiting)) => waiting,
            other => panic!("nobody has to wait: {other:?}"),
        }
    }

    fn granted(waiting: &mut Waiting) -> Option<Place> {
        match Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(place) => place.ok(),
            Poll::Pending => None,
        }
    }

    #[test]
    fn the_first_that_waits_is_the_first_that_gets_a_place() {
        let queue = Arc::new(Queue::new(1));
        let held = place(&queue);
        let mut all: Vec<_> = (0..3).map(|_| wait(&queue)).collect();
        assert!(matches!(queue.enter(3), Err(Full)));
        assert!(all.iter_mut().all(|waiting| granted(waiting).is_none()));
        drop(held);
        // Nobody who comes later goes before them.
        assert!(matches!(queue.enter(2), Err(Full)));
        for nth in 0..3 {
            assert!(all[nth + 1..].iter_mut().all(|waiting| granted(waiting).is_none()), "{nth}");
            drop(granted(&mut all[nth]).expect("it is next"));
        }
        drop(all);
        assert_eq!((queue.taken(), queue.waiting()), (0, 0));
    }

    fn wait_in_turn(queue: &Arc<Queue>, most: u32, turn: Turn) -> Option<Waiting> {
        match queue.enter_in_turn(most, turn) {
            Ok(Entry::Wait(waiting)) => Some(waiting),
            Err(Full) => None,
            other => panic!("nobody has to wait: {other:?}"),
        }
    }

    fn is_out(waiting: &mut Waiting) -> bool {
        let polled = Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop()));
        matches!(polled, Poll::Ready(Err(Full)))
    }

    #[test]
    fn the_last_that_came_is_served_first_and_the_oldest_loses_its_place() {
        let queue = Arc::new(Queue::new(1));
        let held = place(&queue);
        let mut all: Vec<_> = (0..4).map(|_| wait_in_turn(&queue, 3, Turn::Newest).unwrap()).collect();
        assert!(is_out(&mut all[0]));
        assert!(!is_out(&mut all[1]));
        assert_eq!((queue.taken(), queue.waiting()), (1, 3));
        drop(held);
        for nth in [3, 2, 1] {
            assert!(all[1..nth].iter_mut().all(|waiting| granted(waiting).is_none()), "{nth}");
            drop(granted(&mut all[nth]).expect("it is next"));
        }
        drop(all);
        assert_eq!((queue.taken(), queue.waiting()), (0, 0));
    }

    #[test]
    fn the_newest_of_the_highest_rank_loses_its_place_to_a_lower_one() {
        let queue = Arc::new(Queue::new(1));
        let held = place(&queue);
        let wait = |rank| wait_in_turn(&queue, 4, Turn::Rank(rank));
        let mut low = [wait(2).unwrap(), wait(2).unwrap()];
        let mut normal = [wait(1).unwrap(), wait(1).unwrap()];
        assert!(wait(2).is_none(), "it would be the last");
        let mut high = wait(0).unwrap();
        assert!(is_out(&mut low[1]) && !is_out(&mut low[0]));
        let mut other = wait(0).unwrap();
        assert!(is_out(&mut low[0]));
        let mut third = wait(1);
        assert!(third.is_none(), "among equals the newest has none");
        let mut last = wait(0).unwrap();
        assert!(is_out(&mut normal[1]) && !is_out(&mut normal[0]));
        drop(held);
        for next in [&mut high, &mut other, &mut last, &mut normal[0]] {
            drop(granted(next).expect("it is next"));
        }
        drop((low, normal, high, other, last, third.take()));
        assert_eq!((queue.taken(), queue.waiting()), (0, 0));
    }

    #[test]
    fn who_gives_up_frees_the_place_in_the_queue_and_the_one_that_was_granted() {
        let queue = Arc::new(Queue::new(1));
        let held = place(&queue);
        let (first, second, mut third) = (wait(&queue), wait(&queue), wait(&queue));
        drop(second);
        assert_eq!((queue.taken(), queue.waiting()), (1, 2));
        drop(held);
        assert_eq!((queue.taken(), queue.waiting()), (1, 1));
        assert!(granted(&mut third).is_none(), "the first has it");
        drop(first);
        assert!(granted(&mut third).is_some());
        drop(third);
        assert_eq!((queue.taken(), queue.waiting()), (0, 0));
    }

    #[test]
    fn a_limit_that_changes_holds_at_once() {
        let queue = Arc::new(Queue::new(2));
        let held = [place(&queue), place(&queue)];
        let mut all: Vec<_> = (0..3).map(|_| wait(&queue)).collect();
        queue.set_limit(4);
        let more: Vec<_> = all.iter_mut().filter_map(granted).collect();
        assert_eq!((more.len(), queue.taken(), queue.waiting()), (2, 4, 1));
        queue.set_limit(1);
        drop(held);
        assert!(granted(&mut all[2]).is_none());
        let [one, other] = <[Place; 2]>::try_from(more).unwrap();
        drop(one);
        assert!(granted(&mut all[2]).is_none(), "one is taken still, and one may be");
        drop(other);
        assert!(granted(&mut all[2]).is_some());
        let _held = place(&queue);
        let mut waiting = wait(&queue);
        queue.set_limit(u32::MAX);
        assert!(granted(&mut waiting).is_some());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn there_are_never_more_than_the_limit_and_nobody_is_forgotten() {
        const LIMIT: u32 = 3;
        let queue = Arc::new(Queue::new(LIMIT));
        let (now, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let tasks = (0..64).map(|nth| {
            let (queue, now, most) = (queue.clone(), now.clone(), most.clone());
            tokio::spawn(async move {
                for round in 0..200 {
                    let place = match queue.enter(u32::MAX).unwrap() {
                        Entry::In(place) => place,
                        // Some give up.
                        Entry::Wait(waiting) if (nth + round) % 7 == 0 => {
                            drop(waiting);
                            continue;
                        }
                        Entry::Wait(waiting) => waiting.await.unwrap(),
                    };
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    now.fetch_sub(1, Ordering::SeqCst);
                    drop(place);
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            tokio::time::timeout(std::time::Duration::from_secs(60), task).await.unwrap().unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), LIMIT as usize);
        assert_eq!((queue.taken(), queue.waiting()), (0, 0));
    }
}
