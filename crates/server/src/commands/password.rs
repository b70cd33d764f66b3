//! How a password is asked for: at the terminal without echo, or from standard input.

use std::io::{BufRead, IsTerminal, Read};
use zeroize::Zeroizing;

/// Longest password that is read, in bytes; RFC 7622 has the same bound for a resourcepart.
const PASSWORD_BYTES_MAX: u64 = 1_023;

/// A new password: asked for twice at the terminal.
///
/// # Errors
/// For people.
pub fn new(of: &str, from_stdin: bool) -> Result<Zeroizing<String>, String> {
    if from_stdin {
        return first_line(std::io::stdin().lock());
    }
    let password = ask(&format!("New password for {of}: "))?;
    let again = ask("Once more: ")?;
    if *password != *again {
        return Err("the two passwords differ\nnothing was changed; try again".into());
    }
    check(password)
}

/// The password of somebody who logs in: from standard input if so told, else `$WAFT_PASSWORD`, else asked for.
///
/// # Errors
/// For people.
pub fn existing(of: &str, from_stdin: bool) -> Result<Zeroizing<String>, String> {
    if from_stdin {
        return first_line(std::io::stdin().lock());
    }
    match std::env::var("WAFT_PASSWORD") {
        Ok(password) => check(Zeroizing::new(password)),
        Err(_) => check(ask(&format!("Password for {of}: "))?),
    }
}

fn ask(prompt: &str) -> Result<Zeroizing<String>, String> {
    if !std::io::stdin().is_terminal() {
        return Err(
            "there is no terminal to ask for the password at\nuse --password-stdin and write it to standard input"
                .into(),
        );
    }
    rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|error| {
        format!("the password could not be read: {error}\nuse --password-stdin and write it to standard input")
    })
}

/// The first line, without its end.
fn first_line(input: impl Read) -> Result<Zeroizing<String>, String> {
    let mut line = Zeroizing::new(Vec::with_capacity(PASSWORD_BYTES_MAX as usize + 3));
    std::io::BufReader::new(input.take(PASSWORD_BYTES_MAX + 2))
        .read_until(b'\n', &mut line)
        .map_err(|error| format!("standard input could not be read: {error}"))?;
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = std::str::from_utf8(line).map_err(|_| "the password on standard input is not UTF-8".to_string())?;
    check(Zeroizing::new(text.to_string()))
}

fn check(password: Zeroizing<String>) -> Result<Zeroizing<String>, String> {
    if password.is_empty() {
        Err("the password is empty\nwrite one of at least one character".into())
    } else if password.len() as u64 > PASSWORD_BYTES_MAX {
        Err(format!("the password is longer than {PASSWORD_BYTES_MAX} bytes\nchoose a shorter one"))
    } else {
        Ok(password)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_without_its_end() {
        assert_eq!(*first_line(&b"pass word\r\nmore\n"[..]).expect("is one"), "pass word");
        assert_eq!(*first_line(&b"no newline"[..]).expect("is one"), "no newline");
    }

    #[test]
    fn no_password_is_refused() {
        assert!(first_line(&b"\n"[..]).is_err());
        assert!(first_line(&b""[..]).is_err());
    }

    #[test]
    fn a_password_that_is_too_long_is_refused_and_not_cut() {
        assert!(first_line(&vec![b'a'; 1_024][..]).is_err());
        assert_eq!(first_line(&vec![b'a'; 1_023][..]).expect("is one").len(), 1_023);
    }
}
