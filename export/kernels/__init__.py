"""Kernels that runtimes do not have, in C++: compiled where there is a compiler, loaded from our own folder alone."""
