"""Names of keypoints and expressions, the mirror permutation, and label sets: pure data.

"left" is the subject's left, which lies at larger x in a picture that is not mirrored.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

KEYPOINTS: Final = (
    "left_eye_center",
    "right_eye_center",
    "left_eye_inner_corner",
    "left_eye_outer_corner",
    "right_eye_inner_corner",
    "right_eye_outer_corner",
    "left_eyebrow_inner_end",
    "left_eyebrow_outer_end",
    "right_eyebrow_inner_end",
    "right_eyebrow_outer_end",
    "nose_tip",
    "mouth_left_corner",
    "mouth_right_corner",
    "mouth_center_top_lip",
    "mouth_center_bottom_lip",
)
"""The 15 points of Kaggle's Facial Keypoints Detection set (2013), in that set's order."""


def _other_side(name: str) -> str:
    words = {"left": "right", "right": "left"}
    return "_".join(words.get(word, word) for word in name.split("_"))


MIRROR_PERMUTATION: Final = tuple(KEYPOINTS.index(_other_side(name)) for name in KEYPOINTS)
"""Point k of a mirrored face is point MIRROR_PERMUTATION[k] of the face as it was."""

OUTER_EYE_CORNERS: Final = (
    KEYPOINTS.index("left_eye_outer_corner"),
    KEYPOINTS.index("right_eye_outer_corner"),
)
"""The two points whose distance normalises keypoint errors (NME)."""

KEYPOINTS_FROM_IBUG68: Final = (
    (42, 43, 44, 45, 46, 47),
    (36, 37, 38, 39, 40, 41),
    (42,),
    (45,),
    (39,),
    (36,),
    (22,),
    (26,),
    (21,),
    (17,),
    (30,),
    (54,),
    (48,),
    (51,),
    (57,),
)
"""Each of KEYPOINTS is the mean of these 0-based points of the iBUG 300-W 68-point scheme."""

EXPRESSIONS: Final = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""FER2013's seven classes, in that set's order."""

FERPLUS: Final = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt")
"""The eight expressions of FER+, in the order of its vote columns."""

DEFAULT_HEAD: Final = "fer2013"
"""The expression head that analyses use, whatever its classes are."""

RAF_DB: Final = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")
"""RAF-DB's labels 1..7."""

LABEL_SETS: Final = MappingProxyType(
    {
        "fer2013": EXPRESSIONS,
        "ferplus": FERPLUS,
        "contempt_without_disgust": ("angry", "contempt", "fear", "happy", "sad", "surprise", "neutral"),
        "four": ("happy", "sad", "angry", "neutral"),
    }
)

EXPRESSION_SYNONYMS: Final = MappingProxyType(
    {
        "anger": "angry",
        "an": "angry",
        "disgusted": "disgust",
        "di": "disgust",
        "fearful": "fear",
        "afraid": "fear",
        "scared": "fear",
        "fe": "fear",
        "happiness": "happy",
        "joy": "happy",
        "ha": "happy",
        "sadness": "sad",
        "sa": "sad",
        "surprised": "surprise",
        "su": "surprise",
        "neutrality": "neutral",
        "ne": "neutral",
        "contemptuous": "contempt",
    }
)


def canonical_expression(label: str) -> str:
    """Bring a label as people write it to facekit's name; an unknown label comes back in lower case.

    Parameters
    ----------
    label : str
        For example "Happiness", " ANGER", "neutral" or "contempt".

    Returns
    -------
    str
        A name of EXPRESSIONS where the label means one of them.
    """
    name = label.strip().lower()
    return EXPRESSION_SYNONYMS.get(name, name)


MEAN_FACE: Final = (
    (0.2685, -0.2712),
    (-0.2685, -0.2712),
    (0.1563, -0.2556),
    (0.3756, -0.2702),
    (-0.1563, -0.2556),
    (-0.3756, -0.2702),
    (0.0984, -0.4199),
    (0.5, -0.3764),
    (-0.0984, -0.4199),
    (-0.5, -0.3764),
    (0.0, 0.0201),
    (0.2378, 0.2908),
    (-0.2378, 0.2908),
    (0.0, 0.2499),
    (0.0, 0.4199),
)
"""KEYPOINTS of the upright mean face, from the middle of their square box in units of its side.

Measured: Procrustes mean, made symmetric, of the 1,207 faces of the Helen training set and AFW."""

BOX_FACTOR: Final = 1.6
"""Side of the box that facekit's own detector draws over that of the square around a face's points."""

CROP_SIZE: Final = 96
"""Side of the crop that stage 1 sees, pixels."""

ALIGNED_SIZE: Final = 48
"""Side of the aligned picture that stage 2 sees, pixels."""

INPUT_SIZE: Final = MappingProxyType({"keypoints": CROP_SIZE, "expression": ALIGNED_SIZE})

SHARED_STAGES: Final = 2
"""Of the trunk, that all members of the ensemble which names expressions see through."""

ALIGNED_POINTS: Final = tuple(
    KEYPOINTS.index(name)
    for name in ("left_eye_center", "right_eye_center", "nose_tip", "mouth_left_corner", "mouth_right_corner")
)
"""The points that bring a face to FER2013's frame; every landmark set has them."""

PIXEL_MEAN: Final = 129.4 / 255
"""Mean of FER2013's pixels, of 0..1 gray."""

PIXEL_STD: Final = 65.1 / 255
"""Standard deviation of FER2013's pixels, of 0..1 gray."""

LONGEST_REACH: Final = 4.0
"""Largest logarithm of the distance from a detector cell's centre to an edge of its box, in strides."""

VOTING_OVERLAP: Final = 0.5
"""Boxes that overlap a face's best one by more (intersection over union) are averaged with it."""
