"""The way through a trial: begin or go on, train, leave the best model, say how it ended."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import torch

from transferlib.data.schedule import Phase, Position
from transferlib.errors import CheckpointError, NonFiniteLossError, StoppedError, TrialError
from transferlib.records import FINISHED, EpochRecord, TrialResult, TrialState
from transferlib.training.checkpoint import Checkpoint, CheckpointStore
from transferlib.training.export import load_model
from transferlib.training.inputs import TrialInputs
from transferlib.training.learner import Learner, build_learner
from transferlib.training.loop import Clock, Loop
from transferlib.training.memory import reset_peak_memory
from transferlib.training.network import Network, gather_logits
from transferlib.training.normaliser import Normaliser
from transferlib.training.observer import Observer, SilentObserver
from transferlib.training.precision import make_deterministic, resolve_precision
from transferlib.training.recorder import TrialRecorder
from transferlib.training.state import TrainingState
from transferlib.training.worker import Worker

__all__ = ["TrialInputs", "evaluate_chosen", "train_trial"]

log = logging.getLogger("transferlib.training")


def train_trial(inputs: TrialInputs, worker: Worker) -> Generator[EpochRecord, None, None]:
    """Train a trial from its newest good checkpoint, or from the beginning, to its end; yield a record an epoch.

    How it ended stands in `result.json`, written last: done, failed (a loss that is not finite) or stopped. A trial
    that is finished already yields nothing, and so does one that is asked to stop before it begins.

    Args:
        inputs: The same at every start and on every rank.
        worker: This rank.

    Raises:
        CheckpointError: A checkpoint is of another trial or source, or cannot be written.
        DataError: Batches or validation rows are not the manifest's.
    """
    since_start = Clock()
    observer = _observer(inputs, worker)
    if _is_finished(inputs):
        observer.tidy()
        return
    if any(worker.gather(worker.should_stop())):
        return
    make_deterministic(inputs.threads, worker.device)
    reset_peak_memory(worker.device)
    checkpoint = find_checkpoint(inputs, worker)
    state = TrainingState() if checkpoint is None else TrainingState.from_plain(checkpoint.state)
    schedule = inputs.schedule()
    # Opened before the model is built: the first batches are made meanwhile.
    with closing(inputs.stream.open(schedule.steps(worker.rank, worker.world_size, state.position))) as batches:
        learner = build_learner(inputs, worker, schedule)
        if checkpoint is not None:
            learner.load_tensors(checkpoint.tensors)
        observer.started(state)
        metric = inputs.job.comparison.decided_metric
        loop = Loop(learner, state, schedule, worker, observer, inputs.job.training, metric, since_start)
        try:
            yield from loop.run(batches)
            ended = _result(inputs, worker, learner, state, "done", sha256=observer.publish(state, learner))
        except NonFiniteLossError as error:
            ended = _result(inputs, worker, learner, state, "failed", str(error), error=type(error).__name__)
        except StoppedError as error:
            ended = _result(inputs, worker, learner, state, "stopped", str(error))
    observer.ended(state, ended)
    if ended.state in FINISHED:
        observer.tidy()
    worker.barrier()


def evaluate_chosen(inputs: TrialInputs, worker: Worker, split: Phase = "test") -> Path:
    """Predict a split with a finished trial's best model and write `predictions-<split>.parquet`.

    Args:
        inputs: As `train_trial` had them.
        worker: This rank.
        split: The test split is read once, after the choice.

    Returns:
        The file.

    Raises:
        TrialError: `best.safetensors` is missing, damaged, of other classes or of another range of deep images.
        DataError: The rows seen are not the manifest's.
    """
    make_deterministic(inputs.threads, worker.device)
    classes, device = inputs.images.classes, worker.device
    for path in inputs.folder.damaged_files():
        raise TrialError(
            f"{path} is not what training wrote: its sha256 is another one. `--resume` trains trial "
            f"{inputs.trial.trial_id} again."
        )
    saved = load_model(inputs.folder.best, classes)
    if saved.scale != inputs.images.scale:
        raise TrialError(
            f"{inputs.folder.best} says of images with more than 8 bits a sample: {saved.scale or 'nothing'}; the "
            f"manifest says {inputs.images.scale or 'nothing'}. It has learnt from other pixels: start a new run."
        )
    network = Network(
        model=saved.model.to(device, memory_format=torch.channels_last),  # type: ignore[call-overload]
        normaliser=Normaliser(saved.mean, saved.std, device),
        precision=resolve_precision(inputs.job.training.precision, device),
        device=device,
    )
    steps = inputs.schedule().evaluation(split, worker.rank, worker.world_size)
    with closing(inputs.stream.open(steps)) as batches:
        predicted = [(batch.share.rows, network.predict(batch)) for batch in batches]
    logits = gather_logits(worker, predicted, inputs.images.rows(split), len(classes))
    _observer(inputs, worker).save_predictions(split, logits)
    worker.barrier()
    return inputs.folder.predictions(split)


def find_checkpoint(inputs: TrialInputs, worker: Worker) -> Checkpoint | None:
    """Return the checkpoint that all ranks go on from: the newest good one that the first rank sees.

    Raises:
        CheckpointError: It is of another trial or source; or another rank cannot read it.
    """
    store = CheckpointStore(inputs.folder.checkpoints)
    found = store.newest_good()
    first = worker.gather(None if found is None else tuple(found.position))[0]
    if first is None:
        return None
    if found is None or found.position != Position(*first):
        found = store.load(Position(*first))
    before, now = found.state["identity"], inputs.identity()
    # What a checkpoint does not say is younger than it is.
    differences = [
        f"{key} was {before[key]!r}, is {now[key]!r}" for key in now if before.get(key, now[key]) != now[key]
    ]
    if differences:
        raise CheckpointError(
            f"{store.folder} holds checkpoints of another training: {'; '.join(differences)}. "
            "A checkpoint holds what training changed; the rest comes from the source. "
            "Bring back the same weights and options, or start a new run."
        )
    log.info("Going on from epoch %d, step %d.", *found.position)
    return found


def _is_finished(inputs: TrialInputs) -> bool:
    result = inputs.folder.read_result()
    return result is not None and result.state in FINISHED


def _observer(inputs: TrialInputs, worker: Worker) -> Observer:
    return TrialRecorder(inputs, worker.device) if worker.rank == 0 else SilentObserver()


def _result(
    inputs: TrialInputs,
    worker: Worker,
    learner: Learner,
    state: TrainingState,
    how: TrialState,
    reason: str = "",
    error: str = "",
    sha256: str = "",
) -> TrialResult:
    trial, best = inputs.trial, state.best
    of_best = {} if best is None else {name: getattr(best, name) for name in ("val_accuracy", "val_loss", "val_score")}
    return TrialResult(
        key=trial.key,
        lr=trial.lr,
        state=how,
        reason=reason,
        error=error,
        best_epoch=-1 if best is None else best.epoch,
        epochs=len(state.records),
        **of_best,
        seconds=state.seconds,
        images_per_s=state.images_per_s,
        peak_memory_bytes=state.peak_memory_bytes,
        trained_parameters=learner.stages.num_trained_parameters(learner.model),
        total_parameters=sum(parameter.numel() for parameter in learner.model.parameters()),
        precision=learner.network.precision,
        num_workers=worker.world_size,
        threads_per_worker=inputs.threads,
        weights_sha256=sha256,
        first_step_s=state.first_step_s,
        stage_lrs=learner.stages.stage_lrs(trial.lr),
    )
