"""The CPU this process runs on."""

from export.device import Device

CPU = Device(
    name="cpu", title="this host's CPU", kind="cpu", backends=("torch", "onnxruntime", "onnxruntime_bits", "openvino")
)
