//! The floor: what comes from one socket goes to another. The first connection and the second are a pair, the third and
//! the fourth, …

use std::io;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

pub async fn serve(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    // The bench asks whether somebody listens.
    drop(listener.accept().await?);
    loop {
        let ((one, _), (other, _)) = (listener.accept().await?, listener.accept().await?);
        one.set_nodelay(true)?;
        other.set_nodelay(true)?;
        let ((from_one, to_one), (from_other, to_other)) = (one.into_split(), other.into_split());
        tokio::spawn(pass(from_one, to_other));
        tokio::spawn(pass(from_other, to_one));
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
