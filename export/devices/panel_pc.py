"""A panel PC or medical all-in-one with a small x86 processor (Intel N97, Celeron J6412 and the like), by its CPU."""

from export.device import Device

PANEL_PC = Device(
    name="panel_pc",
    title="panel PC with a small x86 processor",
    kind="cpu",
    backends=("onnxruntime", "openvino"),
)
