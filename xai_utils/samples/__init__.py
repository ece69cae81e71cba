"""What can be explained, and its truth where it is known."""

from xai_utils.samples import (
    chats,
    folders,
    gender,
    passages,
    planted,
    prompts,
    recall,
    scenes,
    sets,
    spans,
    watermark,
)
from xai_utils.samples.bundled import (
    PHOTOGRAPHS,
    REVIEWS,
    SENTIMENT,
    imdb,
    labelled,
    marked_pictures,
    mosaic,
    mosaics,
    paragraphs,
    picture,
    reviews,
    scene_pictures,
    sst2,
    text,
)
from xai_utils.samples.folders import photographs
from xai_utils.samples.kinds import Picture, Text
