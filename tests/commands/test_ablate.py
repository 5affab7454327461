"""tools/ablate.py as people type it: interrupted, resumed, and compared with a training on its own."""

import json
import logging
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import PARITY, ROOT, is_drawn

import tools.ablate
from lib.errors import TrainingStopped, UserError
from lib.model.scan_orders import LIMB_GRADIENTS
from lib.model.weights import read_checkpoint

S_CONFIG = str(ROOT / "configs" / "pose3d" / "PoseMamba_train_h36m_S.yaml")
SMALL = [
    f"dt_root={PARITY}", "dt_file=h36m_schema.pkl", "data_root=nowhere", "maxlen=27", "clip_len=27", "data_stride=9",
    "dim_feat=16", "depth=1", "batch_size=16", "learning_rate=1e-3", "num_workers=0",
]  # fmt: skip
EPOCHS = ["epochs=3", "checkpoint_frequency=100"]
ENTRIES = ["v2_plus_poselimbs-straight_through", "v2_plus_poselimbs-exact", "v2", "v2_bs_bt"]
CHOICE = ["--limb-gradients", "--orders", "v2_plus_poselimbs", "v2", "v2_bs_bt", "--"]


def start(folder, tool, *arguments):
    variables = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID")}
    command = [sys.executable, str(ROOT / tool), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=variables, **pipes)


def finish(process, code=0):
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == code, printed + errors
    assert "Traceback" not in printed + errors
    return printed + errors


def ablate(folder, *arguments, code=0):
    return finish(start(folder, "tools/ablate.py", "--config", S_CONFIG, *arguments), code)


@pytest.fixture(scope="module")
def ablation(tmp_path_factory):
    """The folder of an ablation that was interrupted in its second entry and resumed, and what the two printed."""
    work = tmp_path_factory.mktemp("work")
    command = ("-c", "runs", *CHOICE, *EPOCHS, *SMALL)
    process = start(work, "tools/ablate.py", "--config", S_CONFIG, *command)
    second = work / "runs" / ENTRIES[1] / "latest_epoch.bin"
    deadline = time.monotonic() + 100
    while not second.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    interrupted = finish(process, code=130)
    between = json.loads((work / "runs" / "ablation.json").read_text())
    first = (work / "runs" / ENTRIES[0] / "latest_epoch.bin").stat().st_mtime_ns
    resumed = ablate(work, *command)
    assert (work / "runs" / ENTRIES[0] / "latest_epoch.bin").stat().st_mtime_ns == first
    return work / "runs", between, interrupted, resumed


def test_an_interrupted_ablation_goes_on(ablation):
    folder, between, interrupted, resumed = ablation
    assert [row["state"] for row in between["entries"]] == ["finished", "started", "waiting", "waiting"]
    assert f"ablation: {ENTRIES[1]}, 2 of 4" in interrupted and "3 of 4" not in interrupted
    assert f"ablation: {ENTRIES[0]}" not in resumed and "goes on from" in resumed
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_by_default_there_are_six_orders_and_a_gradient_varies_where_there_is_a_limb_term():
    names = [entry.name for entry in tools.ablate.entries_of(tools.ablate.ORDERS, ["exact"])]
    assert names == ["v2_plus_poselimbs-exact", "v2", "v2_fs_ft", "v2_fs_bt", "v2_bs_ft", "v2_bs_bt"]
    assert [entry.name for entry in tools.ablate.entries_of(["v2_plus_poselimbs", "v2"], LIMB_GRADIENTS)] == ENTRIES[:3]


def test_the_table_has_every_entry_once_with_the_scores_of_its_own_run(ablation):
    folder, *_ = ablation
    rows = json.loads((folder / "ablation.json").read_text())["entries"]
    assert [row["name"] for row in rows] == ENTRIES
    printed = (folder / "ablation.txt").read_text()
    for row in rows:
        scores = json.loads((folder / row["name"] / "scores.json").read_text())["PoseMamba"]
        assert (row["mpjpe"], row["p_mpjpe"]) == (scores["mpjpe"], scores["p_mpjpe"])
        history = read_checkpoint(folder / row["name"] / "latest_epoch.bin").history
        assert len(history) == 3 and row["seconds"] == pytest.approx(sum(epoch["seconds"] for epoch in history))
        assert row["parameters"] > 10_000 and row["state"] == "finished"
        (line,) = (line for line in printed.splitlines()
                   if f" {row['scan']} " in line and (row["limb_gradient"] or "") in line)  # fmt: skip
        assert f"{row['mpjpe']:.1f}" in line and f"{row['p_mpjpe']:.1f}" in line
    assert len({row["mpjpe"] for row in rows}) == 4
    is_drawn(folder / "ablation.png")


def test_an_entry_that_was_resumed_has_the_weights_of_a_training_on_its_own(ablation):
    folder, *_ = ablation
    alone = ["-c", "alone", "--no-mlflow", "scan=v2_plus_poselimbs", "limb_gradient=exact", "no_eval=True"]
    finish(start(folder.parent, "train.py", "--config", S_CONFIG, *alone, *EPOCHS, *SMALL))
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
    assert children.keys() == set(ENTRIES) and len(runs) == 5
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {name: run.data.params["scan"] for name, run in children.items()} == {
        name: name.split("-")[0] for name in ENTRIES
    }
    for name, run in children.items():
        assert parent.data.metrics[f"{name}/mpjpe"] == pytest.approx(run.data.metrics["best/mpjpe"])
    artifacts = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert artifacts == {"ablation.json", "ablation.txt", "ablation.png"}


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
        (["epochs=5"], "epochs: the ablation in .* has 3, not 5; choose another folder with -c"),
        (["--orders", "v4"], "--orders: invalid choice: 'v4'"),
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
