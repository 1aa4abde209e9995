"""The bundles that ship with Hilum."""
