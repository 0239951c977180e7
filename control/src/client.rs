//! The blocking caller: one connection, one request, one answer, within one deadline.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::http::{self, HttpError, Method};
use crate::{
    ApiError, AttachRequest, Attachment, AttachmentRef, Collected, ConnectRequest, DetachRequest,
    Detached, ForgetRequest, GcRequest, Left, RemoveRequest, Removed, Status, Targets, path,
};

/// Calls the router at a control socket.
///
/// Nothing is kept between calls; each has the whole deadline for connecting, sending and reading
/// together.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    deadline: Duration,
}

/// Why a call did not bring an answer. Every variant but [`ClientError::Api`] names the socket.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The router refused.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Nobody listens there.
    #[error(
        "cannot reach the router at {}: {reason}: is `weft run` running? if it listens elsewhere, name its --socket",
        socket.display()
    )]
    Connect {
        /// The control socket.
        socket: PathBuf,
        /// What the kernel said.
        reason: io::Error,
    },
    /// The router did not answer in time.
    #[error(
        "the router at {} did not answer within {deadline:?}: it is overloaded or hangs, see its log",
        socket.display()
    )]
    Deadline {
        /// The control socket.
        socket: PathBuf,
        /// How long the call was given.
        deadline: Duration,
    },
    /// What answered does not speak this interface.
    #[error(
        "no usable answer at {}: {reason}: is this the router's socket, and of the same version?",
        socket.display()
    )]
    Protocol {
        /// The control socket.
        socket: PathBuf,
        /// What is wrong with the answer.
        reason: String,
    },
}

impl Client {
    /// A caller for the router at `socket`; every call ends within `deadline`.
    pub fn new(socket: impl Into<PathBuf>, deadline: Duration) -> Self {
        Self {
            socket: socket.into(),
            deadline,
        }
    }

    /// The socket that is called.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks for the addresses of an interface.
    pub fn attach(&self, request: &AttachRequest) -> Result<Attachment, ClientError> {
        self.call(Method::Post(&self.encode(request)?), path::ATTACH)
    }

    /// What is known of an attachment; [`ErrorCode::NotFound`](crate::ErrorCode) if nothing is.
    pub fn attachment(&self, of: &AttachmentRef) -> Result<Attachment, ClientError> {
        let target = format!(
            "{}?container_id={}&ifname={}",
            path::ATTACHMENT,
            http::query_value(&of.container_id),
            http::query_value(&of.ifname),
        );
        self.call(Method::Get, &target)
    }

    /// Releases the addresses of an interface.
    pub fn detach(&self, request: &DetachRequest) -> Result<Detached, ClientError> {
        self.call(Method::Post(&self.encode(request)?), path::DETACH)
    }

    /// Releases the addresses of all attachments that are not listed.
    pub fn gc(&self, request: &GcRequest) -> Result<Collected, ClientError> {
        self.call(Method::Post(&self.encode(request)?), path::GC)
    }

    /// What the node knows about itself.
    pub fn status(&self) -> Result<Status, ClientError> {
        self.call(Method::Get, path::STATUS)
    }

    /// Says that a node is gone for good.
    pub fn remove(&self, request: &RemoveRequest) -> Result<Removed, ClientError> {
        self.call(Method::Post(&self.encode(request)?), path::REMOVE)
    }

    /// Names targets.
    pub fn connect_peers(&self, request: &ConnectRequest) -> Result<Targets, ClientError> {
        self.call(Method::Post(&self.encode(request)?), path::CONNECT)
    }

    /// Takes targets back.
    pub fn forget_peers(&self, request: &ForgetRequest) -> Result<Targets, ClientError> {
        self.call(Method::Post(&self.encode(request)?), path::FORGET)
    }

    /// Takes the node out of the network.
    pub fn leave(&self) -> Result<Left, ClientError> {
        self.call(Method::Post(&[]), path::LEAVE)
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method<'_>,
        target: &str,
    ) -> Result<T, ClientError> {
        let mut stream = self.connect()?;
        let answer = http::exchange(&mut stream, method, target).map_err(|error| match error {
            HttpError::Io(source) if is_timeout(&source) => self.too_late(),
            error => self.protocol(error.to_string()),
        })?;
        if (200..300).contains(&answer.status) {
            return serde_json::from_slice(&answer.body).map_err(|error| {
                self.protocol(format!("the answer to {target} cannot be read: {error}"))
            });
        }
        match serde_json::from_slice::<ApiError>(&answer.body) {
            Ok(error) => Err(error.into()),
            Err(_) => Err(self.protocol(format!("{target} answers with status {}", answer.status))),
        }
    }

    fn connect(&self) -> Result<DeadlineStream, ClientError> {
        let until = Instant::now() + self.deadline;
        let failed = |reason: io::Error| match is_timeout(&reason) {
            true => self.too_late(),
            false => ClientError::Connect {
                socket: self.socket.clone(),
                reason,
            },
        };
        let address = SockAddr::unix(&self.socket).map_err(failed)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
        // Connecting waits while the listener's backlog is full, for as long as sending may take.
        socket
            .set_write_timeout(Some(self.deadline.max(SHORTEST_WAIT)))
            .map_err(failed)?;
        socket.connect(&address).map_err(failed)?;
        Ok(DeadlineStream {
            stream: socket.into(),
            until,
        })
    }

    fn encode(&self, request: &impl Serialize) -> Result<Vec<u8>, ClientError> {
        serde_json::to_vec(request).map_err(|error| self.protocol(error.to_string()))
    }

    fn protocol(&self, reason: String) -> ClientError {
        ClientError::Protocol {
            socket: self.socket.clone(),
            reason,
        }
    }

    fn too_late(&self) -> ClientError {
        ClientError::Deadline {
            socket: self.socket.clone(),
            deadline: self.deadline,
        }
    }
}

/// A timeout of zero would mean none at all to the kernel.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
    )
}

/// A stream whose reads and writes all end by the same moment, however many they are.
struct DeadlineStream {
    stream: UnixStream,
    until: Instant,
}

impl DeadlineStream {
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left < SHORTEST_WAIT {
            Err(io::ErrorKind::TimedOut.into())
        } else {
            Ok(left)
        }
    }
}

impl io::Read for DeadlineStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer)
    }
}

impl io::Write for DeadlineStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests;
