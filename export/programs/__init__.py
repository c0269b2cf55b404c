"""What torch.export gives: kept for networks of one structure, and written in the operations that ONNX knows."""
