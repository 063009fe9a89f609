//! The calendar of the real-time clock: seconds since 1970 to its registers and back.
//!
//! Proleptic Gregorian, no leap seconds, no time zone: the registers hold what the host's clock was told to
//! be. Values no calendar has (month 0, day 31 of February) are what a guest may write and come back
//! normalised, as a chip's ripple counters would sooner or later.

/// Seconds in a day.
pub const DAY: i64 = 86_400;

/// A point in time as the clock shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// Year of the common era, 0 to 9999 in the registers.
    pub year: i64,
    /// Month, 1 to 12.
    pub month: i64,
    /// Day of the month, 1 to 31.
    pub day: i64,
    /// Hour, 0 to 23.
    pub hour: i64,
    /// Minute, 0 to 59.
    pub minute: i64,
    /// Second, 0 to 59.
    pub second: i64,
}

impl Civil {
    /// The point `seconds` after 1970-01-01 00:00:00.
    pub fn from_seconds(seconds: i64) -> Self {
        let (days, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        // Years start in March here, so that the leap day is the last of its year; eras of 400 years.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        Self {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * march_month + 2) / 5 + 1,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }

    /// Seconds since 1970-01-01 00:00:00. Fields out of range carry over.
    pub fn to_seconds(self) -> i64 {
        let months = self.year * 12 + self.month - 1;
        let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
        let year = year - i64::from(month <= 2);
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let march_month = (month + 9) % 12;
        let day_of_year = (153 * march_month + 2) / 5 + self.day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - 719_468;
        days * DAY + self.hour * 3600 + self.minute * 60 + self.second
    }

    /// Day of the week, 1 (Sunday) to 7.
    pub fn weekday(self) -> i64 {
        (self.to_seconds().div_euclid(DAY) + 4).rem_euclid(7) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        let c = Civil::from_seconds(951_782_400);
        assert_eq!((c.year, c.month, c.day, c.weekday()), (2000, 2, 29, 3));
        let c = Civil::from_seconds(-1);
        assert_eq!(
            (c.year, c.month, c.day, c.hour, c.minute, c.second),
            (1969, 12, 31, 23, 59, 59)
        );
        assert_eq!(Civil::from_seconds(0).weekday(), 5, "a Thursday");
    }

    #[test]
    fn every_day_of_two_centuries_comes_back() {
        for day in -25_000..48_000 {
            let seconds = day * DAY + 12_345;
            assert_eq!(Civil::from_seconds(seconds).to_seconds(), seconds);
        }
    }

    #[test]
    fn impossible_fields_carry_over() {
        let c = Civil {
            year: 2023,
            month: 14,
            day: 31,
            hour: 0,
            minute: 0,
            second: 0,
        };
        let c = Civil::from_seconds(c.to_seconds());
        assert_eq!((c.year, c.month, c.day), (2024, 3, 2));
    }
}
