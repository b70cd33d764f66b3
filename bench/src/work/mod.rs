//! The workloads: each sets itself up, measures one span, and says what an operation cost.

pub mod archive;
pub mod chat;
pub mod idle;
pub mod large;
pub mod login;
pub mod offline;
pub mod presence;

use crate::client::{Client, Target};
use crate::servers::Server;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

pub const PASSWORD: &str = "secret";
/// Work that goes on before the span that is measured.
const WARM_UP: Duration = Duration::from_millis(700);

/// Who does less in a span is watched for more of them: some peers are still for seconds when each message is archived.
const OPERATIONS_MIN: u64 = 200;
const SPANS_MAX: u32 = 10;

/// Where only what comes after it is measured, so many register or log in at a time.
const SIDE_BY_SIDE: usize = 16;

/// What one run of one workload on one server came to.
#[derive(Debug, Clone, Default)]
pub struct Figure {
    /// CPU time of the server, microseconds an operation.
    pub cpu_us: f64,
    pub per_second: f64,
    /// Bytes of server memory an operation (idle connections).
    pub bytes: f64,
    /// Milliseconds.
    pub p50: f64,
    pub p99: f64,
    /// The longest, where that is what is looked at.
    pub worst: f64,
}

impl Figure {
    fn of(server: &Server, operations: u64, cpu: f64, began: Instant) -> Figure {
        Figure {
            cpu_us: (server.cpu() - cpu) * 1e6 / operations.max(1) as f64,
            per_second: operations as f64 / began.elapsed().as_secs_f64(),
            ..Figure::default()
        }
    }

    /// With the latencies, in milliseconds.
    fn with(mut self, mut latencies: Vec<f64>) -> Figure {
        latencies.sort_by(f64::total_cmp);
        let last = latencies.len().saturating_sub(1);
        let at = |share: f64| latencies.get(((last as f64 * share).round() as usize).min(last)).copied().unwrap_or(0.0);
        (self.p50, self.p99) = (at(0.5), at(0.99));
        self
    }
}

/// Those who work at the same time, and what they have done.
pub struct Crew {
    pub done: Arc<AtomicU64>,
    pub tasks: JoinSet<io::Result<()>>,
}

impl Crew {
    pub fn new() -> Crew {
        Crew { done: Arc::default(), tasks: JoinSet::new() }
    }

    /// Measures a span of the work; who has ended without an error had no more to do.
    async fn measure(mut self, server: &Server, seconds: u64) -> io::Result<Figure> {
        self.work(WARM_UP).await?;
        let (cpu, began, before) = (server.cpu(), Instant::now(), self.done.load(Ordering::Relaxed));
        let mut operations = 0;
        for _ in 0..SPANS_MAX {
            self.work(Duration::from_secs(seconds)).await?;
            operations = self.done.load(Ordering::Relaxed) - before;
            if operations >= OPERATIONS_MIN {
                break;
            }
        }
        if operations == 0 {
            return Err(io::Error::other("nothing was done"));
        }
        Ok(Figure::of(server, operations, cpu, began))
    }

    pub async fn work(&mut self, span: Duration) -> io::Result<()> {
        let end = tokio::time::Instant::now() + span;
        while let Ok(Some(ended)) = tokio::time::timeout_at(end, self.tasks.join_next()).await {
            ended.map_err(io::Error::other)??;
        }
        Ok(())
    }
}

async fn register(server: &Server, prefix: &str, count: usize) -> io::Result<()> {
    let target = server.target(false);
    let one = |n| {
        let (target, user) = (target.clone(), format!("{prefix}{n}"));
        async move { Client::register(&target, &user, PASSWORD).await }
    };
    side_by_side((0..count).map(one)).await.map(|_| ())
}

/// All of it, so many at a time as are set up side by side; what comes of it in no order.
async fn side_by_side<T: Send + 'static, F>(mut all: impl Iterator<Item = F>) -> io::Result<Vec<T>>
where
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut done = Vec::new();
    loop {
        while tasks.len() < SIDE_BY_SIDE
            && let Some(one) = all.next()
        {
            tasks.spawn(one);
        }
        let Some(ended) = tasks.join_next().await else { return Ok(done) };
        done.push(ended.map_err(io::Error::other)??);
    }
}

async fn login_all(target: &Target, prefix: &str, count: usize) -> io::Result<Vec<Client>> {
    let mut clients = Vec::new();
    for n in 0..count {
        clients.push(Client::login(target, &format!("{prefix}{n}"), PASSWORD, "bench").await?);
    }
    Ok(clients)
}

/// Registered, logged in, available.
async fn come_all(server: &Server, tls: bool, prefix: &str, count: usize) -> io::Result<Vec<Client>> {
    register(server, prefix, count).await?;
    let mut clients = login_all(&server.target(tls), prefix, count).await?;
    for client in &mut clients {
        client.come().await?;
    }
    // What the arrival set off has come by then.
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok(clients)
}
