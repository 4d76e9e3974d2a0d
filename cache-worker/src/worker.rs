//! The worker: one session after the other, for ever.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::error::Error;
use crate::metrics;
use crate::options::Options;
use crate::session::{Ended, Schedule, Session};
use crate::{feed, store};

/// The shortest pause before beginning anew.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Works until somebody asks to stop, or what was asked for is done. Says how many entries a check
/// that was asked for found wrong.
///
/// # Errors
/// If the address of Redis cannot be one. All other errors are waited out.
pub async fn run(mut options: Options, stop: CancellationToken) -> Result<usize, Error> {
    feed::prepare(&mut options.database, options.time_limit);
    let redis = redis::Client::open(store::prepare(options.redis.clone()))?;
    let token = format!("{:032x}", rand::random::<u128>());
    let mut schedule = Schedule::new(&options);
    loop {
        let started = tokio::select! {
            // Wherever this breaks off, the next worker finds a cursor that is not ahead of the
            // entries.
            () = stop.cancelled() => return Ok(0),
            started = start(&options, &redis, &token, &mut schedule) => started,
        };
        let mut session = started?;
        if options.once {
            return Ok(0);
        }
        match session.follow(&stop, &mut schedule).await {
            Ok(Ended::Stopped) => return Ok(0),
            Ok(Ended::Checked(wrong)) => return Ok(wrong),
            Err(error) => tell(&error, PAUSE_MIN),
        }
        drop(session);
        // A session that began well is no sign that the next one will last.
        tokio::time::sleep(PAUSE_MIN.mul_f64(1.0 + rand::random::<f64>())).await;
    }
}

/// Begins a session; where that fails, again after a pause, until it succeeds.
async fn start<'o>(
    options: &'o Options,
    redis: &redis::Client,
    token: &str,
    schedule: &mut Schedule,
) -> Result<Session<'o>, Error> {
    let schedule = tokio::sync::Mutex::new(schedule);
    let attempt = || async { Session::start(options, redis, token, *schedule.lock().await).await };
    let pauses = ExponentialBuilder::new()
        .with_min_delay(PAUSE_MIN)
        .with_max_delay(options.pause_max)
        .without_max_times();
    attempt.retry(pauses.with_jitter()).notify(tell).await
}

/// Tells why everything is begun anew, and after what pause.
fn tell(error: &Error, pause: Duration) {
    ::metrics::counter!(metrics::RECONNECTS).increment(1);
    match error {
        Error::Full => {
            ::metrics::counter!(metrics::REDIS_FULL).increment(1);
            tracing::error!(?pause, "{error}");
        }
        Error::Busy => info!(?pause, "{error}"),
        _ => warn!(?pause, "{error}; beginning anew"),
    }
}
