"""Convert MPI-INF-3DHP to a store that training reads, from its archive or from P-STMO's npz files.

python tools/convert_3dhp.py ROOT                      # the archive: ROOT/S1/Seq1/annot.mat ...
python tools/convert_3dhp.py --train-npz data_train_3dhp.npz --test-npz data_test_3dhp.npz
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lib.threads import spin_briefly

spin_briefly()  # before PyTorch is loaded

from lib.cli import Parser, progress_bar, run
from lib.data.convert.mpi_inf_3dhp import Archive, NpzFiles, convert
from lib.data.datasets.mpi_inf_3dhp import STORE
from lib.data.store import open_store
from lib.errors import UserError


def main(arguments=None):
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("root", nargs="?", metavar="ROOT", help="folder of the archive, with S1 to S8")
    parser.add_argument("--test-root", metavar="DIR", help="folder with TS1 to TS6 (default: below or beside ROOT)")
    parser.add_argument("--train-npz", metavar="FILE", help="data_train_3dhp.npz, in place of ROOT")
    parser.add_argument("--test-npz", metavar="FILE", help="data_test_3dhp.npz, in place of ROOT")
    parser.add_argument("--out", default=f"data/motion3d/{STORE}", metavar="DIR", help="default: %(default)s")
    options = parser.parse(arguments)
    made = convert(_source(options), options.out, partial(progress_bar, leave=False))
    if not made:
        print(f"{options.out}: is up to date")
        return
    splits = open_store(options.out).splits
    counts = "; ".join(
        f"{name}: {split.sequences.count:,} frames of {len(split.sequences.source)} videos"
        for name, split in splits.items()
    )
    valid = int(splits["test"].arrays["valid"][:].sum())
    print(f"{options.out}: written ({counts}, {valid:,} of them valid)")


def _source(options):
    npz = options.train_npz, options.test_npz
    if options.root and not any(npz):
        return Archive(options.root, options.test_root)
    if all(npz) and not options.root and not options.test_root:
        return NpzFiles(*npz)
    raise UserError("give either ROOT (and --test-root), or both --train-npz and --test-npz; see --help")


if __name__ == "__main__":
    run(main)
