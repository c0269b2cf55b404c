"""NVIDIA RTX A2000 (Ampere, GA106)."""

from export.device import Device
from export.floor import Peaks

RTX_A2000 = Device(
    name="rtx_a2000",
    title="NVIDIA RTX A2000",
    kind="cuda",
    backends=("tensorrt", "onnxruntime"),
    compute_capability="8.6",
    peaks=Peaks(
        int8_tops=63.9,
        fp16_tops=31.95,
        tf32_tops=16,
        fp32_tops=8.0,
        bandwidth_gb_s=288,
        cache_mb=7,
        watts=(70,),
        beyond=1.75,
        source="NVIDIA, RTX A2000 data sheet as others quote it: 8.0 fp32 TFLOPS, 63.9 tensor TFLOPS (fp16 sparse: "
        "half of it dense, and as much dense int8), 288 GB/s, 70 W, at a boost clock of 1.2 GHz; computed "
        "from units and that clock it is the same: 26 multiprocessors of 2048 operations; fp16 half, TF32 a "
        "quarter of int8; the card's own limit is 2.1 GHz; cache: L2 3, L1 3.3 MB",
        url="https://www.nvidia.com/en-us/design-visualization/rtx-a2000/",
    ),
)
