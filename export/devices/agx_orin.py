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
        int8_tops=137.5,
        fp16_tops=68.75,
        tf32_tops=34.4,
        fp32_tops=5.3,
        bandwidth_gb_s=204.8,
        cache_mb=17,
        watts=(15, 30, 50, 60),
        source="NVIDIA, Jetson AGX Orin technical brief: 275 TOPS int8 sparse (170 GPU, 105 DLA), half of it "
        "dense, 5.3 fp32 TFLOPS, 204.8 GB/s; fp16 at most half and TF32 a quarter of dense int8; cache: "
        "L2 of the GPU 4, system 4, L3 6, L2 of the CPU 3 MB",
        url="https://www.nvidia.com/en-us/autonomous-machines/embedded-systems/jetson-orin/",
    ),
)
