//! Checks of the page's tokens.

use std::fs;
use std::path::Path;

use zeroize::Zeroizing;

use super::findings::Findings;
use crate::config::Config;
use crate::http::{GREATEST_HTTP_TOKEN, LEAST_HTTP_TOKEN};

/// Notes every contradiction in the options of the page, and tokens that cannot be used.
pub(super) fn check(config: &Config, found: &mut Findings<'_>) {
    let access = &config.http.access;
    let tokens = [
        ("http.token", &access.token, "http.token_file", &access.token_file),
        (
            "http.admin_token",
            &access.admin_token,
            "http.admin_token_file",
            &access.admin_token_file,
        ),
    ];
    for (key, token, file_key, file) in tokens {
        if let Some(token) = token {
            if file.is_some() {
                found.add(file_key, None, format!("{key} is set too: the token is one of them"));
            }
            length(key, token.expose().len(), found);
        }
        if let Some(path) = file {
            content(file_key, path, found);
        }
        let key = if token.is_some() { key } else { file_key };
        if (token.is_some() || file.is_some()) && config.http.listen.is_none() {
            found.add(key, None, "needs http_listen, the address of the page");
        }
    }
    if access.token.is_some() && access.token == access.admin_token {
        let cause = "is http.token: whoever may see the page could give commands";
        found.add("http.admin_token", None, cause);
    }
}

fn content(key: &str, path: &Path, found: &mut Findings<'_>) {
    match fs::read_to_string(path).map(Zeroizing::new) {
        Ok(text) => length(key, text.trim_end().len(), found),
        Err(error) => {
            let shown = Some(format!("{:?}", path.display().to_string()));
            found.add(key, shown, format!("cannot read: {error}"));
        }
    }
}

fn length(key: &str, bytes: usize, found: &mut Findings<'_>) {
    if bytes < LEAST_HTTP_TOKEN {
        let cause = format!(
            "is too easy to guess: a token has at least {LEAST_HTTP_TOKEN} random characters, such \
             as `openssl rand -hex 32` makes"
        );
        found.add(key, None, cause);
    } else if bytes > GREATEST_HTTP_TOKEN {
        found.add(key, None, format!("is longer than {GREATEST_HTTP_TOKEN} bytes"));
    }
}
