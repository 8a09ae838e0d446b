"""The manifest: one table of every file seen, what it is used for, and why it is not."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transferlib.data.components import OUT, find_components
from transferlib.data.depth_scale import DepthFacts, DepthScale, settle_scale
from transferlib.data.duplicates import NearRows, RecordedRows, tell_nobody
from transferlib.data.facts import ImageFacts
from transferlib.data.folds import Folds
from transferlib.data.health import check_classes, check_strict, summarise
from transferlib.data.images import ImageTable, image_keys
from transferlib.data.listing import Entry, Listing, SkippedFile, SplitRoles, split_roles
from transferlib.data.lookalikes import OnProgress
from transferlib.data.near_notes import look_notes, near_notes
from transferlib.data.placement import claims_to_be_image
from transferlib.data.splits import Assignment, Candidates, Cut, assign_folds, assign_splits
from transferlib.errors import DataError
from transferlib.names import SPLITS
from transferlib.records import TrialKey
from transferlib.runs import cure_of, write_atomic
from transferlib.spec import DataSpec, NearDuplicates

__all__ = ["ImageTable", "Manifest"]

SCHEMA_VERSION = "2"
OLDER_SCHEMA = "1"
"""Without the columns from `near_group` on."""
COLUMNS = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("label", pa.string()),
        ("split", pa.string()),
        ("group", pa.string()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("near_group", pa.string()),
        ("near_duplicate", pa.string()),
        ("remarks", pa.string()),
    ]
)
OLDER_COLUMNS = COLUMNS.names[: COLUMNS.names.index("near_group")]
SEALED = ("schema", "classes", "notes", "root", "num_bad", "cut", "near_duplicates", "depth_range", "folds")
"""Metadata of ours; other tools may add their own."""
CONTENT_COLUMNS = ("image_id", "label", "split", "group", "sha256", "width", "height", "status")
"""What makes two manifests the same: where the files lie on a machine, and the wording of reasons, do not."""


@dataclass(frozen=True, eq=False)
class Manifest:
    """Hold one row for every file seen, in the order of image ids; the experiment's images, frozen."""

    table: pa.Table
    """Columns as in COLUMNS; status is used, skipped, duplicate or label_conflict; null where nothing is known."""
    classes: tuple[str, ...]
    """Class names, sorted; a label's index everywhere is its place here."""
    notes: tuple[str, ...]
    """Sentences for the user about how the source was read."""
    root: str
    """The source."""
    num_bad: int
    """Files that somebody may have meant as an image and that are none."""
    cut: Cut = "rank"
    """How what had no split was cut; a run keeps the cut it began with."""
    folds: Folds | None = None
    """None: the splits of the table are those of every trial; else they are those of seed 0 in fold 1."""
    near: NearDuplicates = "off"
    """What was done about near duplicates; a run keeps to that too."""
    scale: DepthScale | None = None
    """What deep images are scaled by, all of them and for good; None: there are none."""

    @classmethod
    def build(
        cls,
        listing: Listing,
        facts: Sequence[ImageFacts],
        spec: DataSpec,
        *,
        cut: Cut = "rank",
        before: Manifest | None = None,
        on_compared: OnProgress = tell_nobody,
    ) -> Manifest:
        """Bring together what was listed and what was read; the order of neither matters.

        Args:
            listing: Of the source.
            facts: One for each entry of the listing, in its order.
            spec: Shares and seed of the cut, and what to do about bad files.
            cut: How to cut; of a run that goes on: as its manifest says.
            before: Of a run that goes on: what it found of near duplicates, and does about them, holds.
            on_compared: Called with (images compared, images in all) while near duplicates are looked for; what it
                raises ends that.

        Raises:
            DataError: Bad files where `on_bad_image` is "fail"; a class that lost every image; classes that cannot be
                cut or are missing in a split; a group on two given sides.
        """
        # A table names images; in a folder lie side-car files too.
        useless = [
            SkippedFile(
                entry.image_id,
                entry.uri,
                entry.label,
                fact.reason,
                entry.split,
                is_bad=listing.layout == "manifest" or claims_to_be_image(entry.image_id),
            )
            for entry, fact in zip(listing.entries, facts, strict=True)
            if not fact.is_good
        ]
        bad = [skipped for skipped in (*useless, *listing.skipped) if skipped.is_bad]
        if spec.on_bad_image == "fail":
            check_strict(listing.root, bad)
        good = [entry.label for entry, fact in zip(listing.entries, facts, strict=True) if fact.is_good]
        check_classes(listing.classes, good, [*useless, *listing.skipped])
        roles, folds = split_roles({entry.split or "" for entry in listing.entries}), _folds(spec)
        note = roles.note
        if folds is not None:
            listing.check_folds(folds.num)
            note = (
                f"Cut into {folds.num} folds, anew for each seed: every image is tested once a seed. The counts are of "
                "one fold."
            )
        near = before.near if before else spec.near_duplicates
        found = _near_rows(listing, facts, near, before, on_compared)
        rows = sorted(_rows(listing, facts, spec, cut, near, found), key=lambda row: str(row["image_id"]))
        scale, notes = _scale(rows, listing, facts, spec)
        return cls(
            table=pa.Table.from_pylist(rows, COLUMNS),
            classes=listing.classes,
            notes=(*listing.notes, *([note] if note else []), *notes),
            root=listing.root,
            num_bad=len(bad),
            cut=cut,
            folds=folds,
            near=near,
            scale=scale,
        )

    def images(self, key: TrialKey | None = None) -> ImageTable:
        """Return the used images as columns; a *row* everywhere else is an index into them.

        Args:
            key: Of the trial whose splits are wanted, where there are folds; None: the splits of the table.
        """
        images = self._images
        if self.folds is None or key is None:
            return images
        if key.seed not in self._parts:
            components = find_components(images.sha256, self.groups, self.near_groups)
            self._parts[key.seed] = self.folds.parts(components, images.labels, images.classes, key.seed)
        return replace(images, splits=self.folds.splits(self._parts[key.seed], key.fold))

    @cached_property
    def groups(self) -> list[str | None]:
        """Return the group of each used image, in their order."""
        used = self.table.filter(pc.equal(self.table["status"], "used"))
        groups: list[str | None] = used["group"].to_pylist()
        return groups

    @cached_property
    def near_groups(self) -> list[str | None] | None:
        """Return what near duplicates have in common, of each used image in their order; None: they count alone."""
        if self.near != "group":
            return None
        used = self.table.filter(pc.equal(self.table["status"], "used"))
        near: list[str | None] = used["near_group"].to_pylist()
        return near

    @cached_property
    def _parts(self) -> dict[int, npt.NDArray[np.int8]]:
        return {}

    @cached_property
    def _images(self) -> ImageTable:
        used = self.table.filter(pc.equal(self.table["status"], "used"))
        image_ids = tuple(used["image_id"].to_pylist())
        code_of = {label: code for code, label in enumerate(self.classes)}
        return ImageTable(
            image_ids=image_ids,
            uris=tuple(used["uri"].to_pylist()),
            sha256=tuple(used["sha256"].to_pylist()),
            labels=np.array([code_of[label] for label in used["label"].to_pylist()], dtype=np.int64),
            splits=np.array([SPLITS.index(split) for split in used["split"].to_pylist()], dtype=np.int8),
            keys=image_keys(image_ids),
            classes=self.classes,
            scale=self.scale,
        )

    def count_by_split_and_class(self) -> dict[str, dict[str, int]]:
        """Return how many images are used, by split and class."""
        used = self.table.filter(pc.equal(self.table["status"], "used"))
        counted = Counter(zip(used["split"].to_pylist(), used["label"].to_pylist(), strict=True))
        return {split: {label: counted[split, label] for label in self.classes} for split in SPLITS}

    def summary_lines(self, whole: str = "manifest.parquet") -> list[str]:
        """Return what a user should know before training: counts, what was left out and why, and warnings.

        Args:
            whole: Where all of what is cut short in these lines stands.
        """
        counts = self.count_by_split_and_class()
        return summarise(self.root, counts, self.table, self.num_bad, self._all_notes(), whole)

    def _all_notes(self) -> tuple[str, ...]:
        return (*self.notes, *near_notes(self.table, is_grouped=self.near == "group"), *look_notes(self.table))

    def sha256(self) -> str:
        """Return a hash of which images are used for what and scaled by what, for the comparison on resume."""
        is_grouped = self.near == "group" and self.table["near_group"].null_count < self.table.num_rows
        names = (*CONTENT_COLUMNS, *(("near_group",) if is_grouped else ()))
        rows: list[object] = [self.classes]
        rows += zip(*(self.table[name].to_pylist() for name in names), strict=True)
        rows += [] if self.scale is None else [self.scale.to_plain()]
        return hashlib.sha256("\n".join(json.dumps(row) for row in rows).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the table as parquet, by rename."""
        metadata = {
            "schema": SCHEMA_VERSION,
            "classes": json.dumps(self.classes),
            "notes": json.dumps(self.notes),
            "root": self.root,
            "num_bad": str(self.num_bad),
            "cut": self.cut,
            "near_duplicates": self.near,
            "depth_range": json.dumps(None if self.scale is None else self.scale.to_plain()),
            **({} if self.folds is None else {"folds": json.dumps(self.folds._asdict())}),
        }
        metadata[SEAL] = _seal(metadata, self)
        buffer = io.BytesIO()
        pq.write_table(self.table.replace_schema_metadata(metadata), buffer, write_page_checksum=True)
        write_atomic(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read what `save` wrote.

        Raises:
            DataError: No such file, none of ours, or damaged.
        """
        try:
            return cls._read(path)
        except FileNotFoundError:
            raise DataError(f"{path} cannot be read as a manifest: it is missing. {cure_of(path)}") from None
        except _DAMAGE as error:
            what = " ".join(str(error).split())[:200] or type(error).__name__
            raise DataError(f"{path} is damaged and cannot be read as a manifest: {what}. {cure_of(path)}") from None

    @classmethod
    def _read(cls, path: Path) -> Manifest:
        table = pq.read_table(io.BytesIO(path.read_bytes()), page_checksum_verification=True)
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        if metadata.get("schema") == OLDER_SCHEMA and table.schema.names == OLDER_COLUMNS:
            table = table.select(OLDER_COLUMNS)
            for name in COLUMNS.names[len(OLDER_COLUMNS) :]:
                table = table.append_column(name, pa.nulls(table.num_rows, pa.string()))
        elif metadata.get("schema") != SCHEMA_VERSION or table.schema.names != COLUMNS.names:
            raise DataError(
                f"{path} is no manifest of schema {SCHEMA_VERSION} (it says {metadata.get('schema', 'nothing')}). "
                "Make it anew with `submit compare`."
            )
        if not table.schema.equals(COLUMNS):
            raise TypeError(f"its columns are {table.schema.types}")
        manifest = cls(
            table=table.replace_schema_metadata(None),
            classes=tuple(json.loads(metadata["classes"])),
            notes=tuple(json.loads(metadata["notes"])),
            root=metadata["root"],
            num_bad=int(metadata["num_bad"]),
            cut="rank" if metadata.get("cut") == "rank" else "threshold",  # older files do not say: there was one way
            folds=Folds(**json.loads(metadata["folds"])) if "folds" in metadata else None,
            near=_policy(metadata.get("near_duplicates", "off")),
            # Older files do not say: each deep image was scaled by its own range.
            scale=DepthScale.from_plain(json.loads(metadata.get("depth_range", "null"))),
        )
        if SEAL in metadata and metadata[SEAL] != _seal(metadata, manifest):
            raise ValueError("its content is not what was written (another sha256)")
        return manifest


SEAL = "sha256"
"""Key of the metadata; pages have checksums, the metadata and what they lead to have this."""
_DAMAGE = (
    *(OSError, pa.ArrowException, ValueError, LookupError, TypeError, AttributeError, MemoryError),
    *(RecursionError, OverflowError),
)
"""What a flipped bit in a table's header ends in."""


def _seal(metadata: Mapping[str, str], manifest: Manifest) -> str:
    """Return the sha256 over a manifest's metadata and content."""
    rest = {key: value for key, value in metadata.items() if key in SEALED}
    return hashlib.sha256(f"{json.dumps(rest, sort_keys=True)}\n{manifest.sha256()}".encode()).hexdigest()


def _policy(name: str) -> NearDuplicates:
    return "group" if name == "group" else "tell" if name == "tell" else "off"


def _rows(
    listing: Listing,
    facts: Sequence[ImageFacts],
    spec: DataSpec,
    cut: Cut,
    policy: NearDuplicates,
    near: NearRows | RecordedRows | None,
) -> list[dict[str, Any]]:
    """Return a row for each file seen, in no order."""
    pairs = list(zip(listing.entries, facts, strict=True))
    roles = split_roles({entry.split or "" for entry in listing.entries})
    good = [(entry, fact) for entry, fact in pairs if fact.is_good]
    assigned = _assign(good, roles, listing.classes, spec, cut, near.groups if near and policy == "group" else None)
    place = {entry.image_id: row for row, (entry, _) in enumerate(good)}
    places = assigned.splits.tolist()
    rows = []
    for entry, fact in pairs:
        row = place.get(entry.image_id)
        given = roles.renamed.get(entry.split or "", entry.split)
        rows.append(
            {
                "image_id": entry.image_id,
                "uri": entry.uri,
                "label": entry.label,
                "split": given if row is None or assigned.splits[row] == OUT else SPLITS[assigned.splits[row]],
                "group": entry.group,
                "sha256": fact.sha256 or None,
                "width": fact.width or None,
                "height": fact.height or None,
                "status": "skipped" if row is None else assigned.statuses[row],
                "reason": fact.reason if row is None else assigned.reasons[row],
                "near_group": None if row is None or near is None else near.groups[row],
                "near_duplicate": None if row is None or near is None else near.other(row, places),
                "remarks": "; ".join(fact.remarks) or None,
            }
        )
    for skipped in listing.skipped:
        seen = {"image_id": skipped.image_id, "uri": skipped.uri, "label": skipped.label or None}
        rows.append({**seen, "split": skipped.split, "status": "skipped", "reason": skipped.reason})
    return rows


def _recorded(before: Manifest, good: Sequence[tuple[Entry, ImageFacts]]) -> RecordedRows:
    ids, *columns = (before.table[name].to_pylist() for name in ("image_id", "near_group", "near_duplicate"))
    groups, others = (dict(zip(ids, column, strict=True)) for column in columns)
    return RecordedRows(*([of.get(entry.image_id) for entry, _ in good] for of in (groups, others)))


def _near_rows(
    listing: Listing,
    facts: Sequence[ImageFacts],
    policy: NearDuplicates,
    before: Manifest | None,
    on_compared: OnProgress,
) -> NearRows | RecordedRows | None:
    """Return the near duplicates among the good images, as they are known or looked for now; None: not looked for."""
    good = [(entry, fact) for entry, fact in zip(listing.entries, facts, strict=True) if fact.is_good]
    if policy == "off":
        return None
    if before is not None:
        return _recorded(before, good)
    return NearRows.find(
        [fact.sha256 for _, fact in good],
        [fact.look for _, fact in good],
        [entry.image_id for entry, _ in good],
        [entry.label for entry, _ in good],
        on_compared,
    )


def _scale(
    rows: Sequence[dict[str, Any]], listing: Listing, facts: Sequence[ImageFacts], spec: DataSpec
) -> tuple[DepthScale | None, list[str]]:
    """Return what deep images are scaled by. The training images say, so that test images move nothing that is learnt.

    Of folds all say, since each is trained on; so the same scale holds for every seed and fold.
    """
    depths = {entry.image_id: fact.depth for entry, fact in zip(listing.entries, facts, strict=True) if fact.depth}
    learnt: list[DepthFacts] = []
    held_out: list[DepthFacts] = []
    for row in rows if depths else ():
        if row["status"] == "used" and row["image_id"] in depths:
            is_learnt = row["split"] == "train" or spec.split.folds is not None
            (learnt if is_learnt else held_out).append(DepthFacts.from_text(depths[row["image_id"]]))
    return settle_scale(learnt, held_out, spec.depth_range)


def _assign(
    good: Sequence[tuple[Entry, ImageFacts]],
    roles: SplitRoles,
    classes: Sequence[str],
    spec: DataSpec,
    cut: Cut,
    near: Sequence[str | None] | None,
) -> Assignment:
    candidates = Candidates(
        image_ids=[entry.image_id for entry, _ in good],
        sha256=[fact.sha256 for _, fact in good],
        labels=[entry.label for entry, _ in good],
        groups=[entry.group for entry, _ in good],
        given=[entry.split for entry, _ in good],
        near=near,
    )
    how = spec.split
    if (folds := _folds(spec)) is not None:
        return assign_folds(candidates, folds, classes=classes)
    return assign_splits(candidates, roles, classes=classes, val=how.val, test=how.test, seed=how.seed, cut=cut)


def _folds(spec: DataSpec) -> Folds | None:
    return None if spec.split.folds is None else Folds(spec.split.folds, spec.split.seed)
