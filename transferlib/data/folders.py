"""Image folders: walk a tree so that each real file is met once."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from transferlib.data.listing import HIDDEN_REASON, Listing, SkippedFile
from transferlib.data.placement import FoundFile, Walked, claims_to_be_image, is_system_name, place_files

RealId = tuple[int, int]
"""Device and inode."""


def walk(root: Path) -> Walked:
    """Meet every file under a folder, links followed, no real folder entered twice.

    What is no link is walked first, over the whole tree: so a photo keeps its real path, and a link to it or a loop of
    links is the one that is left out.

    Args:
        root: Absolute path of a folder.
    """
    walked = Walked()
    entered: dict[RealId, str] = {}
    above = {_real_id(os.stat(parent)) for parent in Path(os.path.realpath(root)).parents}
    pending = _walk_real(str(root), "", walked, entered)
    while pending:
        links, pending = sorted(pending), []
        for image_id, path in links:
            pending += _follow(image_id, path, walked, entered, above)
    return walked


def _walk_real(top: str, top_id: str, walked: Walked, entered: dict[RealId, str]) -> list[tuple[str, str]]:
    """Walk a folder without following links; return the links, as (image id, path)."""
    links: list[tuple[str, str]] = []
    stack = [(top_id, top)]
    while stack:
        folder_id, folder = stack.pop()
        try:
            real = _real_id(os.stat(folder))
            if real in entered:
                reason = f"the same folder as {entered[real] or 'the root'}, which is read already"
                walked.skipped.append(SkippedFile(folder_id, folder, "", reason, is_bad=False))
                continue
            entered[real] = folder_id
            with os.scandir(folder) as scan:
                children = sorted(scan, key=lambda child: child.name)
        except OSError as error:
            walked.skipped.append(SkippedFile(folder_id or ".", folder, "", f"folder cannot be read: {_why(error)}"))
            continue
        if folder_id:
            walked.folders.append(folder_id)
        for child in children:
            child_id = f"{folder_id}/{child.name}" if folder_id else child.name
            if is_system_name(child.name):
                walked.skipped.append(SkippedFile(child_id, child.path, "", HIDDEN_REASON, is_bad=False))
            elif child.is_symlink():
                links.append((child_id, child.path))
            elif child.is_dir(follow_symlinks=False):
                stack.append((child_id, child.path))
            else:
                _meet_file(child_id, child.path, walked)
    return links


def _follow(
    image_id: str, path: str, walked: Walked, entered: dict[RealId, str], above: set[RealId]
) -> list[tuple[str, str]]:
    """Follow one link; return the links found behind it."""
    try:
        target = os.stat(path)
    except OSError as error:
        walked.skipped.append(SkippedFile(image_id, path, "", f"link leads nowhere: {_why(error)}"))
        return []
    if not stat.S_ISDIR(target.st_mode):
        _meet_file(image_id, path, walked)
        return []
    if _real_id(target) in above:
        walked.skipped.append(SkippedFile(image_id, path, "", "link to a folder above the images", is_bad=False))
        return []
    return _walk_real(path, image_id, walked, entered)


def _meet_file(image_id: str, path: str, walked: Walked) -> None:
    try:
        found = os.stat(path)
    except OSError as error:
        walked.skipped.append(SkippedFile(image_id, path, "", f"file cannot be read: {_why(error)}"))
        return
    if stat.S_ISREG(found.st_mode):
        walked.files.append(FoundFile(image_id, path, _real_id(found)))
    else:
        reason = "neither a file nor a folder (pipe, socket or device)"
        walked.skipped.append(SkippedFile(image_id, path, "", reason, is_bad=claims_to_be_image(image_id)))


def list_folder(root: Path, class_level: int | None = None) -> Listing:
    """List an image folder.

    Args:
        root: Absolute path of a folder.
        class_level: As `place_files` takes it.

    Raises:
        DataError: It cannot be read, holds no class folders, or a class folder holds no files.
    """
    return place_files(str(root), walk(root), class_level)


def _real_id(found: os.stat_result) -> RealId:
    return (found.st_dev, found.st_ino)


def _why(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
