//! Lengths of time.

use std::{fmt, str::FromStr, time::Duration};

use super::Wrong;

/// A length of time: a whole number with one of the units `ms`, `s`, `m`, `h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub Duration);
written_as_text!(Period, "duration-with-unit", "^[0-9]+(ms|s|m|h)$");

impl FromStr for Period {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = |help: &str| Wrong::new("is not a duration", help);
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let milliseconds: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "" => return Err(wrong(&format!("write a unit: {text}s or {text}ms"))),
            _ => {
                return Err(wrong("write a whole number and a unit: 500ms, 2s, 5m or 1h"));
            }
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(milliseconds))
            .filter(|&number| number <= 365 * 24 * 3_600_000)
            .map(|number| Self(Duration::from_millis(number)))
            .ok_or_else(|| wrong("write a whole number and a unit: 500ms, 2s, 5m or 1h"))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        for (length, unit) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
            if milliseconds > 0 && milliseconds.is_multiple_of(length) {
                return write!(f, "{}{unit}", milliseconds / length);
            }
        }
        match milliseconds {
            0 => f.write_str("0s"),
            _ => write!(f, "{milliseconds}ms"),
        }
    }
}
