//! The one error type of this room and its one mapping to a status and RFC 9457 JSON.

use serde_json::json;
use warp::Reply;
use warp::http::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE,
};
use warp::http::{HeaderValue, StatusCode};
use warp::reply::Response;

use crate::budget::Exhausted;
use crate::cluster::ClusterError;
use crate::engine::EngineError;
use crate::station::StationError;
use crate::studio::StudioError;

/// Characters of an error's text at most.
const SENTENCE: usize = 1000;

/// Why a request was not served; every sentence says what to send instead.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HttpError {
    /// The request cannot be read.
    #[error("{0}")]
    BadRequest(String),
    /// The request can be read, but a value in it is impossible.
    #[error("{0}")]
    Unprocessable(String),
    /// No such path.
    #[error("There is nothing at {0}; the page at / and the README list what there is.")]
    NoRoute(String),
    /// The path exists, the method does not.
    #[error("{method} is not possible at {path}; send {allow}.")]
    Method {
        /// What was asked.
        method: String,
        /// Where.
        path: String,
        /// What can be asked there, as in the `Allow` header.
        allow: String,
    },
    /// The body is too large.
    #[error("The body is larger than {0} bytes; send less.")]
    TooLarge(usize),
    /// The file is shorter than the range begins.
    #[error("The file has {0} bytes, all of which lie before the range that was asked for.")]
    NoSuchRange(u64),
    /// The file has other bytes than the client wants (`If-Match`).
    #[error("These bytes are no longer the ones that `If-Match` names; fetch them anew without it.")]
    OtherBytes,
    /// The body did not arrive in time.
    #[error("The body did not arrive in time; send it at once.")]
    TooSlow,
    /// The token is missing or wrong.
    #[error("This server asks for a token; send `Authorization: Bearer TOKEN` or `?token=TOKEN`.")]
    Unauthorized,
    /// The token or the signed address is not good for this.
    #[error("{0}")]
    Forbidden(String),
    /// The name by which the server was asked is not its own.
    #[error("This server is not known as `{0}`; if that is its name, start it with --public-name {0}.")]
    UnknownName(String),
    /// A page of another origin wants to change something.
    #[error(
        "Pages of {0} may not use this server; start it with --allow-origin {0}, or with --public-name NAME if that is \
         its own name."
    )]
    ForeignPage(String),
    /// Every place is taken by somebody who listens or is worked for.
    #[error("There are as many connections as this server takes (serve --max-listeners); try again in a moment.")]
    Crowded,
    /// Not a WebSocket request.
    #[error("This path speaks WebSocket; connect with ws:// or wss:// over HTTP/1.1.")]
    UpgradeRequired,
    /// The named set of prompts does not play.
    #[error("No set of prompts numbered {0} plays; its number came in the X-Set-Id header of POST /generate.")]
    NoSet(u64),
    /// A segment of HLS that is not there.
    #[error("This segment is not kept any more, or not made yet; the playlist lists those that are there.")]
    NoSegment,
    /// No such transform or loop.
    #[error("There is nothing `{1}` among the {0}, or it was kept for its time and then removed.")]
    NoRender(String, String),
    /// Models cannot be loaded while this server runs.
    #[error("`{0}` is not loaded and this server cannot load models; start it with --model {0}.")]
    NoLoader(String),
    /// The loader failed.
    #[error("The model could not be loaded: {0}")]
    LoadFailed(String),
    /// The server cannot make sound now.
    #[error("{0}")]
    NotReady(String),
    /// The server was started without it.
    #[error("{0}")]
    Without(&'static str),
    /// A bug.
    #[error("The server made a mistake with this request; it is in the log, and other requests are served as before.")]
    Panicked,
    /// The memory for requests is in use.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// What another node says of it.
    #[error("{detail}")]
    Passed {
        /// With this status.
        status: StatusCode,
        /// In this sentence.
        detail: String,
        /// Seconds after which the same may succeed.
        retry_after: Option<u64>,
    },
    /// From the cluster.
    #[error(transparent)]
    Cluster(ClusterError),
    /// From the station.
    #[error(transparent)]
    Station(#[from] StationError),
    /// From the studio.
    #[error(transparent)]
    Studio(#[from] StudioError),
    /// From the engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<ClusterError> for HttpError {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::Station(error) => Self::Station(error),
            error => Self::Cluster(error),
        }
    }
}

impl HttpError {
    /// The status that stands for it.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Unprocessable(_) | Self::LoadFailed(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NoRoute(_) | Self::NoSet(_) | Self::NoSegment | Self::NoRender(..) => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoSuchRange(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::OtherBytes => StatusCode::PRECONDITION_FAILED,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) | Self::UnknownName(_) | Self::ForeignPage(_) => StatusCode::FORBIDDEN,
            Self::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
            Self::NoLoader(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Passed { status, .. } => *status,
            Self::NotReady(_) | Self::Without(_) | Self::Crowded | Self::Exhausted(_) | Self::Cluster(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Station(error) => station_status(error),
            Self::Studio(error) => studio_status(error),
            Self::Engine(error) => engine_status(error),
        }
    }

    /// The sentence, and what to do about it on this server's routes.
    fn detail(&self) -> String {
        let sentence = self.to_string();
        match self.advice() {
            Some(advice) => format!("{sentence} {advice}"),
            None => sentence,
        }
    }

    fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Engine(error)
            | Self::Station(StationError::Engine(error))
            | Self::Studio(StudioError::Engine(error)) => match error {
                EngineError::Full { .. } | EngineError::TooMany { .. } => {
                    Some("The operator may raise --max-voices on a machine that is fast enough.")
                }
                EngineError::UnknownModel(_) => {
                    Some("GET /v1/models lists those that are, and POST /v1/models loads another.")
                }
                _ => None,
            },
            Self::Studio(StudioError::NotReady(_)) => Some("GET /v1/clips/ID says how far it is."),
            Self::Studio(StudioError::NotYours(_)) => Some("GET /api/models lists them."),
            _ => None,
        }
    }

    /// Seconds after which the same request may succeed.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Station(
                StationError::Limit { retry_after, .. }
                | StationError::Waiting { retry_after }
                | StationError::NoRoom { retry_after, .. },
            )
            | Self::Station(StationError::Engine(
                EngineError::Full { retry_after, .. } | EngineError::TooMany { retry_after, .. },
            ))
            | Self::Engine(EngineError::Full { retry_after, .. } | EngineError::TooMany { retry_after, .. }) => {
                Some(*retry_after)
            }
            Self::Studio(
                StudioError::QueueFull { retry_after, .. } | StudioError::TooManyOfYours { retry_after, .. },
            ) => Some(*retry_after),
            Self::Passed { retry_after, .. } => *retry_after,
            Self::Cluster(error) => error.retry_after(),
            Self::Studio(StudioError::Elsewhere) => Some(1),
            Self::NotReady(_) | Self::Crowded | Self::Studio(StudioError::Crowded(_)) => Some(5),
            Self::Exhausted(_) | Self::Studio(StudioError::Exhausted(_)) => Some(crate::budget::RETRY_AFTER),
            _ => None,
        }
    }
}

fn station_status(error: &StationError) -> StatusCode {
    match error {
        StationError::NotFound(_) => StatusCode::NOT_FOUND,
        StationError::NameTaken(_) => StatusCode::CONFLICT,
        StationError::Limit { .. } => StatusCode::TOO_MANY_REQUESTS,
        StationError::Waiting { .. } | StationError::NoRoom { .. } => StatusCode::SERVICE_UNAVAILABLE,
        StationError::Ended(_) => StatusCode::GONE,
        StationError::NotSent(_) => StatusCode::NOT_ACCEPTABLE,
        StationError::NotKept { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        StationError::Journal(_) | StationError::Audio(_) => StatusCode::INTERNAL_SERVER_ERROR,
        StationError::Engine(error) => engine_status(error),
    }
}

fn studio_status(error: &StudioError) -> StatusCode {
    match error {
        StudioError::Invalid(_) | StudioError::OutOfBounds { .. } | StudioError::Audio(_) | StudioError::Model(_) => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        StudioError::NotYours(_) => StatusCode::FORBIDDEN,
        StudioError::NoSession(_) | StudioError::NoClip(_) => StatusCode::NOT_FOUND,
        StudioError::NotReady(_)
        | StudioError::Busy
        | StudioError::TransformBusy
        | StudioError::NoInput
        | StudioError::NothingToUndo
        | StudioError::NoAudio
        | StudioError::Cancelled => StatusCode::CONFLICT,
        StudioError::QueueFull { .. } | StudioError::TooManyOfYours { .. } => StatusCode::TOO_MANY_REQUESTS,
        StudioError::Absent(_) | StudioError::Crowded(_) | StudioError::Exhausted(_) | StudioError::Elsewhere => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        StudioError::NoRoom(_) => StatusCode::INSUFFICIENT_STORAGE,
        StudioError::Engine(error) => engine_status(error),
        StudioError::Store(_) | StudioError::Broken(_) | StudioError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn engine_status(error: &EngineError) -> StatusCode {
    match error {
        EngineError::Invalid(_) | EngineError::UnknownModel(_) => StatusCode::UNPROCESSABLE_ENTITY,
        EngineError::Full { .. } | EngineError::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
        EngineError::Gone(_) => StatusCode::GONE,
        EngineError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        EngineError::DeviceLost(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl Reply for HttpError {
    fn into_response(self) -> Response {
        let status = self.status();
        let problem = json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": status.as_u16(),
            "detail": sentence(&self.detail()),
        });
        let mut response = Response::new(problem.to_string().into());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Self::Method { allow, .. } = &self
            && let Ok(allow) = HeaderValue::from_str(allow)
        {
            headers.insert(ALLOW, allow);
        }
        match self {
            Self::Unauthorized => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"continuo\""));
            }
            Self::UpgradeRequired => {
                headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            _ => {}
        }
        response
    }
}

/// An error's text on one line and not without end: it may quote what a client sent.
pub(super) fn sentence(text: &str) -> String {
    let mut chars = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut short: String = chars.by_ref().take(SENTENCE).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

/// The response of a handler, whichever way it went.
pub(super) fn reply<R: Reply>(result: Result<R, HttpError>) -> Response {
    match result {
        Ok(reply) => reply.into_response(),
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ModelId;

    #[test]
    fn a_full_machine_is_429_with_retry_after() {
        let full = EngineError::Full { voices: 3, load: 130.0, retry_after: 7 };
        let response = HttpError::from(StationError::from(full)).into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "7");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }

    #[test]
    fn a_full_disk_is_507() {
        let error = HttpError::from(StudioError::NoRoom("the disk of the server is full.".into()));
        assert_eq!(error.status(), 507);
    }

    #[test]
    fn an_unknown_model_is_the_callers_mistake() {
        let error = HttpError::from(EngineError::UnknownModel(ModelId("x".into())));
        assert_eq!(error.status(), 422);
        assert_eq!(error.retry_after(), None);
    }
}
