"""`facekit formats`: the labelled datasets that are read, with an example of each layout."""

from __future__ import annotations

from facekit_cli import console


def formats() -> None:
    """Show the formats of labelled datasets and how each lies on disk."""
    from facekit.data.catalog import FORMATS

    for name, reader in FORMATS.items():
        layout = "\n".join(f"    {line}" for line in reader.LAYOUT.strip().splitlines())
        console.say(f"{name}\n{layout}\n")
