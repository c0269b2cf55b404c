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
        int8_tops=137.5,
        fp16_tops=68.75,
        tf32_tops=34.4,
        fp32_tops=5.3,
        bandwidth_gb_s=204.8,
        cache_mb=17,
        source="NVIDIA, IGX Orin 500: 248 TOPS int8 sparse without a card; bounds are those of the AGX Orin, "
        "which has the same chip at a higher clock; power not published for the chip alone",
        url="https://www.nvidia.com/en-us/edge-computing/products/igx/",
    ),
)
