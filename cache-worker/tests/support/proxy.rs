//! A network that can be cut: connections to a port on this machine go on to a Unix socket.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A way to a socket.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// What is sent arrives nowhere, in both directions; nobody is told.
    swallows: AtomicBool,
    /// The test is over.
    over: AtomicBool,
}

impl Proxy {
    /// A way to this socket.
    pub fn to(socket: String) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(server) = UnixStream::connect(&socket) else { continue };
                let (from, to) =
                    (client.try_clone().expect("a stream"), server.try_clone().expect("a stream"));
                let (there, back) = (shared.clone(), shared.clone());
                std::thread::spawn(move || forward(from, to, &there));
                std::thread::spawn(move || forward(server, client, &back));
            }
        });
        Proxy { port, state }
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts the network, in both directions, without a word to anybody.
    pub fn cut(&self) {
        self.state.swallows.store(true, Ordering::Relaxed);
    }

    /// Mends it. What was sent meanwhile is lost, and so its connections are, too.
    pub fn mend(&self) {
        self.state.swallows.store(false, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// A stream with two ends that can be closed.
trait Stream: Read + Write {
    fn limit(&self);
    fn close(&self);
}

impl Stream for TcpStream {
    fn limit(&self) {
        self.set_read_timeout(Some(Duration::from_millis(50))).expect("a limit");
    }
    fn close(&self) {
        drop(self.shutdown(Shutdown::Both));
    }
}

impl Stream for UnixStream {
    fn limit(&self) {
        self.set_read_timeout(Some(Duration::from_millis(50))).expect("a limit");
    }
    fn close(&self) {
        drop(self.shutdown(Shutdown::Both));
    }
}

/// Forwards what comes, as long as the network is whole. A connection that has lost something stays
/// silent for ever.
fn forward(mut from: impl Stream, mut to: impl Stream, state: &State) {
    from.limit();
    let (mut buffer, mut lost) = ([0; 16_384], false);
    while !state.over.load(Ordering::Relaxed) {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                lost |= state.swallows.load(Ordering::Relaxed);
                if !lost && to.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) => {}
            Err(_) => break,
        }
    }
    from.close();
    to.close();
}
