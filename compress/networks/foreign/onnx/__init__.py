"""ONNX files of any producer, read, checked and tidied, and made into a module of torch's own layers and operators."""
