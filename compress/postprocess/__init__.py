"""One step after the network a file: what is done to logits or labels before they are scored."""
