"""What lies between a recipe and a report: the network after each step, its artifacts, and what is measured on them."""
