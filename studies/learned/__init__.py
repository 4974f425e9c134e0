"""Generators that are learned by gradient: weights in, weights out. See docs/learned.md."""

CELLS = {
    "parents": "new parents",
    "object": "new object",
    "attribute": "new attribute",
    "both": "both new",
    "few": "both new, few concepts",
}
"""What of the block a training has not seen: the judged networks; or all networks and photographs of a
concept or of both. Networks of other concepts may have been trained on such photographs."""

DESIGNS = {
    "hypernetwork": "a network that reads filters as tokens and writes filters",
    "probes": "the closed form, with images that are learned",
}
"""What is learned, by name; `studies.learned.design.of_name` makes it."""
