//! The two HTML pages, each in one piece, with the policy that lets them run nothing else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::HeaderValue;
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("index.html");
const LOGIN: &str = include_str!("login.html");
const STYLE: &str = include_str!("style.css");
const PAGE_SCRIPT: &str = include_str!("page.js");
const LOGIN_SCRIPT: &str = include_str!("login.js");

/// An HTML page with its style and script inside.
#[derive(Clone, Debug)]
pub(super) struct Html {
    /// The page.
    pub(super) body: Bytes,
    /// Its Content-Security-Policy: the hashes of its own style and script, and nothing else.
    pub(super) policy: HeaderValue,
}

/// The page with the tables.
pub(super) fn page() -> Html {
    Html::of(PAGE, PAGE_SCRIPT)
}

/// The page that asks for a token.
pub(super) fn login() -> Html {
    Html::of(LOGIN, LOGIN_SCRIPT)
}

impl Html {
    fn of(html: &str, script: &str) -> Self {
        let body = html.replace("{{style}}", STYLE).replace("{{script}}", script);
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'",
            hash(script),
            hash(STYLE)
        );
        // A hash is base64, which a header can hold.
        let policy = HeaderValue::from_str(&policy)
            .unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"));
        Self { body: body.into(), policy }
    }
}

/// The hash of an inline script or style as a policy names it (CSP level 3, section 2.3.1).
fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_whole_and_ask_nobody_for_anything() {
        for html in [page(), login()] {
            let text = std::str::from_utf8(&html.body).unwrap();
            assert!(!text.contains("{{"), "{text}");
            for outside in ["http://", "https://", "src=", "@import", "url(", "innerHTML", "eval("]
            {
                let found = text.replace("http://www.w3.org/2000/svg", "").contains(outside);
                assert!(!found, "{outside}");
            }
            for handler in [" onclick=", " onload=", " onsubmit=", " style=", "javascript:"] {
                assert!(!text.contains(handler), "{handler}");
            }
            for element in ["script", "style"] {
                let (open, close) = (format!("<{element}>"), format!("</{element}>"));
                let parts: Vec<_> = text.split(&open).collect();
                assert_eq!(parts.len(), 2, "one {element}");
                let inside = parts[1].split(&close).next().unwrap();
                let policy = html.policy.to_str().unwrap();
                assert!(policy.contains(&hash(inside)), "{element}: {policy}");
            }
        }
    }
}
