"""train.py as people type it: real files, real processes, a real MLflow server."""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from conftest import PARITY, ROOT, is_drawn, relative_error

from lib.errors import UserError
from lib.model.opening import size_of
from lib.model.weights import read_checkpoint

SMALL = [  # a network and clips that train in seconds, on the small file in Human3.6M's layout
    f"dt_root={PARITY}", "dt_file=h36m_schema.pkl", "data_root=nowhere", "maxlen=27", "clip_len=27",
    "data_stride=9", "dim_feat=16", "depth=1", "batch_size=16", "learning_rate=1e-3",
]  # fmt: skip
S_CONFIG = str(ROOT / "configs" / "pose3d" / "PoseMamba_train_h36m_S.yaml")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A working folder with its own MLflow store."""
    folder = tmp_path_factory.mktemp("work")
    variables = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID")}
    return {"cwd": folder, "env": variables, "text": True}


@pytest.fixture(scope="module")
def work(environment):
    return environment["cwd"]


def command(*arguments):
    return [sys.executable, str(ROOT / "train.py"), *map(str, arguments)]


def train(environment, *arguments, code=0):
    result = subprocess.run(command(*arguments), capture_output=True, **environment)
    assert result.returncode == code, result.stdout + result.stderr
    return result


def refusal(environment, *arguments, code=2):
    """The one line that a wrong command prints."""
    result = train(environment, *arguments, code=code)
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in result.stderr + result.stdout, result.stderr
    return lines[0]


def start_and_wait_for_a_checkpoint(environment, folder, *arguments):
    """A training process that has finished its first epoch, and its checkpoint."""
    process = subprocess.Popen(
        command("--config", S_CONFIG, "-c", folder, *arguments, *SMALL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **environment,
    )
    latest = folder / "latest_epoch.bin"
    deadline = time.monotonic() + 120
    while not latest.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    return process, latest


def mlflow_run(environment, run_id):
    import mlflow

    store = environment["cwd"] / "mlruns" / "mlflow.db"
    return mlflow.MlflowClient(f"sqlite:///{store}").get_run(run_id)


@pytest.fixture(scope="module")
def trained(environment):
    """A run of three epochs, and what it printed."""
    result = train(environment, "--config", S_CONFIG, "-c", "runs/whole", "epochs=3", "checkpoint_frequency=2", *SMALL)
    return environment["cwd"] / "runs" / "whole", result.stdout


def test_a_run_leaves_checkpoints_table_pictures_and_log(trained):
    folder, printed = trained
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "latest_epoch.bin", "best_epoch.bin", "epoch_2.bin", "config.yaml", "train.log", "scores.json",
        "loss_curves.png", "per_action.png", "skeletons.png", "events",
    }  # fmt: skip
    assert "mean of actions" in printed and "mean pose" in printed and "linear" in printed
    losses = [entry["train/loss"] for entry in read_checkpoint(folder / "latest_epoch.bin").history]
    assert len(losses) == 3 and losses[2] < losses[0]
    for name in ("loss_curves.png", "per_action.png", "skeletons.png"):
        is_drawn(folder / name)
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["PoseMamba"]["per_action"].keys() == {"Direction", "Greet", "Walk"}
    assert scores["linear"]["mpjpe"] > 0 and scores["mean_pose"]["mpjpe"] > 0


def test_mlflow_has_parameters_metrics_and_artifacts(trained, environment):
    import mlflow

    folder, _ = trained
    run = mlflow_run(environment, read_checkpoint(folder / "latest_epoch.bin").mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["dim_feat"] == "16" and run.data.params["seed"] == "0"
    assert {"git_commit", "device", "version_torch", "version_numpy", "parameters"} <= run.data.params.keys()
    assert {
        "train/loss", "train/mpjpe", "train/velocity", "test/mpjpe", "test/p_mpjpe", "test/mpjpe Walk", "lr",
    } <= run.data.metrics.keys()  # fmt: skip
    client = mlflow.MlflowClient(f"sqlite:///{environment['cwd'] / 'mlruns' / 'mlflow.db'}")
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 3
    artifacts = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert artifacts >= {
        "config.yaml", "train.log", "best_epoch.bin", "latest_epoch.bin", "loss_curves.png", "scores.json",
    }  # fmt: skip


def test_tensorboard_events_hold_the_loss(trained):
    folder, _ = trained
    (events,) = (folder / "events").iterdir()
    assert b"train/loss" in events.read_bytes()


def test_the_readme_mlflow_command_shows_the_run(trained, environment):
    folder, _ = trained
    run_id = read_checkpoint(folder / "latest_epoch.bin").mlflow_run_id
    readme = (ROOT / "README.md").read_text()
    typed = "mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db"
    assert typed in readme
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", *typed.split(), "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        **environment,
    )
    try:
        url = f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/get?run_id={run_id}"
        answer = None
        deadline = time.monotonic() + 400  # beside other work it takes minutes to start
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(url, timeout=5) as response:
                    answer = json.load(response)
                break
            except (urllib.error.URLError, OSError):
                assert server.poll() is None, "the server ended"
                time.sleep(0.5)
        assert answer["run"]["info"]["run_id"] == run_id
        assert answer["run"]["info"]["status"] == "FINISHED"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_the_checkpoint_has_the_published_layout(trained):
    folder, _ = trained
    content = torch.load(folder / "latest_epoch.bin", weights_only=True)
    published = {"epoch", "lr", "optimizer", "model_pos", "min_loss"}
    assert published <= content.keys()
    assert all(name.startswith("module.") for name in content["model_pos"])
    assert content["epoch"] == 3 and content["lr"] == pytest.approx(1e-3 * 0.99**3)
    assert torch.load(folder / "epoch_2.bin", weights_only=True)["epoch"] == 2


def test_a_killed_run_resumes_to_the_same_weights_in_the_same_mlflow_run(trained, forks, work, environment):
    whole, _ = trained
    folder = environment["cwd"] / "runs" / "killed"
    process, latest = start_and_wait_for_a_checkpoint(environment, folder, "epochs=3", "checkpoint_frequency=2")
    process.kill()
    process.communicate()
    stopped = read_checkpoint(latest)
    assert stopped.epoch < 3
    printed = forks.train(work, "--resume", latest)
    assert f"epoch {stopped.epoch + 1}/3" in printed and "epoch 1/3" not in printed
    resumed, uninterrupted = read_checkpoint(latest), read_checkpoint(whole / "latest_epoch.bin")
    for name, value in uninterrupted.model.items():
        assert relative_error(resumed.model[name], value) < 1e-6, name
    assert resumed.lr == uninterrupted.lr and len(resumed.history) == 3
    assert resumed.mlflow_run_id == stopped.mlflow_run_id
    assert mlflow_run(environment, resumed.mlflow_run_id).info.status == "FINISHED"


@pytest.mark.weekly
def test_an_interrupted_run_is_marked_and_says_how_to_go_on(environment):
    folder = environment["cwd"] / "runs" / "interrupted"
    process, latest = start_and_wait_for_a_checkpoint(environment, folder, "epochs=500", "no_eval=True")
    process.send_signal(signal.SIGTERM)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert f"--resume {latest.parent}" in printed and "Traceback" not in errors
    assert mlflow_run(environment, read_checkpoint(latest).mlflow_run_id).info.status == "KILLED"


def test_evaluating_needs_only_the_checkpoint(trained, forks, work):
    folder, printed = trained
    again = forks.train(work, "--evaluate", folder / "best_epoch.bin")
    scores = json.loads((folder / "scores.json").read_text())
    again_scores = json.loads((folder / "evaluation" / "scores.json").read_text())
    assert again_scores["PoseMamba"]["mpjpe"] == pytest.approx(scores["PoseMamba"]["mpjpe"], rel=1e-5)
    assert again_scores["linear"] == scores["linear"]
    assert "recorded in the checkpoint" in again
    other = forks.train(work, "--eval-only", "--checkpoint", folder, "--checkpoint-file", "epoch_2.bin", "--no-mlflow")
    assert "mean of actions" in other


def test_evaluating_a_published_checkpoint(forks, work):
    """Its names have the prefix `module.`, it holds no config; the scores are those of its output."""
    data = [f"dt_root={PARITY}", "dt_file=h36m_schema.pkl"]
    file = PARITY / "reference_checkpoint.bin"
    printed = forks.train(work, "-e", file, "-c", "runs/published", *data, "--no-mlflow")
    assert "scan: v2_plus_poselimbs (the checkpoint does not record it" in printed and "scan=v2" in printed
    limbs = json.loads((work / "runs/published/evaluation/scores.json").read_text())
    forks.train(work, "-e", file, "-c", "runs/published", *data, "scan=v2", "--no-mlflow")
    plain = json.loads((work / "runs/published/evaluation/scores.json").read_text())
    assert limbs["PoseMamba"]["mpjpe"] != plain["PoseMamba"]["mpjpe"]
    assert limbs["linear"] == plain["linear"]


def test_the_model_layout_is_read_too(tmp_path):
    state = {
        f"module.{name}": value for name, value in read_checkpoint(PARITY / "reference_checkpoint.bin").model.items()
    }
    torch.save({"model": state}, tmp_path / "model.bin")
    torch.save(state, tmp_path / "bare.bin")
    for name in ("model.bin", "bare.bin"):
        assert size_of(read_checkpoint(tmp_path / name), "PoseMamba")["dim_feat"] == 32


def test_a_config_of_another_size_is_refused_by_naming_both(forks, work):
    line = forks.refusal(work, "-e", PARITY / "reference_checkpoint.bin", "--config", S_CONFIG)
    assert "dim_feat 64, depth 10, maxlen 243" in line
    assert "reference_checkpoint.bin (dim_feat 32, depth 2, maxlen 27); set dim_feat=32 depth=2 maxlen=27" in line


def test_a_checkpoint_that_lacks_a_tensor_names_it(forks, work, tmp_path):
    state = read_checkpoint(PARITY / "reference_checkpoint.bin").model
    state["STEblocks.0.op.Ds"] = state["STEblocks.0.op.Ds"][1:]
    torch.save({"model_pos": state}, tmp_path / "changed.bin")
    data = [f"dt_root={PARITY}", "dt_file=h36m_schema.pkl", "--no-mlflow"]
    assert "'STEblocks.0.op.Ds' is (255,) there and (256,) in the model" in forks.refusal(
        work, "-e", tmp_path / "changed.bin", *data
    )
    del state["STEblocks.0.op.Ds"]
    torch.save({"model_pos": state}, tmp_path / "changed.bin")
    assert "lacks 'STEblocks.0.op.Ds'" in forks.refusal(work, "-e", tmp_path / "changed.bin", *data)


def test_finetuning_starts_from_pretrained_weights_and_trains_a_part(trained, forks, work, environment):
    folder, _ = trained
    target = work / "runs" / "finetuned"
    printed = forks.train(
        work, "--config", S_CONFIG, "-c", target, "-p", folder, "-ms", "epoch_2.bin", "--no-tensorboard",
        "finetune=True", "partial_train=[head]", "epochs=1", "no_eval=True", *SMALL,
    )  # fmt: skip
    assert f"starts from the weights of {folder / 'epoch_2.bin'}, epoch 2" in printed
    parameters = mlflow_run(environment, read_checkpoint(target / "latest_epoch.bin").mlflow_run_id).data.params
    assert parameters["pretrained"] == str(folder / "epoch_2.bin")
    assert 0 < int(parameters["trained_parameters"]) < int(parameters["parameters"])
    assert f"partial_train: {int(parameters['trained_parameters']):,} of the parameters are trained" in printed
    before, after = read_checkpoint(folder / "epoch_2.bin"), read_checkpoint(target / "latest_epoch.bin")
    changed = {name for name in before.model if not torch.equal(before.model[name], after.model[name])}
    assert changed and all(name.startswith("head") for name in changed)
    assert not (target / "events").exists() and not (target / "best_epoch.bin").exists()


def test_published_clip_files_are_trained_on(forks, work, environment):
    clips = work / "clips" / "H36M-SH" / "train"
    clips.mkdir(parents=True)
    with np.load(PARITY / "h36m_expected.npz") as expected:
        for i, (x, y) in enumerate(zip(expected["train_input"], expected["train_label"])):
            with open(clips / f"{i:08d}.pkl", "wb") as handle:
                pickle.dump({"data_input": x, "data_label": y}, handle)
    options = [o for o in SMALL if not o.startswith("data_root")]
    printed = forks.train(
        work, "--config", S_CONFIG, "-c", "runs/files", "--no-mlflow", "epochs=1", "no_eval=True",
        f"data_root={environment['cwd'] / 'clips'}", *options,
    )  # fmt: skip
    assert "52 files in" in printed


def test_a_nan_loss_stops_and_keeps_the_last_checkpoint(forks, work, environment):
    folder = work / "runs" / "nan"
    start = ["--config", S_CONFIG, "-c", folder, "no_eval=True", *SMALL]
    forks.train(work, *start, "epochs=1")
    good = (folder / "latest_epoch.bin").read_bytes()
    content = torch.load(folder / "latest_epoch.bin", weights_only=True)
    content["lr"] = 1e30
    torch.save(content, folder / "latest_epoch.bin")
    broken = (folder / "latest_epoch.bin").read_bytes()
    line = forks.refusal(work, "-r", folder / "latest_epoch.bin", "epochs=3", code=1)
    assert "loss is nan at epoch 2, step " in line and "nothing was saved over" in line
    assert (folder / "latest_epoch.bin").read_bytes() == broken != good
    assert not list(folder.glob("*.tmp"))
    run_id = read_checkpoint(folder / "latest_epoch.bin").mlflow_run_id
    assert mlflow_run(environment, run_id).info.status == "FAILED"


def test_a_divergence_at_the_last_step_of_an_epoch_stops_too(forks, work):
    options = [option for option in SMALL if not option.startswith(("learning_rate", "batch_size"))]
    line = forks.refusal(
        work, "--config", S_CONFIG, "-c", "runs/diverged", "--no-mlflow", "epochs=2",
        "learning_rate=1e30", "batch_size=64", *options, code=1,
    )  # fmt: skip
    assert "not finite" in line
    assert not list((work / "runs" / "diverged").glob("*.bin"))


def test_a_published_run_is_continued(forks, work):
    """Three epochs are in the file; its optimiser fits the parameters."""
    options = [option for option in SMALL if not option.startswith(("dim_feat", "depth", "learning_rate"))]
    printed = forks.train(
        work, "-r", PARITY / "reference_checkpoint.bin", "--config", S_CONFIG, "-c", "runs/continued",
        "--no-mlflow", "epochs=4", "no_eval=True", "dim_feat=32", "depth=2", *options,
    )  # fmt: skip
    assert "epoch 4/4" in printed and "lr 1.94e-04" in printed


def test_the_recorded_scan_order_wins_over_a_file_and_cannot_change_on_resume(trained, forks, work, tmp_path):
    folder, _ = trained
    content = torch.load(folder / "best_epoch.bin", weights_only=True)
    content["config"]["scan"] = "v2"
    torch.save(content, tmp_path / "plain.bin")
    data = [f"dt_root={PARITY}", "dt_file=h36m_schema.pkl", "--no-mlflow"]
    test_config = ROOT / "configs" / "pose3d" / "PoseMamba_test_h36m.yaml"
    printed = forks.train(work, "-e", tmp_path / "plain.bin", "--config", test_config, *data)
    assert "scan: v2 (recorded in the checkpoint)" in printed
    line = forks.refusal(work, "-r", folder / "epoch_2.bin", "-c", "runs/other_order", "scan=v2")
    assert "scan: the run of" in line and "finetune=True" in line


def test_a_folder_with_another_run_is_refused(trained, forks, work):
    folder, _ = trained
    before = (folder / "best_epoch.bin").read_bytes()
    line = forks.refusal(work, "--config", S_CONFIG, "-c", folder, *SMALL)
    assert "already holds a run" in line and "--resume" in line
    assert (folder / "best_epoch.bin").read_bytes() == before


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--confg", "x"], "--confg: unknown option (did you mean '--config'?)"),
        (["--config", "absent.yaml"], "absent.yaml: no such file"),
        (["--config", S_CONFIG, "epoch=1"], "command line: epoch: unknown key (did you mean 'epochs'?)"),
        (["--config", S_CONFIG, "-sd", "x"], "-sd/--seed"),
        (["--config", S_CONFIG, "-c", "runs/new", "dt_root=absent"], "h36m_sh_conf_cam_source_final.pkl: no such file"),
        (["--config", S_CONFIG, "finetune=True"], "finetune: needs the folder of the pretrained checkpoint"),
        (["--config", S_CONFIG, "-p", "x"], "-p/--pretrained: is used only by"),
        (["--config", S_CONFIG, "-p", "x", "finetune=True"], "x/best_epoch.bin: no such file"),
        (["--config", S_CONFIG, "-r", "absent.bin"], "absent.bin: no such file"),
        (["-e", "absent.bin"], "absent.bin: no such file"),
        (["-e", S_CONFIG], "is truncated or not a checkpoint"),
        (["--eval-only"], "checkpoint/best_epoch.bin: no such file"),
        (["--config", S_CONFIG, "-c", "runs/new", *SMALL, "data_stride=0"], "data_stride: 0: "),
        (["--config", S_CONFIG, "-c", "runs/new", *SMALL, "partial_train=[nose]"], "no parameter's name contains any of nose"),
        (["--config", S_CONFIG, "-c", "/dev/null/run", *SMALL], "(Not a directory: /dev/null/run); choose another folder with -c"),
    ],
)  # fmt: skip
def test_wrong_commands_are_one_line(forks, tmp_path, arguments, message):
    assert message in forks.refusal(tmp_path, *arguments)


def test_a_command_without_a_config_is_one_line(environment):
    assert "--config: give a config file" in refusal(environment)


@pytest.mark.parametrize(
    "arguments", [["dt_root=absent"], ["partial_train=[nose]"], ["subset_list=[AMASS]", "synthetic=True"]]
)
def test_a_start_that_fails_leaves_nothing(forks, tmp_path, arguments):
    (tmp_path / "notes").mkdir()
    for folder in ("runs/new", "notes"):
        forks.refusal(tmp_path, "--config", S_CONFIG, "-c", folder, *SMALL, *arguments)
        assert set(tmp_path.rglob("*")) == {tmp_path / "notes", tmp_path / "output"}


@pytest.mark.parametrize(
    "variables", [{"SELECTIVE_SCAN_IMPLEMENTATION": "absent"}, {"MLFLOW_TRACKING_URI": "nosuch://store"}]
)
def test_a_start_in_a_wrong_environment_leaves_nothing(forks, tmp_path, variables):
    (tmp_path / "notes").mkdir()
    for folder in ("runs/new", "notes"):
        forks.refusal(tmp_path, "--config", S_CONFIG, "-c", folder, *SMALL, variables=variables)
        assert set(tmp_path.rglob("*")) == {tmp_path / "notes", tmp_path / "output"}


def test_a_resumption_or_evaluation_that_fails_leaves_a_run_as_it_was(trained, forks, work):
    folder, _ = trained
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    forks.refusal(work, "-r", folder / "latest_epoch.bin", "epochs=4", "dt_root=absent")
    forks.refusal(work, "-e", folder / "latest_epoch.bin", "-c", folder / "again", "dt_root=absent")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert not (folder / "again").exists()


def test_a_truncated_checkpoint_is_named(trained, forks, work, tmp_path):
    folder, _ = trained
    whole = (folder / "latest_epoch.bin").read_bytes()
    for length in (0, 20_000, len(whole) // 2, len(whole) - 100):
        (tmp_path / "short.bin").write_bytes(whole[:length])
        with pytest.raises(UserError, match="short.bin: is truncated or not a checkpoint"):
            read_checkpoint(tmp_path / "short.bin")
    (tmp_path / "short.bin").write_bytes(whole[:20_000])
    assert "short.bin: is truncated or not a checkpoint" in forks.refusal(work, "-e", tmp_path / "short.bin")


def test_a_checkpoint_that_may_not_be_read_is_named_as_such(trained, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied", arguments[0])

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(PermissionError):
        read_checkpoint(trained[0] / "latest_epoch.bin")


def test_events_that_cannot_be_written_end_the_mlflow_run_too(forks, work, environment):
    import mlflow

    (environment["cwd"] / "runs" / "blocked").mkdir(parents=True)
    (environment["cwd"] / "runs" / "blocked" / "events").write_text("a file")
    line = forks.refusal(work, "--config", S_CONFIG, "-c", "runs/blocked", "experiment=Blocked", *SMALL)
    assert "runs/blocked/events: tensorboardX cannot write there" in line and "--no-tensorboard" in line
    client = mlflow.MlflowClient(f"sqlite:///{environment['cwd'] / 'mlruns' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("Blocked").experiment_id])
    assert run.info.status == "FAILED"


def test_an_unusable_mlflow_store_is_named(forks, work):
    variables = {"MLFLOW_TRACKING_URI": "nosuch://store"}
    line = forks.refusal(work, "--config", S_CONFIG, "-c", "runs/store", *SMALL, variables=variables)
    assert "nosuch://store" in line and "--no-mlflow" in line
