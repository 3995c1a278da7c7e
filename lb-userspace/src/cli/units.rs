//! Numbers for people, and their intervals read.

use std::time::Duration;

/// A count with three or four digits: `999`, `12.3k`, `4.56M`; steps of 1000.
pub fn count(value: f64) -> String {
    scaled(value, 1000.0, &["", "k", "M", "G", "T", "P"])
}

/// Bytes: `999B`, `12.3KiB`; steps of 1024.
pub fn bytes(value: f64) -> String {
    scaled(value, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

/// Bits per second of a number of bytes per second: `1.25Gbit/s`; steps of 1000.
pub fn bit_rate(bytes_per_second: f64) -> String {
    let units = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s", "Pbit/s"];
    scaled(bytes_per_second * 8.0, 1000.0, &units)
}

fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut unit = 0;
    // What would be rounded to the next step is of the next step.
    while value >= step - 0.5 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let digits = match value {
        _ if unit == 0 && (value.fract() == 0.0 || value >= 99.95) => 0,
        v if v < 9.995 => 2 - usize::from(unit == 0),
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$}{}", units[unit])
}

/// A share, 0..=1, as a percentage: `33.3%`.
pub fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// An age: `12s`, `3m05s`, `2h03m`, `4d11h`.
pub fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// A moment, in this host's time zone: `2026-11-21 11:40:02.123`.
pub fn local_time(unix_milliseconds: u64) -> String {
    let moment = i64::try_from(unix_milliseconds)
        .ok()
        .and_then(|milliseconds| jiff::Timestamp::from_millisecond(milliseconds).ok())
        .unwrap_or_default();
    moment.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

/// An interval as the user writes it: `2`, `2s`, `500ms`, `1m`; at least 100 ms, at most an hour.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    let allowed = Duration::from_millis(100)..=Duration::from_secs(3600);
    let wrong =
        || format!("`{text}` is not an interval: write `2s` or `500ms`, between 100ms and 1h");
    read(text).filter(|interval| allowed.contains(interval)).ok_or_else(wrong)
}

/// A time that something may take, as the user writes it: `60s`, `5m`, `1h`; whole seconds, at least one, at most a day.
pub fn parse_limit(text: &str) -> Result<Duration, String> {
    let allowed = Duration::from_secs(1)..=Duration::from_secs(86_400);
    let wrong = || format!("`{text}` is not a time: write `60s`, `5m` or `1h`, between 1s and 24h");
    read(text).filter(|time| allowed.contains(time) && time.subsec_nanos() == 0).ok_or_else(wrong)
}

fn read(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * factor).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (7.0, "7"),
            (999.0, "999"),
            (1000.0, "1.00k"),
            (9_996.0, "10.0k"),
            (12_345.0, "12.3k"),
            (123_456.0, "123k"),
            (999_499.0, "999k"),
            (999_999.0, "1.00M"),
            (0.25, "0.2"),
            (1.8446744073709552e19, "18447P"),
        ] {
            assert_eq!(count(value), text, "{value}");
        }
        assert_eq!(bytes(0.0), "0B");
        assert_eq!(bytes(1023.0), "1023B");
        assert_eq!(bytes(1024.0), "1.00KiB");
        assert_eq!(bytes(1_572_864.0), "1.50MiB");
        assert_eq!(bit_rate(125_000_000.0), "1.00Gbit/s");
        assert_eq!(percent(1.0 / 3.0), "33.3%");
    }

    #[test]
    fn ages_have_two_units() {
        let ages = [(0, "0s"), (59, "59s"), (65, "1m05s"), (7380, "2h03m"), (385_200, "4d11h")];
        for (seconds, text) in ages {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn intervals_have_units_and_limits() {
        assert_eq!(parse_interval("2"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_interval("0.5s"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_interval("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(parse_interval("1m"), Ok(Duration::from_secs(60)));
        for wrong in ["", "s", "1x", "-1s", "99ms", "2h", "1e9", "..s", "NaN"] {
            assert!(parse_interval(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_limit("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_limit("24h"), Ok(Duration::from_secs(86_400)));
        for wrong in ["0s", "1.5s", "25h", "500ms", "1d", "soon"] {
            assert!(parse_limit(wrong).is_err(), "{wrong}");
        }
    }
}
