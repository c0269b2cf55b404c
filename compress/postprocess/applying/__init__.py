"""The order of the steps after the network, and what each of them is given."""
