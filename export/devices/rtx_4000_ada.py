"""NVIDIA RTX 4000 Ada Generation, the workstation card (AD104)."""

from export.device import Device
from export.floor import Peaks

RTX_4000_ADA = Device(
    name="rtx_4000_ada",
    title="NVIDIA RTX 4000 Ada",
    kind="cuda",
    backends=("tensorrt", "onnxruntime"),
    compute_capability="8.9",
    memory_gb=20,
    peaks=Peaks(
        int8_tops=213.8,
        fp16_tops=106.9,
        tf32_tops=53.5,
        fp32_tops=26.7,
        bandwidth_gb_s=360,
        cache_mb=64,
        watts=(130,),
        beyond=1.5,
        source="NVIDIA, RTX 4000 Ada data sheet as others quote it: 26.7 fp32 TFLOPS, 427.6 tensor TFLOPS (fp8 "
        "sparse: half of it dense, and as much dense int8), 360 GB/s, 130 W; computed from units and its "
        "boost clock it is the same: 48 multiprocessors of 2048 operations at 2.175 GHz (siliconcat.net "
        "lists both); fp16 half of it, TF32 a quarter; cache: L2 48, L1 6 MB and room to spare; a card may "
        "boost beyond its published clock",
        url="https://www.nvidia.com/en-us/design-visualization/rtx-4000/",
    ),
)
