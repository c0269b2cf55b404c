"""One runtime a file; a device's word for it is the file's name."""
