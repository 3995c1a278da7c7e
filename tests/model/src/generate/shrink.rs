//! The least frame that still shows something.

use crate::ip::IP;

/// Shortens a frame and clears its bytes as long as it still `shows` what it did.
pub fn shrink(frame: &[u8], mut shows: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut least = frame.to_vec();
    let mut step = least.len() / 2;
    while step > 0 {
        while least.len() >= IP + step && shows(&least[..least.len() - step]) {
            least.truncate(least.len() - step);
        }
        step /= 2;
    }
    for at in 0..least.len() {
        let old = std::mem::take(&mut least[at]);
        if old != 0 && !shows(&least) {
            least[at] = old;
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_stays() {
        let frame: Vec<u8> = (1..=200).collect();
        let least = shrink(&frame, |frame| frame.get(40) == Some(&41));
        assert_eq!(least.len(), 41);
        assert_eq!(least.iter().filter(|byte| **byte != 0).count(), 1);
    }
}
