"""NVIDIA Jetson Orin Nano 8GB (Ampere, integrated)."""

from export.device import Device
from export.floor import Peaks

ORIN_NANO = Device(
    name="orin_nano",
    title="Jetson Orin Nano",
    kind="cuda",
    model="Orin Nano",
    backends=("tensorrt", "onnxruntime"),
    compute_capability="8.7",
    memory_gb=8,
    peaks=Peaks(
        int8_tops=33.5,
        fp16_tops=16.75,
        tf32_tops=8.4,
        fp32_tops=2.1,
        bandwidth_gb_s=102.4,
        cache_mb=22,
        watts=(7, 15, 25),
        source="NVIDIA's blog as others quote it, Jetson Orin Nano Super: 67 TOPS int8 sparse at 25 W, half of it "
        "dense, 102 GB/s (as issue 3405 of golemfactory/yagna quotes its page; 40 and 68 before JetPack "
        "6.2); computed from clock and units it is the same: 8 multiprocessors of 4096 operations at 1.02 "
        "GHz (clock: InHand, manual of the EC5000); fp16 half and TF32 a quarter of dense int8; fp32 "
        "computed: 1024 cores; cache: that of the largest Orin",
        url="https://developer.nvidia.com/blog/nvidia-jetpack-6-2-brings-super-mode-to-nvidia-jetson-orin-nano-and-jetson-orin-nx-modules/",
    ),
)
