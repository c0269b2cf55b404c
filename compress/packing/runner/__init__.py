"""What packs hold in Python: files that import nothing of segpress and read on Python 3.8."""
