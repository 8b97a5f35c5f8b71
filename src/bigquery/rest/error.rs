//! A failed REST call, and the one match from BigQuery's reasons to what is done about them.

use std::time::Duration;

use serde_json::Value;

use crate::flow::HoldCause;

/// The longest part of an answer's body that goes into a message, in characters.
const BODY_SHOWN: usize = 300;

/// A REST call that did not succeed. Names no secret: neither request headers nor tokens are in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}: {message}", http.map(|code| format!("HTTP {code} ")).unwrap_or_default())]
pub(crate) struct RestError {
    /// The HTTP status; `None` when there was no answer.
    pub(crate) http: Option<u16>,
    /// BigQuery's `reason`, or one of ours: `noAnswer`, `noToken`, `badAnswer`, or empty when the body named none.
    pub(crate) reason: String,
    /// BigQuery's words.
    pub(crate) message: String,
}

/// What to do about a failed REST call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestAction {
    /// Again, at the earliest after this.
    Retry(Duration),
    /// Again with a new token, once.
    NewToken,
    /// The thing is not there.
    NotFound,
    /// The thing is there already.
    Exists,
    /// Somebody was faster: read it again.
    LookAgain,
    /// The request itself is wrong for this table.
    Refused,
    /// Nothing helps now: hold, and try again after `retry_after` where BigQuery's quotas ask for a certain wait.
    Hold { cause: HoldCause, retry_after: Option<Duration> },
}

/// Daily quotas refill gradually: waiting less than this is useless (BigQuery's quota page).
const QUOTA_WAIT: Duration = Duration::from_secs(600);
/// Billing and access do not change within seconds.
const ACCESS_WAIT: Duration = Duration::from_secs(30);

impl RestError {
    /// From an answer that is no success. Bodies that are not BigQuery's JSON (proxies, 502, 503) keep their status.
    pub(crate) fn from_answer(http: u16, body: &[u8]) -> Self {
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let error = json.as_ref().and_then(|v| v.get("error"));
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let reason = text(error.and_then(|e| e.pointer("/errors/0/reason"))).unwrap_or_default();
        let message = text(error.and_then(|e| e.get("message")));
        let message = message.unwrap_or_else(|| {
            let body = String::from_utf8_lossy(body);
            let shown: String = body.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(BODY_SHOWN).collect();
            if shown.is_empty() { "no words".to_owned() } else { shown }
        });
        Self { http: Some(http), reason, message }
    }

    /// No answer came.
    pub(crate) fn no_answer(message: String) -> Self {
        Self { http: None, reason: "noAnswer".to_owned(), message }
    }

    /// There is no token to send.
    pub(crate) fn no_token(message: String, transient: bool) -> Self {
        Self { http: None, reason: if transient { "noAnswer" } else { "noToken" }.to_owned(), message }
    }

    /// A success whose body makes no sense.
    pub(crate) fn bad_answer(message: String) -> Self {
        Self { http: None, reason: "badAnswer".to_owned(), message }
    }

    /// Whether a rate is used up that refills within seconds.
    pub(crate) fn is_rate_limit(&self) -> bool {
        self.reason == "rateLimitExceeded" || (self.reason.is_empty() && self.http == Some(429))
    }

    /// What to do: BigQuery's table of error messages (reasons first, then bare HTTP codes).
    pub(crate) fn action(&self) -> RestAction {
        let hold = |cause| RestAction::Hold { cause, retry_after: None };
        let soon = RestAction::Retry(Duration::from_millis(250));
        match self.reason.as_str() {
            "backendError" | "internalError" | "noAnswer" => soon,
            "rateLimitExceeded" => RestAction::Retry(Duration::from_secs(2)),
            "jobRateLimitExceeded" | "jobBackendError" | "jobInternalError" => RestAction::Retry(Duration::from_secs(1)),
            "tableUnavailable" | "resourceInUse" | "timeout" => RestAction::Retry(Duration::from_secs(1)),
            // insertAll's word for an innocent row.
            "stopped" => soon,
            "quotaExceeded" => RestAction::Hold { cause: HoldCause::TableServiceUnavailable, retry_after: Some(QUOTA_WAIT) },
            "notFound" => RestAction::NotFound,
            "duplicate" => RestAction::Exists,
            "conditionNotMet" => RestAction::LookAgain,
            "accessDenied" | "billingNotEnabled" | "blocked" => {
                RestAction::Hold { cause: HoldCause::PermissionDenied, retry_after: Some(ACCESS_WAIT) }
            }
            "authError" => RestAction::NewToken,
            "noToken" => hold(HoldCause::Unauthenticated),
            "invalid" | "badRequest" | "invalidQuery" | "requestTooLarge" if self.http != Some(412) => RestAction::Refused,
            "resourcesExceeded" | "billingTierLimitExceeded" | "responseTooLarge" | "notImplemented" => hold(HoldCause::UnknownError),
            _ => match self.http {
                Some(401) => RestAction::NewToken,
                Some(403) => RestAction::Hold { cause: HoldCause::PermissionDenied, retry_after: Some(ACCESS_WAIT) },
                Some(404) => RestAction::NotFound,
                Some(409) => RestAction::Exists,
                Some(412) => RestAction::LookAgain,
                Some(408 | 429 | 500 | 502 | 503 | 504) => soon,
                Some(400 | 413) => RestAction::Refused,
                _ => hold(HoldCause::UnknownError),
            },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn answer(http: u16, reason: &str) -> RestAction {
        let body = serde_json::json!({"error": {"code": http, "message": "m", "errors": [{"reason": reason, "message": "m"}]}});
        RestError::from_answer(http, body.to_string().as_bytes()).action()
    }

    /// Every row of the table of reasons in BigQuery's documentation.
    #[test]
    fn every_reason_has_its_action() {
        let retried = [
            (500, "backendError"),
            (502, "backendError"),
            (503, "backendError"),
            (504, "backendError"),
            (500, "internalError"),
            (403, "rateLimitExceeded"),
            (429, "rateLimitExceeded"),
            (400, "jobRateLimitExceeded"),
            (400, "jobBackendError"),
            (400, "jobInternalError"),
            (400, "tableUnavailable"),
            (400, "resourceInUse"),
            (400, "timeout"),
            (200, "stopped"),
        ];
        for (http, reason) in retried {
            assert!(matches!(answer(http, reason), RestAction::Retry(_)), "{http} {reason}");
        }
        let quota = answer(403, "quotaExceeded");
        assert!(matches!(quota, RestAction::Hold { retry_after: Some(wait), .. } if wait >= Duration::from_secs(600)), "{quota:?}");
        assert_eq!(answer(404, "notFound"), RestAction::NotFound);
        assert_eq!(answer(409, "duplicate"), RestAction::Exists);
        assert_eq!(answer(412, "conditionNotMet"), RestAction::LookAgain);
        assert_eq!(answer(401, "authError"), RestAction::NewToken);
        for reason in ["accessDenied", "billingNotEnabled", "blocked"] {
            assert!(matches!(answer(403, reason), RestAction::Hold { cause: HoldCause::PermissionDenied, .. }), "{reason}");
        }
        for (http, reason) in [(400, "invalid"), (400, "badRequest"), (400, "invalidQuery"), (413, "requestTooLarge")] {
            assert_eq!(answer(http, reason), RestAction::Refused, "{reason}");
        }
        for (http, reason) in
            [(400, "resourcesExceeded"), (400, "billingTierLimitExceeded"), (403, "responseTooLarge"), (501, "notImplemented")]
        {
            assert!(matches!(answer(http, reason), RestAction::Hold { cause: HoldCause::UnknownError, .. }), "{reason}");
        }
        assert!(matches!(answer(418, "newReason"), RestAction::Hold { cause: HoldCause::UnknownError, .. }));
    }

    #[test]
    fn a_body_that_is_no_json_keeps_its_status() {
        let error = RestError::from_answer(502, b"<html>\n  Bad   Gateway</html>");
        assert_eq!((error.http, error.message.as_str()), (Some(502), "<html> Bad Gateway</html>"));
        assert!(matches!(error.action(), RestAction::Retry(_)));
        assert!(matches!(RestError::from_answer(503, b"").action(), RestAction::Retry(_)));
        assert!(matches!(RestError::from_answer(401, b"").action(), RestAction::NewToken));
        assert!(matches!(RestError::from_answer(412, b"Precondition Failed").action(), RestAction::LookAgain));
    }
}
