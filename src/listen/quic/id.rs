//! Connection IDs: they say to which process and to which of its sockets a packet belongs, so that several can share
//! an address.

use quinn::{ConnectionId, ConnectionIdGenerator};
use ring::rand::{SecureRandom, SystemRandom};

/// The process's number, the socket's, and what nobody can guess.
const PROCESS: usize = 2;
const SOCKET: usize = 1;
const RANDOM: usize = 8;
const LENGTH: usize = PROCESS + SOCKET + RANDOM;

/// Makes the IDs of one socket.
#[derive(Debug)]
pub(super) struct Ids {
    begin: [u8; PROCESS + SOCKET],
    random: SystemRandom,
}

impl Ids {
    pub(super) fn new(process: u32, socket: u8) -> Self {
        let [.., high, low] = process.to_be_bytes();
        Self { begin: [high, low, socket], random: SystemRandom::new() }
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; LENGTH];
        let (begin, random) = id.split_at_mut(PROCESS + SOCKET);
        begin.copy_from_slice(&self.begin);
        self.random.fill(random).expect("the system has random numbers, or TLS had failed before");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        LENGTH
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_whose_it_is_and_no_two_are_the_same() {
        let mut ids = Ids::new(0x0001_2345, 3);
        let (one, other) = (ids.generate_cid(), ids.generate_cid());
        assert_eq!((&one[..3], one.len()), (&[0x23, 0x45, 3][..], ids.cid_len()));
        assert_ne!(one, other);
    }
}
