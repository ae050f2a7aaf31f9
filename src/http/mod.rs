//! HTTP: the native API, the compatible routes of musicgen-stream, the page, metrics.
//!
//! [`serve`] accepts connections and answers them from an [`App`]: a station, limits and a way to
//! load models. Every route is a warp filter made by one of the modules below and joined in
//! `router`; every error is an [`HttpError`], which is mapped to a status and RFC 9457 JSON in one
//! place. No tensors pass through here.

mod access_log;
mod app;
mod audio;
mod auth;
mod base64;
mod body;
mod client;
mod clips;
mod connection;
mod cors;
mod description;
mod error;
mod events;
mod exchange;
mod file;
mod form;
mod forward;
mod front;
mod gary;
mod generate;
mod history;
mod hls;
mod icy;
mod input;
mod jerry;
mod journal;
mod json;
mod links;
mod live;
mod meter;
mod models;
mod musicgen_stream;
mod nodes;
mod ops;
mod origin;
mod page;
mod places;
mod push;
mod query;
mod recording;
mod renders;
mod response;
mod router;
mod seed;
mod serve;
mod sessions;
mod socket;
mod sound_paths;
mod sounding;
mod stats;
mod streams;
mod surface;
mod target;
mod terry;
mod upload;
mod views;
mod web;
mod when;
mod ws;

pub use app::{App, Limits};
pub use auth::{Access, Scope, SigningKey, Token};
pub use client::TrustedProxies;
pub use error::HttpError;
pub use ops::install_metrics;
pub use origin::{AllowedOrigin, Origins, PublicName};
pub use push::{Push, keep_on_air};
pub use serve::{serve, terminated};
pub use surface::{Port, SURFACES, Surface};

use warp::filters::BoxedFilter;
use warp::reply::Response;

/// What every route module gives to the router: it answers, or rejects what is not its path or
/// method.
type Routes = BoxedFilter<(Response,)>;
