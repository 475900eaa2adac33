//! Scripts that Redis runs, each in one round trip.

use std::fmt::Write;

use redis::Cmd;
use ring::digest;

/// A script, and the hash that Redis knows it by once it has run it.
pub struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    pub fn new(text: &'static str) -> Self {
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        let mut hash = String::new();
        for byte in digest.as_ref() {
            write!(hash, "{byte:02x}").expect("writing to a String cannot fail");
        }
        Self { text, hash }
    }

    /// The command that runs it where Redis knows it already.
    pub(super) fn by_hash(&self, key: &str, arguments: &[u64]) -> Cmd {
        Self::command("EVALSHA", &self.hash, key, arguments)
    }

    /// The command that runs it, known or not.
    pub(super) fn whole(&self, key: &str, arguments: &[u64]) -> Cmd {
        Self::command("EVAL", self.text, key, arguments)
    }

    fn command(name: &str, script: &str, key: &str, arguments: &[u64]) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(1).arg(key).arg(arguments);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_would_hash_it_the_same() {
        // printf 'return 1' | sha1sum
        assert_eq!(Script::new("return 1").hash, "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
    }
}
