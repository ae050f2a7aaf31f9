//! gary4web: the web app's and the browser extension's routes (`concurrent_gary.py`), and the crop server's (`express`).
//!
//! A task is a session whose id has 24 hexadecimal digits; its result is levelled to -14 LUFS when it is fetched.

mod crop;
mod fetch;
mod tasks;

pub(in crate::http) use tasks::{claims, generate};

use std::sync::Arc;

use warp::Filter;

use super::{App, Routes};

/// All routes but `POST /generate`, which other surfaces share.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    tasks::routes(app).or(crop::routes(app)).unify().boxed()
}
