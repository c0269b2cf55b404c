"""NVIDIA Jetson AGX Orin 64GB (Ampere, integrated, two DLA cores); its bounds hold for the slower 32GB one too."""

from export.device import Device
from export.floor import Peaks

AGX_ORIN = Device(
    name="agx_orin",
    title="Jetson AGX Orin",
    kind="cuda",
    model="AGX Orin",
    dla_cores=2,
    backends=("tensorrt", "onnxruntime"),
    compute_capability="8.7",
    peaks=Peaks(
        int8_tops=138,
        fp16_tops=69,
        tf32_tops=34.5,
        fp32_tops=5.4,
        bandwidth_gb_s=204.8,
        cache_mb=22,
        watts=(15, 30, 50, 60),
        source="NVIDIA, README of its DLA software: at MAXN 171 TOPS of the GPU and 105 of two DLA cores, int8 and "
        "sparse, half of that dense (275 together as advertised); fp16 at most half and TF32 a quarter of "
        "dense int8; fp32 computed: 2048 cores at 1.3 GHz (5.3 published); 204.8 GB/s: 256 bits of LPDDR5 "
        "(table of Jetsons in Ultralytics' guide); cache published by one source (NVIDIA's technical brief) "
        "but for the last: L2 of the GPU 4, L1 3, system 4, L3 6, L2 of the CPU 3, DLA 2 MB",
        url="https://github.com/NVIDIA/Deep-Learning-Accelerator-SW",
    ),
)
