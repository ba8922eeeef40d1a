"""Histograms over whole microseconds, in buckets that grow with the value: four for each power of two.

`bucket_of` needs no table and no float: it is cheap enough for every job. A bucket's value is off by an eighth at most.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

BUCKETS: Final = 140
"""Enough for 2**36 µs, 19 hours; what takes longer counts in the last."""
LAST: Final = BUCKETS - 1
MICROSECONDS: Final = 1_000_000

PROMETHEUS_POWERS: Final = (*range(8, 27), 28, 30, 32)
"""The powers of two, in µs, at which /metrics cuts: 256 µs to 67 s in factors of two, then 4.5, 18 and 72 minutes."""


class Histogram(Struct):
    """How often each bucket was hit, for those that were; `sum_us` is of the values themselves."""

    counts: dict[int, int] = {}
    sum_us: int = 0

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self.counts.values())

    def add(self, counts: Mapping[int, int], sum_us: int = 0) -> None:
        """Take in what another has counted."""
        add_counts(self.counts, counts)
        self.sum_us += sum_us

    def quantile_seconds(self, share: float) -> float:
        """The value that `share` (0 to 1) of the values are not above; 0 without values."""
        return quantile_us(self.counts, share) / MICROSECONDS

    def prometheus_buckets(self) -> list[tuple[float, int]]:
        """(upper bound in seconds, how many values are below it), cumulative, without +Inf."""
        found, total = [], 0
        ordered = sorted(self.counts.items())
        at = 0
        for power in PROMETHEUS_POWERS:
            end = bucket_of(1 << power)  # the first bucket that does not belong: a power of two begins one
            while at < len(ordered) and ordered[at][0] < end:
                total += ordered[at][1]
                at += 1
            found.append(((1 << power) / MICROSECONDS, total))
        return found


def bucket_of(us: int) -> int:
    """The bucket of so many microseconds. What is below zero, as by a clock set back, counts as zero."""
    if us < 4:
        return us if us > 0 else 0
    shift = us.bit_length() - 3
    bucket = (shift << 2) + (us >> shift)
    return bucket if bucket < LAST else LAST


def bounds_us(bucket: int) -> tuple[int, int]:
    """The values in a bucket: from the first up to, and without, the second."""
    if bucket < 4:
        return bucket, bucket + 1
    shift, mantissa = (bucket >> 2) - 1, (bucket & 3) + 4
    return mantissa << shift, (mantissa + 1) << shift


def middle_us(bucket: int) -> float:
    """What stands for the values in a bucket."""
    low, high = bounds_us(bucket)
    return (low + high - 1) / 2


def quantile_bucket(counts: Mapping[int, int], share: float) -> int:
    """The bucket of the value that `share` of the values are not above; 0 without values."""
    wanted = share * sum(counts.values())
    seen = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= wanted:
            return bucket
    return 0


def quantile_us(counts: Mapping[int, int], share: float) -> float:
    """As `quantile_bucket`, in microseconds; 0 without values."""
    return middle_us(quantile_bucket(counts, share)) if counts else 0.0


def add_counts(into: dict[int, int], counts: Mapping[int, int]) -> None:
    """Add sparse counts to others. A bucket from outside that does not exist counts as the last."""
    for bucket, count in counts.items():
        known = min(max(bucket, 0), LAST)
        into[known] = into.get(known, 0) + count


def count_values(into: dict[int, int], values_us: list[float]) -> int:
    """Add the values to sparse counts. Their sum, in whole microseconds.

    Values with the same first sixteen bits, which are sign, exponent and four bits of fraction, are in one bucket: so
    they are counted by these bits, in C, and only what is counted is given its bucket."""
    tops = memoryview(array("d", values_us)).cast("B").cast("H")[_TOP::4]
    for top, count in Counter(tops.tolist()).items():
        bucket = _BUCKET_OF_TOP.get(top)
        if bucket is None:
            bucket = _BUCKET_OF_TOP[top] = bucket_of(_value_of(top))
        into[bucket] = into.get(bucket, 0) + count
    return int(sum(values_us))


_TOP: Final = 3 if sys.byteorder == "little" else 0
_BUCKET_OF_TOP: Final[dict[int, int]] = {}


def _value_of(top: int) -> int:
    """The least value that begins with these bits, in whole microseconds."""
    return int(struct.unpack(">d", top.to_bytes(2, "big") + bytes(6))[0])


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """One histogram of all."""
    total = Histogram({}, 0)
    for histogram in histograms:
        total.add(histogram.counts, histogram.sum_us)
    return total
