//! When a job was created: ages, moments and days.

use std::fmt;

use time::{
    Date, Duration, OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339, macros::format_description,
};

/// When a job entered the queue. Each point is compared as what it is: `>1h` is an age of more than an hour, and
/// `>2026-05-07` a day after that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// `2026-05-07`: in that day; `2026-05-07T09:00:00Z`: in that microsecond.
    At(When),
    /// `>1h`, `<=2026-05-07`.
    Compared(Comparison, Point),
    /// `1h..2h`: both ends belong to it.
    BetweenAges(Age, Age),
    /// `2026-05-01..2026-05-07`: both ends belong to it, a day as a whole.
    Between(When, When),
}

/// How a value compares with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
}

/// What the creation of a job is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// How long ago.
    Age(Age),
    /// When.
    When(When),
}

/// How long ago, in whole seconds, at most [`Age::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age(u64);

/// When, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// A moment, in whole microseconds.
    Moment(OffsetDateTime),
    /// A day, from midnight to midnight in UTC.
    Day(Date),
}

/// Why a text says nothing about a creation.
pub(super) enum NotCreated {
    Unreadable,
    EmptyRange,
}

/// The least time between two moments that the database can tell apart.
const TICK: Duration = Duration::MICROSECOND;

/// The years whose moments can be compared with, so that the ends of ranges have neighbours.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=9998;

impl Created {
    /// The latest moment before and the earliest moment after all that match, where there are such.
    #[must_use]
    pub fn bounds(self, now: OffsetDateTime) -> (Option<OffsetDateTime>, Option<OffsetDateTime>) {
        use Comparison as C;
        match self {
            Self::At(when) => (Some(when.first() - TICK), Some(when.end())),
            Self::Between(from, to) => (Some(from.first() - TICK), Some(to.end())),
            Self::BetweenAges(least, most) => (Some(most.before(now) - TICK), Some(least.before(now) + TICK)),
            Self::Compared(C::Greater, Point::Age(age)) => (None, Some(age.before(now))),
            Self::Compared(C::GreaterOrEqual, Point::Age(age)) => (None, Some(age.before(now) + TICK)),
            Self::Compared(C::Less, Point::Age(age)) => (Some(age.before(now)), None),
            Self::Compared(C::LessOrEqual, Point::Age(age)) => (Some(age.before(now) - TICK), None),
            Self::Compared(C::Greater, Point::When(when)) => (Some(when.end() - TICK), None),
            Self::Compared(C::GreaterOrEqual, Point::When(when)) => (Some(when.first() - TICK), None),
            Self::Compared(C::Less, Point::When(when)) => (None, Some(when.first())),
            Self::Compared(C::LessOrEqual, Point::When(when)) => (None, Some(when.end())),
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, NotCreated> {
        use NotCreated::{EmptyRange, Unreadable};
        const COMPARISONS: [(&str, Comparison); 4] = [
            (">=", Comparison::GreaterOrEqual),
            ("<=", Comparison::LessOrEqual),
            (">", Comparison::Greater),
            ("<", Comparison::Less),
        ];
        if let Some((comparison, point)) =
            COMPARISONS.iter().find_map(|(sign, comparison)| Some((*comparison, text.strip_prefix(sign)?)))
        {
            return Ok(Self::Compared(comparison, Point::parse(point).ok_or(Unreadable)?));
        }
        let Some((from, to)) = text.split_once("..") else {
            return When::parse(text).map(Self::At).ok_or(Unreadable);
        };
        let (range, is_empty) = match (Point::parse(from).ok_or(Unreadable)?, Point::parse(to).ok_or(Unreadable)?) {
            (Point::Age(from), Point::Age(to)) => (Self::BetweenAges(from, to), from > to),
            (Point::When(from), Point::When(to)) => (Self::Between(from, to), from.first() >= to.end()),
            _ => return Err(Unreadable),
        };
        if is_empty { Err(EmptyRange) } else { Ok(range) }
    }
}

impl Point {
    fn parse(text: &str) -> Option<Self> {
        Age::parse(text).map(Self::Age).or_else(|| When::parse(text).map(Self::When))
    }
}

impl Age {
    /// A hundred years.
    pub const MAX: Self = Self(36_500 * 86_400);

    const UNITS: [(char, u64); 5] = [('w', 604_800), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

    /// So many seconds; `None` for more than [`Age::MAX`].
    #[must_use]
    pub const fn seconds(seconds: u64) -> Option<Self> {
        if seconds <= Self::MAX.0 { Some(Self(seconds)) } else { None }
    }

    fn before(self, now: OffsetDateTime) -> OffsetDateTime {
        let now = now - Duration::nanoseconds(i64::from(now.nanosecond() % 1_000));
        now.saturating_sub(Duration::seconds(self.0.cast_signed()))
    }

    fn parse(mut text: &str) -> Option<Self> {
        let mut seconds: u64 = 0;
        while !text.is_empty() {
            let digits = text.find(|c: char| !c.is_ascii_digit())?;
            let (amount, rest) = text.split_at(digits);
            let unit = Self::UNITS.iter().find_map(|(unit, length)| rest.starts_with(*unit).then_some(length))?;
            seconds = seconds.checked_add(amount.parse::<u64>().ok()?.checked_mul(*unit)?)?;
            text = &rest[1..];
            if text.is_empty() {
                return Self::seconds(seconds);
            }
        }
        None
    }
}

impl When {
    fn parse(text: &str) -> Option<Self> {
        let day = format_description!("[year]-[month]-[day]");
        let when = if text.len() == 10 {
            Self::Day(Date::parse(text, &day).ok()?)
        } else {
            let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?.checked_to_offset(UtcOffset::UTC)?;
            Self::Moment(moment).some_if(moment.nanosecond() % 1_000 == 0)?
        };
        when.some_if(YEARS.contains(&when.first().year()))
    }

    fn some_if(self, holds: bool) -> Option<Self> {
        holds.then_some(self)
    }

    fn first(self) -> OffsetDateTime {
        match self {
            Self::Moment(moment) => moment,
            Self::Day(day) => day.midnight().assume_utc(),
        }
    }

    /// The first moment that does not belong to it any more.
    fn end(self) -> OffsetDateTime {
        self.first() + if let Self::Day(_) = self { Duration::DAY } else { TICK }
    }
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(when) => when.fmt(f),
            Self::Compared(comparison, point) => write!(f, "{comparison}{point}"),
            Self::BetweenAges(from, to) => write!(f, "{from}..{to}"),
            Self::Between(from, to) => write!(f, "{from}..{to}"),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
        })
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Age(age) => age.fmt(f),
            Self::When(when) => when.fmt(f),
        }
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        if rest == 0 {
            return f.write_str("0s");
        }
        // Weeks are read, but days are how people count what is older than one.
        for (unit, length) in &Self::UNITS[1..] {
            if rest >= *length {
                write!(f, "{}{unit}", rest / length)?;
                rest %= length;
            }
        }
        Ok(())
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Moment(moment) => f.write_str(&moment.format(&Rfc3339).map_err(|_| fmt::Error)?),
            Self::Day(day) => day.fmt(f),
        }
    }
}
