"""Ada Lovelace, GeForce RTX 40 series. Engines for it can be built on any host."""

from export.device import Device

RTX_40 = Device(
    name="rtx_40",
    title="NVIDIA RTX 40 series",
    kind="cuda",
    backends=("tensorrt",),
    compute_capability="8.9",
)
