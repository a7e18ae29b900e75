//! A TCP proxy that makes a network's faults.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// They end at once.
    Refused,
    /// Nothing is answered any more, even when the fault is over, on those that are open; nor on those that are opened,
    /// but for TLS's handshake.
    Silent,
    /// Once so many bytes of answers have come through, no more do until the fault is over.
    Held(usize),
    /// Each piece of an answer comes so much later.
    Slow(Duration),
    /// Each ends by itself after some bytes, more than 500 and fewer than these.
    Torn(u32),
}

/// Goes on until the process ends.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    /// The port that connections go to.
    target: Mutex<u16>,
    fault: Mutex<Fault>,
    open: Mutex<Vec<Link>>,
    /// How many bytes of answers have come through.
    carried: AtomicUsize,
    /// How many connections were opened that nothing was answered on.
    unanswered: AtomicUsize,
    /// Where connections are torn. Always the same numbers.
    random: Mutex<u32>,
}

/// A connection and the one that goes on from it.
struct Link {
    ends: [TcpStream; 2],
    silent: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) fn to(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            fault: Mutex::new(Fault::None),
            open: Mutex::default(),
            carried: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
            random: Mutex::new(1),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| accepting.accept(stream)));
        Self { port, shared }
    }

    /// From now on this happens to connections, and to those that are open too.
    pub(crate) fn fault(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap() = fault;
        match fault {
            Fault::Silent => {
                let open = self.shared.open.lock().unwrap();
                open.iter().for_each(|link| link.silent.store(true, Ordering::SeqCst));
            }
            Fault::Refused => self.cut(),
            Fault::None | Fault::Held(_) | Fault::Slow(_) | Fault::Torn(_) => {}
        }
    }

    /// Ends every connection.
    pub(crate) fn cut(&self) {
        for link in self.shared.open.lock().unwrap().drain(..) {
            link.close();
        }
    }

    /// How many bytes of answers have come through so far.
    pub(crate) fn carried(&self) -> usize {
        self.shared.carried.load(Ordering::SeqCst)
    }

    /// How many connections were opened, and got through TLS's handshake, that nothing was answered on.
    pub(crate) fn unanswered(&self) -> usize {
        self.shared.unanswered.load(Ordering::SeqCst)
    }

    /// Connections go to another port from now on; those that are open end.
    pub(crate) fn turn_to(&self, target: u16) {
        *self.shared.target.lock().unwrap() = target;
        self.cut();
    }
}

impl Link {
    fn clone(&self) -> Self {
        Self { ends: self.ends.each_ref().map(|end| end.try_clone().unwrap()), silent: self.silent.clone() }
    }

    fn close(&self) {
        for end in &self.ends {
            // It may be closed already.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, near: TcpStream) {
        let fault = self.fault();
        if fault == Fault::Refused {
            return;
        }
        let target = *self.target.lock().unwrap();
        let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { return };
        let link = Link { ends: [near, far], silent: Arc::default() };
        let left = match fault {
            Fault::Torn(most) => 500 + self.random() % most.saturating_sub(500),
            _ => u32::MAX,
        };
        let (there, back) = (link.clone(), link.clone());
        self.open.lock().unwrap().push(link);
        let (asking, answering) = (self.clone(), self.clone());
        std::thread::spawn(move || asking.ask(&there, fault == Fault::Silent));
        std::thread::spawn(move || answering.answer(&back, left as usize));
    }

    /// Carries requests until one end closes.
    fn ask(&self, link: &Link, unanswered: bool) {
        let [mut from, mut to] = link.clone().ends;
        let (mut piece, mut pieces) = ([0; 16 << 10], 0);
        while let Ok(length @ 1..) = from.read(&mut piece) {
            pieces += 1;
            // The first one is the client's hello, and the second one comes when it has the server's.
            if unanswered && pieces == 2 {
                link.silent.store(true, Ordering::SeqCst);
                self.unanswered.fetch_add(1, Ordering::SeqCst);
            }
            if to.write_all(&piece[..length]).is_err() {
                break;
            }
        }
        link.close();
    }

    /// Carries answers until one end closes, or so many bytes are through.
    #[expect(clippy::disallowed_methods, reason = "there is no runtime here whose thread it would block")]
    fn answer(&self, link: &Link, mut left: usize) {
        let [mut to, mut from] = link.clone().ends;
        let mut piece = [0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut piece) {
            if let Fault::Slow(time) = self.fault() {
                std::thread::sleep(time);
            }
            while matches!(self.fault(), Fault::Held(most) if self.carried.load(Ordering::SeqCst) >= most) {
                std::thread::sleep(Duration::from_millis(10));
            }
            if link.silent.load(Ordering::SeqCst) {
                continue;
            }
            self.carried.fetch_add(length, Ordering::SeqCst);
            let through = length.min(left);
            left -= through;
            if to.write_all(&piece[..through]).is_err() || left == 0 {
                break;
            }
        }
        link.close();
    }

    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap()
    }

    fn random(&self) -> u32 {
        let mut random = self.random.lock().unwrap();
        *random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *random >> 8
    }
}
