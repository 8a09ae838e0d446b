import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from transferlib.cli.resolve import find_runs_dir, resolve_spec
from transferlib.errors import SpecError, UsageError
from transferlib.spec import JobSpec


def resolve(folder: Path, verb: str = "compare", spec_file: str | None = None, **given: Any) -> JobSpec:
    return resolve_spec(verb, given, spec_file=spec_file, folder=folder).spec


def test_flags_go_over_the_spec_file_and_it_over_defaults(tmp_path: Path) -> None:
    (tmp_path / "submit.yaml").write_text("data: {path: photos}\ntraining: {epochs: 7, momentum: 0.5}\n")
    spec = resolve(tmp_path, epochs="3")
    assert (spec.training.epochs, spec.training.momentum, spec.training.optimizer) == (3, 0.5, "sgd")


def test_named_spec_file_is_read_instead_of_the_one_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "submit.yaml").write_text("data: {path: photos}\n")
    (tmp_path / "other.json").write_text('{"data": {"path": "pictures"}}')
    assert resolve(tmp_path, spec_file="other.json").data.path == str(tmp_path / "pictures")


def test_paths_become_absolute_and_names_of_weights_stay(tmp_path: Path) -> None:
    spec = resolve(tmp_path, data="photos", runs="out", cache_dir="c", weights="w.pth")
    assert spec.data.path == str(tmp_path / "photos")
    assert spec.output.runs_dir == str(tmp_path / "out")
    assert spec.data.cache.dir == str(tmp_path / "c")
    assert spec.models.weights == str(tmp_path / "w.pth")
    assert resolve(tmp_path, data="photos").models.weights == "IMAGENET1K_V1"
    assert resolve(tmp_path, data="photos", weights="none").models.weights == "none"


def test_uris_stay_as_they_are(tmp_path: Path) -> None:
    spec = resolve(tmp_path, data="s3://bucket/photos/", weights="gs://bucket/w.pth")
    assert (spec.data.path, spec.models.weights) == ("s3://bucket/photos", "gs://bucket/w.pth")
    (tmp_path / "submit.yaml").write_text("data: {path: 's3://bucket/list.csv'}\n")
    assert resolve(tmp_path).data.path == "s3://bucket/list.csv"


def test_uris_that_cannot_serve_are_told_all_at_once_and_secrets_are_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        resolve(
            tmp_path,
            data="s3://me:hunter2@bucket/p",
            weights="s3://bucket/w.pth?secret_key=hunter2",
            runs="s3://bucket/runs",
            cache_dir="hdfs://bucket/c",
            epochs="0",
        )
    text = str(caught.value)
    assert "--data: s3://bucket/p: the URI was given with a user and password" in text
    assert "--weights: s3://bucket/w.pth: the URI was given with options" in text
    assert "--runs: s3://bucket/runs is no folder on a disk. --storage" in text
    assert "--cache-dir: hdfs:// is not supported" in text
    assert "--epochs" in text
    assert "hunter2" not in text
    with pytest.raises(UsageError, match="is no folder on a disk"):
        find_runs_dir("s3://bucket/runs", tmp_path)


def test_credentials_of_the_environment_are_in_no_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.setenv(name, f"hunter2-{name}")
    spec = resolve(tmp_path, data="s3://bucket/photos", weights="s3://bucket/w.pth")
    assert "hunter2" not in spec.to_yaml()


def test_weights_file_that_is_there_becomes_absolute_whatever_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").touch()
    assert resolve(tmp_path, data="photos", weights="weights.bin").models.weights == str(tmp_path / "weights.bin")
    (tmp_path / "none").touch()
    assert resolve(tmp_path, data="photos", weights="none").models.weights == "none"


def test_weights_can_name_a_run_by_its_id_the_start_of_it_or_last(tmp_path: Path) -> None:
    for name in ("20261124-080000-train-aaaa", "20261125-090000-train-bbbb"):
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "spec.yaml").touch()

    def weights(name: str) -> str:
        return Path(resolve(tmp_path, data="photos", runs="out", weights=name).models.weights).name

    assert weights("@last") == "20261125-090000-train-bbbb"
    assert weights("20261124") == weights("20261124-080000-train-aaaa") == "20261124-080000-train-aaaa"
    with pytest.raises(SpecError, match="--weights 2026: '2026' fits 2 runs"):
        weights("2026")
    with pytest.raises(SpecError, match="--weights 2025: No run '2025'"):
        weights("2025")


def test_runs_are_where_the_flag_says_else_the_spec_file_else_runs(tmp_path: Path) -> None:
    assert find_runs_dir(None, tmp_path) == tmp_path / "runs"
    (tmp_path / "submit.yaml").write_text("data: {path: photos}\noutput: {runs_dir: out}\n")
    assert find_runs_dir(None, tmp_path) == tmp_path / "out"
    assert find_runs_dir("else", tmp_path) == tmp_path / "else"
    (tmp_path / "submit.yaml").write_text("output: [")
    assert find_runs_dir("else", tmp_path) == tmp_path / "else"
    with pytest.raises(UsageError, match="is not valid YAML"):
        find_runs_dir(None, tmp_path)


def test_repeated_flags_replace_the_list_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "submit.yaml").write_text("data: {path: p}\nmodels: {architectures: [vgg11, vgg16]}\n")
    assert resolve(tmp_path, arch=("resnet18", "resnet34")).models.architectures == ("resnet18", "resnet34")


@pytest.mark.parametrize(
    ("typed", "value"), [("3", 3), ("0,4", (0, 4)), ("5,", (5,))], ids=["count", "list", "list of one"]
)
def test_seeds_are_a_count_or_a_list(tmp_path: Path, typed: str, value: Any) -> None:
    assert resolve(tmp_path, data="p", seeds=typed).comparison.seeds == value


@pytest.mark.parametrize(("typed", "value"), [("2", 2), ("0.1", (0.1,)), ("1e-3,0.1", (0.001, 0.1))])
def test_lr_candidates_are_a_count_or_a_list(tmp_path: Path, typed: str, value: Any) -> None:
    assert resolve(tmp_path, data="p", lr_candidates=typed).comparison.lr_candidates == value


@pytest.mark.parametrize(("typed", "value"), [("50GB", 50 * 10**9), ("1.5 MB", 1_500_000), ("7", 7), ("2kb", 2000)])
def test_sizes_have_units(tmp_path: Path, typed: str, value: int) -> None:
    assert resolve(tmp_path, data="p", cache_size=typed).data.cache.max_bytes == value


def test_train_is_one_strategy_one_seed_one_rate_unless_more_is_said(tmp_path: Path) -> None:
    spec = resolve(tmp_path, "train", data="p")
    assert (spec.verb, spec.strategies.names) == ("train", ("full",))
    assert (spec.comparison.seeds, spec.comparison.lr_candidates) == (1, 1)
    assert resolve(tmp_path, "train", data="p", seeds="2").comparison.seeds == 2
    (tmp_path / "submit.yaml").write_text("data: {path: p}\nstrategies: {names: [scratch]}\ncomparison: {seeds: 4}\n")
    spec = resolve(tmp_path, "train")
    assert (spec.strategies.names, spec.comparison.seeds) == (("scratch",), 4)


def test_verb_of_the_file_that_is_not_followed_is_told(tmp_path: Path) -> None:
    (tmp_path / "submit.yaml").write_text("data: {path: p}\nverb: train\n")
    resolved = resolve_spec("compare", {}, spec_file=None, folder=tmp_path)
    assert resolved.spec.verb == "compare"
    assert "submit.yaml says verb: train; this is submit compare." in resolved.notes


def test_mistakes_of_flags_values_and_file_are_told_at_once_by_the_name_they_were_typed_under(tmp_path: Path) -> None:
    (tmp_path / "submit.yaml").write_text("data: {path: p}\ntraining: {epoch: 3, momentum: 2}\n")
    given = {"epochs": "x", "precision": "bf17", "lr_candidates": "0.1,-1", "seeds": "0", "arch": ("resnet8",)}
    with pytest.raises(SpecError) as error:
        resolve_spec("compare", given, spec_file=None, folder=tmp_path, problems=["--gpus needs a value."])
    text = str(error.value)
    assert str(error.value.problems[0]) == "--gpus needs a value."
    for words in (
        "--epochs: 'x' is not a whole number.",
        "--precision: Unknown value 'bf17'. Did you mean 'bf16'? Known: auto, bf16, fp32.",
        "--lr-candidates: -1.0 will not do: input should be greater than 0.",
        "--seeds: 0 will not do",
        "--arch: Unknown architecture 'resnet8'. Did you mean 'resnet18'?",
        "Unknown key 'training.epoch'. Did you mean 'training.epochs'?",
        "training.momentum: 2 will not do",
        f"{tmp_path / 'p'} does not exist. Give an image folder",
    ):
        assert words in text
    assert len(error.value.problems) == 9


def test_images_and_weights_that_are_not_there_are_told_together(call: Callable[..., Any]) -> None:
    answer = call("compare", "--data", "nowhere", "--weights", "gone.pt")
    assert answer.code == 2
    assert "nowhere does not exist. Give an image folder" in answer.err
    assert "gone.pt" in answer.err


def test_a_depth_range_is_two_numbers_or_all_that_is_wrong_with_it_is_told(tmp_path: Path) -> None:
    assert resolve(tmp_path, data="p", depth_range="0:4095").data.depth_range == (0.0, 4095.0)
    for wrong in ("4095:0", "low:high", "7", "0:nan"):
        with pytest.raises(SpecError, match=rf"--depth-range: '{wrong}' .*as in 0:4095"):
            resolve(tmp_path, data="p", depth_range=wrong)


def test_no_images_named_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="Use --data PATH, or `submit init PATH`"):
        resolve(tmp_path)
    with pytest.raises(SpecError, match="Use --data PATH"):
        resolve(tmp_path, image_size="64")


def test_spec_file_that_is_not_there_or_no_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--spec gone.yaml: there is no such file"):
        resolve(tmp_path, spec_file="gone.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(SpecError, match=r"list.yaml holds a list"):
        resolve(tmp_path, spec_file="list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(SpecError, match=r"broken.yaml is not valid YAML"):
        resolve(tmp_path, spec_file="broken.yaml")


def test_section_that_is_no_mapping_is_refused_even_under_a_flag(tmp_path: Path) -> None:
    (tmp_path / "submit.yaml").write_text("data: {path: p}\ntraining: 3\n")
    with pytest.raises(SpecError, match="training: 3 will not do: input should be a mapping"):
        resolve(tmp_path, epochs="3")


def test_unknown_flags_and_stray_words_are_told_together(call: Callable[..., Any]) -> None:
    answer = call("compare", "--data", "photos", "--epoch", "3", "photos/", "--patience", "1", "--patience=2", "--gpus")
    assert answer.code == 2
    assert answer.out == ""
    for words in (
        "Unknown option '--epoch'. Did you mean '--epochs'?",
        "Unexpected argument 'photos/'. Did you mean --data photos/?",
        "--patience is given twice.",
        "--gpus needs a value.",
        "Known options: --data",
    ):
        assert words in answer.err
    assert "Traceback" not in answer.err


def test_a_switch_is_on_unless_turned_off_and_said_once(call: Callable[..., Any], work: Path) -> None:
    def asked(*words: str) -> Any:
        return yaml.safe_load(call("compare", "--data", "photos", "--dry-run", *words).out)["training"]

    assert asked()["sync_batchnorm"] is True
    assert asked("--no-sync-batchnorm")["sync_batchnorm"] is False
    (work / "submit.yaml").write_text("training: {sync_batchnorm: false}")
    assert asked()["sync_batchnorm"] is False
    assert asked("--sync-batchnorm")["sync_batchnorm"] is True
    answer = call("compare", "--data", "photos", "--sync-batchnorm", "--no-sync-batchnorm")
    assert "--no-sync-batchnorm is given twice." in answer.err
    near = call("compare", "--data", "photos", "--no-sync-batchnorms")
    assert "Did you mean '--no-sync-batchnorm'?" in near.err


def test_a_cheaper_command_keeps_a_switch(call: Callable[..., Any]) -> None:
    answer = call("plan", "--data", "photos", "--epochs", "30000", "--arch", "resnet50", "--no-sync-batchnorm")
    assert "  submit compare --data photos --epochs 30000" in answer.out
    assert " --no-sync-batchnorm" in answer.out.split("submit compare")[1].splitlines()[0]
    assert "--no-sync-batchnorm has no effect: a trial has one worker." in answer.out


def test_unknown_command_names_the_nearest(call: Callable[..., Any]) -> None:
    answer = call("compar")
    assert answer.code == 2
    assert "Unknown command 'compar'. Did you mean 'compare'? Known: cache, cluster, compare" in answer.err


def test_dry_run_prints_a_spec_that_is_itself_valid_input_and_starts_nothing(
    call: Callable[..., Any], work: Path
) -> None:
    first = call("compare", "--data", "photos", "--arch", "resnet18", "--arch", "vgg11", "--dry-run")
    assert first.code == 0
    assert not (work / "runs").exists()
    (work / "again.yaml").write_text(first.out)
    again = call("compare", "--spec", "again.yaml", "--dry-run")
    assert yaml.safe_load(again.out) == yaml.safe_load(first.out)
    assert again.out == first.out
    for words in ("trials        60 = 6 arms x 5 seeds x 2 learning rates", "side by side  ", "disk  ", "memory  "):
        assert f"# {words}" in first.out
    assert "# vgg11, last_layers: " in first.out


def test_plan_prints_the_same_plan_alone(call: Callable[..., Any]) -> None:
    dry = call("compare", "--data", "photos", "--dry-run")
    plan = call("plan", "--data", "photos")
    comments = [line[2:] for line in dry.out.splitlines() if line.startswith("#")]
    assert plan.out.splitlines() == comments[1:]


def test_a_plan_and_its_spec_show_the_range_of_deep_images(call: Callable[..., Any]) -> None:
    answer = call("compare", "--data", "photos", "--depth-range", "0:4095", "--dry-run")
    assert "# deep images   black is 0, white 4,095 in all of them (--depth-range)\n" in answer.out
    assert yaml.safe_load(answer.out)["data"]["depth_range"] == [0, 4095]
    assert "deep images" not in call("plan", "--data", "photos").out


def test_long_job_names_a_cheaper_command(call: Callable[..., Any]) -> None:
    answer = call("plan", "--data", "photos", "--epochs", "30000", "--arch", "vgg16", "--arch", "resnet50")
    assert "This is past 12.0 h." in answer.out
    assert "submit plan" not in answer.out
    assert "  submit compare --data photos --epochs 30000 --arch resnet18" in answer.out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--data", "gone"], "gone does not exist"),
        (["--data", "photos/ant"], "Error"),
        (["--data", "photos", "--gpus", "4"], "--gpus 4: this machine has 0."),
        (["--data", "photos", "--resume-changed"], "--resume-changed goes with --resume RUN."),
        (["--resume", "@last"], "No run '@last' under "),
        (["--data", "photos", "--weights", "IMAGENET1K_V11"], "--weights IMAGENET1K_V11: no such weights"),
        (["--data", "photos", "--weights", "IMAGENET1K_V11", "--dry-run"], "Did you mean 'IMAGENET1K_V1'?"),
        (["--data", "photos", "--weights", "gone.pth"], "there is no such file or folder"),
        (["--data", "photos", "--seeds", "0,0"], "--seeds: 0 is given twice"),
        (["--data", "photos", "--seeds", "-1"], "--seeds: -1 will not do: input should be greater than or equal to 1"),
        (["--data", "photos", "--lr-candidates", "-1"], "--lr-candidates: -1 will not do"),
        (["--data", "photos", "--lr-candidates", "1000000000000"], "should be less than or equal to 100 or"),
        (["--data", "photos", "--seeds", "9" * 23], "should be less than or equal to 1000 or"),
        (["--data", "photos", "--seeds=-1,2"], "--seeds: -1 will not do"),
        (["--data", "photos", "--seeds", f"2,{1 << 63}"], "should be less than 9223372036854775808"),
        (["--data", "photos", "--split-seed", "-1"], "--split-seed: -1 will not do"),
        (["--data", "photos", "--global-batch-size", "1" + "0" * 30], "should be less than or equal to 1000000"),
        (["--resume", "@last", "--epochs", "3"], "so it takes no --epochs"),
    ],
)
def test_what_keeps_a_job_from_starting_is_told_without_a_traceback(
    call: Callable[..., Any], work: Path, words: list[str], text: str
) -> None:
    answer = call("compare", *words)
    assert (answer.code, answer.out) == (2, "")
    assert text in answer.err
    assert "Traceback" not in answer.err
    assert not (work / "runs").exists()


def test_each_mistake_carries_its_place_apart_from_its_text_also_to_another_process() -> None:
    wrong = {"training": {"epochs": 0, "momentun": 0.9}, "comparison": {"seeds": [1, -1]}}
    with pytest.raises(SpecError) as caught:
        JobSpec.from_mapping(wrong)
    problems = {problem.place: problem.text for problem in caught.value.problems}
    assert problems.keys() == {"", "data", "training.epochs", "comparison.seeds.1"}
    assert problems["data"] == "is missing."
    assert problems["training.epochs"] == "0 will not do: input should be greater than or equal to 1."
    assert problems[""].startswith("Unknown key 'training.momentun'.")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.problems, str(again)) == (caught.value.problems, str(caught.value))
    assert str(again).splitlines()[0] == "data is missing."
