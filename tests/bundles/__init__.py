"""Bundles that tests run, and how their networks were trained."""
