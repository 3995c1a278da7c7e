//! Families of metrics: their head, and their samples one after another.

use std::fmt::Error;

use prometheus_client::{
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

use crate::api::types::Histogram;

/// Pairs of label names and values.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

/// One family.
pub struct Family<'a> {
    encoder: MetricEncoder<'a>,
    kind: MetricType,
}

/// The head of a family of values that go up and down.
pub fn gauge<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &'a str,
) -> Result<Family<'a>, Error> {
    family(encoder, MetricType::Gauge, name, help)
}

/// The head of a family of values that only go up; `name` is without `_total`.
pub fn counter<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &'a str,
) -> Result<Family<'a>, Error> {
    family(encoder, MetricType::Counter, name, help)
}

/// The head of a family of histograms.
pub fn histogram<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &'a str,
) -> Result<Family<'a>, Error> {
    family(encoder, MetricType::Histogram, name, help)
}

fn family<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    kind: MetricType,
    name: &'a str,
    help: &'a str,
) -> Result<Family<'a>, Error> {
    let encoder = encoder.encode_descriptor(name, help, None::<&Unit>, kind)?;
    Ok(Family { encoder, kind })
}

impl Family<'_> {
    /// Names of services, backends and NICs have no characters that would have to be escaped: `config` sees to it.
    pub fn sample(&mut self, labels: Labels<'_>, value: f64) -> Result<(), Error> {
        if labels.is_empty() {
            return encode(&mut self.encoder, self.kind, value);
        }
        encode(&mut self.encoder.encode_family(&labels)?, self.kind, value)
    }

    /// One histogram.
    pub fn buckets(&mut self, labels: Labels<'_>, histogram: &Histogram) -> Result<(), Error> {
        let Histogram { buckets, count, sum_seconds } = histogram;
        let mut before = 0;
        // The encoder sums up what is cumulative already, and takes the largest number for infinity.
        let apart: Vec<(f64, u64)> = buckets
            .iter()
            .copied()
            .chain([(f64::MAX, *count)])
            .map(|(bound, sum)| (bound, sum.saturating_sub(std::mem::replace(&mut before, sum))))
            .collect();
        let put = |encoder: &mut MetricEncoder<'_>| {
            encoder.encode_histogram::<NoLabelSet>(*sum_seconds, *count, &apart, None)
        };
        if labels.is_empty() {
            put(&mut self.encoder)
        } else {
            put(&mut self.encoder.encode_family(&labels)?)
        }
    }
}

fn encode(encoder: &mut MetricEncoder<'_>, kind: MetricType, value: f64) -> Result<(), Error> {
    match kind {
        MetricType::Counter => encoder.encode_counter::<NoLabelSet, f64, f64>(&value, None),
        _ => encoder.encode_gauge(&value),
    }
}

/// 1 or 0.
pub fn flag(on: bool) -> f64 {
    f64::from(u8::from(on))
}
