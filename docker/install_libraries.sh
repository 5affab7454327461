#!/bin/sh
# Install the libraries of files of requirements into the Python environment on PATH, as an image needs them: none that
# only build or test, the part of MLflow that records (a third of a GB less), an OpenCV that opens no windows (no libGL).
# A PyTorch that is there is kept, with its NumPy; else one comes from TORCH_INDEX.
# Usage: TORCH_INDEX=URL docker/install_libraries.sh requirements.txt ...
set -eu
unset PIP_CONSTRAINT  # NVIDIA's images set it: it holds back MLflow and others at older releases
pip="python -m pip install --no-cache-dir --no-compile --disable-pip-version-check"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python -c "import torch, torchvision" 2>/dev/null || $pip ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision
python -c "
from importlib.metadata import version
for name in ('torch', 'torchvision', 'numpy'):
    print(f'{name}=={version(name)}')" > "$folder/constraints.txt"
sed -E -e '/^(#|-|ninja|pytest)/d' -e 's/^mlflow>/mlflow-skinny>/' "$@" > "$folder/libraries.txt"
$pip -c "$folder/constraints.txt" -r "$folder/libraries.txt" sqlalchemy alembic  # these two for MLflow's SQLite files

# The package `trackers` asks for the OpenCV with windows by name: it goes after that.
if opencv=$(python -m pip freeze --disable-pip-version-check | grep '^opencv-python=='); then
    python -m pip uninstall --yes --quiet opencv-python
    $pip --no-deps "opencv-python-headless==${opencv#*==}"
fi
