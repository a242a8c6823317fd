"""--roles: which images of a data set a command takes."""

from __future__ import annotations

from collections.abc import Sequence

from reid_cckd.data import ROLES, Manifest
from reid_cckd.errors import ConfigError


def of_roles(manifest: Manifest, asked: Sequence[str] | None, usual: Sequence[str]) -> Manifest:
    """The images of the roles that were asked for, each of which there must be, or else of the usual ones there are.

    Raises:
        ConfigError: there is no image of one that was asked for, or of any of the usual ones.
    """
    held = [role for role in ROLES if (manifest.roles == role).any()]
    missing = [role for role in asked or usual if role not in held]
    if missing and (asked or len(missing) == len(usual)):
        raise ConfigError(
            f"{manifest.name} at {manifest.root} has no {' or '.join(missing)} images; choose of what it has: --roles "
            f"{' '.join(held)}."
        )
    return manifest.select(*(asked or usual))
