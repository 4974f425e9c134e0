"""Labelled images: three sources behind one `Source`, and the held-out-quadrant split."""
