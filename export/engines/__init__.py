"""TensorRT engines, wherever they are built and run (Python 3.8): nothing here imports TensorRT, which is handed in."""
