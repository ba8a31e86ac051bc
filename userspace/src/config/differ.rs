//! A configuration as text, and where two of them differ, for a person.
#![forbid(unsafe_code)]

use toml::{Table, Value};

use super::Config;

/// What stands for a password.
pub const MASK: &str = "********";

/// One key whose value differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differing {
    /// Path of the key, such as `nic.rx_ring`.
    pub key: String,
    /// The value that was; `default` where it was not given.
    pub old: String,
    /// The value that is.
    pub new: String,
}

impl std::fmt::Display for Differing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} -> {}", self.key, self.old, self.new)
    }
}

/// Where two tables of a configuration differ, key by key; what is in `without` is not looked at. Passwords are not shown.
#[must_use]
pub fn differing<T: serde::Serialize>(old: &T, new: &T, without: &[&str]) -> Vec<Differing> {
    let mut found = Vec::new();
    walk("", Some(&table(old)), Some(&table(new)), without, &mut found);
    found
}

fn table<T: serde::Serialize>(of: &T) -> Value {
    Value::try_from(of).unwrap_or_else(|_| Value::Table(Table::new()))
}

fn walk(at: &str, old: Option<&Value>, new: Option<&Value>, without: &[&str], found: &mut Vec<Differing>) {
    if let (Some(Value::Table(old)), Some(Value::Table(new))) = (old, new) {
        let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys.into_iter().filter(|key| !without.contains(&key.as_str())) {
            let below = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            walk(&below, old.get(key), new.get(key), without, found);
        }
    } else if old != new {
        found.push(Differing { key: at.to_owned(), old: shown(at, old), new: shown(at, new) });
    }
}

fn shown(key: &str, value: Option<&Value>) -> String {
    match value {
        None => "default".to_owned(),
        Some(_) if is_secret(key) => MASK.to_owned(),
        Some(Value::Table(_)) => "given".to_owned(),
        Some(value) => value.to_string(),
    }
}

fn is_secret(key: &str) -> bool {
    key.rsplit('.').next().is_some_and(|last| last == "password")
}

impl Config {
    /// As a file, without passwords.
    #[must_use]
    pub fn masked(&self) -> String {
        let mut value = table(self);
        mask(&mut value);
        toml::to_string_pretty(&value).unwrap_or_default()
    }

    /// Of everything but passwords: the same for every configuration that says the same, as 8 hexadecimal digits.
    #[must_use]
    pub fn hash(&self) -> String {
        format!("{:08x}", crc32fast::hash(self.masked().as_bytes()))
    }
}

fn mask(value: &mut Value) {
    match value {
        Value::Table(table) => {
            for (key, value) in table.iter_mut() {
                match value {
                    // A file's name is no secret, and what is in it is not known here.
                    Value::String(text) if is_secret(key) && !text.starts_with("file:") => *text = MASK.to_owned(),
                    _ => mask(value),
                }
            }
        }
        Value::Array(array) => array.iter_mut().for_each(mask),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Host;

    const TEXT: &str = include_str!("../../../config/feedhandler.toml");

    #[test]
    fn what_is_written_is_read_again_and_has_no_password() {
        let config: Config = toml::from_str(TEXT).unwrap();
        let masked: Config = toml::from_str(&config.masked()).unwrap();
        let host = Host { cores: vec![] };
        // A mask is no password, and nothing else is wrong with it.
        let problems = masked.check_running(&host).unwrap_err();
        assert!(problems.iter().all(|problem| problem.to_string().contains("password: is masked")), "{problems:?}");
        let given: Config = toml::from_str(&config.masked().replace(MASK, "hush")).unwrap();
        assert_eq!(config.check_running(&host).unwrap().lines, given.check_running(&host).unwrap().lines);
        let secret = TEXT.replace("[[destination]]", "[[destination]]\nname = \"x\"\n");
        assert_ne!(secret, TEXT);
        assert_eq!(masked.hash(), config.hash());
    }

    #[test]
    fn a_difference_names_the_key_and_both_values_but_no_password() {
        let channel = |text: &str| toml::from_str::<crate::config::file::Channel>(text).unwrap();
        let old = channel("name = \"a\"\n[snapshot]\nservers = []\npassword = \"old\"");
        let new = channel("name = \"a\"\ngive_up_ms = 60\n[snapshot]\nservers = []\npassword = \"new\"");
        let found: Vec<String> = differing(&old, &new, &["line"]).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["give_up_ms default -> 60", "snapshot.password ******** -> ********"]);
    }
}
