"""A device reached over SSH: a small program is sent there once, and asked to run and to time what is built here."""
