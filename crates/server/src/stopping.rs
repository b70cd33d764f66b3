//! The word that a part of the server stops: said once, heard by all its tasks. (Not tokio's `watch`: it wakes in an
//! order of chance, and a run is to be repeated.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::broadcast;

#[derive(Debug)]
pub struct Stop(Arc<AtomicBool>, broadcast::Sender<()>);

impl Default for Stop {
    fn default() -> Stop {
        Stop(Arc::default(), broadcast::Sender::new(2))
    }
}

impl Stop {
    pub fn say(&self) {
        self.0.store(true, Ordering::Release);
        // Nobody listens: then nothing has to end.
        let _ = self.1.send(());
    }

    pub fn is_said(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub fn listen(&self) -> Stopping {
        Stopping { flag: self.0.clone(), heard: self.1.subscribe() }
    }
}

/// Hears that it stops.
pub struct Stopping {
    flag: Arc<AtomicBool>,
    heard: broadcast::Receiver<()>,
}

impl Stopping {
    pub fn is_said(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// Waits until it begins to stop, from now on.
    pub async fn changed(&mut self) {
        if self.heard.recv().await == Err(broadcast::error::RecvError::Closed) {
            std::future::pending().await
        }
    }

    /// Waits until it stops; at once if it does already.
    pub async fn stopped(&mut self) {
        if !self.is_said() {
            self.changed().await;
        }
    }
}
