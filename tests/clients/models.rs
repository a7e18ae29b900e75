//! Model servers that only say who they are.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

/// Where all of them listen, each on an address of its own.
pub(crate) const PORT: u16 = 8080;

/// Starts one, which lasts as long as the test program.
pub(crate) fn serve(name: &'static str, address: &str) {
    let listener = TcpListener::bind((address, PORT)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever goes away before the answer misses nothing.
            let _ = answer(stream, name);
        }
    });
}

fn answer(mut stream: TcpStream, name: &str) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{name}", name.len())
}
