//! `bind` lines: where HAProxy listens.

use std::net::IpAddr;

/// One address of a `bind` line.
#[derive(Clone, Debug)]
pub(super) struct Bind {
    /// Number of the line.
    pub(super) line: usize,
    /// As it is written.
    pub(super) text: String,
    /// `mss`: the greatest that lb can clamp to.
    pub(super) mss: Option<u16>,
}

impl Bind {
    /// All of a line.
    pub(super) fn all(line: usize, addresses: &str, parameters: &[&str]) -> Vec<Self> {
        let mss = super::values::after(parameters, "mss").and_then(|mss| mss.parse().ok());
        let mss = mss.filter(|mss| (536..=9_000).contains(mss));
        let bind = |text: &str| Self { line, text: text.to_owned(), mss };
        addresses.split(',').map(bind).collect()
    }

    /// The address, if it names one.
    pub(super) fn address(&self) -> Option<IpAddr> {
        let host = self.text.rsplit_once(':').map_or(&*self.text, |(host, _)| host);
        let host = host.trim_start_matches("ipv4@").trim_start_matches("ipv6@");
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        address.filter(|address| !address.is_unspecified())
    }

    /// The port, and the last one of a range; `None` if it is neither.
    pub(super) fn ports(&self) -> Option<(u16, Option<u16>)> {
        let (_, port) = self.text.rsplit_once(':')?;
        let Some((first, last)) = port.split_once('-') else {
            return Some((port.parse().ok()?, None));
        };
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        match last {
            last if last == first => Some((first, None)),
            last if last > first => Some((first, Some(last))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_ports_and_ranges() {
        let binds = Bind::all(
            3,
            "ipv4@192.0.2.1:80,[2001:db8::1]:8000-8999,:443,*:5-5,x",
            &["mss", "1360"],
        );
        let found: Vec<_> = binds.iter().map(|bind| (bind.address(), bind.ports())).collect();
        assert_eq!(
            found,
            [
                ("192.0.2.1".parse().ok(), Some((80, None))),
                ("2001:db8::1".parse().ok(), Some((8_000, Some(8_999)))),
                (None, Some((443, None))),
                (None, Some((5, None))),
                (None, None),
            ]
        );
        assert!(binds.iter().all(|bind| bind.line == 3 && bind.mss == Some(1_360)));
        for nothing in [":", ":x", ":9-8", ":1-70000", ":-", "::", ":1-2-3"] {
            assert_eq!(Bind::all(1, nothing, &[])[0].ports(), None, "{nothing}");
        }
        for out in ["0", "535", "9001", "x"] {
            assert_eq!(Bind::all(1, ":80", &["mss", out])[0].mss, None, "{out}");
        }
    }
}
