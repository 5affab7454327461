"""docker/ without an engine: its files checked by hadolint and Compose, its steps and commands run outside of a container."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import few_motions
import pytest
from conftest import PARITY, ROOT
from dockerfile import context, copy_of, read_stages

FOLDER = ROOT / "docker"
BEFORE, STAGES = read_stages(FOLDER / "Dockerfile")
BIN = Path(sys.executable).parent
VARIABLES = {
    **{name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")},
    "PATH": f"{BIN}:{os.environ['PATH']}",
}
HADOLINT, COMPOSE = (shutil.which(name, path=VARIABLES["PATH"]) for name in ("hadolint", "docker-compose"))
needs_compose = pytest.mark.skipif(not COMPOSE, reason="no docker-compose of requirements-tests.txt (Python 3.11)")
IMAGE_LIMIT = 1.6e9  # bytes
PYTHON_SLIM = 0.13e9  # bytes of its base, unpacked
README = (FOLDER / "README.md").read_text()
TYPED = [line for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]


def configuration(**variables):
    """The services that Compose makes of the file, with all profiles."""
    command = [COMPOSE, "-f", FOLDER / "compose.yaml", "--profile", "*", "config", "--format", "json"]
    done = subprocess.run(command, env={**VARIABLES, **variables}, text=True, capture_output=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout.replace("$$", "$"))["services"]


@pytest.fixture(scope="module")
def services():
    return configuration()


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The folder /app of the image for the CPU, with less motion to train on and for fewer epochs."""
    folder = copy_of(STAGES["cpu"], tmp_path_factory.mktemp("image") / "app")
    few_motions.write(folder / "data/cmu17_large.npz")
    config = folder / "configs/pose3d/PoseMamba_train_cmu.yaml"
    config.write_text(config.read_text().replace("epochs: 12", "epochs: 1"))
    return folder


def run(command, folder, **variables):
    done = subprocess.run(command, cwd=folder, env={**VARIABLES, **variables}, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(not HADOLINT, reason="no hadolint of requirements-tests.txt")
def test_hadolint_has_nothing_to_say():
    assert run([HADOLINT, FOLDER / "Dockerfile"], ROOT) == ""


def test_images_run_without_root_and_the_one_for_the_cpu_without_a_compiler():
    assert list(STAGES) == ["cpu-build", "cuda-build", "servers", "cpu", "cuda"]
    for name in ("servers", "cpu", "cuda"):
        instructions = [instruction for instruction, _ in STAGES[name].steps]
        assert STAGES[name].of("USER") == ["1000"]
        assert not {"RUN", "COPY"} & set(instructions[instructions.index("USER") :])
        assert not any("apt-get" in step for step in STAGES[name].of("RUN"))
    assert "g++" in STAGES["cpu-build"].of("RUN")[0]
    assert STAGES["cpu"].of("COPY")[0] == "--from=cpu-build /opt/venv /opt/venv"


def test_arguments_have_the_defaults_that_are_told():
    assert ("ARG", "BASE=nvcr.io/nvidia/pytorch:25.09-py3") in BEFORE
    assert 'TORCH_CUDA_ARCH_LIST="12.1"' in STAGES["cuda-build"].of("ARG")
    for stage in ("cpu-build", "cuda-build"):
        assert "SELECTIVE_SCAN_MARCH=portable" in STAGES[stage].of("ARG")
        (files,) = (a.partition("=")[2].strip('"').split() for a in STAGES[stage].of("ARG") if a.startswith("REQ"))
        assert all((ROOT / file).is_file() for file in files)


def test_the_build_is_sent_what_images_hold_and_nothing_else(image):
    sent = context()
    assert {path.partition("/")[0] for path in sent} <= {
        *("configs", "data", "demo", "docker", "kernels", "lib", "tests", "tools", "LICENSE", "pyproject.toml"),
        *(path.name for path in ROOT.glob("requirements*.txt")),
        *("train.py", "vis.py"),
    }
    assert not [path for path in sent if path.endswith((".so", ".pyc", "_build.json")) or "demo/output" in path]
    assert sorted(path.name for path in image.iterdir()) == [
        *("LICENSE", "configs", "data", "demo", "lib", "tools", "train.py", "vis.py"),
    ]


@needs_compose
def test_compose_builds_targets_with_arguments_that_there_are(services):
    declared = {line.partition("=")[0] for _, line in BEFORE} | {
        line.partition("=")[0] for stage in STAGES.values() for line in stage.of("ARG")
    }
    for service in services.values():
        build = service["build"]
        assert Path(build["context"]) == ROOT and Path(build["context"], build["dockerfile"]) == FOLDER / "Dockerfile"
        assert build["target"] in STAGES and set(build.get("args", {})) <= declared
    chosen = configuration(TORCH_CUDA_ARCH_LIST="9.0;12.1", BASE="nvcr.io/nvidia/pytorch:26.01-py3")
    assert chosen["train-gpu"]["build"]["args"]["TORCH_CUDA_ARCH_LIST"] == "9.0;12.1"
    assert chosen["train-gpu"]["build"]["args"]["BASE"] == "nvcr.io/nvidia/pytorch:26.01-py3"


@needs_compose
def test_gpus_volumes_ports_and_health(services):
    assert sorted(services) == ["demo", "demo-gpu", "mlflow", "tensorboard", "train", "train-gpu"]
    for name, service in services.items():
        gpus = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
        assert [d["capabilities"] for d in gpus] == ([["gpu"]] if name.endswith("-gpu") else [])
        expected = {"gpu": ["gpu"], "train": ["cpu"], "demo": ["cpu"]}.get("gpu" if gpus else name, [])
        assert service.get("profiles", []) == expected
        if name in ("mlflow", "tensorboard"):
            (port,) = service["ports"]
            assert port["host_ip"] == "127.0.0.1" and service["healthcheck"]["test"]
        else:
            assert int(service["shm_size"]) == 8 * 2**30
            folders = {volume["target"] for volume in service["volumes"]}
            assert folders == {"/app/data/motion3d", "/app/checkpoint", "/app/demo/output"}
    assert {v["target"]: v["source"] for v in services["mlflow"]["volumes"]} == {
        "/runs": "runs",
        "/artifacts": "artifacts",
    }
    mine = configuration(CHECKPOINT="/home/me/checkpoint", USER_ID="1234")
    assert mine["train"]["user"] == "1234"
    for name in ("train", "tensorboard"):
        assert "/home/me/checkpoint" in [volume["source"] for volume in mine[name]["volumes"]]


@needs_compose
def test_the_readme_names_services_that_there_are(services):
    assert len(TYPED) >= 9
    for line in TYPED:
        words = shlex.split(re.sub(r"\$\(id -u\)|\$PWD", "x", line))
        words = words[words.index("docker") :]
        assert words[:4] == ["docker", "compose", "-f", "docker/compose.yaml"]
        named = [word for word in words if word in services]
        assert named or words[4:] == ["--profile", "gpu", "build"]


@contextmanager
def served(service, places):
    """A server that runs a service's command with other folders and a free port; gives the port when it is healthy."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    inner = service["ports"][0]["target"]

    def here(words):
        for old, new in {str(inner): str(port), **places}.items():
            words = [word.replace(old, new) for word in words]
        return words

    program, *arguments = here(service["command"])
    process = subprocess.Popen(
        [BIN / program, *arguments],
        env=VARIABLES,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        kind, _, *check = here(service["healthcheck"]["test"])
        assert kind == "CMD"
        deadline = time.monotonic() + 400
        while subprocess.run([sys.executable, *check], capture_output=True).returncode:
            assert process.poll() is None and time.monotonic() < deadline, f"{program} is not healthy"
            time.sleep(0.5)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ask(server, host):
    """The status of MLflow's answer to one who calls it by a name."""
    headers = {"Host": host, "Content-Type": "application/json"}
    url = f"{server}/api/2.0/mlflow/experiments/search"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, b'{"max_results": 5}', headers), timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.weekly
@needs_compose
def test_train_and_evaluate_record_in_the_server(services, image, tmp_path):
    """The command of compose.yaml as it stands, in the image's folder, and the README's after it."""
    with served(services["mlflow"], {"/runs/": f"{tmp_path}/", "/artifacts": f"{tmp_path}/artifacts"}) as port:
        server = f"http://127.0.0.1:{port}"
        assert services["train"]["environment"] == {"MLFLOW_TRACKING_URI": "http://mlflow:5000"}
        command = services["train"]["command"]
        said = run(command, image, MLFLOW_TRACKING_URI=server)
        assert "cmu17_virtual_cam_source.pkl: written" in said
        assert (tmp_path / "mlflow.db").is_file()
        assert list((tmp_path / "artifacts").rglob("best_epoch.bin"))

        answers = [ask(server, host) for host in (f"mlflow:{port}", f"localhost:{port}", "elsewhere.example")]
        assert answers == [200, 200, 403]
        again = run([*command[:2], command[2] + " epochs=2"], image, MLFLOW_TRACKING_URI=server)
        assert "is up to date" in again and "epoch 2/2" in again  # it went on
    (line,) = (line for line in TYPED if "--evaluate" in line)
    assert "MPJPE" in run(shlex.split(line.partition("train-gpu ")[2]), image)


@needs_compose
@pytest.mark.skipif(not find_spec("tensorboard"), reason="no tensorboard of requirements-tests.txt")
def test_tensorboard_shows_runs(services, tmp_path):
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(tmp_path / "cmu/events")) as writer:
        writer.add_scalar("train/loss", 1.0, 0)
    with served(services["tensorboard"], {"/checkpoint": str(tmp_path)}) as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/runs", timeout=30) as response:
            assert json.load(response) == ["cmu/events"]


def test_the_readme_s_kernel_checks_run(image):
    checks = [line.partition("train-gpu ")[2] for line in TYPED if re.search("available|-m selective_scan", line)]
    assert len(checks) == 2
    said = [run(shlex.split(check), image).splitlines() for check in checks]
    assert said[0] in (["True"], ["False"])
    assert said[1][0] == "torch: available"


def used(*folders):
    """Bytes of the files in folders."""
    return sum(file.lstat().st_size for folder in folders for file in folder.rglob("*") if not file.is_dir())


@pytest.mark.weekly
@pytest.mark.skipif(not os.environ.get("BUILD_IMAGE"), reason="BUILD_IMAGE=1 installs it: minutes, and the network")
def test_the_cpu_image_built_outside_of_a_container(tmp_path):
    """Each step of its stages as it stands, but for apt-get and the user, with /opt/venv and /app elsewhere."""
    virtual, build = tmp_path / "venv", copy_of(STAGES["cpu-build"], tmp_path / "build")
    app = copy_of(STAGES["cpu"], tmp_path / "app")
    arguments = dict(line.split("=", 1) for line in STAGES["cpu-build"].of("ARG"))
    variables = {name: value.strip('"') for name, value in arguments.items()}
    variables |= {name: os.environ[name] for name in arguments if name in os.environ}
    variables |= {"PATH": f"{virtual}/bin:{os.environ['PATH']}", "PYTHONPATH": ""}
    steps = [step for step in STAGES["cpu-build"].of("RUN") if "apt-get" not in step]
    for step in steps:
        run(["sh", "-c", step.replace("/opt/venv", str(virtual))], build, **variables)
    (step,) = STAGES["cpu"].of("RUN")
    run(["sh", "-c", step.partition(" && useradd")[0]], app, **variables)
    size = used(virtual, app)
    print(f"the image for the CPU: {used(virtual) / 1e6:.0f} MB of libraries, {used(app) / 1e6:.0f} MB of the project")
    assert size + PYTHON_SLIM < IMAGE_LIMIT
    assert "cpu: available\n    the form for" in run(["python", "-m", "selective_scan"], app, **variables)
    keys = (
        f"dt_root={PARITY}",
        "dt_file=h36m_schema.pkl",
        "data_root=nowhere",
        "data_stride=30",
        "epochs=1",
        "no_eval=True",
    )
    config = "configs/pose3d/PoseMamba_train_cmu.yaml"
    run(["python", "train.py", "--config", config, "-c", "checkpoint/tiny", *keys], app, **variables)
    assert (app / "mlruns/mlflow.db").is_file()
    run(["python", "vis.py", "--video", "sample_video.mp4"], app, **variables)
    assert (app / "demo/output/sample_video/viewer.html").is_file()
