//! What `serve` is told about whoever stands before it.

use clap::Args;

use crate::http::{App, TrustedProxies};

/// Options about proxies.
#[derive(Args)]
pub(super) struct Edge {
    /// A proxy that is believed about whose requests it passes on (X-Forwarded-For) and where it is reached
    /// (X-Forwarded-Prefix): an address, a range, `loopback`, `private` or `none`; may be repeated
    #[arg(
        long,
        env = "CONTINUO_TRUSTED_PROXY",
        value_name = "CIDR",
        value_delimiter = ',',
        default_value = "loopback"
    )]
    trusted_proxy: Vec<TrustedProxies>,
}

impl Edge {
    /// Tells the app.
    pub(super) fn configure(self, app: &mut App) {
        app.trusted_proxies = self.trusted_proxy.into_iter().fold(TrustedProxies::default(), TrustedProxies::and);
    }
}
