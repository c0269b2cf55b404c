"""NVIDIA L4 (Ada, AD104)."""

from export.device import Device
from export.floor import Peaks

L4 = Device(
    name="l4",
    title="NVIDIA L4",
    kind="cuda",
    backends=("tensorrt", "onnxruntime"),
    compute_capability="8.9",
    memory_gb=24,
    peaks=Peaks(
        int8_tops=242.5,
        fp16_tops=121.25,
        tf32_tops=60.6,
        fp32_tops=30.3,
        bandwidth_gb_s=300,
        cache_mb=64,
        watts=(72,),
        source="NVIDIA, L4 data sheet as others quote it: 30.3 fp32 TFLOPS, sparse 120 TF32, 242 fp16, 485 int8: "
        "half of each dense; 300 GB/s, 72 W; its boost clock of 2040 MHz is its highest; cache: L2 48, L1 "
        "7.5 MB and room to spare (sourcecode.com and fpsbench.com list the same numbers and clocks)",
        url="https://www.nvidia.com/en-us/data-center/l4/",
    ),
)
