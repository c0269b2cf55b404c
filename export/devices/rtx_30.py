"""Ampere, GeForce RTX 30 and RTX A series (GA10x). Engines for it can be built on any host."""

from export.device import Device

RTX_30 = Device(
    name="rtx_30",
    title="NVIDIA RTX 30 series",
    kind="cuda",
    backends=("tensorrt",),
    compute_capability="8.6",
)
