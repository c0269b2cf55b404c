"""NVIDIA Jetson AGX Thor, module T5000 (Blackwell, integrated)."""

from export.device import Device
from export.floor import Peaks

THOR = Device(
    name="thor",
    title="Jetson AGX Thor",
    kind="cuda",
    model="Thor",
    backends=("tensorrt", "onnxruntime"),
    compute_capability="11.0",
    memory_gb=128,
    peaks=Peaks(
        fp16_tops=258.75,
        tf32_tops=129.4,
        fp32_tops=8.1,
        bandwidth_gb_s=273,
        watts=(40, 130),
        source="NVIDIA, Jetson Thor T5000: 2070 TFLOPS fp4 sparse, 1035 fp8 sparse, half of it dense; int8 not "
        "published, so that there is no floor of 8-bit networks; fp16 half and TF32 a quarter of fp8; "
        "fp32 computed: 2560 cores at 1.575 GHz; cache not published",
        url="https://www.nvidia.com/en-us/autonomous-machines/embedded-systems/jetson-thor/",
    ),
)
