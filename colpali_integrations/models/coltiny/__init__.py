"""ColTiny, the bundled model: its codecs, and its files in `weights`."""
