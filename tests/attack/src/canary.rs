//! The canary: a session like any other, that pings the server and writes to itself all the time, and takes the time.

use crate::client::{Client, Got};
use crate::peer;
use crate::server::{PASSWORD, Server};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(20);

pub struct Canary {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Milliseconds, one for each answer.
    measured: Vec<f64>,
    failed: Option<String>,
}

impl Canary {
    pub fn start(server: &Server) -> io::Result<Canary> {
        let tcp = peer::connect(peer::own_address(1), server.clients)?;
        let mut client = Client::over(tcp, "canary", PASSWORD)?;
        client.bind("nest", false)?;
        client.send("<presence/>")?;
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        std::thread::spawn(move || {
            if let Err(error) = sing(&mut client, &shared) {
                shared.lock().unwrap_or_else(PoisonError::into_inner).failed = Some(error.to_string());
            }
        });
        Ok(Canary { state })
    }

    /// What was measured since the last time, sorted.
    pub fn take(&self) -> Vec<f64> {
        let mut measured = std::mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).measured);
        measured.sort_by(f64::total_cmp);
        measured
    }

    pub fn failed(&self) -> Option<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).failed.clone()
    }
}

fn sing(client: &mut Client, state: &Mutex<State>) -> io::Result<()> {
    for n in 0u64.. {
        let id = format!("c{n}");
        // By turns what is answered from memory and what goes to the disk.
        let text = match n % 2 {
            0 => format!("<iq type='get' id='{id}'><ping xmlns='urn:xmpp:ping'/></iq>"),
            _ => format!("<message to='canary@localhost/nest' type='chat' id='{id}'><body>{n}</body></message>"),
        };
        let since = Instant::now();
        client.send(&text)?;
        loop {
            match client.next(PATIENCE.saturating_sub(since.elapsed()))? {
                Got::Element(element) if element.attribute("id") == Some(&id) => break,
                Got::Element(_) => {}
                Got::Nothing => return Err(io::Error::other(format!("no answer within {PATIENCE:?}"))),
                Got::End => return Err(io::Error::other("its stream was ended")),
            }
        }
        let took = since.elapsed().as_secs_f64() * 1_000.0;
        state.lock().unwrap_or_else(PoisonError::into_inner).measured.push(took);
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Of sorted values.
pub fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or(f64::NAN)
}
