"""NVIDIA IGX Orin by its integrated GPU (Ampere, two DLA cores); a card beside it is a device of its own."""

from export.device import Device
from export.floor import Peaks

IGX_ORIN = Device(
    name="igx_orin",
    title="IGX Orin",
    kind="cuda",
    model="IGX Orin",
    dla_cores=2,
    backends=("tensorrt", "onnxruntime"),
    compute_capability="8.7",
    memory_gb=64,
    peaks=Peaks(
        int8_tops=138,
        fp16_tops=69,
        tf32_tops=34.5,
        fp32_tops=5.4,
        bandwidth_gb_s=204.8,
        cache_mb=22,
        source="248 TOPS int8 sparse without a card, as NVIDIA advertises (read in what others say of it); Linux's "
        "device tree names its module p3701-0008, which is the AGX Orin Industrial, of the same chip at "
        "lower clocks: bounds are those of the AGX Orin; power not published for the chip alone",
        url="https://github.com/torvalds/linux/blob/master/Documentation/devicetree/bindings/arm/tegra.yaml",
    ),
)
