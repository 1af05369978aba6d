"""The parts of `stores.ingest`: the plan of a run, its outcomes, and what it reports."""
