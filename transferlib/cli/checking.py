"""`submit data check`: what the images say about themselves, before anything is trained."""

from __future__ import annotations

import click

from transferlib.cli.sifting import JobGroup

EXIT_WARNED = 1


@click.group("data", cls=JobGroup)
def data() -> None:
    """Look at images before anything is trained."""


@data.command("check")
@click.argument("images", metavar="PATH")
@click.option("--class-level", type=click.IntRange(1, 2), metavar="N", help="As of `submit compare`.")
@click.option("--group-regex", metavar="REGEX", help="As of `submit compare`.")
@click.option("--cache-dir", metavar="DIR", help="Folder of decoded images. [default: ~/.cache/transferlib]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; it has every pair and remark.")
def check(images: str, class_level: int | None, group_regex: str | None, cache_dir: str | None, as_json: bool) -> int:
    """Say what the images in PATH are like, and train nothing.

    Counts, the smallest class, sizes; files that cannot serve; dark, bright, blurred and blank images, odd modes, EXIF
    turns; images of the same content, and near duplicates (copies encoded anew, resized, cropped, mirrored or turned,
    frames of a burst) within a class, across classes and across splits. Every run looks in the same way. What is
    decoded stays in the cache for a run. Exit code 0: nothing to decide; 1: a warning; 2: the images cannot serve.
    PATH is an image folder, or a .csv or .jsonl manifest.
    """
    import json
    import sys
    from functools import partial

    from transferlib.data.cache import DecodedCache
    from transferlib.data.cache_dir import cache_folder
    from transferlib.data.check import DataCheck, read_images
    from transferlib.data.decode import Limits
    from transferlib.data.manifest import Manifest
    from transferlib.data.sources import list_images
    from transferlib.planning.machine import usable_cpus
    from transferlib.spec import JobSpec

    given = {"path": images, "class_level": class_level, "group_regex": group_regex, "cache": {"dir": cache_dir}}
    spec = JobSpec.from_mapping({"data": given})
    listing = list_images(images, class_level, group_regex)
    limits = Limits(spec.data.max_pixels, spec.data.max_file_bytes)
    cache = DecodedCache(cache_folder(spec.data.cache).expanduser().absolute(), spec.short_side, limits)

    def tell(what: str, done: int, total: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{done:,} of {total:,} {what}", nl=done == total, err=True)

    uris = [entry.uri for entry in listing.entries]
    facts = read_images(cache, uris, usable_cpus(), partial(tell, "files read"))
    found = DataCheck(Manifest.build(listing, facts, spec.data, on_compared=partial(tell, "images compared")))
    code = EXIT_WARNED if found.warnings else 0
    if as_json:
        click.echo(json.dumps({"id": None, "state": "checked", "exit_code": code, **found.to_plain()}, indent=2))
    else:
        click.echo("\n".join(found.lines()))
    return code
