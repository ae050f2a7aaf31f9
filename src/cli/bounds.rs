//! Numbers that options take, and the bounds that they must lie within.

/// Reads a number of `unit` from `least` to `most`.
pub(super) fn within(
    least: f64,
    most: f64,
    unit: &'static str,
) -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync + 'static {
    move |text| match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        Ok(_) => Err(format!("it must lie between {least} and {most} {unit}")),
        Err(_) => Err(format!("it is a number of {unit}")),
    }
}

/// Reads a number of gigabytes from `least`.
pub(super) fn gigabytes(least: f64) -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync + 'static {
    within(least, 10_000.0, "gigabytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_out_of_bounds_is_told_them() {
        let read = within(0.5, 120.0, "seconds");
        assert_eq!(read("8"), Ok(8.0));
        assert_eq!(read("0.1"), Err("it must lie between 0.5 and 120 seconds".into()));
        assert!(read("nan").is_err() && read("inf").is_err());
        assert_eq!(read("soon"), Err("it is a number of seconds".into()));
    }
}
