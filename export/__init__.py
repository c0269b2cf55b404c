"""Everything below ONNX: export, artifacts, runtimes, devices. Useful alone; never imports compress."""
