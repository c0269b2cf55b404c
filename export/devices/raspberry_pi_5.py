"""Raspberry Pi 5, by its CPU."""

from export.device import Device
from export.floor import Peaks

RASPBERRY_PI_5 = Device(
    name="raspberry_pi_5",
    title="Raspberry Pi 5",
    kind="cpu",
    model="Raspberry Pi 5",
    backends=("onnxruntime", "openvino"),
    peaks=Peaks(
        int8_tops=0.615,
        fp16_tops=0.308,
        fp32_tops=0.154,
        bandwidth_gb_s=17.1,
        cache_mb=5,
        beyond=1.5,
        source="Raspberry Pi publishes no peaks; computed: four Cortex-A76 at 2.4 GHz with two 128-bit pipes, each "
        "a fused multiply-add or a dot product of bytes a cycle, which cpufp's measurement of the BCM2712 "
        "reaches to a thousandth (614 int8 GOPS, 307 fp16 and 153.5 fp32 GFLOPS); LPDDR4X-4267 of 32 bits; "
        "L1 0.5, L2 2 and L3 2 MB; power not published; its firmware had a limit of 3.0 GHz, which was "
        "lifted (issue 1876 of raspberrypi/firmware): up to 3.6 GHz is allowed for",
        url="https://github.com/pigirons/cpufp/blob/master/benchmark_result/arm64/Broadcom_BCM2712.md",
    ),
)
