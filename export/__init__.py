"""Everything below ONNX: export, artifacts, runtimes, devices. Useful alone; never imports compress."""

import os
import sys

# ONNX Runtime (since 1.29) and OpenVINO tell their makers of every model that they open, its file's name and hash.
# What runs in a hospital tells nobody, unless its owner has said otherwise before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
