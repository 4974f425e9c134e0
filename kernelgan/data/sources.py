"""The three sources behind one call, and a picture of what they give."""

from __future__ import annotations

import numpy as np

from kernelgan.data import folder, procedural, quadrants, tfds
from kernelgan.data.images import Progress, Source
from kernelgan.types import Config

_SHEET_COLUMNS = 12


def load_source(config: Config, progress: Progress) -> Source:
    """Loads the images that ``config.data`` names, labelled for the concepts of ``config.pairs``.

    Raises:
      UserError: whatever is wrong with the data.
    """
    data, pairs = config.data, config.pairs
    concepts = {"attributes": tuple(pairs.attributes), "objects": tuple(pairs.objects)}
    if data.source == "rendered":
        return procedural.load(
            **concepts,
            train=data.rendered.train,
            test=data.rendered.test,
            image_size=data.image_size,
            seed=config.seed,
            progress=progress,
        )
    if data.source == "tfds":
        return tfds.load(
            data.tfds.name,
            data_dir=data.tfds.data_dir,
            **concepts,
            image_size=data.image_size,
            seed=config.seed,
            progress=progress,
        )
    return folder.load(
        data.folder,
        **concepts,
        image_size=data.image_size,
        broken_share=data.broken_share,
        progress=progress,
    )


def contact_sheet(
    config: Config, source: Source, pair: quadrants.PairSplit
) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """What the images look like: every object in every colour, or some test images of each quadrant.

    Returns:
      uint8 ``(rows, columns, H, W, 3)``, the rows' names and the columns' names.
    """
    if config.data.source == "rendered":
        return procedural.contact_sheet(config.seed, config.data.image_size)
    rows, names = [], []
    for number, quadrant in enumerate((*quadrants.QUADRANTS, "rest")):
        found = np.flatnonzero(pair.test == number)
        if len(found):
            rows.append(source.test.images[np.resize(found, _SHEET_COLUMNS)])
            names.append(f"{pair.name}: {quadrant}")
    return np.stack(rows), tuple(names), tuple(str(column + 1) for column in range(_SHEET_COLUMNS))
