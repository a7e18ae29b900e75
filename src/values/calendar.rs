//! Days, weeks, months and years as people of a place have them.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{LazyLock, Mutex, PoisonError};

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZoneDatabase;
use jiff::{Span, Timestamp, tz};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A period of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CalendarUnit {
    /// From midnight to midnight: 23 or 25 hours where clocks are changed.
    Day,
    /// From Monday to Sunday.
    Week,
    /// From the first of a month.
    Month,
    /// From the first of January.
    Year,
}

impl CalendarUnit {
    /// How many days it has, more or less.
    #[must_use]
    pub fn days(self) -> u64 {
        match self {
            Self::Day => 1,
            Self::Week => 7,
            Self::Month => 30,
            Self::Year => 365,
        }
    }
}

/// A time zone of the IANA database, such as `Europe/Berlin` or `UTC`. The database is built in, so that a name means
/// the same on every machine.
#[derive(Clone, Copy)]
pub struct TimeZone(&'static Zone);

struct Zone {
    name: String,
    rules: tz::TimeZone,
    /// The latest answer for each unit: the next question is nearly always about the same period.
    latest: Mutex<[Option<Period>; 4]>,
}

/// A name that is no time zone's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time zone: write a name of the IANA database, such as `Europe/Berlin` or `UTC`")]
pub struct TimeZoneError(String);

/// Milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// The first.
    pub start: u64,
    /// The first of the next period.
    pub end: u64,
}

static DATABASE: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);
/// One of each zone that was ever named; the database has some 600.
static ZONES: LazyLock<Mutex<HashMap<String, &'static Zone>>> = LazyLock::new(Mutex::default);

impl TimeZone {
    /// The zone of this name, whatever the case of its letters.
    ///
    /// # Errors
    /// When there is none.
    pub fn parse(name: &str) -> Result<Self, TimeZoneError> {
        let unknown = || TimeZoneError(name.to_owned());
        let rules = DATABASE.get(name).map_err(|_| unknown())?;
        let name = rules.iana_name().ok_or_else(unknown)?.to_owned();
        let mut zones = ZONES.lock().unwrap_or_else(PoisonError::into_inner);
        let zone = zones
            .entry(name.clone())
            .or_insert_with(|| Box::leak(Box::new(Zone { name, rules, latest: Mutex::default() })));
        Ok(Self(zone))
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        &self.0.name
    }

    /// The period that a time lies in. Beyond what calendars reach there is but one.
    #[must_use]
    pub fn period(self, unit: CalendarUnit, unix_ms: u64) -> Period {
        let mut latest = self.0.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = &mut latest[unit as usize];
        if let Some(period) = latest.filter(|period| (period.start..period.end).contains(&unix_ms)) {
            return period;
        }
        let Some(period) = self.find(unit, unix_ms) else { return Period { start: 0, end: u64::MAX } };
        *latest = Some(period);
        period
    }

    fn find(self, unit: CalendarUnit, unix_ms: u64) -> Option<Period> {
        let time = Timestamp::from_millisecond(i64::try_from(unix_ms).ok()?).ok()?;
        let date = time.to_zoned(self.0.rules.clone()).date();
        let first = match unit {
            CalendarUnit::Day => date,
            CalendarUnit::Week => {
                let days = date.weekday().since(Weekday::Monday);
                date.checked_sub(Span::new().days(days)).ok()?
            }
            CalendarUnit::Month => date.first_of_month(),
            CalendarUnit::Year => date.first_of_year(),
        };
        let next = match unit {
            CalendarUnit::Day => first.checked_add(Span::new().days(1)),
            CalendarUnit::Week => first.checked_add(Span::new().weeks(1)),
            CalendarUnit::Month => first.checked_add(Span::new().months(1)),
            CalendarUnit::Year => first.checked_add(Span::new().years(1)),
        };
        let start = |date: Date| {
            let start = date.to_zoned(self.0.rules.clone()).ok()?.timestamp().as_millisecond();
            Some(u64::try_from(start).unwrap_or(0))
        };
        Some(Period { start: start(first)?, end: start(next.ok()?)? })
    }
}

impl PartialEq for TimeZone {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for TimeZone {}

impl Hash for TimeZone {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl fmt::Debug for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}

impl Serialize for TimeZone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for TimeZone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unix_ms(time: &str) -> u64 {
        time.parse::<Timestamp>().unwrap().as_millisecond().try_into().unwrap()
    }

    #[test]
    fn periods_begin_where_they_do_at_the_place() {
        use CalendarUnit::{Day, Month, Week, Year};
        for (zone, unit, time, start, end) in [
            ("UTC", Day, "2026-11-21T21:00:00Z", "2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"),
            ("UTC", Week, "2026-11-22T23:59:59.999Z", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"),
            ("UTC", Month, "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
            ("UTC", Year, "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("Europe/Berlin", Day, "2026-11-21T23:30:00Z", "2026-11-21T23:00:00Z", "2026-11-22T23:00:00Z"),
            // Clocks go forward, and back: 23 and 25 hours.
            ("Europe/Berlin", Day, "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
            ("Europe/Berlin", Day, "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
            ("Europe/Berlin", Month, "2026-03-31T21:59:59Z", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z"),
            (
                "America/New_York",
                Year,
                "2027-01-01T04:59:59Z",
                "2026-01-01T05:00:00Z",
                "2027-01-01T05:00:00Z",
            ),
            ("Asia/Kathmandu", Week, "2026-11-22T18:15:00Z", "2026-11-22T18:15:00Z", "2026-11-29T18:15:00Z"),
            // Midnight was left out.
            ("America/Santiago", Day, "2025-09-07T12:00:00Z", "2025-09-07T04:00:00Z", "2025-09-08T03:00:00Z"),
            ("UTC", Year, "1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "1971-01-01T00:00:00Z"),
        ] {
            let period = TimeZone::parse(zone).unwrap().period(unit, unix_ms(time));
            assert_eq!(period, Period { start: unix_ms(start), end: unix_ms(end) }, "{zone} {unit:?} {time}");
        }
    }

    #[test]
    fn a_name_is_a_zone_or_an_error() {
        assert_eq!(TimeZone::parse("europe/berlin").unwrap().name(), "Europe/Berlin");
        assert_eq!(TimeZone::parse("UTC"), TimeZone::parse("utc"));
        for name in ["", "Berlin", "Europe/", "+01:00", "CEST-1", "../etc/passwd"] {
            assert_eq!(TimeZone::parse(name), Err(TimeZoneError(name.into())));
        }
    }

    proptest! {
        #[test]
        fn a_time_lies_in_its_period_and_the_next_begins_at_its_end(
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
            unit in 0usize..4, unix_ms in 86_400_000_000u64..10_000_000_000_000, wild: u64,
        ) {
            use CalendarUnit::{Day, Month, Week, Year};
            let (zone, unit) = (TimeZone::parse(zone).unwrap(), [Day, Week, Month, Year][unit]);
            let period = zone.period(unit, unix_ms);
            prop_assert!(period.start <= unix_ms && unix_ms < period.end);
            prop_assert_eq!(zone.period(unit, period.end).start, period.end);
            prop_assert_eq!(zone.period(unit, period.start - 1).end, period.start);
            let _ = zone.period(unit, wild);
        }
    }
}
