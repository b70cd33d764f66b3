//! The floor: what comes from one socket goes to another, or to all others.

use std::io;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

async fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    // The bench asks whether somebody listens.
    drop(listener.accept().await?);
    Ok(listener)
}

/// The first connection and the second are a pair, the third and the fourth, …
pub async fn pairs(port: u16) -> io::Result<()> {
    let listener = listen(port).await?;
    loop {
        let ((one, _), (other, _)) = (listener.accept().await?, listener.accept().await?);
        one.set_nodelay(true)?;
        other.set_nodelay(true)?;
        let ((from_one, to_one), (from_other, to_other)) = (one.into_split(), other.into_split());
        tokio::spawn(pass(from_one, to_other));
        tokio::spawn(pass(from_other, to_one));
    }
}

/// What the first says, all others hear who are there by then.
pub async fn fan(port: u16) -> io::Result<()> {
    let listener = listen(port).await?;
    let (mut one, _) = listener.accept().await?;
    let mut others = Vec::new();
    let mut piece = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            biased;
            other = listener.accept() => {
                let (other, _) = other?;
                other.set_nodelay(true)?;
                others.push(other);
            }
            read = one.read(&mut piece) => match read? {
                0 => return Ok(()),
                n => {
                    for other in &mut others {
                        other.write_all(&piece[..n]).await?;
                    }
                }
            },
        }
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
    let mut piece = vec![0; 16 * 1024];
    loop {
        match from.read(&mut piece).await? {
            0 => return to.shutdown().await,
            n => to.write_all(&piece[..n]).await?,
        }
    }
}
