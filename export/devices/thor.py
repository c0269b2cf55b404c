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
        int8_tops=517.5,
        fp16_tops=258.75,
        tf32_tops=129.4,
        fp32_tops=8.1,
        bandwidth_gb_s=273,
        watts=(40, 130),
        source="NVIDIA, data sheet of the Jetson Thor T5000 as two who had it quote it (issue 4590 of "
        "NVIDIA/TensorRT, pull request 1710 of huggingface.js): 2070 TFLOPS fp4 sparse, 1035 int8 and fp8 "
        "sparse, 517 fp16 sparse, half of each dense; TF32 half of fp16; fp32 computed: 2560 cores at 1.575 "
        "GHz; 273 GB/s; cache not published",
        url="https://developer.nvidia.com/blog/introducing-nvidia-jetson-thor-the-ultimate-platform-for-physical-ai/",
    ),
)
