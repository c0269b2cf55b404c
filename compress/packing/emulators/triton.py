"""Triton, as far as an ensemble takes: reads config.pbtxt, passes tensors from model to model, and checks each.

Refused is what Triton refuses: tensors of another type or shape than the config says, names that no model has. A pack's
Python runs in a process of its own: `python -m compress.packing.emulators.triton REPOSITORY OUT IMAGE...` writes a mask
(.npy) for each image.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compress.errors import SegpressError

Tensor = NDArray[Any]
Config = dict[str, list[Any]]
"""A message: each field's values in their order, messages among them."""
TYPES = {"TYPE_UINT8": np.uint8, "TYPE_INT64": np.int64, "TYPE_FP32": np.float32}
_TOKEN = re.compile(r'\s*(?:#[^\n]*\n\s*)*("(?:[^"\\]|\\.)*"|[\w.+-]+|[:{}\[\],;<>])')


def served(repository: Path, images: Sequence[Path], scratch: Path) -> list[Tensor]:
    """The masks of images (HW uint8 each), in a process of its own."""
    command = [sys.executable, "-B", "-m", "compress.packing.emulators.triton", str(repository), str(scratch)]
    done = subprocess.run([*command, *map(str, images)], capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise SegpressError(f"the model repository does not answer: {last}")
    return [np.load(scratch / f"{number}.npy") for number in range(len(images))]


def read_config(path: Path) -> Config:
    """A config.pbtxt (protobuf's text format)."""
    tokens = iter(_TOKEN.findall(path.read_text()))
    return _message(tokens, "")


def _message(tokens: Iterator[str], end: str) -> Config:
    found: Config = {}
    for token in tokens:
        if token == end:
            break
        if token in ",;":
            continue
        values = found.setdefault(token, [])
        following = next(tokens)
        if following == ":":
            following = next(tokens)
        values += _list(tokens) if following == "[" else [_value(tokens, following)]
    return found


def _list(tokens: Iterator[str]) -> list[Any]:
    values = []
    for token in tokens:
        if token == "]":
            break
        if token != ",":
            values.append(_value(tokens, token))
    return values


def _value(tokens: Iterator[str], token: str) -> Any:
    if token == "{":
        return _message(tokens, "}")
    if token.startswith('"'):
        return token[1:-1]
    return int(token) if re.fullmatch(r"-?\d+", token) else token


class Server:
    """The models of a repository."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.configs = {path.parent.name: read_config(path) for path in repository.glob("*/config.pbtxt")}
        self.opened: dict[str, Any] = {}
        for name, config in self.configs.items():
            if config["name"] != [name] or not (repository / name / "1").is_dir():
                raise SegpressError(f"{name}: its config is of {config['name']}, or it has no version 1")

    @property
    def ensemble(self) -> str:
        """The name of the one that is asked."""
        (name,) = (name for name, config in self.configs.items() if config.get("platform") == ["ensemble"])
        return name

    def infer(self, name: str, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a model answers, each tensor by its name."""
        config = self.configs[name]
        self._check(name, "input", given)
        if config.get("platform") == ["ensemble"]:
            answers = self._in_turn(config, given)
        elif config["backend"] == ["python"]:
            answers = self._by_python(name, given)
        else:
            answers = self._by_runtime(name, config["backend"][0], given)
        self._check(name, "output", answers)
        return answers

    def _check(self, name: str, word: str, tensors: Mapping[str, Tensor]) -> None:
        ports = {port["name"][0]: port for port in self.configs[name][word]}
        if set(ports) != set(tensors):
            raise SegpressError(f"{name}: {word}s are {', '.join(ports)}, given are {', '.join(tensors)}")
        for port, tensor in tensors.items():
            dims, kind = ports[port]["dims"], TYPES[ports[port]["data_type"][0]]
            fits = tensor.ndim == len(dims) and all(
                side in (-1, has) for side, has in zip(dims, tensor.shape, strict=True)
            )
            if tensor.dtype != kind or not fits:
                raise SegpressError(f"{name}: {port} is {tensor.dtype} {tensor.shape}, its config says {kind} {dims}")

    def _in_turn(self, config: Config, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        tensors = dict(given)
        for step in config["ensemble_scheduling"][0]["step"]:
            into, out = (
                {one["key"][0]: one["value"][0] for one in step.get(word, [])} for word in ("input_map", "output_map")
            )
            answers = self.infer(step["model_name"][0], {port: tensors[name] for port, name in into.items()})
            tensors |= {name: answers[port] for port, name in out.items()}
        return {port["name"][0]: tensors[port["name"][0]] for port in config["output"]}

    def _by_python(self, name: str, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if name not in self.opened:
            sys.modules["triton_python_backend_utils"] = _utilities()
            path = self.repository / name / "1" / "model.py"
            spec = importlib.util.spec_from_file_location(f"served_{name}", path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            self.opened[name] = module.TritonPythonModel()
            self.opened[name].initialize({"model_name": name})
        (response,) = self.opened[name].execute([dict(given)])
        return {tensor.name: tensor.as_numpy() for tensor in response.output_tensors}

    def _by_runtime(self, name: str, backend: str, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        (image,), (out,) = given.values(), (port["name"][0] for port in self.configs[name]["output"])
        if name not in self.opened:
            # Its own program opens models as the runtime's backend does; it lies beside the model before this one.
            from segpress_run import RUNTIMES

            (model,) = (self.repository / name / "1").glob("model.[ox][nm][nl]*")
            self.opened[name] = RUNTIMES[backend](model)
        return {out: self.opened[name](image)}


def main(words: Sequence[str]) -> None:
    """Write the mask of each image."""
    server, out = Server(Path(words[0])), Path(words[1])
    for number, path in enumerate(words[2:]):
        with Image.open(path) as image:
            (channels,) = (port["dims"][2] for port in server.configs[server.ensemble]["input"])
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
        pixels_HWC = pixels.reshape(*pixels.shape[:2], channels)
        np.save(out / f"{number}.npy", server.infer(server.ensemble, {"IMAGE": pixels_HWC})["MASK"])


def _utilities() -> ModuleType:
    """What Triton gives a Python model under the name triton_python_backend_utils, as far as ours asks."""

    class Named:
        def __init__(self, name: str, values: Tensor) -> None:
            self.name, self._values = name, values

        def as_numpy(self) -> Tensor:
            return self._values

    class Response:
        def __init__(self, tensors: Sequence[Named]) -> None:
            self.output_tensors = tensors

    made = ModuleType("triton_python_backend_utils")
    made.Tensor, made.InferenceResponse = Named, Response  # type: ignore[attr-defined]
    made.get_input_tensor_by_name = lambda request, name: Named(name, request[name])  # type: ignore[attr-defined]
    return made


if __name__ == "__main__":
    main(sys.argv[1:])
