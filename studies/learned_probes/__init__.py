"""Probe images of `reduce`, trained through its closed form and evaluated on a held-out block of pairs."""
