//! What a stanza costs on its way into a socket, by how many go in one write. See docs/design/batching.md.
//!
//! `cargo run --release -p stream --example write_speed [ROUNDS]`: default 9. Each round writes 200,000 stanzas of 300
//! bytes to a loopback socket for each size of a batch, in turn; another thread reads and throws away. Stanzas are copied
//! into one buffer that is used again, as the server does.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const STANZAS: usize = 200_000;
const STANZA_BYTES: usize = 300;
const BATCHES: [usize; 7] = [1, 2, 4, 8, 16, 64, 256];

fn main() {
    let rounds: usize = std::env::args().nth(1).map_or(9, |rounds| rounds.parse().expect("ROUNDS is a number"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
    let mut socket = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it connects");
    let (mut peer, _) = listener.accept().expect("it is accepted");
    socket.set_nodelay(true).expect("it is a TCP socket");
    std::thread::spawn(move || {
        let mut scratch = vec![0; 64 << 10];
        while peer.read(&mut scratch).is_ok_and(|n| n > 0) {}
    });
    let stanza = vec![b'x'; STANZA_BYTES];
    let mut reports: Vec<Vec<(f64, f64)>> = vec![Vec::new(); BATCHES.len()];
    for round in 0..=rounds {
        for turn in 0..BATCHES.len() {
            let which = (round + turn) % BATCHES.len();
            let report = run(&mut socket, &stanza, BATCHES[which]);
            // The first round warms up.
            if round > 0 {
                reports[which].push(report);
            }
        }
    }
    println!("| stanzas a write | CPU ns/stanza, writer | × one | stanzas/s |");
    println!("|---|---|---|---|");
    for (batch, report) in BATCHES.iter().zip(&reports) {
        let cpu = spread(report.iter().map(|r| r.0), 0);
        let ratio = spread(report.iter().zip(&reports[0]).map(|(own, one)| own.0 / one.0), 2);
        let speed = spread(report.iter().map(|r| r.1), 0);
        println!("| {batch} | {cpu} | {ratio} | {speed} |");
    }
}

/// CPU time of a stanza in ns, and stanzas a second.
fn run(socket: &mut TcpStream, stanza: &[u8], batch: usize) -> (f64, f64) {
    let mut out = Vec::new();
    let (begun, cpu) = (Instant::now(), cpu());
    for _ in 0..STANZAS / batch {
        for _ in 0..batch {
            out.extend_from_slice(stanza);
        }
        socket.write_all(&out).expect("the other thread reads");
        out.clear();
    }
    let stanzas = (STANZAS / batch * batch) as f64;
    ((self::cpu() - cpu).as_nanos() as f64 / stanzas, stanzas / begun.elapsed().as_secs_f64())
}

/// Time on a processor of this thread. Linux only; elsewhere zero.
fn cpu() -> Duration {
    // The figure is brought up to date when the thread goes to sleep.
    std::thread::sleep(Duration::from_millis(1));
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(stat.split(' ').next().and_then(|spent| spent.parse().ok()).unwrap_or(0))
}

/// Median, and the least and the most.
fn spread(figures: impl Iterator<Item = f64>, digits: usize) -> String {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_unstable_by(f64::total_cmp);
    let (median, least, most) = (figures[figures.len() / 2], figures[0], figures[figures.len() - 1]);
    format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
}
