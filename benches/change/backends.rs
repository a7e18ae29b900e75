//! Backends that say who they are: each listens on two addresses, so that an endpoint can be switched.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How many there are.
pub(crate) const BACKENDS: usize = 20;

/// The addresses of each backend.
pub(crate) const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)];

/// Backends that run until this is dropped.
pub(crate) struct Backends {
    /// The port of each, the same on both addresses.
    pub(crate) ports: Vec<u16>,
    _runtime: tokio::runtime::Runtime,
}

/// What a backend answers on one of its addresses.
pub(crate) fn body(backend: usize, address: usize) -> String {
    format!("{backend}@{address}")
}

pub(crate) fn start() -> anyhow::Result<Backends> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut ports = Vec::with_capacity(BACKENDS);
    for backend in 0..BACKENDS {
        let listeners = runtime.block_on(listen())?;
        ports.push(listeners[0].local_addr()?.port());
        for (address, listener) in listeners.into_iter().enumerate() {
            runtime.spawn(serve(listener, body(backend, address)));
        }
    }
    Ok(Backends { ports, _runtime: runtime })
}

/// The same free port on both addresses.
async fn listen() -> std::io::Result<[TcpListener; 2]> {
    loop {
        let first = TcpListener::bind(SocketAddr::from((ADDRESSES[0], 0))).await?;
        let port = first.local_addr()?.port();
        if let Ok(second) = TcpListener::bind(SocketAddr::from((ADDRESSES[1], port))).await {
            return Ok([first, second]);
        }
    }
}

async fn serve(listener: TcpListener, body: String) {
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        connections.spawn(answer_all(stream, answer.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// Requests have no bodies, so each ends with its headers.
async fn answer_all(mut stream: TcpStream, answer: String) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        if buffer.ends_with(b"\r\n\r\n") {
            buffer.clear();
            stream.write_all(answer.as_bytes()).await?;
        }
    }
}
