//! The meaning of an HTTP status of Vault, together with that of its health.

use std::time::Duration;

use super::reply::Reply;
use crate::SourceError;

/// Whether an answer with this HTTP status says something about the address (sealed, standby,
/// fault) rather than about the call.
pub(super) const fn is_about_the_address(status: u16) -> bool {
    matches!(status, 300..=399 | 412 | 429 | 472 | 473 | 500..=599)
}

/// The error for an answer with such a status. `health` is the status of `sys/health` at the same
/// address, `None` when that did not answer.
pub(super) fn explain(
    location: Box<str>,
    reply: &Reply,
    health: Option<u16>,
    complaint: Box<str>,
) -> SourceError {
    let retry_after = reply.retry_after;
    match (reply.status, health) {
        (_, Some(501)) | (501, _) => SourceError::Uninitialised { location },
        (_, Some(503)) => SourceError::Sealed { location },
        (_, Some(472)) | (472, _) => SourceError::RecoverySecondary { location },
        // A standby's health is 429 for ever; what it forwards has the leader's status.
        (429, Some(429)) if retry_after.is_none() => SourceError::Standby { location },
        (429, _) => SourceError::RateLimited { location, retry_after },
        // A redirect would be followed with the token to whatever address it names.
        (300..=399, _) => SourceError::Standby { location },
        (473, _) | (500..=599, Some(473)) => SourceError::PerformanceStandby { location },
        (500..=599, Some(429)) => SourceError::Standby { location },
        (503, None) => SourceError::Sealed { location },
        (status, _) => SourceError::ServerFault { location, status, cause: complaint },
    }
}

/// Whether another address of the same Vault may answer where this one has failed with `error`.
pub(super) const fn another_may_do_better(error: &SourceError) -> bool {
    match error {
        SourceError::Unreachable { .. }
        | SourceError::TimedOut { .. }
        | SourceError::Tls { .. }
        | SourceError::Sealed { .. }
        | SourceError::Standby { .. }
        | SourceError::RecoverySecondary { .. }
        | SourceError::PerformanceStandby { .. }
        | SourceError::Uninitialised { .. } => true,
        // A gateway in front of Vault, or a leader that is changing.
        SourceError::ServerFault { status, .. } => matches!(*status, 412 | 500 | 502..=504),
        _ => false,
    }
}

/// Whether the error is the same for every role, so that asking for another one is of no use.
pub(super) const fn is_about_all_roles(error: &SourceError) -> bool {
    another_may_do_better(error) && !matches!(error, SourceError::ServerFault { .. })
        || matches!(
            error,
            SourceError::RateLimited { .. }
                | SourceError::LoginRefused { .. }
                | SourceError::TokenRefused { .. }
        )
}

/// The time of the header `Retry-After` in seconds; `None` for any other text, such as a date,
/// which Vault does not send.
pub(super) fn retry_after(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    fn explained(status: u16, health: Option<u16>) -> &'static str {
        let reply = Reply { status, body: Zeroizing::default(), retry_after: None };
        assert!(is_about_the_address(status));
        explain("v".into(), &reply, health, "cause".into()).result_label()
    }

    #[test]
    fn each_status_has_its_own_cause() {
        for (status, health, expected) in [
            (503, Some(503), "sealed"),
            (503, None, "sealed"),
            (503, Some(501), "uninitialised"),
            (501, None, "uninitialised"),
            (500, Some(501), "uninitialised"),
            (472, None, "recovery_secondary"),
            (500, Some(472), "recovery_secondary"),
            (473, None, "performance_standby"),
            (500, Some(473), "performance_standby"),
            (429, Some(200), "rate_limited"),
            (429, Some(473), "rate_limited"),
            (429, None, "rate_limited"),
            (429, Some(429), "standby"),
            (307, Some(429), "standby"),
            (500, Some(429), "standby"),
            (500, Some(200), "server_fault"),
            (502, None, "server_fault"),
            (503, Some(200), "server_fault"),
        ] {
            assert_eq!(explained(status, health), expected, "{status} {health:?}");
        }
    }

    #[test]
    fn a_fault_of_one_role_quiets_no_other() {
        let location: Box<str> = "v".into();
        for (error, moves, all) in [
            (SourceError::Sealed { location: location.clone() }, true, true),
            (
                SourceError::RateLimited { location: location.clone(), retry_after: None },
                false,
                true,
            ),
            (SourceError::TokenRefused { location: location.clone() }, false, true),
            (
                SourceError::ServerFault {
                    location: location.clone(),
                    status: 500,
                    cause: "".into(),
                },
                true,
                false,
            ),
            (
                SourceError::PermissionDenied { location: location.clone(), policy: "".into() },
                false,
                false,
            ),
            (SourceError::UnknownRole { location, mount: "".into() }, false, false),
        ] {
            assert_eq!(another_may_do_better(&error), moves, "{error}");
            assert_eq!(is_about_all_roles(&error), all, "{error}");
        }
    }
}
