"""Side-by-side measurements against other tools; each writes its result beside itself."""
