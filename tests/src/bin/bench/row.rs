//! One figure, and the table of all.

use serde::Serialize;

/// One row of the result.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What kind of figure.
    pub group: &'static str,
    /// What was measured.
    pub name: String,
    /// The median.
    pub value: f64,
    /// Of `value`, `min`, `max` and `limit`.
    pub unit: &'static str,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
    /// The bare MAC swap, measured in turns with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<f64>,
    /// Floor and value over the floor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// What `value` must not exceed; of rates and the like: what it must reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// Whether it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass: Option<bool>,
}

/// The whole result.
#[derive(Serialize)]
pub struct Report {
    /// In the order of measuring.
    pub rows: Vec<Row>,
}

impl Row {
    /// The row of these measurements.
    pub fn new(
        group: &'static str,
        name: String,
        unit: &'static str,
        values: &[f64],
        limit: Option<f64>,
    ) -> Self {
        let value = median(values);
        Self {
            group,
            name,
            value: rounded(value),
            unit,
            min: rounded(values.iter().copied().fold(f64::INFINITY, f64::min)),
            max: rounded(values.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
            floor: None,
            ratio: None,
            limit: limit.map(rounded),
            pass: limit.map(|limit| value <= limit),
        }
    }

    /// The same of a value that all rounds have together; the spread is theirs.
    pub fn of_all(
        group: &'static str,
        name: String,
        unit: &'static str,
        value: f64,
        rounds: &[f64],
    ) -> Self {
        Self { value: rounded(value), ..Self::new(group, name, unit, rounds, None) }
    }

    /// The same of what must reach its limit.
    pub fn at_least(
        group: &'static str,
        name: String,
        unit: &'static str,
        values: &[f64],
        limit: f64,
    ) -> Self {
        let row = Self::new(group, name, unit, values, None);
        let pass = Some(row.value >= limit);
        Self { limit: Some(limit), pass, ..row }
    }

    /// A rate beside that of a bare XDP_TX, of which it has to reach a share.
    pub fn rate(name: String, values: &[f64], bare: f64, share: Option<f64>) -> Self {
        let row = Self::new("rate", name, "Mpps", values, None);
        let pass = share.map(|share| row.value >= share * bare);
        let (floor, ratio) = (Some(rounded(bare)), Some(rounded(row.value / bare)));
        Self { floor, ratio, limit: share.map(|share| rounded(share * bare)), pass, ..row }
    }

    /// With the same figure of what it is compared with.
    pub fn beside(self, other: f64) -> Self {
        let ratio = rounded(self.value / other);
        Self { floor: Some(rounded(other)), ratio: Some(ratio), ..self }
    }

    /// With what it is a difference to: the ratio is of the whole.
    pub fn beside_whole(self, other: f64) -> Self {
        self.above(other)
    }

    /// With the floor it stands on.
    pub fn above(self, floor: f64) -> Self {
        let ratio = rounded((floor + self.value) / floor);
        Self { floor: Some(rounded(floor)), ratio: Some(ratio), ..self }
    }
}

/// The middle of some measurements.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Prints rows for people.
pub fn print_table(rows: &[Row]) {
    println!(
        "{:<42} {:>8} {:>8} {:>8} {:>7} {:>6} {:>7}  unit",
        "", "median", "min", "max", "floor", "ratio", "limit"
    );
    let optional = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    for row in rows {
        let digits = if row.value.abs() < 20.0 { 2 } else { 0 };
        let verdict = match row.pass {
            Some(true) => " ok",
            Some(false) => " MISSED",
            None => "",
        };
        println!(
            "{:<42} {:>8.digits$} {:>8.digits$} {:>8.digits$} {:>7} {:>6} {:>7}{verdict}  {}",
            row.name,
            row.value,
            row.min,
            row.max,
            optional(row.floor, digits),
            optional(row.ratio, 2),
            optional(row.limit, digits),
            row.unit,
        );
    }
}
