"""Every command of every page is run as it stands, in a copy of the project whose configs are small and whose data are made.

Licensed data are small files in their layouts; my.mp4, best_epoch.bin and the like are made. What cannot run is listed with
the test that stands in for it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import few_motions
import numpy as np
import pytest
import torch
from conftest import PARITY, ROOT, project_files
from test_3dhp import content, layouts  # noqa: F401
from test_amass import body, motion
from test_mocap import random_pose, write_amc, write_asf
from test_pretrain import folder as pretraining_data  # noqa: F401
from test_readmes import PAGES
from test_vis import part

from lib.config import load_config
from lib.model.registry import build_model

pytestmark = pytest.mark.weekly

BIN = Path(sys.executable).parent
LIMIT = 900  # s
DONE: set = set()  # commands that another page has too
ELSEWHERE = {  # commands that cannot run here, by what they contain: why
    "docker compose": "no engine here: tests/commands/test_docker.py runs what they start",
    "make test": "it would run this",
    "-m cuda": "needs a GPU",
    "--device cuda": "needs a GPU",
    "--video 0": "needs a camera",
    "--detector rtmpose": "fetches its models from the internet",
    "--rdzv_endpoint=HOST": "needs two machines",
    "mlflow ui": "does not end: tests/commands/test_train.py asks the server",
    "-m pytest": "runs other tests",
}
SMALL = {
    "maxlen": 27, "clip_len": 27, "data_stride": 27, "dim_feat": 16, "depth": 1, "epochs": 1, "dim_rep": 16, "num_heads": 2,
    "batch_size": 8, "num_workers": 0, "checkpoint_frequency": 1, "warmup_steps": 0, "pretrain_3d_curriculum": 0,
}  # fmt: skip
FEWER = [
    ("FILE", "best_epoch.bin"),
    (r"--crops \d+ --test-crops \d+", "--crops 64 --test-crops 16"),
    (r"epochs=\d", "epochs=1"),
]


def commands_of(page):
    """The commands of a page's blocks, and of its tables, in their order; those of continued lines in one."""
    text = page.read_text()
    blocks = re.findall(
        r"```(?:bash)?\n((?:#|source|python|make|pip|torchrun|docker|mlflow|\.venv|TORCH|mkdir)[^`]*?)```", text
    )
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"^\| [^|]* \| `((?:python|torchrun|make|mlflow) [^`]+)`", text, re.M)
    return [line for line in lines if line.strip() and not line.startswith(("#", "source "))]


def write_small_config(path):
    """Make a config's network and training small, by the keys that it has."""
    lines = path.read_text().splitlines()
    changed = [
        re.sub(r"^(\w+): .*", lambda m: f"{m[1]}: {SMALL.get(m[1], m[0].split(': ', 1)[1])}", line) for line in lines
    ]
    path.write_text("\n".join(changed) + "\n")


def write_keypoints(path):
    """Detections of one person, as OpenPose and others write them: see lib/video/detection."""
    rng = np.random.default_rng(0)
    people = [{"image_id": f"{n}.jpg", "keypoints": rng.uniform(50, 250, 51).tolist(), "score": 2.0} for n in range(20)]
    path.write_text(json.dumps(people))


@pytest.fixture(scope="module")
def project(layouts, pretraining_data, tmp_path_factory):  # noqa: F811
    """The copy."""
    folder = tmp_path_factory.mktemp("project")
    for name in project_files():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(BIN.parent)
    for config in (folder / "configs").rglob("*.yaml"):
        write_small_config(config)
    for old, new in FEWER:
        (folder / "Makefile").write_text(re.sub(old, new, (folder / "Makefile").read_text()))
    held_back = load_config(folder / "configs/pose3d/PoseMamba_wild.yaml", ()).held_back
    few_motions.write(folder / "data/cmu17_large.npz", [subject for subject in held_back if subject.isdecimal()])

    (folder / "data/motion3d").mkdir()
    shutil.copy(PARITY / "h36m_schema.pkl", folder / "data/motion3d/h36m_sh_conf_cam_source_final.pkl")
    root = folder / "ROOT"  # of CMU, AMASS and MPI-INF-3DHP alike
    shutil.copytree(layouts / "archive", root)
    for name in ("data_train_3dhp.npz", "data_test_3dhp.npz"):
        shutil.copy(layouts / "npz" / name, folder / name)
    rng = np.random.default_rng(0)
    (root / "subjects/05").mkdir(parents=True)
    write_asf(root / "subjects/05/05.asf")
    write_amc(root / "subjects/05/05_01.amc", [random_pose(rng) for _ in range(60)])
    for gender in ("male", "female"):
        (folder / "DIR" / gender).mkdir(parents=True)
        np.savez(folder / "DIR" / gender / "model.npz", **body(rng))
    (root / "amass").mkdir()
    for name in "ab":
        np.savez(root / "amass" / f"{name}_poses.npz", **motion(rng, frames=200))

    shutil.copytree(pretraining_data / "motion2d", folder / "data/motion2d")
    part(folder / "my.mp4", 90, 110)
    write_keypoints(folder / "found.json")
    for name, config, key in (
        ("motionagformer-s-h36m.pth.tr", "MotionAGFormer_train_h36m_S", "model"),
        ("best_epoch.bin", "PoseMamba_train_h36m_S", "model_pos"),
    ):
        model = build_model(load_config(folder / "configs/pose3d" / f"{config}.yaml", ()))
        state = {f"module.{parameter}": value for parameter, value in model.state_dict().items()}
        torch.save({key: state, "epoch": 1}, folder / name)
    return folder


def smaller(command):
    """A command with less to do."""
    for old, new in FEWER:
        command = re.sub(old, new, command)
    if command.startswith("pip install"):
        command += " --dry-run"
    if "render_people.py" in command:
        command = command.split("#")[0] + " --crops 64 --test-crops 16"
    return command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands(page, project):
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "PYTEST"))}
    variables |= {"PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    variables["PIP"] = "true"  # for make: the environment is the one that runs this, and stays as it is
    failed = []
    for command in commands_of(page):
        if command in DONE or any(part in command for part in ELSEWHERE):
            continue
        DONE.add(command)
        done = subprocess.run(
            ["bash", "-c", smaller(command)], cwd=project, env=variables, text=True, capture_output=True, timeout=LIMIT
        )
        if done.returncode:
            said = done.stderr + done.stdout
            failed.append(f"{command}\n    {re.findall('error: .*', said) or said[-600:]}")
    assert not failed, "\n".join(failed)


def test_what_is_left_out_is_there():
    commands = "\n".join(command for page in PAGES for command in commands_of(page))
    assert [part for part in ELSEWHERE if part not in commands] == []
    assert len(commands.splitlines()) > 60
