//! The end of the commands: asks the running server, if there is one.

use super::{Answer, LINE_BYTES_MAX, Request};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use zeroize::Zeroizing;

/// A connection to the running server. Blocks; commands do nothing else meanwhile.
pub struct AdminConnection {
    stream: BufReader<UnixStream>,
}

impl AdminConnection {
    /// `None`: no server runs there.
    ///
    /// # Errors
    /// For people: a server runs and cannot be asked.
    pub fn open(socket: &Path) -> Result<Option<AdminConnection>, String> {
        match UnixStream::connect(socket) {
            Ok(stream) => {
                let patience = Some(Duration::from_secs(60));
                stream
                    .set_read_timeout(patience)
                    .and_then(|()| stream.set_write_timeout(patience))
                    .map_err(|error| format!("the server's socket cannot be used: {error}"))?;
                Ok(Some(AdminConnection { stream: BufReader::new(stream) }))
            }
            // A socket nobody listens on was left by a server that was killed.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(format!(
                "not permitted to use the server's socket {}\nrun this as the user that runs waft, or as root",
                socket.display()
            )),
            Err(error) => Err(format!("the server's socket {} cannot be used: {error}", socket.display())),
        }
    }

    /// The next answers may take this long.
    ///
    /// # Errors
    /// For people.
    pub fn wait(&mut self, patience: Duration) -> Result<(), String> {
        let set = self.stream.get_ref().set_read_timeout(Some(patience));
        set.map_err(|error| format!("the server's socket cannot be used: {error}"))
    }

    /// Asks, and gives the answer; a refusal is an error.
    ///
    /// # Errors
    /// For people.
    pub fn ask(&mut self, request: &Request) -> Result<Answer, String> {
        let broke = |error: io::Error| format!("the server did not answer: {error}\nlook into its log");
        let mut line = Zeroizing::new(serde_json::to_vec(request).map_err(|error| error.to_string())?);
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(broke)?;
        self.next()
    }

    /// The next answer, to a question that has many.
    ///
    /// # Errors
    /// For people.
    pub fn next(&mut self) -> Result<Answer, String> {
        let broke = |error: io::Error| format!("the server did not answer: {error}\nlook into its log");
        let mut answer = Vec::new();
        (&mut self.stream).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut answer).map_err(broke)?;
        if answer.last() != Some(&b'\n') {
            return Err("the server ended the connection without an answer\nlook into its log".into());
        }
        match serde_json::from_slice(&answer) {
            Ok(Answer::Refused { why }) => Err(why),
            Ok(answer) => Ok(answer),
            Err(_) => {
                Err("the server's answer is not understood: are this command and the server of the same version?"
                    .into())
            }
        }
    }
}
