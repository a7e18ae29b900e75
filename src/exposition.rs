//! Metrics that are read from their owners when they are asked for, as families of one name.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Names of labels, each with its value.
pub(crate) type Labels<const N: usize> = [(&'static str, String); N];

/// What the text form of metrics is called.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Values that go up and down. Of none at all, not even the name is written.
pub(crate) fn gauges<const N: usize>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (Labels<N>, u64)>,
) -> fmt::Result
where
    Labels<N>: EncodeLabelSet,
{
    let values = values
        .into_iter()
        .map(|(labels, value)| (labels, ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))));
    family(encoder, name, help, values)
}

/// Values that only go up, as [`gauges`].
pub(crate) fn counters<const N: usize>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (Labels<N>, u64)>,
) -> fmt::Result
where
    Labels<N>: EncodeLabelSet,
{
    family(encoder, name, help, values.into_iter().map(|(labels, value)| (labels, ConstCounter::new(value))))
}

/// Values under a name as it is, as [`gauges`]. What only goes up is called a counter under a name that ends in `_total` alone,
/// so these are of no type.
pub(crate) fn plain<const N: usize>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (Labels<N>, u64)>,
) -> fmt::Result
where
    Labels<N>: EncodeLabelSet,
{
    family(encoder, name, help, values.into_iter().map(|(labels, value)| (labels, Plain(value))))
}

struct Plain(u64);

impl EncodeMetric for Plain {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        encoder.encode_gauge(&self.0)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Unknown
    }
}

fn family<const N: usize, M: EncodeMetric>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (Labels<N>, M)>,
) -> fmt::Result
where
    Labels<N>: EncodeLabelSet,
{
    let mut values = values.into_iter().peekable();
    let Some((_, first)) = values.peek() else { return Ok(()) };
    let mut metric = encoder.encode_descriptor(name, help, None, first.metric_type())?;
    if N == 0 {
        return values.next().map_or(Ok(()), |(_, value)| value.encode(metric));
    }
    for (labels, value) in values {
        value.encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}
