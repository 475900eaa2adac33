//! Passwords as files hold them: hashed so that trying them out is slow.

use argon2::{Argon2, Params, PasswordHash, PasswordVerifier};

/// A hash that a password can be held against.
pub enum Hash {
    Bcrypt(Box<str>),
    Argon2id(Box<str>),
}

/// Above these a check would take seconds or fill the memory, whoever asks for it.
const MOST_BCRYPT_COST: u32 = 16;
const MOST_ARGON2_MEMORY_KIB: u32 = 1 << 20;
const MOST_ARGON2_PASSES: u32 = 32;

/// bcrypt's own base64: 22 characters of salt and 31 of hash.
const BCRYPT_DIGITS: usize = 53;

impl Hash {
    /// The hash of a text, or what is wrong with it, which does not show it.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split('$').nth(1) {
            _ if !text.starts_with('$') => Err(weakness(text)),
            Some("2y" | "2b" | "2a") => bcrypt(text),
            Some("argon2id") => argon2id(text),
            _ => Err(weakness(text)),
        }
    }

    /// Whether it is the password's. Takes as long for a wrong one as for the right one.
    pub fn is_of(&self, password: &[u8]) -> bool {
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Argon2id(hash) => PasswordHash::new(hash)
                .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok()),
        }
    }
}

fn bcrypt(text: &str) -> Result<Hash, String> {
    let malformed = || "is no whole bcrypt hash".to_owned();
    let (cost, digits) = text[4..].split_once('$').ok_or_else(malformed)?;
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
    if digits.len() != BCRYPT_DIGITS || !digits.bytes().all(is_digit) || cost.len() != 2 {
        return Err(malformed());
    }
    match cost.parse::<u32>() {
        Ok(4..=MOST_BCRYPT_COST) => Ok(Hash::Bcrypt(text.into())),
        Ok(cost) => Err(format!("is bcrypt of cost {cost}, which is not within 4 and {MOST_BCRYPT_COST}")),
        Err(_) => Err(malformed()),
    }
}

fn argon2id(text: &str) -> Result<Hash, String> {
    let malformed = || "is no whole argon2id hash".to_owned();
    let hash = PasswordHash::new(text).map_err(|_| malformed())?;
    let params = Params::try_from(&hash).map_err(|_| malformed())?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(malformed());
    }
    if params.m_cost() > MOST_ARGON2_MEMORY_KIB || params.t_cost() > MOST_ARGON2_PASSES {
        return Err("is argon2id of more than 1 GiB or 32 passes, which takes too long to check".into());
    }
    Ok(Hash::Argon2id(text.into()))
}

fn weakness(text: &str) -> String {
    let kind = match text.split('$').nth(1) {
        Some("apr1") => "is hashed by MD5 (apr1)",
        Some("1") => "is hashed by MD5 (crypt)",
        Some("5" | "6") => "is hashed by SHA-2 (crypt)",
        Some("2x") => "is hashed by a bcrypt known to be broken ($2x$)",
        Some("argon2i" | "argon2d") => "is hashed by another argon2 than argon2id",
        _ if text.starts_with("{SHA}") => "is hashed by SHA-1",
        _ => "is plain text or in a form that is not known",
    };
    format!("{kind}: that is too weak")
}

#[cfg(test)]
mod tests {
    use super::*;

    // By htpasswd -nbB -C 4 and by argon2 -id -e of the reference implementation; the password is "secret".
    const BCRYPT: &str = "$2y$04$8DnHYFmuNA1L0eW3O2EBoODVmcfXlA/XPFj44XBH/1WehrElwZ./W";
    const ARGON2ID: &str =
        "$argon2id$v=19$m=256,t=1,p=1$c29tZXNhbHQxMjM0$hMVqguGLO0b1lqHtVDG2/0oTOpuE+TLT+p5Oc3Svmus";

    #[test]
    fn hashes_of_other_programs_are_checked() {
        let alike = [BCRYPT.to_owned(), BCRYPT.replace("$2y$", "$2b$"), BCRYPT.replace("$2y$", "$2a$")];
        for text in alike.iter().map(String::as_str).chain([ARGON2ID]) {
            let hash = Hash::parse(text).unwrap_or_else(|reason| panic!("{text} {reason}"));
            assert!(hash.is_of(b"secret"), "{text}");
            for wrong in [&b"Secret"[..], b"", b"secret\0", b"secre"] {
                assert!(!hash.is_of(wrong), "{text}");
            }
        }
    }

    #[test]
    fn what_is_weak_or_broken_is_refused_and_not_shown() {
        for (text, said) in [
            ("$apr1$salt$hashhash", "MD5 (apr1)"),
            ("$1$salt$hashhash", "MD5 (crypt)"),
            ("$6$salt$hashhash", "SHA-2"),
            ("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "SHA-1"),
            ("rl0uE0dmlLFhE", "plain text"),
            ("secret", "plain text"),
            ("", "plain text"),
            ("$argon2i$v=19$m=1024,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2g", "argon2id"),
            ("$argon2id$v=19$m=1024", "no whole argon2id"),
            ("$argon2id$v=19$m=4194304,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA", "1 GiB"),
            ("$2y$", "no whole bcrypt"),
            ("$2y$04$short", "no whole bcrypt"),
            ("$2x$04$short", "broken"),
            (&BCRYPT.replace("$04$", "$31$"), "cost 31"),
        ] {
            let reason = Hash::parse(text).err().unwrap_or_else(|| panic!("{text} was taken"));
            assert!(reason.contains(said), "{text}: {reason}");
            assert!(!reason.contains("hashhash") && !reason.contains("secret"), "{reason}");
        }
    }
}
