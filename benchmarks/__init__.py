"""Re-runnable measurements against the package's peers; see README.md."""
