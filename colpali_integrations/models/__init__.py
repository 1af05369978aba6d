"""Models: from a name or folder to `ColPali`, which encodes pages and queries."""
