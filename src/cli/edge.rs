//! What `serve` is told about whoever stands before it.

use clap::Args;

use crate::http::{AllowedOrigin, App, Origins, PublicName, TrustedProxies};

/// Options about proxies, and about pages that browsers show.
#[derive(Args)]
pub(super) struct Edge {
    /// A proxy that is believed about whose requests it passes on (X-Forwarded-For) and where it is
    /// reached (X-Forwarded-Prefix): an address, a range, `loopback`, `private` or `none`; may be
    /// repeated
    #[arg(
        long,
        env = "CONTINUO_TRUSTED_PROXY",
        value_name = "CIDR",
        value_delimiter = ',',
        default_value = "loopback"
    )]
    trusted_proxy: Vec<TrustedProxies>,
    /// A name of this server, such as radio.example; without a token it answers to no other than
    /// these, addresses and names of local networks; `*` is any; may be repeated
    #[arg(long, env = "CONTINUO_PUBLIC_NAME", value_name = "NAME", value_delimiter = ',')]
    public_name: Vec<PublicName>,
    /// Origin of another site whose pages may use this server, such as https://friend.example; `*`
    /// is any; may be repeated. With a token all may that have it
    #[arg(long, env = "CONTINUO_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    allow_origin: Vec<AllowedOrigin>,
}

impl Edge {
    /// Tells the app.
    pub(super) fn configure(self, app: &mut App) {
        app.origins = Origins { allowed: self.allow_origin, names: self.public_name };
        app.trusted_proxies = self.trusted_proxy.into_iter().fold(TrustedProxies::default(), TrustedProxies::and);
    }
}
