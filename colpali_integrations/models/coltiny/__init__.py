"""ColTiny, the bundled model: its codecs and, in `weights`, its files."""
