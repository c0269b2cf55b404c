"""NVIDIA Jetson Orin Nano (Ampere, integrated). Its engines are built on the device itself."""

from export.device import Device

ORIN_NANO = Device(
    name="orin_nano",
    title="Jetson Orin Nano",
    kind="cuda",
    model="Orin Nano",
    backends=("tensorrt", "onnxruntime"),
    compute_capability="8.7",
)
