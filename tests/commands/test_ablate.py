"""tools/ablate.py: interrupted, resumed, compared with a training on its own, and in two processes."""

import json
import logging
import re
import signal
import subprocess
import sys

import pytest
import torch
from conftest import PARITY, ROOT, is_drawn

import tools.ablate
from lib.config import load_config
from lib.engine.ablation import entries_of, summary
from lib.errors import TrainingStopped, UserError
from lib.model.weights import read_checkpoint

S_CONFIG = str(ROOT / "configs" / "pose3d" / "PoseMamba_train_h36m_S.yaml")
SMALL = [
    f"dt_root={PARITY}", "dt_file=h36m_schema.pkl", "data_root=nowhere", "maxlen=27", "clip_len=27", "data_stride=9",
    "dim_feat=16", "depth=1", "batch_size=16", "learning_rate=1e-3", "num_workers=0",
]  # fmt: skip
EPOCHS = ["epochs=2", "checkpoint_frequency=100"]
ENTRIES = ["v2_plus_poselimbs-straight_through", "v2_plus_poselimbs-exact", "v2"]
CHOICE = ["--limb-gradients", "--orders", "v2_plus_poselimbs", "v2", "--"]


@pytest.fixture(scope="module")
def ablation(forks, tmp_path_factory):
    """The folder of an ablation that was interrupted in its second entry and resumed, and what the two printed."""
    work = tmp_path_factory.mktemp("work")
    command = ("--config", S_CONFIG, "-c", "runs", *CHOICE, *EPOCHS, *SMALL)
    in_the_second = ("lib.engine.trainer:Trainer._finish_epoch", 3, signal.SIGTERM)
    process = forks.start(work, *command, command="tools.ablate", at=in_the_second)
    interrupted = forks.finish(process, work, code=130)
    between = json.loads((work / "runs" / "ablation.json").read_text())
    first = (work / "runs" / ENTRIES[0] / "latest_epoch.bin").stat().st_mtime_ns
    process = forks.start(work, *command, command="tools.ablate")
    resumed = forks.finish(process, work).removeprefix(interrupted)
    assert "Traceback" not in interrupted + resumed
    assert (work / "runs" / ENTRIES[0] / "latest_epoch.bin").stat().st_mtime_ns == first
    return work / "runs", between, interrupted, resumed


def test_an_interrupted_ablation_goes_on(ablation):
    folder, between, interrupted, resumed = ablation
    assert [row["state"] for row in between["entries"]] == ["finished", "started", "waiting"]
    assert f"ablation: {ENTRIES[1]}, 2 of 3" in interrupted and "3 of 3" not in interrupted
    assert f"ablation: {ENTRIES[0]}" not in resumed and "goes on from" in resumed
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def entries(monkeypatch, config, *arguments):
    """The entries that options name."""
    monkeypatch.setattr(sys, "argv", ["ablate.py", "--config", str(config), "-c", "x", *arguments])
    options = tools.ablate._parse()
    config = load_config(options.config, options.overrides)
    return entries_of(tools.ablate._variations(options, config), options.seeds)


def test_by_default_there_are_six_orders_and_a_gradient_varies_where_there_is_a_limb_term(monkeypatch):
    names = [entry.name for entry in entries(monkeypatch, S_CONFIG, "limb_gradient=exact")]
    assert names == ["v2_plus_poselimbs-exact", "v2", "v2_fs_ft", "v2_fs_bt", "v2_bs_ft", "v2_bs_bt"]
    assert [entry.name for entry in entries(monkeypatch, S_CONFIG, *CHOICE)] == ENTRIES


def test_streams_and_encoders_are_compared_with_every_seed(monkeypatch):
    config = ROOT / "configs" / "mambapose" / "MambaPose_nano_2d.yaml"
    found = entries(monkeypatch, config, "--seeds", "0", "1")
    variations = ["rgb", "rgb+flow", "rgb+depth", "rgb+flow+depth", "vim"]
    assert [entry.name for entry in found] == [f"{name}-seed{seed}" for name in variations for seed in (0, 1)]
    assert found[-1].overrides == ["encoder=vim", "seed=1"]
    (one,) = entries(monkeypatch, config, "--entries", "encoder=vim,streams=rgb")
    assert one.name == "vim-rgb" and one.overrides == ["encoder=vim", "streams=rgb"]


def test_seeds_are_summed_up_as_mean_and_deviation():
    row = {"variation": "a", "state": "finished", "mpjpe": 50.0, "seconds": 10.0}
    rows = [row, row | {"mpjpe": 52.0}, row | {"state": "started", "mpjpe": None, "seconds": None}]
    assert summary(rows, ["mpjpe"]) == {"a": {"mpjpe": (51.0, pytest.approx(2**0.5)), "seconds": (10.0, 0.0)}}


def test_the_table_has_every_entry_once_with_the_scores_of_its_own_run(ablation):
    folder, *_ = ablation
    rows = json.loads((folder / "ablation.json").read_text())["entries"]
    assert [row["name"] for row in rows] == ENTRIES
    printed = (folder / "ablation.txt").read_text()
    for row in rows:
        scores = json.loads((folder / row["name"] / "scores.json").read_text())["PoseMamba"]
        assert (row["mpjpe"], row["p_mpjpe"]) == (scores["mpjpe"], scores["p_mpjpe"])
        history = read_checkpoint(folder / row["name"] / "latest_epoch.bin").history
        assert len(history) == 2 and row["seconds"] == pytest.approx(sum(epoch["seconds"] for epoch in history))
        assert row["parameters"] > 10_000 and row["state"] == "finished"
        (line,) = (line for line in printed.splitlines()
                   if f" {row['scan']} " in line and row.get("limb_gradient", "") in line)  # fmt: skip
        assert f"{row['mpjpe']:.1f}" in line and f"{row['p_mpjpe']:.1f}" in line
    assert len({row["mpjpe"] for row in rows}) == 3
    is_drawn(folder / "ablation.png")
    is_drawn(folder / "curves.png")


def test_an_entry_that_was_resumed_has_the_weights_of_a_training_on_its_own(ablation, forks):
    folder, *_ = ablation
    alone = ["-c", "alone", "--no-mlflow", "scan=v2_plus_poselimbs", "limb_gradient=exact", "no_eval=True"]
    forks.train(folder.parent, "--config", S_CONFIG, *alone, *EPOCHS, *SMALL)
    expected = read_checkpoint(folder.parent / "alone" / "latest_epoch.bin")
    found = read_checkpoint(folder / ENTRIES[1] / "latest_epoch.bin")
    assert found.model.keys() == expected.model.keys()
    assert all(torch.equal(found.model[name], value) for name, value in expected.model.items())


def test_all_runs_are_children_of_one_that_has_their_scores(ablation):
    import mlflow

    folder, *_ = ablation
    client = mlflow.MlflowClient(f"sqlite:///{folder.parent / 'mlruns' / 'mlflow.db'}")
    parent = client.get_run(json.loads((folder / "ablation.json").read_text())["mlflow_run_id"])
    runs = client.search_runs([parent.info.experiment_id])
    children = {run.info.run_name: run for run in runs if run.info.run_id != parent.info.run_id}
    assert children.keys() == set(ENTRIES) and len(runs) == 4
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {name: run.data.params["scan"] for name, run in children.items()} == {
        name: name.split("-")[0] for name in ENTRIES
    }
    for name, run in children.items():
        assert parent.data.metrics[f"{name}/mpjpe"] == pytest.approx(run.data.metrics["best/mpjpe"])
    artifacts = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert artifacts == {"ablation.json", "ablation.txt", "ablation.png", "curves.png"}


def ablate_here(monkeypatch, *arguments):
    """The command in this process, which has the libraries loaded."""
    monkeypatch.setattr(sys, "argv", ["ablate.py", "--config", S_CONFIG, *map(str, arguments)])
    tools.ablate.main()


def test_what_cannot_be_ablated_is_one_line(ablation, monkeypatch):
    folder, *_ = ablation
    for arguments, message in [
        (["scan=v2"], "scan=v2: scan is what the ablation varies; leave it out"),
        ([*CHOICE, "limb_gradient=exact"], "limb_gradient is what the ablation varies"),
        (["no_eval=True"], "no_eval: an ablation scores trainings from the start; set no_eval=False"),
        (["epochs=5"], "epochs: the ablation in .* has 2, not 5; choose another folder with -c"),
        (["--orders", "v4"], "--orders: invalid choice: 'v4'"),
        (["--entries", "scan", "--"], "--entries: expected key=value, or several with commas, got 'scan'"),
        (["--entries", "scan=v2", "--orders", "v2", "--"], "--entries: says all that is compared"),
        (["--entries", "scan=v2", "scan=v2", "--"], "--entries: two trainings are called v2"),
        (["--entries", "dt_root=a/b", "--"], "--entries: a/b: no folder can have this name"),
        (["--seeds", "1", "--", "seed=2"], "seed=2: --seeds says the seeds; leave it out"),
    ]:
        with pytest.raises(UserError, match=message):
            ablate_here(monkeypatch, "-c", folder, "--no-mlflow", *EPOCHS, *SMALL, *arguments)


def test_a_record_that_is_none_is_named(tmp_path, monkeypatch):
    (tmp_path / "ablation.json").write_text("[]")
    with pytest.raises(UserError, match="ablation.json: is not the record of an ablation"):
        ablate_here(monkeypatch, "-c", tmp_path, "--no-mlflow", *EPOCHS, *SMALL)


def test_an_entry_that_diverges_does_not_end_the_others(tmp_path, monkeypatch):
    handlers = logging.getLogger("lib").handlers
    options = [option for option in SMALL if not option.startswith("learning_rate")]
    choice = ("--no-mlflow", "--orders", "v2", "v2_fs_ft", "--", "epochs=1", "learning_rate=1e30", *options)
    with pytest.raises(TrainingStopped, match="v2: .* is n.*; v2_fs_ft: .* is n"):
        ablate_here(monkeypatch, "-c", tmp_path, *choice)
    logging.getLogger("lib").handlers = handlers
    rows = json.loads((tmp_path / "ablation.json").read_text())["entries"]
    assert [(row["state"], row["mpjpe"]) for row in rows] == [("stopped", None)] * 2


@pytest.mark.weekly
def test_two_processes_stay_together_from_entry_to_entry(forks, tmp_path):
    """The first entry goes on from a checkpoint with which it diverges: process 0, which alone scores, finds out."""
    plain = ["--no-mlflow", *SMALL, "batch_size=64", "flip=False", "drop_path=0"]
    forks.train(tmp_path, "--config", S_CONFIG, "-c", "runs/v2", *plain, "scan=v2", "no_eval=True", "epochs=1")
    forks.train(tmp_path, "--config", S_CONFIG, "-c", "alone", *plain, "scan=v2_bs_bt", "no_eval=True", "epochs=2")
    diverging = tmp_path / "runs" / "v2" / "latest_epoch.bin"
    torch.save(torch.load(diverging, weights_only=True) | {"lr": 1e30}, diverging)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    choice = ["--config", S_CONFIG, "-c", "runs", "--orders", "v2", "v2_bs_bt", "--", *plain, "epochs=2"]
    command = [*launcher, ROOT / "tools" / "ablate.py", *choice]
    result = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, timeout=300)

    printed = result.stdout + result.stderr
    (line,) = (line for line in printed.splitlines() if line.startswith("error: "))
    assert result.returncode == 1 and line.startswith("error: v2: predictions are not finite"), printed
    assert "v2_bs_bt" not in line and printed.count("2 processes, global batch 64 (32 each)") == 2
    assert re.findall(r"ablation: (\w+), (\d) of 2", printed) == [("v2", "1"), ("v2_bs_bt", "2")]
    rows = json.loads((tmp_path / "runs" / "ablation.json").read_text())["entries"]
    assert [row["state"] for row in rows] == ["stopped", "finished"]
    found, expected = (read_checkpoint(tmp_path / run / "latest_epoch.bin") for run in ("runs/v2_bs_bt", "alone"))
    for entry, alone in zip(found.history, expected.history, strict=True):
        assert entry["train/loss"] == pytest.approx(alone["train/loss"], rel=1e-5)
