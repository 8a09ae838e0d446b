from pathlib import Path

import pytest

from transferlib.errors import UsageError
from transferlib.on_ray.entry import cluster_run
from transferlib.runs import STORAGE_VARIABLE

RUN_ID = "20261125-014503-compare-3fa9"


@pytest.mark.parametrize("word", ["../secret", "/etc", "20261125-014503-compare-3fa9/..", "", "x; rm -rf /", "@last"])
def test_only_a_run_id_is_taken_from_the_command_line_of_a_cluster_job(tmp_path: Path, word: str) -> None:
    with pytest.raises(UsageError, match="no run id"):
        cluster_run(word, {STORAGE_VARIABLE: str(tmp_path)})


def test_a_storage_that_the_head_does_not_see_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not under"):
        cluster_run(RUN_ID, {STORAGE_VARIABLE: str(tmp_path)})


def test_a_run_on_a_shared_disk_is_found_by_its_id(tmp_path: Path) -> None:
    (tmp_path / RUN_ID).mkdir()
    (tmp_path / RUN_ID / "spec.yaml").touch()
    assert cluster_run(RUN_ID, {STORAGE_VARIABLE: str(tmp_path)}).path == tmp_path / RUN_ID
