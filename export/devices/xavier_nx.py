"""NVIDIA Jetson Xavier NX (Volta, integrated, two DLA cores)."""

from export.device import Device
from export.floor import Peaks

XAVIER_NX = Device(
    name="xavier_nx",
    title="Jetson Xavier NX",
    kind="cuda",
    model="Xavier NX",
    dla_cores=2,
    backends=("tensorrt", "onnxruntime"),
    compute_capability="7.2",
    peaks=Peaks(
        int8_tops=21,
        fp16_tops=10.5,
        fp32_tops=0.85,
        bandwidth_gb_s=59.7,
        watts=(10, 15, 20),
        source="NVIDIA, Jetson Xavier NX: 21 TOPS int8, GPU and DLA together (Volta has no sparsity: dense), "
        "59.7 GB/s (51.2 in its first data sheets); fp16 at most half of int8; fp32 computed: 384 cores "
        "at 1.1 GHz; cache not published as one number",
        url="https://developer.nvidia.com/embedded/jetson-xavier-nx",
    ),
)
