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
        cache_mb=4,
        beyond=1.25,
        source="Raspberry Pi publishes no peaks; computed: four Cortex-A76 at 2.4 GHz with two 128-bit pipes, "
        "each a fused multiply-add or a dot product of bytes a cycle (Arm, Cortex-A76 software "
        "optimization guide); LPDDR4X-4267 of 32 bits; L2 2 and L3 2 MB; power not published; it can be "
        "overclocked to 3.0 GHz",
        url="https://www.raspberrypi.com/products/raspberry-pi-5/",
    ),
)
