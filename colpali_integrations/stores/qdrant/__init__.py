"""The engine on a Qdrant server or cluster."""
