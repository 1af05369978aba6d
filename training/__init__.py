"""How the bundled ColTiny model was made: data, rendering, training, export and evaluation.

Nothing in here is imported by the ``colpali_integrations`` package. See ``training/README.md``.
"""
