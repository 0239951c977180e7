//! A TCP flow between two pods that goes on while a test breaks and mends the network under it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use ring::digest::{Context, SHA256};
use router::lab::world::Pod;

use crate::cluster::{PATIENCE, eventually};

/// Bytes in one write.
const BLOCK: usize = 16 << 10;
/// Between writes: some 3 MB/s, which leaves the machine to what is tested.
const PACE: Duration = Duration::from_millis(5);
/// Longer than a flow is ever interrupted here, TCP's doubled waits included.
const PATIENT: Duration = Duration::from_secs(60);

/// The flow.
pub(crate) struct Flow {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    sender: JoinHandle<Vec<u8>>,
    receiver: JoinHandle<Vec<u8>>,
}

impl Flow {
    pub(crate) fn start(from: &Pod, to: &Pod) -> Self {
        let address = (to.address.addr(), 0);
        let listener = to.netns.run(|| TcpListener::bind(address));
        let listener = listener.unwrap().unwrap();
        let target = listener.local_addr().unwrap();
        let stream = from
            .netns
            .run(|| TcpStream::connect_timeout(&target, PATIENCE));
        let mut outgoing = stream.unwrap().unwrap();
        let (mut incoming, _) = listener.accept().unwrap();
        outgoing.set_write_timeout(Some(PATIENT)).unwrap();
        incoming.set_read_timeout(Some(PATIENT)).unwrap();
        let (stop, received) = <(Arc<AtomicBool>, Arc<AtomicU64>)>::default();
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&received));
        let sender = std::thread::spawn(move || {
            let mut digest = Context::new(&SHA256);
            for number in 0_u64.. {
                if stopped.load(Relaxed) {
                    break;
                }
                let block = number.to_be_bytes().repeat(BLOCK / 8);
                digest.update(&block);
                outgoing.write_all(&block).unwrap();
                std::thread::sleep(PACE);
            }
            digest.finish().as_ref().to_vec()
        });
        let receiver = std::thread::spawn(move || {
            let (mut digest, mut buffer) = (Context::new(&SHA256), vec![0; BLOCK]);
            loop {
                match incoming.read(&mut buffer) {
                    Ok(0) => return digest.finish().as_ref().to_vec(),
                    Ok(len) => {
                        digest.update(&buffer[..len]);
                        count.fetch_add(len as u64, Relaxed);
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => panic!("the flow broke: {error}"),
                }
            }
        });
        Self {
            stop,
            received,
            sender,
            receiver,
        }
    }

    /// Waits until bytes arrive that were sent after this call.
    pub(crate) fn goes_on(&self, when: &str) {
        // What is under way now is at most what the sockets' buffers hold.
        let then = self.received.load(Relaxed) + (4 << 20);
        eventually(&format!("the flow goes on {when}"), || {
            self.received.load(Relaxed) > then
        });
    }

    /// Ends the flow: every byte that was sent has arrived, in order.
    pub(crate) fn end(self) {
        self.stop.store(true, Relaxed);
        let sent = self.sender.join().unwrap();
        assert_eq!(self.receiver.join().unwrap(), sent);
    }
}
