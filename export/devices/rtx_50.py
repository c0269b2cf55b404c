"""Blackwell, GeForce RTX 50 series. Engines for it can be built on any host."""

from export.device import Device

RTX_50 = Device(
    name="rtx_50",
    title="NVIDIA RTX 50 series",
    kind="cuda",
    backends=("tensorrt",),
    compute_capability="12.0",
)
