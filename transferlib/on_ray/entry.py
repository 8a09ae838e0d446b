"""Where a job begins: from the word on its command line to its run folder, here or on a cluster's head node."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from transferlib.errors import EXIT_SOME_FAILED, RayError, StoppedError, TransferlibError, UsageError
from transferlib.on_ray.mirroring import make_node_root, node_folder, remove_node_folder
from transferlib.on_ray.ray_death import told_of_death
from transferlib.on_ray.session import keep_to_loopback
from transferlib.runs import RUN_ID, STORAGE_VARIABLE, RunFolder
from transferlib.storage.uris import is_uri

COPY_BYTES = 1 << 16
DONE_CODES = (0, EXIT_SOME_FAILED)
"""How a job ends that has nothing left to do."""


def main(argv: Sequence[str]) -> int:
    """Run the job that `argv[1]` names; what `jobs/compare.py` and `jobs/train.py` call.

    Args:
        argv: The script, and a run folder's path; on a cluster a run id, which is looked for in the storage that the
            environment names.

    Returns:
        The exit code.
    """
    if len(argv) != 2:
        print(f"usage: {os.path.basename(argv[0])} RUN_FOLDER")
        return 2
    logging.basicConfig(stream=sys.stdout, format="%(asctime)s %(message)s")
    logging.getLogger("transferlib.job").setLevel(logging.INFO)
    is_on_cluster = STORAGE_VARIABLE in os.environ
    if not is_on_cluster:
        keep_to_loopback()
    from transferlib.on_ray.experiment import run_job

    if not is_on_cluster:
        run = RunFolder(Path(argv[1]).absolute())
        with told_of_death(partial(_record_death, run)):
            return run_job(run)
    try:
        run = cluster_run(argv[1], os.environ)
        with copied_output(run.job_log):
            code = run_job(run, is_on_cluster=True)
    except TransferlibError as error:
        print(error, flush=True)
        return error.exit_code
    if code in DONE_CODES:
        remove_node_folder(run)
    return code


def _record_death(run: RunFolder, text: str) -> int:
    """Let a run's status say that its Ray is dead; return the exit code.

    A signal to all processes of a job (a batch system's time limit, say) is a stop, and ends its Ray at the same time.
    """
    go_on = f"Go on with: submit {run.verb} --resume {shlex.quote(str(run.path))}"
    if run.stop_flag.exists():
        run.set_status("stopped", exit_code=StoppedError.exit_code, error=f"Stopped, and its Ray with it. {go_on}")
        return StoppedError.exit_code
    run.set_status("failed", exit_code=RayError.exit_code, error=f"{text} {go_on}")
    return RayError.exit_code


def cluster_run(run_id: str, environ: Mapping[str, str]) -> RunFolder:
    """Return the run folder of a job on a cluster: on a disk that all nodes see, or this node's of an object store.

    Args:
        run_id: Of the run, nothing else: the word comes over a network.
        environ: Names the storage.

    Raises:
        UsageError: It is no run id, or there is no such run in the storage.
        RunFolderError: Another user has the place where this node keeps runs of an object store.
    """
    if not RUN_ID.fullmatch(run_id):
        raise UsageError(f"{run_id!r} is no run id; they look like 20261125-014503-compare-3fa9.")
    storage = environ[STORAGE_VARIABLE]
    if is_uri(storage):
        make_node_root()
        run = node_folder(run_id)
    else:
        run = RunFolder(Path(storage) / run_id)
        if not run.spec.is_file():
            raise UsageError(
                f"Run {run_id} is not under {storage} on this node ({os.uname().nodename}). The storage must be a "
                "folder that the head and all workers see (--storage DIR), or an object store (--storage s3://...)."
            )
    run.log.mkdir(parents=True, exist_ok=True)
    return run


@contextmanager
def copied_output(path: Path) -> Iterator[None]:
    """Copy what this process and its children print to a file too: Ray's own log goes with the head.

    Args:
        path: Appended to.
    """
    read_end, write_end = os.pipe()
    kept = [os.dup(1), os.dup(2)]
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(write_end, 1)
    os.dup2(write_end, 2)
    os.close(write_end)
    copier = threading.Thread(target=_copy, args=(read_end, kept[0], path), name="copy-output", daemon=True)
    copier.start()
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, saved in zip((1, 2), kept, strict=True):
            os.dup2(saved, number)
        # A child that lives on keeps the pipe open: what it says later is not waited for.
        copier.join(1.0)


def _copy(read_end: int, out: int, path: Path) -> None:
    """Copy until nobody holds the other end. Leaving earlier, over a full disk, would block whoever prints for ever."""
    is_told = False
    while data := os.read(read_end, COPY_BYTES):
        with suppress(OSError):
            os.write(out, data)
        try:
            with open(path, "ab", buffering=0) as log:
                log.write(data)
        except OSError as error:
            if not is_told:
                is_told = True
                with suppress(OSError):
                    os.write(out, f"warning: {path} lacks what is printed here: {error.strerror}.\n".encode())
