from __future__ import annotations

import re
from typing import get_args

from transferlib.records import TrialState
from transferlib.telemetry.catalogue import CATALOGUE, PREFIX, TRIAL_STATES


def test_every_series_stands_once() -> None:
    assert len({series.name for series in CATALOGUE}) == len(CATALOGUE)


def test_names_end_as_prometheus_spells_their_kind_and_unit() -> None:
    for series in CATALOGUE:
        assert re.fullmatch(r"transferlib_[a-z_]+", series.name)
        assert series.name.endswith("_total") == (series.kind == "counter")
        assert series.name.endswith("_info") == (series.kind == "info")
        name = series.name.removeprefix(PREFIX).removesuffix("_total")
        if series.unit in ("seconds", "bytes"):
            assert name.endswith(f"_{series.unit}")
        if name.endswith("_ratio"):
            assert series.unit == "ratio"


def test_labels_are_bounded_by_the_plan() -> None:
    bounded = {"run", "arm", "seed", "candidate", "phase", "stage", "state", "place"}
    of_infos = {"verb", "architecture", "strategy"}
    for series in CATALOGUE:
        assert set(series.labels) <= bounded | (of_infos if series.kind == "info" else set())
        assert series.labels[0] == "run"


def test_every_series_is_explained_in_sentences() -> None:
    for series in CATALOGUE:
        assert re.match(r"[A-Z1]", series.help), series.name
        assert re.search(r"[.1]$", series.help), series.name


def test_the_states_are_those_of_the_records() -> None:
    assert get_args(TrialState) == (*TRIAL_STATES, "spared"), (
        "a spared trial is never trained: there is nothing to watch"
    )
