"""Networks on disk, without pickle."""
