"""Any module and arrays, without a recipe: prune, quantize, build and measure."""

import numpy as np
from torch import nn

import compress

net = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 2, 1)
)
images = np.random.default_rng(0).random((16, 1, 48, 48), np.float32)
masks = (images[:, 0] > 0.5).astype(np.uint8)

trained = compress.wrap(net, images, classes=["background", "bright"], test=(images, masks))
small = trained.apply(compress.Prune(ratio=0.5), compress.Int8(calibrate=8))
small.export("bright.onnx", "onnxruntime")
for wrapped in (trained, small):
    measured = wrapped.measure("onnxruntime", seconds=0.2)
    print(f"Dice {measured.dice:.3f}, {measured.latency_ms['p50']:.3f} ms, {measured.size_mb:.3f} MB")
