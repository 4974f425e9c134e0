"""A generator that is a network itself: weights in, weights out. See docs/learned.md."""

CELLS = {
    "parents": "new parents",
    "object": "new object",
    "attribute": "new attribute",
    "both": "both new",
    "few": "both new, few concepts",
}
"""What of the block a training has not seen: the judged networks; or all networks and photographs of a
concept or of both. Networks of other concepts may have been trained on such photographs."""
