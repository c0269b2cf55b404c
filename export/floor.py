"""The time that no runtime can go below on a device: operations at its peak, or bytes at its memory's bandwidth.

It is a bound, and never a prediction: networks of images reach a third to two thirds of a peak at best, and small ones
far less. What it allows for, so that it stays a bound, is in docs/devices.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Bits = Literal[8, 16, 32]

WINOGRAD = {2: 4.0, 3: 8.0}
"""How many times fewer multiplications the widest transform that runtimes use needs for a 3x3 (3x3x3) convolution in
float: F(4x4, 3x3), and half the saving along each axis of a volume (Lavin & Gray 2016, arXiv 1509.09308). Integers of 8
bits need more of them once transformed, and none of the runtimes here uses it for them (NCNN, which is none, does)."""
SPARSE = 2.0
"""How many times faster 2:4 weights are on tensor cores that know them (Mishra et al. 2021, arXiv 2104.08378)."""


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """What is published of a processor, in operations of dense matrices; a multiply-accumulate is two."""

    int8_tops: float | None = None
    """10^12 operations a second, of everything that can compute a network: GPU and DLA cores together."""
    fp16_tops: float | None = None
    tf32_tops: float | None = None
    """None where there is none; 32-bit networks are computed so where it is there."""
    fp32_tops: float | None = None
    bandwidth_gb_s: float | None = None
    """Of the memory, 10^9 bytes a second."""
    cache_mb: float | None = None
    """All on-chip memory together, where weights can stay from one image to the next; None: not published, and no bytes
    are counted."""
    watts: tuple[float, ...] = ()
    """Its power modes, or the power that it is made for."""
    beyond: float = 1.0
    """How many times faster its clock may be than the one that its peaks are published for."""
    source: str
    """Who publishes these numbers, and what was computed from what; what nobody publishes is None, and has no floor."""
    url: str = ""
    """The publisher's page."""

    def of(self, bits: int) -> float | None:
        """The peak for multiply-accumulates of so many bits; None where it is not published."""
        known = {8: [self.int8_tops], 16: [self.fp16_tops], 32: [self.fp32_tops, self.tf32_tops]}[bits]
        return max((peak * self.beyond for peak in known if peak is not None), default=None)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one image asks of a device, at least."""

    macs: int
    """As the layers are written: direct convolutions."""
    weights: int
    """Stored numbers that are read."""
    values: int
    """Numbers of the input and the output, 32 bits each."""
    bits: Bits = 32
    """Of the narrowest layers; the others are of 32."""
    dims: int = 2
    sparse: bool = False
    """Whether weights may be 2:4."""


@dataclass(frozen=True, kw_only=True)
class Floor:
    """A time that cannot be beaten."""

    ms: float
    by: Literal["operations", "bytes"]
    """What takes it."""

    @property
    def sentence(self) -> str:
        """What it is, wherever it is shown."""
        return f"cannot be beaten: {self.ms:.3g} ms, by its {self.by} alone; no prediction"


def floor_of(peaks: Peaks | None, work: Work) -> Floor | None:
    """The larger of both bounds; None where nothing that they need is published."""
    if peaks is None:
        return None
    bounds = (Floor(ms=ms, by=by) for by, ms in _bounds(peaks, work) if ms is not None and ms > 0)
    return max(bounds, key=lambda bound: bound.ms, default=None)


def _bounds(peaks: Peaks, work: Work) -> list[tuple[Literal["operations", "bytes"], float | None]]:
    return [("operations", _ms_of_operations(peaks, work)), ("bytes", _ms_of_bytes(peaks, work))]


def _ms_of_operations(peaks: Peaks, work: Work) -> float | None:
    """At the rate of the layers that run fastest: how many are of which kind is the runtime's choice."""
    rates = []
    for bits in {work.bits, 32}:
        peak = peaks.of(bits)
        if peak is None:
            return None
        rates.append(peak * (1 if bits == 8 else WINOGRAD[work.dims]))
    return 2 * work.macs / (max(rates) * (SPARSE if work.sparse else 1)) / 1e9


def _ms_of_bytes(peaks: Peaks, work: Work) -> float | None:
    """What does not fit on the chip is read at every image; what is between layers need never leave it."""
    if peaks.bandwidth_gb_s is None or peaks.cache_mb is None:
        return None
    weights = work.weights * work.bits / 8 / (SPARSE if work.sparse else 1)
    beyond_cache = weights + 4 * work.values - peaks.cache_mb * 1e6
    return max(0.0, beyond_cache) / (peaks.bandwidth_gb_s * peaks.beyond) / 1e6
