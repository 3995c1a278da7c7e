//! The daemon's own log: standard error, at a level that can be changed while it runs.
//!
//! A thread of its own writes it (fault-cases F52): who does not read what we say, a full pipe or a stopped journald, must not keep probes and
//! changes waiting. What there is no room for is lost, and counted.

use std::{
    fmt,
    io::{self, IsTerminal as _},
    sync::OnceLock,
};

use tracing::{Event, Level, Subscriber};
pub use tracing_appender::non_blocking::WorkerGuard as Guard;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder};
use tracing_subscriber::{
    EnvFilter, Registry,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Full, Writer},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt as _,
};

use crate::privileges;

/// The level without `LB_LOG`.
pub const DEFAULT: &str = "info";

/// Lines that wait for their reader at most.
const WAITING: usize = 1_024;

static LOST: OnceLock<ErrorCounter> = OnceLock::new();
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Why a filter is not one.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{text}` is no log level: {reason}; say error, warn, info, debug or trace, or directives such as `info,lb_userspace::net=debug`"
)]
pub struct BadFilter {
    text: String,
    reason: String,
}

/// Reads a level or directives.
pub fn parse(text: &str) -> Result<EnvFilter, BadFilter> {
    let bad = |reason: String| BadFilter { text: text.to_owned(), reason };
    // A word that is no level would be taken for a module's name, and silence everything else.
    let mut pieces = text.split(',').map(str::trim).filter(|piece| !piece.is_empty()).peekable();
    if pieces.peek().is_none() {
        return Err(bad("it is empty".to_owned()));
    }
    for piece in pieces.filter(|piece| !piece.contains(['=', '['])) {
        piece
            .parse::<tracing::level_filters::LevelFilter>()
            .map_err(|_| bad(format!("`{piece}` is not a level")))?;
    }
    EnvFilter::try_new(text).map_err(|error| bad(error.to_string()))
}

/// Starts the log. Its last lines are written when what is returned is dropped.
pub fn start(filter: EnvFilter, json: bool, colour: bool) -> anyhow::Result<Guard> {
    let (writer, guard) = writer()?;
    let (filter, handle) = reload::Layer::new(filter);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(io::stderr().is_terminal() && colour)
        .with_target(false);
    // journald has its own clock, and takes a line's level from its first characters.
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let result = match (json, journal) {
        (true, _) => registry.with(lines.json()).try_init(),
        (false, true) => registry.with(lines.event_format(Journal::new())).try_init(),
        (false, false) => registry.with(lines).try_init(),
    };
    result.map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))?;
    // The only place that sets it, and a second start has failed above.
    let _ = FILTER.set(handle);
    Ok(guard)
}

fn writer() -> anyhow::Result<(NonBlocking, Guard)> {
    // Threads have the capabilities of who starts them; the log's needs none.
    let begin = || {
        privileges::give_up()?;
        let builder = NonBlockingBuilder::default().buffered_lines_limit(WAITING).lossy(true);
        anyhow::Ok(builder.thread_name("log").finish(io::stderr()))
    };
    let (writer, guard) = std::thread::spawn(begin)
        .join()
        .map_err(|_| anyhow::anyhow!("the thread of the log has died"))??;
    // The only place that sets it.
    let _ = LOST.set(writer.error_counter());
    Ok((writer, guard))
}

/// Lines that were lost because nobody read them.
pub fn lost() -> usize {
    LOST.get().map_or(0, ErrorCounter::dropped_lines)
}

/// Changes the level. Returns the one before.
pub fn set(text: &str) -> anyhow::Result<String> {
    let filter = parse(text)?;
    let handle = FILTER.get().ok_or_else(|| anyhow::anyhow!("the log has not been started"))?;
    let before = handle.with_current(EnvFilter::to_string)?;
    handle.reload(filter)?;
    Ok(before)
}

/// Lines for journald: the level as a number that it takes off again, see sd-daemon(3), and neither time nor level.
struct Journal(Format<Full, ()>);

impl Journal {
    fn new() -> Self {
        Self(Format::default().without_time().with_target(false).with_level(false))
    }
}

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        self.0.format_event(context, Writer::new(&mut text), event)?;
        let priority = priority(*event.metadata().level());
        // Every line of its own has to say its level.
        text.lines().try_for_each(|line| writeln!(writer, "<{priority}>{line}"))
    }
}

const fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn filters_are_levels_or_directives() {
        for good in ["info", "WARN", "off", "info,lb_userspace::net=debug", "lb_userspace=trace"] {
            parse(good).unwrap_or_else(|error| panic!("{error}"));
        }
        for bad in ["", " , ", "loud", "info,loud", "lb_userspace=loud"] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains("error, warn, info"), "{error}");
        }
    }

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn journald_is_told_the_level_of_each_line_and_gets_nothing_raw() {
        let sink = Sink::default();
        let writer = sink.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .event_format(Journal::new());
        let subscriber = tracing_subscriber::registry().with(lines);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(service = "web", "two\nlines");
            tracing::info!(output = "a\x1b[31mred", "one");
        });
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text:?}");
        assert!(lines[0].starts_with("<4>two") && lines[1].starts_with("<4>lines"), "{text:?}");
        assert!(lines[2].starts_with("<6>one"), "{text:?}");
        assert!(!text.contains('\x1b'), "{text:?}");
    }
}
