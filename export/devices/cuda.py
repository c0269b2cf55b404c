"""The NVIDIA GPU in this host, whichever it is."""

from export.device import Device

CUDA = Device(name="cuda", title="this host's NVIDIA GPU", kind="cuda", backends=("torch", "onnxruntime", "tensorrt"))
