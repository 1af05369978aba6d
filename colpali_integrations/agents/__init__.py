"""Tools for agents, without an import of any framework: pages as pictures that chat models take."""
