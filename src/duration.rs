//! Durations as people write them: `1h30m`, `250ms`. Needs nothing but the standard library, because `build.rs` uses
//! it, too.

use std::time::Duration;

/// The length of a duration such as `1h30m`, `1.5h`, or `250ms`; nothing for an empty text and for one that is
/// negative, `None` for what is none, and for one of more than 292 years, which cannot be stored.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if text.is_empty() || rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0.0;
    loop {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, tail) = rest.split_at(number);
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let unit = match unit {
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += amount.parse::<f64>().ok()? * unit;
        rest = tail;
        if rest.is_empty() {
            break;
        }
    }
    let length = Duration::try_from_secs_f64(seconds).ok()?;
    if i64::try_from(length.as_nanos()).is_err() {
        return None;
    }
    Some(if is_negative { Duration::ZERO } else { length })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_numbers_with_units() {
        for (text, millis) in [
            ("2h", 7_200_000),
            ("2h0m0s", 7_200_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("+250ms", 250),
            (".5s", 500),
            ("", 0),
            ("0", 0),
            ("0s", 0),
            ("-1h", 0),
            ("2562047h", 9_223_369_200_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text:?}");
        }
        for text in ["h", "1", "1x", "1h1", "one hour", "1h ", " 1h", "1..5h", "-", ".", "1e3s", "2562048h"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
