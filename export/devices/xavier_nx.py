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
        int8_tops=22.7,
        fp16_tops=11.35,
        fp32_tops=0.86,
        bandwidth_gb_s=59.7,
        watts=(10, 15, 20),
        source="NVIDIA, data sheet of the Jetson Xavier NX: up to 21 TOPS int8, GPU and DLA together (Volta has no "
        "sparsity: dense); computed from units and the clocks of its fastest mode it is 22.7, which is "
        "taken: 48 tensor cores of 256 operations at 1.11 GHz, and two DLA cores at 1.1 GHz (11.4 TOPS at "
        "1.4 GHz in the AGX Xavier); fp16 at most half of int8; fp32 computed: 384 cores; 59.7 GB/s (51.2 in "
        "its first data sheets); cache not published as one number",
        url="https://documents.pub/document/data-sheet-preliminary-nvidia-jetson-xavier-nx-system-on-xavier-nx-data-sheetpdf.html",
    ),
)
