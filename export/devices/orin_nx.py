"""NVIDIA Jetson Orin NX 16GB (Ampere, integrated, two DLA cores)."""

from export.device import Device
from export.floor import Peaks

ORIN_NX = Device(
    name="orin_nx",
    title="Jetson Orin NX",
    kind="cuda",
    model="Orin NX",
    dla_cores=2,
    backends=("tensorrt", "onnxruntime"),
    compute_capability="8.7",
    memory_gb=16,
    peaks=Peaks(
        int8_tops=79,
        fp16_tops=39.5,
        tf32_tops=19.75,
        fp32_tops=2.41,
        bandwidth_gb_s=102.4,
        cache_mb=22,
        watts=(10, 15, 25, 40),
        source="NVIDIA's blog as others quote it, Jetson Orin NX 16GB in its super mode: 157 TOPS int8 sparse, GPU "
        "and DLA together, half of it dense (100 before JetPack 6.2); computed from clocks and units it is "
        "78.8, rounded up: 8 multiprocessors of 4096 operations at 1.173 GHz, two DLA cores at 1.23 GHz "
        "(clocks and 102.4 GB/s: LimX, manual of the Oli EDU; AGX Orin's cores have 1.6); fp16 at most half "
        "and TF32 a quarter of dense int8; fp32 computed: 1024 cores; cache: that of the largest Orin",
        url="https://developer.nvidia.com/blog/nvidia-jetpack-6-2-brings-super-mode-to-nvidia-jetson-orin-nano-and-jetson-orin-nx-modules/",
    ),
)
