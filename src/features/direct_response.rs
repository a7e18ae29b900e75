//! VirtualService's `directResponse`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Field;
use super::effects::Answer;
use crate::crd::virtual_service::{HttpBody, HttpDirectResponse};

/// The largest body, Istio's own bound.
pub const MAX_BODY: usize = 1 << 20;

/// The answer. None, with a finding, for a status that Envoy does not send.
pub fn from_direct_response(response: &HttpDirectResponse, field: &mut Field<'_>) -> Option<Answer> {
    let status @ 200..=599 = response.status else {
        let message = format!("{} is not a status from 200 to 599; the rule is left out", response.status);
        field.child("status").error("InvalidDirectResponse", message);
        return None;
    };
    let body = response.body.as_ref().and_then(|body| read_body(body, &mut field.child("body")));
    Some(Answer::Direct { status: status as u16, body: body.unwrap_or_default() })
}

fn read_body(body: &HttpBody, field: &mut Field<'_>) -> Option<Vec<u8>> {
    if body.string.is_some() && body.bytes.is_some() {
        field.error("InvalidDirectResponse", "has both string and bytes; string is sent");
    }
    let bytes = match (&body.string, &body.bytes) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(text)) => match STANDARD.decode(text) {
            Ok(bytes) => bytes,
            Err(error) => {
                let message = format!("is not base64 ({error}); the answer has no body");
                field.child("bytes").error("InvalidDirectResponse", message);
                return None;
            }
        },
        (None, None) => return None,
    };
    if bytes.len() > MAX_BODY {
        let message = format!("has {} bytes, more than {MAX_BODY}; the answer has no body", bytes.len());
        field.error("InvalidDirectResponse", message);
        return None;
    }
    Some(bytes)
}
