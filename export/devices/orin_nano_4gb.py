"""NVIDIA Jetson Orin Nano 4GB (Ampere, integrated)."""

from export.device import Device
from export.floor import Peaks

ORIN_NANO_4GB = Device(
    name="orin_nano_4gb",
    title="Jetson Orin Nano 4GB",
    kind="cuda",
    model="Orin Nano",
    backends=("tensorrt", "onnxruntime"),
    compute_capability="8.7",
    memory_gb=4,
    peaks=Peaks(
        int8_tops=17,
        fp16_tops=8.5,
        tf32_tops=4.25,
        fp32_tops=1.05,
        bandwidth_gb_s=51.2,
        cache_mb=22,
        watts=(7, 10, 25),
        source="NVIDIA's blog as others quote it, Jetson Orin Nano 4GB in its super mode: 34 TOPS int8 sparse, half "
        "of it dense (20 and 34 GB/s before JetPack 6.2), published by one source (a list of others has 32); "
        "computed from clock and units it is 16.7: 4 multiprocessors of 4096 operations at 1.02 GHz; fp16 "
        "half and TF32 a quarter of dense int8; fp32 computed: 512 cores; 51.2 GB/s computed: half the bits "
        "of the 8GB; cache: that of the largest Orin",
        url="https://developer.nvidia.com/blog/nvidia-jetpack-6-2-brings-super-mode-to-nvidia-jetson-orin-nano-and-jetson-orin-nx-modules/",
    ),
)
