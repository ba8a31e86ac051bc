//! Bearer tokens. The file has their SHA-256 only, so that who reads it cannot call.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use super::Role;

const HASH_BYTES: usize = 32;
/// Bytes of chance in a token.
const TOKEN_BYTES: usize = 32;
const NAME_BYTES: usize = 64;
/// A token that is longer is none of ours, and not worth hashing.
const MOST_TOKEN_BYTES: usize = 1024;

/// What is wrong with a line of the tokens file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct TokenError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong, and what is legal.
    pub reason: String,
}

/// Those of a file.
#[derive(Debug, Default)]
pub(super) struct Tokens(Vec<Token>);

#[derive(Debug)]
struct Token {
    role: Role,
    name: String,
    hash: [u8; HASH_BYTES],
}

impl Tokens {
    /// Parses a file: "ROLE NAME SHA256" a line.
    pub(super) fn parse(text: &str) -> Result<Self, TokenError> {
        let mut tokens: Vec<Token> = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let failed = |reason: String| TokenError { line, reason };
            let fields: Vec<&str> = text.split_whitespace().collect();
            let [role, name, hash] = fields[..] else {
                return Err(failed("must be ROLE NAME SHA256; `feedctl token` makes such a line".to_owned()));
            };
            let role = [Role::Viewer, Role::Operator].into_iter().find(|known| known.label() == role);
            let role = role.ok_or_else(|| failed("the role must be `operator` or `viewer`".to_owned()))?;
            if !is_name(name) {
                return Err(failed(format!("the name must be 1 to {NAME_BYTES} printable characters")));
            }
            let hash = from_hex(hash).ok_or_else(|| {
                failed("must end with a SHA-256 in hexadecimal, 64 digits; not with the token".into())
            })?;
            if tokens.iter().any(|other| other.name == name || other.hash == hash) {
                return Err(failed(format!("`{name}`, or its token, is there already")));
            }
            tokens.push(Token { role, name: name.to_owned(), hash });
        }
        Ok(Self(tokens))
    }

    /// Whose token it is. Takes as long whether and wherever it is found.
    pub(super) fn find(&self, token: &[u8]) -> Option<(Role, &str)> {
        if token.len() > MOST_TOKEN_BYTES {
            return None;
        }
        let hash = digest(&SHA256, token);
        let mut found = u32::MAX;
        for (index, token) in (0_u32..).zip(&self.0) {
            let is_it: Choice = token.hash[..].ct_eq(hash.as_ref());
            found.conditional_assign(&index, is_it);
        }
        let token = self.0.get(usize::try_from(found).ok()?)?;
        Some((token.role, &token.name))
    }
}

/// A token that was just made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// What its owner keeps.
    pub token: String,
    /// The line of the tokens file.
    pub line: String,
}

impl NewToken {
    /// Makes one, from the system's randomness.
    ///
    /// # Errors
    /// The name is not one, or the system has no randomness; a sentence.
    pub fn make(name: &str, role: Role) -> Result<Self, String> {
        if !is_name(name) {
            return Err(format!("the name must be 1 to {NAME_BYTES} printable characters without spaces"));
        }
        let mut bytes = [0; TOKEN_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| "the system gives no random bytes".to_owned())?;
        let token = hex(&bytes);
        let line = format!("{} {name} {}", role.label(), hex(digest(&SHA256, token.as_bytes()).as_ref()));
        Ok(Self { token, line })
    }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Option<[u8; HASH_BYTES]> {
    let digits = text.as_bytes();
    let mut bytes = [0; HASH_BYTES];
    if digits.len() != bytes.len() * 2 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        *byte = digit(pair[0])? * 16 + digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_its_hash_alone() {
        let [ops, eyes] = [("ops", Role::Operator), ("eyes", Role::Viewer)].map(|(n, r)| NewToken::make(n, r).unwrap());
        assert!(ops.token.len() == 64 && !ops.line.contains(&ops.token) && ops.token != eyes.token);
        let tokens = Tokens::parse(&format!("# ours\n\n{}\n  {}  \n", ops.line, eyes.line)).unwrap();
        assert_eq!(tokens.find(ops.token.as_bytes()), Some((Role::Operator, "ops")));
        assert_eq!(tokens.find(eyes.token.as_bytes()), Some((Role::Viewer, "eyes")));
        for wrong in [&ops.token[1..], "", &ops.line[ops.line.len() - 64..], &"x".repeat(2000)] {
            assert_eq!(tokens.find(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(Tokens::default().find(ops.token.as_bytes()), None);
        // The hash is the one that `printf TOKEN | sha256sum` gives.
        let known = "viewer x ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Tokens::parse(known).unwrap().find(b"abc"), Some((Role::Viewer, "x")));
    }

    #[test]
    fn a_wrong_line_is_named() {
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for (text, says) in [
            ("viewer x".to_owned(), "line 1: must be ROLE NAME SHA256"),
            (format!("\nadmin x {hash}"), "line 2: the role must be"),
            (format!("viewer x {}", &hash[1..]), "line 1: must end with a SHA-256"),
            (format!("viewer x {}g", &hash[1..]), "line 1: must end with a SHA-256"),
            (format!("viewer {} {hash}", "n".repeat(65)), "line 1: the name must be"),
            (format!("viewer x {hash}\noperator y {hash}"), "line 2: `y`, or its token, is there already"),
        ] {
            let error = Tokens::parse(&text).unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
        assert!(NewToken::make("a b", Role::Viewer).is_err() && NewToken::make("", Role::Viewer).is_err());
    }
}
