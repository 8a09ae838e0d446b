import dataclasses
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from transferlib.data.listing import Entry, Listing
from transferlib.errors import PlanError, SpecError, WeightsError
from transferlib.models.sizes import total_parameters
from transferlib.names import ARCHITECTURES, STRATEGIES
from transferlib.planning.cheaper import make_cheaper_plan
from transferlib.planning.fit import check_steps, check_weights
from transferlib.planning.footprint import MANIFEST_IMAGE_BYTES, NEAR_IMAGE_BYTES, source_bytes
from transferlib.planning.machine import Machine
from transferlib.planning.plan import Plan, make_plan
from transferlib.spec import ComparisonSpec, JobSpec

GIB = 2**30
ALL_TUNE = {"tuning_seeds": None}
TWO_CPUS = Machine(cpus=2, gpus=0, memory_bytes=24 * GIB, disk_free_bytes=1000 * GIB)


def spec(**sections: dict[str, Any]) -> JobSpec:
    return JobSpec.from_mapping({"data": {"path": "/photos"}, **sections})


def listing(per_class: int = 100, split: str | None = None) -> Listing:
    entries = (
        Entry(f"{label}/{index}", f"/photos/{label}/{index}", label, split)
        for label in ("ant", "bee")
        for index in range(per_class)
    )
    return Listing("/photos", "class folders", tuple(entries))


def test_trials_are_ordered_by_seed_then_candidate_then_arm() -> None:
    trials = make_plan(spec(), listing(), TWO_CPUS).trials
    assert [t.trial_id for t in trials[:4]] == [
        "resnet50-feature_extraction-s0-c0",
        "resnet50-last_layers-s0-c0",
        "resnet50-full-s0-c0",
        "resnet50-feature_extraction-s0-c1",
    ]
    assert len(trials) == 5 * 2 * 3
    assert [t.seed for t in trials] == sorted(t.seed for t in trials)


def folded(num_folds: int, **comparison: Any) -> JobSpec:
    return spec(data={"path": "/photos", "split": {"folds": num_folds}}, comparison=comparison)


def test_folds_multiply_the_trainings_and_leave_a_part_to_test_and_to_choose_on() -> None:
    plan = make_plan(folded(5, seeds=3), listing(), TWO_CPUS)
    assert [t.trial_id for t in plan.trials[::6][:6]] == [
        f"resnet50-feature_extraction-f{fold}-s{seed}-c0" for seed, fold in [*((0, f) for f in range(1, 6)), (1, 1)]
    ]
    assert (len(plan.trials), plan.num_folds, plan.num_candidates) == (3 * 3 * 5 * 2, 5, 2)
    assert plan.images == {"train": 120, "val": 40, "test": 40}
    assert (plan.num_tested, make_plan(spec(), listing(), TWO_CPUS).num_tested) == (200, 30)
    assert Plan.from_json(plan.to_json()) == plan
    once = make_plan(spec(comparison={"seeds": 3}), listing(), TWO_CPUS)
    assert 4 < plan.cost.seconds / once.cost.seconds < 5
    assert plan.cost.run_bytes > 2 * once.cost.run_bytes


def test_seeds_that_tune_for_others_do_not_go_with_folds() -> None:
    """Each seed cuts anew: 13 to 17 of the 40 test images of a later seed had decided its rate."""
    with pytest.raises(SpecError, match="--tuning-seeds 2 does not go with --folds 4"):
        folded(4, seeds=5, tuning_seeds=2)


def test_folds_are_offered_where_the_test_set_is_small_and_they_are_possible() -> None:
    def offers(per_class: int, split: str | None = None, **sections: Any) -> bool:
        given = [*listing(per_class, split).entries]
        if split is not None:
            given += [Entry(f"{label}/t", f"/t/{label}", label, "test") for label in ("ant", "bee")]
        found = Listing("/photos", "class folders", tuple(given))
        return any("--folds" in note for note in make_plan(spec(**sections), found, TWO_CPUS).notes)

    assert offers(490)  # 147 in test
    assert not offers(500)
    assert not offers(100, "train")
    assert not offers(4)
    one_arm = {"verb": "train", "strategies": {"names": ["full"]}}
    assert not offers(100, **one_arm)
    assert not offers(100, data={"path": "/photos", "split": {"folds": 5}})


def test_shares_beside_folds_are_told_to_have_no_effect() -> None:
    asked = spec(data={"path": "/photos", "split": {"folds": 5, "val": 0.2, "seed": 3}})
    assert make_plan(asked, listing(), TWO_CPUS).notes == (
        "--val-share 0.2 has no effect: --folds 5 cuts equal parts.",
    )


def test_every_arm_gets_the_same_number_of_candidates() -> None:
    asked = spec(
        models={"architectures": ["resnet18", "vgg11"]},
        strategies={"names": list(STRATEGIES)},
        comparison={"seeds": [7, 3], "lr_candidates": [0.1, 0.01]},
    )
    trials = make_plan(asked, listing(), TWO_CPUS).trials
    assert set(Counter(t.arm for t in trials).values()) == {4}
    assert [t.seed for t in trials] == [7] * 16 + [3] * 16
    assert all(t.lr == (0.01, 0.1)[t.candidate] for t in trials)


def test_only_the_first_seeds_of_a_tuned_plan_are_trained_at_every_rate() -> None:
    tuned = make_plan(spec(comparison={"tuning_seeds": 2}), listing(), TWO_CPUS)
    full = make_plan(spec(comparison={"tuning_seeds": None}), listing(), TWO_CPUS)
    assert tuned.trials == full.trials, "all that may be trained"
    assert (tuned.num_trained_trials, full.num_trained_trials) == (3 * (2 * 2 + 3), 3 * 5 * 2)
    assert tuned.num_candidates == 2
    fixed = make_plan(spec(comparison={"seeds": 1, "lr_candidates": 1}, training={"epochs": 1}), listing(), TWO_CPUS)
    assert tuned.cost.seconds / full.cost.seconds == pytest.approx(0.7, abs=0.02)
    assert fixed.cost.run_bytes < tuned.cost.run_bytes < full.cost.run_bytes
    kept = {"output": {"keep": "all"}, "models": {"architectures": ["vgg16"]}, "strategies": {"names": ["full"]}}
    seven, ten = (make_plan(spec(**kept, comparison={"tuning_seeds": n}), listing(), TWO_CPUS) for n in (2, None))
    model = 4 * 134_268_738
    assert ten.cost.run_bytes - seven.cost.run_bytes == pytest.approx(3 * model, rel=0.001)


def test_no_more_trials_run_side_by_side_than_the_rates_decision_lets_begin() -> None:
    eight = Machine(cpus=32, gpus=8, memory_bytes=512 * GIB, disk_free_bytes=1000 * GIB)
    one = {"strategies": {"names": ["full"]}}
    assert make_plan(spec(**one, comparison={"seeds": 5, "tuning_seeds": 2}), listing(), eight).concurrency == 2 * 2
    assert make_plan(spec(**one, comparison={"seeds": 7, "tuning_seeds": 1}), listing(), eight).concurrency == 6
    assert make_plan(spec(**one, comparison={"seeds": 5, "tuning_seeds": None}), listing(), eight).concurrency == 8


def test_a_plan_from_before_only_some_seeds_tuned_trains_all() -> None:
    fields = json.loads(make_plan(spec(comparison={"tuning_seeds": 2}), listing(), TWO_CPUS).to_json())
    del fields["tuning_seeds"]
    assert Plan.from_json(json.dumps(fields)).num_trained_trials == 30


def test_plan_of_an_older_version_keeps_what_it_left_over_for_images() -> None:
    plan = make_plan(spec(), listing(), TWO_CPUS)
    fields = json.loads(plan.to_json())
    del fields["data_cpus"]
    fields |= {"ray_cpus": 16, "cpus_per_worker": 1.0, "concurrency": 1, "workers_per_trial": 1}
    assert Plan.from_json(json.dumps(fields)).data_cpus == 15


def test_a_runs_spec_from_before_only_some_seeds_tuned_means_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = yaml.safe_load(spec().to_yaml())
    assert "tuning_seeds" in plain["comparison"], "a run's spec says it, whatever the default was"
    del plain["comparison"]["tuning_seeds"]
    old = tmp_path / "spec.yaml"
    old.write_text(yaml.safe_dump(plain))
    field = ComparisonSpec.model_fields["tuning_seeds"]
    try:
        monkeypatch.setattr(field, "default", 2)  # whatever is the default when the run is resumed
        ComparisonSpec.model_rebuild(force=True)
        JobSpec.model_rebuild(force=True)
        assert JobSpec.from_yaml(old.read_text()).comparison.tuning_seeds == 2
        assert JobSpec.load(old).comparison.tuning_seeds is None
    finally:
        monkeypatch.undo()
        ComparisonSpec.model_rebuild(force=True)
        JobSpec.model_rebuild(force=True)


def test_run_from_before_batchnorm_was_synchronised_goes_on_without(tmp_path: Path) -> None:
    plain = yaml.safe_load(spec().to_yaml())
    assert plain["training"].pop("sync_batchnorm") is True
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(plain))
    assert JobSpec.load(tmp_path / "spec.yaml").training.sync_batchnorm is False


def test_no_two_trials_share_a_folder() -> None:
    asked = spec()
    twice = asked.comparison.model_copy(update={"seeds": (0, 0)})  # not checked, as a spec is
    with pytest.raises(AssertionError, match="a folder of its own"):
        make_plan(asked.model_copy(update={"comparison": twice}), listing(), TWO_CPUS)


def test_plan_survives_json() -> None:
    plan = make_plan(spec(), listing(), TWO_CPUS)
    assert Plan.from_json(plan.to_json()) == plan


def test_plan_of_another_schema_is_refused() -> None:
    text = make_plan(spec(), listing(), TWO_CPUS).to_json().replace('"schema": 1', '"schema": 9')
    with pytest.raises(PlanError, match="schema 9"):
        Plan.from_json(text)


def test_images_are_shared_out_as_the_cut_will() -> None:
    assert make_plan(spec(), listing(), TWO_CPUS).images == {"train": 140, "val": 30, "test": 30}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_and_strategy_can_be_planned(architecture: str) -> None:
    asked = spec(models={"architectures": [architecture]}, strategies={"names": list(STRATEGIES)})
    cost = make_plan(asked, listing(), TWO_CPUS).cost
    assert min(cost.seconds, cost.run_bytes, cost.cache_bytes, cost.memory_bytes, cost.least_memory_bytes) > 0


def test_planning_loads_neither_torch_nor_ray_nor_numpy() -> None:
    code = "import sys, transferlib.planning.plan; print({'torch', 'ray', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_disk_counts_models_until_they_are_chosen_between() -> None:
    vgg = {"models": {"architectures": ["vgg16"]}, "strategies": {"names": ["full"]}, "comparison": ALL_TUNE}
    chosen = make_plan(spec(**vgg), listing(), TWO_CPUS).cost.run_bytes
    kept = make_plan(spec(**vgg, output={"keep": "all"}), listing(), TWO_CPUS).cost.run_bytes
    model = 4 * 134_268_738  # VGG16 with two classes
    checkpoints = 4 * 2 * model
    assert chosen == pytest.approx(checkpoints + (5 + 1) * model, rel=0.001)
    assert kept == pytest.approx(checkpoints + 10 * model, rel=0.001)


def test_memory_counts_every_networks_source_weights_that_a_process_keeps() -> None:
    vggs = ["vgg11", "vgg13", "vgg16", "vgg19", "vgg19_bn"]
    sizes = sorted((4 * total_parameters(name, 2) for name in vggs), reverse=True)

    def held(**sections: Any) -> int:
        return source_bytes(spec(models={"architectures": vggs, **sections.pop("models", {})}, **sections), 2, 1)

    assert held() == sum(sizes[:4])
    assert source_bytes(spec(models={"architectures": vggs}), 2, workers_per_trial=2) == sizes[0]
    assert held(models={"weights": "none"}) == held(strategies={"names": ["scratch"]}) == 0
    asked = [spec(models={"architectures": vggs[-count:]}) for count in (1, 4)]
    one, four = (make_plan(each, listing(), TWO_CPUS).cost.memory_bytes for each in asked)
    assert four - one == sum(sizes[1:4])


def test_memory_counts_the_manifest_in_each_process_that_opens_it() -> None:
    without = spec(data={"path": "/photos", "near_duplicates": "off"})
    few, many = (make_plan(without, listing(count), TWO_CPUS) for count in (100, 20_100))
    assert (few.concurrency, few.ray_cpus) == (many.concurrency, many.ray_cpus) == (1, 2)
    processes = 2 + 1 + 2  # Ray Data's tasks, the trial, and the job, which holds the listing too
    assert many.cost.memory_bytes - few.cost.memory_bytes == 40_000 * processes * MANIFEST_IMAGE_BYTES


@pytest.mark.parametrize("policy", ["group", "tell"])
def test_memory_counts_what_the_search_for_near_duplicates_holds_once(policy: str) -> None:
    """Only the job's own process looks for them."""
    with_it, without = (
        make_plan(spec(data={"path": "/photos", "near_duplicates": each}), listing(100), TWO_CPUS)
        for each in (policy, "off")
    )
    assert with_it.cost.memory_bytes - without.cost.memory_bytes == 200 * NEAR_IMAGE_BYTES


def test_what_does_not_fit_the_disk_is_refused_with_the_arithmetic() -> None:
    small = Machine(cpus=2, gpus=0, memory_bytes=24 * GIB, disk_free_bytes=GIB)
    with pytest.raises(PlanError, match=r"models and checkpoints \+ .* for decoded images = .* and 1.1 GB are free"):
        make_plan(spec(models={"architectures": ["vgg16"]}), listing(), small)


def test_cached_images_need_no_more_disk() -> None:
    need = [make_plan(spec(), listing(), TWO_CPUS, num_cached=n).cost.cache_bytes for n in (0, 200)]
    assert need == [200 * 256 * 256 * 4, 0]
    without = spec(data={"path": "/photos", "cache": {"mode": "none"}})
    assert make_plan(without, listing(), TWO_CPUS).cost.cache_bytes == 0


def test_cache_on_a_disk_of_its_own_is_checked_there() -> None:
    machine = Machine(cpus=2, gpus=0, memory_bytes=24 * GIB, disk_free_bytes=1000 * GIB, cache_free_bytes=GIB // 100)
    with pytest.raises(PlanError, match="where the cache is"):
        make_plan(spec(), listing(), machine)


def test_fewer_trials_run_side_by_side_where_memory_is_short() -> None:
    many_cpus = Machine(cpus=16, gpus=0, memory_bytes=16 * GIB, disk_free_bytes=1000 * GIB)
    plan = make_plan(spec(), listing(), many_cpus)
    assert 1 <= plan.concurrency < 5
    assert plan.cost.memory_bytes <= 16 * GIB or plan.concurrency == 1
    assert "instead of 5 trials side by side" in plan.notes[0]


def test_network_that_no_memory_holds_is_refused() -> None:
    tiny = Machine(cpus=2, gpus=0, memory_bytes=GIB, disk_free_bytes=1000 * GIB)
    with pytest.raises(PlanError, match="weights, gradients and optimizer alone take"):
        make_plan(spec(models={"architectures": ["vgg19"]}), listing(), tiny)


def test_idle_gpus_are_told() -> None:
    machine = Machine(cpus=16, gpus=5, memory_bytes=256 * GIB, disk_free_bytes=1000 * GIB)
    plan = make_plan(spec(resources={"gpus_per_trial": 2}), listing(), machine)
    assert (plan.concurrency, plan.gpus) == (2, 5)
    assert plan.notes[0] == "1 of 5 GPUs stays idle: 2 trials side by side."


def test_batchnorm_with_a_single_value_is_refused() -> None:
    # 33 images in steps of at most 32: 17 and 16; over 16 workers the smaller step has one image a worker.
    small, apart = {"data": {"path": "/photos", "image_size": 32}}, {"training": {"sync_batchnorm": False}}
    resnet = spec(**small, **apart)
    with pytest.raises(PlanError, match=r"a single value a channel\. Use --sync-batchnorm, fewer workers a trial"):
        check_steps(resnet, 33, workers_per_trial=16)
    check_steps(resnet, 33, workers_per_trial=8)
    check_steps(spec(data={"path": "/photos", "image_size": 64}, **apart), 33, workers_per_trial=16)
    for strategy, arch in (("feature_extraction", "resnet18"), ("last_layers", "vgg11_bn")):
        check_steps(spec(**small, **apart, strategies={"names": [strategy]}, models={"architectures": [arch]}), 33, 16)
    check_steps(spec(**small), 33, workers_per_trial=16)  # over the whole step there are 16 values


def test_step_of_a_single_image_is_refused_where_batchnorm_would_see_one_value() -> None:
    small = spec(data={"path": "/photos", "image_size": 32}, training={"global_batch_size": 1})
    with pytest.raises(PlanError, match=r"a single value a channel\. Use another --global-batch-size, or"):
        check_steps(small, 33, workers_per_trial=1)


def test_worker_without_an_image_is_refused() -> None:
    with pytest.raises(PlanError, match="0 a worker with 4 workers"):
        check_steps(spec(), 3, workers_per_trial=4)


def test_images_too_small_for_vgg_are_refused() -> None:
    asked = spec(data={"path": "/photos", "image_size": 16}, models={"architectures": ["resnet18", "vgg11"]})
    with pytest.raises(PlanError, match="vgg11 needs images of at least 32 px, --image-size is 16"):
        make_plan(asked, listing(), TWO_CPUS)


@pytest.mark.parametrize(("architecture", "smallest"), [("densenet121", 29), ("convnext_tiny", 32)])
def test_images_too_small_for_networks_beyond_vgg_are_refused(architecture: str, smallest: int) -> None:
    for size in (smallest, smallest - 1):
        asked = spec(data={"path": "/photos", "image_size": size}, models={"architectures": [architecture]})
        if size == smallest:
            check_steps(asked, 33, workers_per_trial=1)
            continue
        with pytest.raises(PlanError, match=f"{architecture} needs images of at least {smallest} px"):
            check_steps(asked, 33, workers_per_trial=1)


def test_densenet_halves_an_image_of_60_px_to_a_single_value() -> None:
    def check(size: int, architecture: str) -> None:
        sections: Any = {"models": {"architectures": [architecture]}, "training": {"global_batch_size": 1}}
        check_steps(spec(data={"path": "/photos", "image_size": size}, **sections), 33, workers_per_trial=1)

    with pytest.raises(PlanError, match="a single value a channel"):
        check(60, "densenet121")
    check(61, "densenet121")
    check(32, "convnext_tiny")  # has no BatchNorm


def test_estimated_time_grows_with_the_work() -> None:
    def seconds(**sections: dict[str, Any]) -> float:
        return make_plan(spec(**sections), listing(), TWO_CPUS).cost.seconds

    one = {"models": {"architectures": ["resnet18"]}, "strategies": {"names": ["full"]}}
    assert seconds(**one, training={"epochs": 20}) > 1.8 * seconds(**one) - 30
    assert seconds(**one) > seconds(models=one["models"], strategies={"names": ["feature_extraction"]})
    assert seconds(**one) < seconds(models={"architectures": ["resnet152"]}, strategies=one["strategies"])


def test_estimated_speed_is_near_what_was_measured() -> None:
    # ARCHITECTURE: ResNet-18 at 224 px on 2 cores, whole network, fp32 channels_last: 35 images/s.
    one = spec(
        models={"architectures": ["resnet18"]},
        strategies={"names": ["scratch"]},
        comparison={"seeds": 1, "lr_candidates": 1},
        training={"epochs": 100, "precision": "fp32"},
    )
    plan = make_plan(one, listing(500), TWO_CPUS)
    assert plan.cost.seconds == pytest.approx(100 * 700 / 35, rel=0.2)


@pytest.mark.parametrize(
    ("architecture", "precision", "images_per_s"),
    [
        ("efficientnet_v2_s", "fp32", 2 * 3.4),
        ("efficientnet_v2_s", "auto", 2 * 4.7),
        ("convnext_tiny", "fp32", 2 * 2.8),
        ("convnext_tiny", "auto", 2 * 3.5),
    ],
)
def test_depthwise_networks_are_planned_at_their_own_speed(
    architecture: str, precision: str, images_per_s: float
) -> None:
    """Measured on one core at 224 px, whole network; at ResNet's speed plans were 2.5 to 4.3 times too short."""
    one = spec(
        models={"architectures": [architecture]},
        strategies={"names": ["scratch"]},
        comparison={"seeds": 1, "lr_candidates": 1},
        training={"epochs": 100, "precision": precision},
    )
    machine = dataclasses.replace(TWO_CPUS, has_bf16=True)
    trained = 100 * (140 + 30 / 3)  # an image of the validation set takes a third of a training image's time
    plan = make_plan(one, listing(), machine)
    assert 0.5 < plan.cost.seconds / (trained / images_per_s) < 1.5


def test_bf16_of_depthwise_networks_on_small_images_on_a_cpu_is_told() -> None:
    def notes(architecture: str, size: int, precision: str = "auto", **changes: Any) -> list[str]:
        asked = spec(
            models={"architectures": ["resnet18", architecture]},
            data={"path": "/photos", "image_size": size},
            training={"precision": precision},
        )
        machine = dataclasses.replace(TWO_CPUS, **{"has_bf16": True, **changes})
        return [note for note in make_plan(asked, listing(), machine).notes if "bf16" in note]

    (told,) = notes("efficientnet_v2_s", 64)
    assert told.startswith("efficientnet_v2_s at 64 px")
    assert "--precision fp32" in told
    assert notes("convnext_tiny", 96)
    assert notes("convnext_tiny", 96, "bf16", has_bf16=False)
    assert not notes("convnext_tiny", 128)
    assert not notes("resnet34", 64)
    assert not notes("efficientnet_v2_s", 64, "fp32")
    assert not notes("efficientnet_v2_s", 64, has_bf16=False)
    assert not notes("efficientnet_v2_s", 64, gpus=1, gpu_memory_bytes=80 * GIB)


def test_long_job_has_a_cheaper_one() -> None:
    asked = spec(training={"epochs": 300}, comparison=ALL_TUNE)
    plan = make_plan(asked, listing(), TWO_CPUS)
    assert plan.is_long
    cheaper = make_cheaper_plan(asked, listing(), TWO_CPUS, plan)
    assert cheaper is not None
    reduced, reduced_plan = cheaper
    assert reduced.models.architectures == ("resnet18",)
    assert reduced_plan.cost.seconds < plan.cost.seconds


@pytest.mark.parametrize("weights", ["IMAGENET1K_V2", ""], ids=["not of the small network", "a run"])
def test_cheaper_job_keeps_the_network_that_its_weights_are_for(weights: str, tmp_path: Path) -> None:
    (tmp_path / "best.safetensors").touch()  # a trial's folder
    weights = weights or str(tmp_path)
    asked = spec(training={"epochs": 300}, models={"weights": weights})
    cheaper = make_cheaper_plan(asked, listing(), TWO_CPUS, make_plan(asked, listing(), TWO_CPUS))
    assert cheaper is not None
    assert cheaper[0].models.architectures == ("resnet50",)
    assert cheaper[0].comparison.seeds == 3


def test_reduction_that_would_be_refused_is_left_out() -> None:
    # Six stages lie before VGG's head, five before a ResNet's.
    asked = spec(
        training={"epochs": 300},
        models={"architectures": ["vgg16"]},
        strategies={"names": ["last_layers"], "last_stages": 6},
    )
    plan = make_plan(asked, listing(), TWO_CPUS)
    assert plan.is_long
    cheaper = make_cheaper_plan(asked, listing(), TWO_CPUS, plan)
    assert cheaper is not None
    assert cheaper[0].models.architectures == ("vgg16",)


def test_small_amounts_are_not_0() -> None:
    tight = Machine(cpus=2, gpus=0, memory_bytes=24 * GIB, disk_free_bytes=1000 * GIB, cache_free_bytes=3_000_000)
    with pytest.raises(PlanError, match=r"Disk: [\d.]+ MB for decoded images, and 3\.0 MB are free where the cache is"):
        make_plan(spec(), listing(), tight)


def test_gpu_that_is_too_small_is_told() -> None:
    machine = Machine(cpus=16, gpus=1, memory_bytes=256 * GIB, disk_free_bytes=1000 * GIB, gpu_memory_bytes=2 * GIB)
    note, _ = make_plan(spec(training={"global_batch_size": 128}), listing(), machine).notes
    assert note.startswith("GPU memory may not suffice: the largest trial takes about ")
    assert "the smallest GPU has 2.1 GB. A smaller --global-batch-size" in note
    (other,) = make_plan(spec(training={"global_batch_size": 8}), listing(), machine).notes
    assert "--folds" in other


def test_weights_that_are_not_there_are_told_for_each_network(tmp_path: Path) -> None:
    check_weights(spec())
    with pytest.raises(WeightsError, match=r"IMAGENET1K_V2: no such weights.*\n.*vgg11 can start from"):
        check_weights(spec(models={"architectures": ["resnet18", "vgg11"], "weights": "IMAGENET1K_V2"}))
    with pytest.raises(WeightsError, match="not a run folder"):
        check_weights(spec(models={"weights": str(tmp_path)}))
    (tmp_path / "trials").mkdir()
    with pytest.raises(WeightsError, match="no finished model of resnet50"):
        check_weights(spec(models={"weights": str(tmp_path)}))


def test_smallest_job_has_no_cheaper_one() -> None:
    asked = spec(
        data={"path": "/photos", "image_size": 96},
        models={"architectures": ["resnet18"]},
        comparison={"seeds": 1, "lr_candidates": 1},
        training={"epochs": 100_000},
    )
    plan = make_plan(asked, listing(), TWO_CPUS)
    assert plan.is_long
    assert make_cheaper_plan(asked, listing(), TWO_CPUS, plan) is None
