"""Compare two networks case by case: the drop with its limits, and what may be said of it."""

from pathlib import Path

from compress.gates.judging.non_inferiority import rule
from compress.gates.judging.paired_drop import paired_drop
from compress.passes.prune import Prune
from compress.recipe import load
from export.backends.torch import infer_from_module

task = load(Path(__file__).with_name("phantom.yaml")).task()

before = task.measure(infer_from_module(task.net))
after = task.measure(infer_from_module(Prune(ratio=0.25)(task.net, task)))
drop = paired_drop(before, after, "nerve", "dice")
ruling, why = rule(drop, margin=0.005)
print(f"nerve: Dice falls by {drop.mean:+.3f}, at most {drop.upper:+.3f} (95 %): {ruling}, {why}")
