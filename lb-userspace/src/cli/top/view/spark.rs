//! A course over time in one line of text.

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The last `width` values at the right, each as high as it is of the largest; nothing is an empty place.
pub fn line(values: &[f64], width: usize) -> String {
    let shown = &values[values.len().saturating_sub(width)..];
    let largest = shown.iter().copied().fold(0.0, f64::max);
    let bar = |value: &f64| match *value / largest {
        // No traffic at all (0 / 0), or none just then.
        share if share.is_nan() || share <= 0.0 => ' ',
        share => BARS[((share * 8.0).ceil() as usize).clamp(1, 8) - 1],
    };
    let bars: String = shown.iter().map(bar).collect();
    format!("{bars:>width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_is_full_and_nothing_is_empty() {
        assert_eq!(line(&[0.0, 1.0, 4.0, 8.0], 4), " ▁▄█");
        assert_eq!(line(&[0.0, 0.0], 4), "    ");
        assert_eq!(line(&[8.0, 0.001], 3), " █▁");
        assert_eq!(line(&[9.0, 1.0, 1.0], 2), "██", "only what is shown counts");
        assert_eq!(line(&[], 2), "  ");
    }
}
