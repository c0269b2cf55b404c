"""NVIDIA Jetson Orin NX 8GB (Ampere, integrated, one DLA core)."""

from export.device import Device
from export.floor import Peaks

ORIN_NX_8GB = Device(
    name="orin_nx_8gb",
    title="Jetson Orin NX 8GB",
    kind="cuda",
    model="Orin NX",
    dla_cores=1,
    backends=("tensorrt", "onnxruntime"),
    compute_capability="8.7",
    memory_gb=8,
    peaks=Peaks(
        int8_tops=59,
        fp16_tops=29.5,
        tf32_tops=14.75,
        fp32_tops=2.41,
        bandwidth_gb_s=102.4,
        cache_mb=22,
        watts=(10, 15, 20, 40),
        source="NVIDIA's blog as others quote it, Jetson Orin NX 8GB in its super mode: 117 TOPS int8 sparse, GPU "
        "and DLA together, half of it dense (70 before JetPack 6.2), published by one source; computed from "
        "the 16GB's clocks and units, with one DLA core, it is 58.6, rounded up; fp16 at most half and TF32 "
        "a quarter of dense int8; fp32 computed: 1024 cores at 1.173 GHz; cache: that of the largest Orin",
        url="https://developer.nvidia.com/blog/nvidia-jetpack-6-2-brings-super-mode-to-nvidia-jetson-orin-nano-and-jetson-orin-nx-modules/",
    ),
)
