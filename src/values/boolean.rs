//! Booleans as annotations write them.

/// What Go's `strconv.ParseBool` accepts, which ingress-nginx reads annotations with.
///
/// # Errors
/// The accepted form.
pub fn parse(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("\"true\" or \"false\""),
    }
}
