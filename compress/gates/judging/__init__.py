"""What gates share: the options, the artifacts they apply to, what these are compared with, tests and verdicts."""
