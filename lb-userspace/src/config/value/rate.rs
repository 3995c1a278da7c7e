//! How often something may happen.

use std::{fmt, str::FromStr, time::Duration};

use super::Wrong;

/// A whole number of times in a second, a minute or an hour: `100/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; at least 1.
    pub count: u64,
    /// In what time: a second, a minute or an hour.
    pub period: Duration,
}
written_as_text!(Rate, "rate", "^[0-9]+/(s|m|h)$");

/// The highest rate, a second.
const MOST: u64 = 100_000_000;
const UNITS: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3_600)];

impl FromStr for Rate {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = |help: &str| Wrong::new("is not a rate", help);
        let (number, unit) = match text.split_once('/') {
            Some(parts) => parts,
            None if text.parse::<u64>().is_ok() => {
                return Err(wrong(&format!("write a unit: {text}/s or {text}/m")));
            }
            None => return Err(wrong("write a whole number and a unit: 100/s, 100/m or 100/h")),
        };
        let seconds = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, seconds)| *seconds);
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        let count = number.parse::<u64>().ok().filter(|_| digits);
        match (count, seconds) {
            (Some(count), Some(seconds)) if (1..=MOST * seconds).contains(&count) => {
                Ok(Self { count, period: Duration::from_secs(seconds) })
            }
            (Some(_), Some(_)) => Err(wrong(&format!("write 1/h to {MOST}/s"))),
            _ => Err(wrong("write a whole number and a unit: 100/s, 100/m or 100/h")),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.period.as_secs();
        let unit = UNITS.iter().find(|(_, length)| *length == seconds).map_or("s", |unit| unit.0);
        write!(f, "{}/{unit}", self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_need_a_number_and_a_unit() {
        for (text, count, seconds) in [("100/s", 100, 1), ("1/m", 1, 60), ("7200/h", 7_200, 3_600)]
        {
            let rate = Rate { count, period: Duration::from_secs(seconds) };
            assert_eq!(text.parse(), Ok(rate));
            assert_eq!(rate.to_string(), text);
        }
        for text in ["", "100", "/s", "0/s", "-1/s", "+1/s", "1.5/s", "1/d", "100000001/s", "1 /s"]
        {
            let wrong = text.parse::<Rate>().expect_err(text);
            assert!(!wrong.help.is_empty(), "{text}");
        }
        assert!("100".parse::<Rate>().unwrap_err().help.contains("100/s"));
    }
}
