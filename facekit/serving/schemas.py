"""What stands in the answers, for the documentation of the interface."""

from __future__ import annotations

from pydantic import BaseModel, Field

from facekit.schema import EXPRESSIONS, KEYPOINTS


class ExpressionAnswer(BaseModel):
    """The expression of a face."""

    label: str = Field(description=f"The most probable of {', '.join(EXPRESSIONS)}.")
    confidence: float = Field(description="Its probability, calibrated.")
    scores: dict[str, float] = Field(description="The probability of every expression; they sum to 1.")


class FaceAnswer(BaseModel):
    """One face."""

    box: tuple[float, float, float, float] = Field(
        description="Edges x0, y0, x1, y1; the whole picture is 0, 0, width, height."
    )
    score: float = Field(description="Of the detection, 0 to 1.")
    keypoints: dict[str, tuple[float, float]] = Field(
        description="x and y of 15 points, pixels, the first one's centre at 0, 0; left is the subject's: "
        + ", ".join(KEYPOINTS)
        + "."
    )
    sigma: dict[str, float] = Field(description="Expected error of each point, pixels.")
    expression: ExpressionAnswer


class PictureAnswer(BaseModel):
    """One picture: the object of `facekit predict --json`."""

    image: str | None = Field(description="Its file name or URL, null for a raw picture.")
    width: int | None = Field(description="Pixels, after turning as the picture's EXIF says.")
    height: int | None
    weights: str = Field(description="Name of the weights.")
    error: str | None = Field(description="Why it could not be read; null where it could.")
    faces: list[FaceAnswer] = Field(description="Largest first; empty where there is none.")


class ErrorAnswer(BaseModel):
    """Why a request was refused."""

    error: str


class StateAnswer(BaseModel):
    """The state of the service."""

    status: str


class LimitsAnswer(BaseModel):
    """What a request may hold."""

    body: int = Field(description="Bytes of a request.")
    pixels: int = Field(description="Of a picture.")
    pictures: int = Field(description="Of a request.")


class AboutAnswer(BaseModel):
    """What the service is."""

    version: str
    ready: bool
    weights: str | None = Field(description="Name of the weights; null until they are loaded.")
    token: bool = Field(description="Whether requests need a token.")
    urls: bool = Field(description="Whether pictures may be named by URL.")
    limits: LimitsAnswer


PICTURES_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary", "description": "One raw picture."}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "description": "One or several pictures; every part with a file name is one.",
                    "properties": {
                        "pictures": {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "description": "Public URLs of pictures, if the service was started with --allow-urls.",
                    "properties": {"urls": {"type": "array", "items": {"type": "string", "format": "uri"}}},
                    "required": ["urls"],
                }
            },
        },
    }
}
"""OpenAPI's description of what POST /v1/analyze takes."""

ARCHIVE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/zip": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"archive": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}
"""OpenAPI's description of what POST /v1/crosscheck takes."""
