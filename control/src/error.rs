//! How the router refuses.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a request was refused, as a word that programs can branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum ErrorCode {
    /// The request is malformed or asks for something that cannot be.
    BadRequest,
    /// What was asked for is held by someone else.
    Conflict,
    /// The router could not do it within the time it allows itself.
    Deadline,
    /// A fault of the router or of the machine. Also any code that this version does not know.
    Internal,
    /// There is no address left.
    NoSpace,
    /// There is no such thing.
    NotFound,
    /// The router is starting or has not agreed with its peers yet; the same request may succeed
    /// later.
    NotReady,
}

impl ErrorCode {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Conflict => "conflict",
            Self::Deadline => "deadline",
            Self::Internal => "internal",
            Self::NoSpace => "no_space",
            Self::NotFound => "not_found",
            Self::NotReady => "not_ready",
        }
    }

    /// The HTTP status that goes with it (RFC 9110 §15).
    pub const fn http_status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Internal => 500,
            Self::NotReady => 503,
            Self::Deadline => 504,
            Self::NoSpace => 507,
        }
    }

    /// Whether the same request may succeed later without anybody doing anything.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Deadline | Self::NotReady)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<String> for ErrorCode {
    fn from(word: String) -> Self {
        match word.as_str() {
            "bad_request" => Self::BadRequest,
            "conflict" => Self::Conflict,
            "deadline" => Self::Deadline,
            "no_space" => Self::NoSpace,
            "not_found" => Self::NotFound,
            "not_ready" => Self::NotReady,
            _ => Self::Internal,
        }
    }
}

impl From<ErrorCode> for String {
    fn from(code: ErrorCode) -> Self {
        code.as_str().to_owned()
    }
}

/// The body of every answer whose status is not 2xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct ApiError {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what is wrong, with the thing's name and value.
    pub message: String,
    /// For people: what to do about it; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl ApiError {
    /// A refusal with this code.
    pub fn new(code: ErrorCode, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    /// [`ErrorCode::BadRequest`].
    pub fn bad_request(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, message, remedy)
    }

    /// [`ErrorCode::Conflict`].
    pub fn conflict(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(ErrorCode::Conflict, message, remedy)
    }

    /// [`ErrorCode::Deadline`].
    pub fn deadline(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(ErrorCode::Deadline, message, remedy)
    }

    /// [`ErrorCode::Internal`].
    pub fn internal(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, message, remedy)
    }

    /// [`ErrorCode::NoSpace`].
    pub fn no_space(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(ErrorCode::NoSpace, message, remedy)
    }

    /// [`ErrorCode::NotFound`].
    pub fn not_found(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message, remedy)
    }

    /// [`ErrorCode::NotReady`].
    pub fn not_ready(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotReady, message, remedy)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.remedy.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [ErrorCode; 7] = [
        ErrorCode::BadRequest,
        ErrorCode::Conflict,
        ErrorCode::Deadline,
        ErrorCode::Internal,
        ErrorCode::NoSpace,
        ErrorCode::NotFound,
        ErrorCode::NotReady,
    ];

    #[test]
    fn codes_round_trip_and_unknown_ones_are_internal() {
        for code in ALL {
            let text = serde_json::to_string(&code).unwrap();
            assert_eq!(text, format!("\"{}\"", code.as_str()));
            assert_eq!(serde_json::from_str::<ErrorCode>(&text).unwrap(), code);
            assert!((400..600).contains(&code.http_status()));
        }
        assert_eq!(
            serde_json::from_str::<ErrorCode>("\"later\"").unwrap(),
            ErrorCode::Internal
        );
    }

    #[test]
    fn text_ends_with_the_remedy() {
        let error = ApiError::not_ready("no ring yet", "wait for the seed peers a, b");
        assert_eq!(
            error.to_string(),
            "no ring yet: wait for the seed peers a, b"
        );
        assert_eq!(ApiError::internal("disk full", "").to_string(), "disk full");
    }

    #[test]
    fn body_is_as_documented() {
        let error = ApiError::no_space("10.32.0.0/12 is full", "give a larger --range");
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"code":"no_space","message":"10.32.0.0/12 is full","remedy":"give a larger --range"}"#
        );
        let short: ApiError =
            serde_json::from_str(r#"{"code":"conflict","message":"taken"}"#).unwrap();
        assert_eq!(short, ApiError::conflict("taken", ""));
    }
}
