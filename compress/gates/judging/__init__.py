"""What all gates share: verdicts, and the paired drop that most of them read."""
