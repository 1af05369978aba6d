"""The engine: from pixels and words to multi-vectors and scores. It knows no framework."""
