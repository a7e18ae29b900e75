//! Paths of requests, as they are once Envoy has put them into their normal form.

/// Why no request's path has this text, in one clause behind it; none if one may. `whole` says whether the text ends where
/// a segment ends.
pub fn never_sent(path: &str, whole: bool) -> Option<&'static str> {
    if path.contains("//") {
        return Some("has slashes in a row, which are merged in requests");
    }
    let mut segments: Vec<_> = path.split('/').collect();
    if !whole {
        segments.pop();
    }
    if segments
        .iter()
        .any(|segment| [".", ".."].contains(&&*segment.to_ascii_lowercase().replace("%2e", ".")))
    {
        return Some("has a segment . or .., which is resolved in requests");
    }
    let escapes = path.split('%').skip(1).filter_map(|after| u8::from_str_radix(after.get(..2)?, 16).ok());
    let needless = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    escapes.into_iter().any(needless).then_some("escapes a character that stands as it is in requests")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_normal_is_never_sent() {
        for (path, whole) in [
            ("/a//b", true),
            ("//", false),
            ("/../x", true),
            ("/./x", false),
            ("/a/..", true),
            ("/a/%2E%2e", true),
            ("/%41", true),
            ("/a%2db", false),
        ] {
            assert!(never_sent(path, whole).is_some(), "{path}");
        }
        for (path, whole) in [
            ("/", true),
            ("/a/b/", true),
            ("/...", true),
            ("/.well-known", true),
            ("/a/.", false),
            ("/a%20b", true),
            ("/a%2Fb", true),
            ("/100%", true),
            ("/%é", true),
            ("/a%zz", true),
        ] {
            assert_eq!(never_sent(path, whole), None, "{path}");
        }
    }
}
