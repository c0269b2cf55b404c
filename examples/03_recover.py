"""Train a pruned network again, with the network it came from as its teacher."""

import dataclasses
from pathlib import Path

from compress.passes.distill import Distill
from compress.passes.prune import Prune
from compress.recipe import load
from export.backends.torch import infer_from_module

task = dataclasses.replace(load(Path(__file__).with_name("phantom.yaml")).task(), note=print)

smaller = Prune(ratio=0.25)(task.net, task)
# A real recovery takes hundreds of cases and dozens of epochs: this one shows the call.
recovered = Distill(epochs=1, rate=1e-3)(smaller, task)
print(f"Dice after one epoch on 4 cases: {task.measure(infer_from_module(recovered)).mean('dice'):.3f}")
