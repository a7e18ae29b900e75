//! Backends that say who they are: each listens on two ports, so that an endpoint can be switched.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How many there are.
pub(crate) const BACKENDS: usize = 20;

/// Backends that run until this is dropped.
pub(crate) struct Backends {
    /// The address of all.
    pub(crate) address: Ipv4Addr,
    /// The ports of each.
    pub(crate) ports: Vec<[u16; 2]>,
    _runtime: tokio::runtime::Runtime,
}

/// What a backend answers on one of its ports.
pub(crate) fn body(backend: usize, port: usize) -> String {
    format!("{backend}@{port}")
}

pub(crate) fn start() -> anyhow::Result<Backends> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let address = own_address()?;
    let mut ports = Vec::with_capacity(BACKENDS);
    for backend in 0..BACKENDS {
        let mut of_backend = [0; 2];
        for (port, number) in of_backend.iter_mut().enumerate() {
            let listener = runtime.block_on(TcpListener::bind((address, 0)))?;
            *number = listener.local_addr()?.port();
            runtime.spawn(serve(listener, body(backend, port)));
        }
        ports.push(of_backend);
    }
    Ok(Backends { address, ports, _runtime: runtime })
}

/// The machine's address towards others: an API server refuses endpoints on loopback. Nothing is sent.
fn own_address() -> anyhow::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9)))?;
    match socket.local_addr()?.ip() {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => anyhow::bail!("{address} is no IPv4 address"),
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
