"""The CPU this process runs on, where every CPU that will run the artifact is known to have AVX-512 VNNI or AMX.

Weights keep all 8 bits: there every sum is exact (Intel's servers since Cascade Lake, AMD since Zen 4).
"""

from export.device import Device

CPU_VNNI = Device(
    name="cpu_vnni",
    title="this host's CPU, with AVX-512 VNNI or AMX",
    kind="cpu",
    backends=("torch", "onnxruntime", "onnxruntime_bits", "openvino"),
    exact_sums=True,
)
