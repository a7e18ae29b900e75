//! Ways in which a request fails.

use crate::case::step::ErrorKind;
use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

/// Why there is no whole answer.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// Whether it came before the head of an answer.
    before_answer: bool,
    detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    Refused,
    Reset,
    Tls,
    Timeout,
    Other,
}

impl Failure {
    pub(crate) fn timeout(limit: Duration, before_answer: bool) -> Failure {
        Failure {
            kind: FailureKind::Timeout,
            before_answer,
            detail: format!("no whole answer within {limit:?}"),
        }
    }

    /// Classifies an error by what stands behind it.
    pub(crate) fn of(error: &(dyn Error + 'static), before_answer: bool) -> Failure {
        let (mut kind, mut detail) = (None, Vec::new());
        let mut next = Some(error);
        while let Some(error) = next {
            kind = kind.or(classify(error));
            detail.push(error.to_string());
            next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        detail.dedup();
        Failure { kind: kind.unwrap_or(FailureKind::Other), before_answer, detail: detail.join(": ") }
    }

    /// Whether a case means this failure by `expected`; `tls` is any failure of an https request before an answer.
    pub(crate) fn is(&self, expected: ErrorKind, is_https: bool) -> bool {
        match expected {
            ErrorKind::Refused => self.kind == FailureKind::Refused,
            ErrorKind::Reset => self.kind == FailureKind::Reset,
            ErrorKind::Timeout => self.kind == FailureKind::Timeout,
            ErrorKind::Tls => is_https && self.before_answer,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            FailureKind::Refused => "refused",
            FailureKind::Reset => "reset",
            FailureKind::Tls => "tls",
            FailureKind::Timeout => "timeout",
            FailureKind::Other => "failed",
        };
        write!(f, "{kind} ({})", self.detail)
    }
}

fn classify(error: &(dyn Error + 'static)) -> Option<FailureKind> {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return match error.kind() {
            io::ErrorKind::ConnectionRefused => Some(FailureKind::Refused),
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof => Some(FailureKind::Reset),
            _ => None,
        };
    }
    if error.downcast_ref::<rustls::Error>().is_some() {
        return Some(FailureKind::Tls);
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        let is_cut_off = error.is_incomplete_message() || error.is_canceled() || error.is_closed();
        return is_cut_off.then_some(FailureKind::Reset);
    }
    let error = error.downcast_ref::<h2::Error>()?;
    (error.is_reset() || error.is_go_away()).then_some(FailureKind::Reset)
}
