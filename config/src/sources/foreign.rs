//! Environment variables that begin like pgimbal's and are not options. They must not prevent a
//! start, and a mistyped option still must.

use super::{ENV_CONFIG, ENV_NESTING, ENV_UPSTREAM};

/// What an image notes of the program that it holds, as the end of a name. No option ends so.
const NOTES_OF_IMAGES: [&str; 12] = [
    "VERSION", "RELEASE", "REVISION", "COMMIT", "SHA", "SHA256", "SHA512", "CHECKSUM", "DIGEST",
    "HOME", "IMAGE", "GID",
];

/// The protocols of a Kubernetes Service.
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Whether the variable `name` is none of pgimbal's options: it stands for a flag, Kubernetes made
/// it for a Service in the same namespace, or an image notes something in it.
pub(super) fn is_foreign(name: &str, value: &str) -> bool {
    name == ENV_CONFIG || name == ENV_UPSTREAM || is_of_service(name, value) || is_note(name)
}

/// Whether Kubernetes sets it for a Service whose name begins with "pgimbal": `…_SERVICE_HOST`,
/// `…_SERVICE_PORT`, `…_SERVICE_PORT_NAME`, and the links of old, `…_PORT=tcp://…`,
/// `…_PORT_6432_TCP` and what follows them.
fn is_of_service(name: &str, value: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        // A port's name has no two hyphens in a row; a nested key has two underscores.
        || name.rsplit_once("_SERVICE_PORT_").is_some_and(|(_, port)| !port.contains(ENV_NESTING))
        || (name.ends_with("_PORT") && is_link(value))
        || name.rsplit_once("_PORT_").is_some_and(|(before, rest)| {
            // The last of them ends in `_PORT_6432_TCP_PORT`, which does not begin another link.
            is_port_of_link(rest) || is_port_of_link(before.rsplit("_PORT_").next().unwrap_or(""))
        })
}

/// `tcp://10.0.0.1:6432`.
fn is_link(value: &str) -> bool {
    value
        .split_once("://")
        .is_some_and(|(scheme, _)| PROTOCOLS.iter().any(|p| p.eq_ignore_ascii_case(scheme)))
}

/// `6432_TCP`, `6432_TCP_ADDR`, `6432_TCP_PROTO`, `6432_TCP_PORT`.
fn is_port_of_link(text: &str) -> bool {
    let mut words = text.split('_');
    let is_port = words.next().is_some_and(|port| port.parse::<u16>().is_ok());
    let is_protocol = words.next().is_some_and(|protocol| PROTOCOLS.contains(&protocol));
    let is_part = words.next().is_none_or(|part| ["ADDR", "PROTO", "PORT"].contains(&part));
    is_port && is_protocol && is_part && words.next().is_none()
}

/// Whether it is what a Dockerfile calls the version of what it installs, or the like.
fn is_note(name: &str) -> bool {
    let last = name.rsplit('_').next().unwrap_or(name);
    NOTES_OF_IMAGES.contains(&last) && !name.contains(ENV_NESTING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_services_variables_are_known_whatever_it_is_called() {
        for service in
            ["PGIMBAL", "PGIMBAL_RW", "PGIMBAL_METRICS", "PGIMBAL_UNIX_SOCKET", "PGIMBAL__B"]
        {
            for (end, value) in [
                ("_SERVICE_HOST", "10.0.0.1"),
                ("_SERVICE_PORT", "6432"),
                ("_SERVICE_PORT_POSTGRES", "6432"),
                ("_SERVICE_PORT_MY_PORT", "6432"),
                ("_PORT", "tcp://10.0.0.1:6432"),
                ("_PORT", "udp://[fd00::1]:6432"),
                ("_PORT_6432_TCP", "tcp://10.0.0.1:6432"),
                ("_PORT_6432_TCP_PROTO", "tcp"),
                ("_PORT_6432_TCP_PORT", "6432"),
                ("_PORT_6432_SCTP_ADDR", "10.0.0.1"),
            ] {
                let name = format!("{service}{end}");
                assert!(is_foreign(&name, value), "{name}={value}");
            }
        }
        assert!(is_foreign("PGIMBAL_VERSION", "1.4.0"));
        assert!(is_foreign("PGIMBAL_IMAGE_SHA256", "e3b0"));
    }

    #[test]
    fn options_and_slips_stay_ours() {
        for (name, value) in [
            ("PGIMBAL_UNIX_SOCKET_PORT", "7000"),
            ("PGIMBAL_UNIX_SOCKET_PRT", "7000"),
            ("PGIMBAL_DATABASES__APP__PORT", "5433"),
            ("PGIMBAL_DATABASES__A_SERVICE_PORT_B__HOST", "h"),
            ("PGIMBAL_DATABASES__VERSION__HOST", "h"),
            ("PGIMBAL_PORT", "6432"),
            ("PGIMBAL_PORT_6432", "x"),
            ("PGIMBAL_LISTEN", "tcp://10.0.0.1:6432"),
        ] {
            assert!(!is_foreign(name, value), "{name}={value}");
        }
    }

    #[test]
    fn no_option_ends_like_what_an_image_notes() {
        let reference = crate::reference();
        let variables = reference.split('`').filter(|part| part.starts_with("PGIMBAL_"));
        for name in variables.filter(|name| ![ENV_CONFIG, ENV_UPSTREAM].contains(name)) {
            assert!(!is_foreign(name, "1"), "{name}");
        }
    }
}
