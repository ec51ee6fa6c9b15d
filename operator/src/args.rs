//! Command line and environment.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use jiff::SignedDuration;

/// Writes down who depends on whom: takes in what node agents see, writes `ServiceDependency` objects.
///
/// Runs in a cluster (Deployment leyline-operator) or, for development, anywhere with a kubeconfig.
#[derive(Clone, Debug, Parser)]
#[command(name = "leyline-operator", version, args_override_self = true)]
pub struct Args {
    /// What to do.
    #[arg(value_enum, default_value = "run")]
    pub command: Command,
    /// Namespace Leyline is installed in: Secret, ConfigMap, Lease, and objects whose client is in no namespace.
    #[arg(long, env = "LEYLINE_NAMESPACE", default_value = leyline_api::SYSTEM_NAMESPACE)]
    pub namespace: String,
    /// Names this replica in the Lease; default: host name and process id.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
    /// Where node agents connect to.
    #[arg(long, env = "LEYLINE_LISTEN", default_value = "[::]:8443")]
    pub listen: SocketAddr,
    /// Liveness, readiness and metrics.
    #[arg(long, env = "LEYLINE_ADMIN", default_value = "[::]:9402")]
    pub admin: SocketAddr,
    /// Log filter, for example `info` or `leyline_operator=debug,warn`.
    #[arg(long, env = "LEYLINE_LOG", default_value = "info")]
    pub log: String,
    /// A dependency that was not seen for this long is Idle.
    #[arg(long, env = "LEYLINE_IDLE_AFTER", default_value = "1h", value_parser = duration)]
    pub idle_after: Duration,
    /// An idle dependency is deleted when it was not seen for this long.
    #[arg(long, env = "LEYLINE_DELETE_AFTER", default_value = "168h", value_parser = duration)]
    pub delete_after: Duration,
    /// No Events until Leyline has run in this cluster for so long (by its oldest object, a restart does not count), and none about
    /// a client that was first seen less than this ago.
    #[arg(long, env = "LEYLINE_EVENTS_AFTER", default_value = "10m", value_parser = duration)]
    pub events_after: Duration,
    /// New and ended dependencies written at once.
    #[arg(long, env = "LEYLINE_NEW_BURST", default_value_t = 1_000)]
    pub new_burst: u32,
    /// New and ended dependencies written per second after that.
    #[arg(long, env = "LEYLINE_NEW_PER_SECOND", default_value_t = 100)]
    pub new_per_second: u32,
    /// Changes of condition and of figures written per second.
    #[arg(long, env = "LEYLINE_UPDATES_PER_SECOND", default_value_t = 20)]
    pub updates_per_second: u32,
    /// Most time series of `leyline_zone_bytes_total`; with more clients, servers and zones than that the metric is left out as
    /// a whole, 0 leaves it out always.
    #[arg(long, env = "LEYLINE_ZONE_SERIES", default_value_t = 5_000)]
    pub zone_series: usize,
    /// How long a starting operator waits for nodes that have not reported.
    #[arg(long, env = "LEYLINE_SETTLE_AFTER", default_value = "30s", value_parser = duration)]
    pub settle_after: Duration,
    /// How long the lease lasts without renewal: another replica takes over after this time when the leader is killed.
    #[arg(long, env = "LEYLINE_LEASE_DURATION", default_value = "8s", value_parser = duration)]
    pub lease_duration: Duration,
    /// How often the lease is renewed.
    #[arg(long, env = "LEYLINE_LEASE_RENEW", default_value = "2s", value_parser = duration)]
    pub lease_renew: Duration,
}

/// What the binary does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Command {
    /// Run the operator.
    Run,
}

/// `10m`, `1h 30m`, `500ms`; more than nothing and at most a year.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    let duration = Duration::try_from(parsed).map_err(|_| "a duration must be positive".to_owned())?;
    if duration.is_zero() || duration > Duration::from_hours(366 * 24) {
        return Err("a duration must be more than nothing and at most a year".to_owned());
    }
    Ok(duration)
}

impl Args {
    /// Checks what one argument alone cannot say.
    ///
    /// # Errors
    /// A sentence that says what to change.
    pub fn check(&self) -> Result<(), String> {
        if self.lease_duration < self.lease_renew * 2 + Duration::from_secs(1) {
            return Err("--lease-duration must be at least twice --lease-renew and a second more".to_owned());
        }
        if self.delete_after <= self.idle_after {
            return Err("--delete-after must be longer than --idle-after".to_owned());
        }
        if self.new_burst == 0 || self.new_per_second == 0 || self.updates_per_second == 0 {
            return Err("rates must be at least 1".to_owned());
        }
        Ok(())
    }

    /// The name of this replica.
    #[must_use]
    pub fn replica(&self) -> String {
        self.identity.clone().unwrap_or_else(|| {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            format!("{}-{}", host.trim(), std::process::id())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_consistent() {
        let args = Args::try_parse_from(["leyline-operator"]).expect("parsed");
        args.check().expect("consistent");
        assert_eq!(args.command, Command::Run);
        assert!(Args::try_parse_from(["leyline-operator", "run"]).is_ok());
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for arguments in [
            ["--idle-after", "0s"],
            ["--idle-after", "-1h"],
            ["--idle-after", "soon"],
        ] {
            let arguments = ["leyline-operator"].into_iter().chain(arguments);
            assert!(Args::try_parse_from(arguments).is_err());
        }
        let with = |arguments: &[&'static str]| {
            let arguments = ["leyline-operator"].into_iter().chain(arguments.iter().copied());
            Args::try_parse_from(arguments).expect("parsed").check()
        };
        assert!(with(&["--idle-after", "2h", "--delete-after", "1h"]).is_err());
        assert!(with(&["--lease-duration", "3s", "--lease-renew", "2s"]).is_err());
        assert!(with(&["--new-per-second", "0"]).is_err());
    }
}
