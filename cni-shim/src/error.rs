//! How the plugin refuses (CNI 1.1.0 §5, "Error").

use std::error::Error;
use std::fmt;

use control::{ClientError, ErrorCode};

/// The number in an error result. 1 to 99 are the specification's, from 100 on they are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    IncompatibleVersion = 1,
    UnsupportedField = 2,
    UnknownContainer = 3,
    InvalidEnvironment = 4,
    Io = 5,
    Decode = 6,
    InvalidConfig = 7,
    TryAgainLater = 11,
    /// `STATUS`: no pod can be added.
    Unavailable = 50,
    /// `STATUS`: no pod can be added, and those that are there may be cut off.
    LimitedConnectivity = 51,
    /// The kernel refused a change or a question.
    Kernel = 100,
    /// `CHECK`: something is not as `ADD` left it.
    NotAsAdded = 101,
    /// The router refused, and asking again is not going to help.
    Router = 102,
    /// The other plugin that gives the addresses failed, in its own way.
    Delegate = 103,
}

impl Code {
    /// The specification's code of this number, for an `ADD`, `DEL`, `CHECK`, `GC` or `STATUS`.
    pub(crate) fn of_specification(number: u64) -> Option<Self> {
        [
            Self::IncompatibleVersion,
            Self::UnsupportedField,
            Self::UnknownContainer,
            Self::InvalidEnvironment,
            Self::Io,
            Self::Decode,
            Self::InvalidConfig,
            Self::TryAgainLater,
            Self::Unavailable,
            Self::LimitedConnectivity,
        ]
        .into_iter()
        .find(|code| *code as u64 == number)
    }
}

/// A refusal: what goes to standard output instead of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CniError {
    pub(crate) code: Code,
    /// What is wrong, with the name of the thing.
    pub(crate) msg: String,
    /// Values and remedy; may be empty.
    pub(crate) details: String,
}

impl CniError {
    pub(crate) fn new(code: Code, msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: details.into(),
        }
    }

    /// A netlink or namespace operation failed.
    pub(crate) fn kernel(what: impl Into<String>, error: &dyn Error) -> Self {
        let mut details = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            details = format!("{details}: {error}");
            cause = error.source();
        }
        Self::new(Code::Kernel, what, details)
    }

    /// Says in which object the key is that the message begins with.
    pub(crate) fn below(mut self, object: &str) -> Self {
        self.msg = format!("{object}.{}", self.msg);
        self
    }

    /// Adds what went wrong while cleaning up.
    pub(crate) fn and(mut self, more: &[String]) -> Self {
        for text in more {
            if !self.details.is_empty() {
                self.details.push_str("; ");
            }
            self.details.push_str(text);
        }
        self
    }
}

impl From<ClientError> for CniError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Api(error) => {
                let code = match error.code {
                    // A full range becomes less full when pods leave.
                    ErrorCode::NotReady | ErrorCode::Deadline | ErrorCode::NoSpace => {
                        Code::TryAgainLater
                    }
                    ErrorCode::BadRequest => Code::InvalidConfig,
                    ErrorCode::Conflict | ErrorCode::Internal | ErrorCode::NotFound => Code::Router,
                };
                let why = error.code;
                Self::new(
                    code,
                    format!("the router refuses ({why}): {}", error.message),
                    error.remedy,
                )
            }
            ClientError::Connect { .. } | ClientError::Deadline { .. } => Self::new(
                Code::TryAgainLater,
                "the router is not available",
                error.to_string(),
            ),
            ClientError::Protocol { .. } => Self::new(
                Code::Router,
                "the router is not understood",
                error.to_string(),
            ),
        }
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if self.details.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.details)
        }
    }
}
