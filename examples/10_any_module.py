"""Any module and arrays, without a recipe: train it as you do, then prune, quantize, build and measure it."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import compress

net = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 2, 1)
)
images = np.random.default_rng(0).random((16, 1, 48, 48), np.float32)
masks = (images[:, 0] > 0.5).astype(np.uint8)

torch.manual_seed(0)
optimizer = torch.optim.Adam(net.parameters(), 0.01)
for _ in range(40):
    loss = functional.cross_entropy(net(torch.from_numpy(images[:8])), torch.from_numpy(masks[:8]).long())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

trained = compress.wrap(net, images[:8], classes=["background", "bright"], test=(images[8:], masks[8:]))
small = trained.apply(compress.Prune(ratio=0.5, by="interpolative", refit=True), compress.Int8(calibrate=8))
small.export("bright.onnx", "onnxruntime")
for wrapped in (trained, small):
    measured = wrapped.measure("onnxruntime", seconds=0.2)
    print(f"Dice {measured.dice:.3f}, {measured.latency_ms['p50']:.3f} ms, {measured.size_mb:.3f} MB")
