"""Parity with the reference implementations: generator, fixtures and tests."""
