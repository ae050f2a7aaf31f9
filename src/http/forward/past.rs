//! The past of a stream that another node makes, for somebody whose connection is not passed on: as
//! that node answers whoever asks it for sound.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http_body_util::BodyDataStream;
use serde_json::Value;
use warp::http::header::RETRY_AFTER;
use warp::http::{HeaderMap, HeaderName, Method};
use warp::reply::Response;

use super::wire::other_version;
use super::{App, Asked, Bytes, Client, ClusterError, HttpError, at};
use crate::http::audio::MEDIA_TIME;
use crate::http::auth::Grant;
use crate::station::{Listen, StationError};

/// Bytes of a refusal that are read: its sentence is much shorter.
const REFUSAL: usize = 16 << 10;

/// Sound from a moment of the past on.
pub(in crate::http) struct Past {
    /// Media time in seconds at which it begins.
    pub begins: f64,
    /// As the node sends it, until that is over or the node is gone.
    pub sound: BoxStream<'static, Result<Bytes, ()>>,
}

/// Has the node that makes a stream play its past to one of our clients, from a place on that is
/// said as in a query.
///
/// # Errors
/// [`HttpError::Passed`] of what that node refuses, [`HttpError::Cluster`] of one that does not
/// answer.
pub(in crate::http) async fn past(
    app: &App,
    (id, listen): (&str, Listen),
    (name, text): (&str, &str),
    (client, grant): (&Client, &Grant),
) -> Result<Past, HttpError> {
    let target = format!("/v1/streams/{id}/audio.{}?{}", listen.format.extension(), query(listen, (name, text)));
    let response = of_owner(app, id, &Asked::on_behalf(client, Method::GET, &target).by(grant)).await?;
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    let begins = number(response.headers(), &MEDIA_TIME).ok_or_else(other_version)?;
    let sound = BodyDataStream::new(response.into_body()).map(|part| part.map_err(drop)).boxed();
    Ok(Past { begins, sound })
}

fn query(listen: Listen, (name, text): (&str, &str)) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair(name, text);
    if listen.kbps > 0 {
        query.append_pair("kbps", &listen.kbps.to_string());
    }
    if listen.low_latency {
        query.append_pair("latency", "low");
    }
    query.finish()
}

/// The answer of the node that makes a stream, or of the one that has followed it meanwhile.
async fn of_owner(app: &App, id: &str, asked: &Asked) -> Result<Response, HttpError> {
    let unknown = || StationError::NotFound(id.to_owned());
    let cluster = app.cluster.as_ref().ok_or_else(unknown)?;
    let mut gone = None;
    loop {
        let owner = cluster.find(id).await?.ok_or_else(unknown)?.node;
        if let Some(error) = gone.filter(|(node, _)| *node == owner).map(|(_, error)| error) {
            return Err(error);
        }
        match at(cluster, &owner, asked.clone(), Bytes::new()).await {
            Err(error @ HttpError::Cluster(ClusterError::Gone(_))) => gone = Some((owner, error)),
            answered => return answered,
        }
    }
}

async fn refusal(response: Response) -> HttpError {
    let status = response.status();
    let retry_after = number(response.headers(), &RETRY_AFTER);
    let mut body = BodyDataStream::new(response.into_body());
    let mut text = Vec::new();
    while let Some(Ok(part)) = body.next().await
        && text.len() < REFUSAL
    {
        text.extend_from_slice(&part);
    }
    let problem: Value = serde_json::from_slice(&text).unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or("The node that makes this stream refuses it.").to_owned();
    HttpError::Passed { status, detail, retry_after }
}

fn number<T: std::str::FromStr>(headers: &HeaderMap, name: &HeaderName) -> Option<T> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}
