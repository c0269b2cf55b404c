"""Integers in an ONNX file: where they go, their scales and weights, and what each processor makes of them."""
